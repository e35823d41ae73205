"""A judge beside the paper's published labels: reported, never decisive.

The paper's verbal judge answered ``assert`` for whatever it could not read, 800 of its labels are
of a retracted profile, and its classes of questions are all CERTAIN by a parser's fault (PAPER.md
8.1). Checklists and MCAS answers are not published, so coverage and MCAS cannot be judged again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcs.judging.opening import ask
from arcs.progress import Reporter
from evals.items.recorded import RecordedLabel
from evals.judges.cache import LabelCache
from evals.judges.instruments import CERTAINTY, DELIVERY, INSTRUMENTS, RUBRIC
from evals.judges.labels import Judge, Question
from evals.judges.references import Reference
from evals.judges.validation import validate

NOT_STORED = "(not stored)"
"""Stands for the question of the retracted profile's answers: those it names are of others."""
_VERBAL = {"assert": "ASSERT", "hedge": "HEDGE"}


@dataclass(frozen=True)
class Published:
    """A label of the paper, by the instrument of ours that asks nearly the same."""

    source: str
    """File, condition and flags: labels of one source had one judge and one cut."""
    reference: Reference


def answers_in(folder: Path) -> list[Published]:
    """Labels that can be given again, of the published files in ``folder``.

    Raises UserError where one is not there or damaged.
    """
    from arcs.data.paper import import_paper
    from arcs.data.paper_command import existing
    from arcs.reproduction.artifacts import Artifacts

    made = import_paper(Artifacts(existing(folder)))
    texts = {one.id: one.response for one in made.responses}
    prompts = {one.id: one.prompt for group in made.prompts.values() for one in group}
    classes = {
        one.item_id: str(one.value)
        for one in made.labels
        if one.instrument.endswith(":cert") and one.status == "ok"
    }
    found = []
    for label in made.labels:
        reference = _reference(label, texts, prompts, classes)
        if reference is not None:
            flags = f" ({', '.join(label.flags)})" if label.flags else ""
            named = "" if label.source is None else label.source.file
            found.append(Published(f"{label.model or 'questions'}, {named}{flags}", reference))
    return found


def _reference(
    label: RecordedLabel,
    texts: Mapping[str, str],
    prompts: Mapping[str, str],
    classes: Mapping[str, str],
) -> Reference | None:
    name = label.instrument.rpartition(":")[2]
    question = prompts.get(label.item_id, NOT_STORED)
    if label.status != "ok":
        return None
    if name == "cert":
        asked = Question(label.item_id, CERTAINTY, {"question": question})
        return Reference(asked, str(label.value))
    response = texts.get(label.response_id or "")
    if response is None:
        return None
    fields = {"question": question, "response": response}
    if name == "verbal" and str(label.value) in _VERBAL:
        return Reference(Question(label.id, DELIVERY, fields), _VERBAL[str(label.value)])
    rubric = next((one for one in RUBRIC if one.name == f"rubric.{name}"), None)
    if rubric is None or not isinstance(label.value, int):
        return None
    fields["certainty"] = classes[label.item_id]
    return Reference(Question(label.id, rubric, fields), label.value)


def agreement(
    judge: Judge,
    instruments: Sequence[str],
    published: Sequence[Published],
    *,
    cache: LabelCache | None,
    reporter: Reporter,
    limit: int | None,
) -> list[dict[str, Any]]:
    """By instrument and source: n, kappa with its interval, equal labels, confusion."""
    rows = []
    for name in instruments:
        mine = [one for one in published if one.reference.question.instrument == INSTRUMENTS[name]]
        for source in Counter(one.source for one in mine):
            given = [one.reference for one in mine if one.source == source][:limit]
            asked = [one.question for one in given]
            labels = ask(judge, asked, f"{name}, published", reporter, cache=cache)
            found = validate(judge, given, labels)
            rows.append(
                {
                    "instrument": name,
                    "source": source,
                    "n": found.n,
                    "parsed": found.parsed.to_json(),
                    "kappa": found.kappa,
                    "kappa_interval": None
                    if found.kappa_interval is None
                    else found.kappa_interval.to_json(),
                    "agreement": found.agreement.to_json(),
                    "published_values": dict(Counter(str(one.label) for one in given)),
                    "confusion": found.confusion,
                    "mean_cut": found.mean_cut,
                }
            )
    return rows
