"""What judges said of answers: labels as filters, and their words to read."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from arcs.report.stored import StoredRun
from arcs.report.view import Block
from evals.judges.labels import Label

_PART = re.compile(r"#\d+$")
"""Of a question's id: which claim of a checklist, or which part, it asks about."""


def labels_of(run: StoredRun, name: str) -> Mapping[str, list[Label]]:
    """Labels of a file (``labels.jsonl`` or ``<condition>.labels.jsonl``) by response.

    The last label of a question counts: failures are asked again. Empty where there is no file.
    """
    if not run.has(name):
        return {}
    last = {label.key: label for label in map(Label.from_json, run.lines(name))}
    found: dict[str, list[Label]] = defaultdict(list)
    for label in last.values():
        found[_PART.sub("", label.question_id)].append(label)
    return found


def facet_of(labels: Sequence[Label]) -> tuple[str, ...]:
    """Values of the facet ``label``; a label without value says why it has none."""
    return tuple(
        dict.fromkeys(
            f"{one.instrument}={one.value if one.status == 'ok' else one.status}" for one in labels
        )
    )


def blocks_of(labels: Sequence[Label]) -> Iterator[Block]:
    """One text a label: value, the judge's own words, and what the judge did not see."""
    for one in labels:
        part = _PART.search(one.question_id)
        title = f"{one.judge} on {one.instrument}{part[0] if part else ''}"
        lines = [str(one.value) if one.status == "ok" else f"no label: {one.status}"]
        if one.probability is not None:
            lines[0] += f" (its own probability {one.probability:.3g})"
        if one.detail:
            lines.append(one.detail)
        if one.cut_characters:
            lines.append(f"{one.cut_characters:,} characters of the answer were not shown to it")
        yield Block(title, "\n".join(lines), "words")
