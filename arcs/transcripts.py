"""``transcripts.jsonl`` of a run that stores its answers as token ids: texts, one line an item.

Made anew from the stored ids and labels whenever a run concludes, so that it is the same after a
kill; what shows a run (:mod:`arcs.report.transcripts`) then needs no tokenizer and no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from arcs.runs import write_text_atomically
from evals.humaneval.problems import Problem

TRANSCRIPTS = "transcripts.jsonl"
BlockKind = Literal["code", "output", "words"]


Texts = tuple[tuple[str, BlockKind, str], ...]
"""Title, kind, text."""


@dataclass(frozen=True)
class Asked:
    """One item before it is answered."""

    prompt: str
    """As a person reads it, without the chat template."""
    blocks: Texts = ()
    """What its answers are held to: :func:`held_to`."""


@dataclass(frozen=True)
class Said:
    """One answer and what the labels say of it; None where there is no label."""

    condition: str
    n_predict: int
    text: str
    right: bool | None
    asserted: bool | None
    truncated: bool
    loop: bool
    against: str | None = None
    """The condition that it is compared with; None for an unchanged model."""
    changed: bool | None = None
    """Other ids than there; None where it is compared with nothing."""
    silent: bool = False
    """Without a word: neither asserted nor hedged, and no label has failed."""
    detail: str = ""
    """What the instrument said, e.g. ``unparsed``."""
    open: bool = False
    """Cut where more text could change ``right``."""
    seed: int | None = None
    coverage: float | None = None
    """Share of a checklist's claims that are stated."""
    score: float | None = None
    """Of a probe: probability that the answer is right."""
    response: str | None = None
    """What ``labels.jsonl`` calls it; None: by its item."""
    program: str | None = None
    output: str | None = None
    """What running the program gave."""
    facets: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON-able form, without what is empty."""
        found = {**vars(self), "facets": dict(self.facets)}
        kept = ("right", "asserted", "text")
        return {key: value for key, value in found.items() if key in kept or not _empty(key, value)}


def _empty(key: str, value: Any) -> bool:
    """Zero is a value: a seed, a coverage, a score."""
    return value is None or value in ("", {}) or (value is False and key != "changed")


@dataclass(frozen=True)
class Transcript:
    """One item: what was asked, and every answer, those of the unchanged model first."""

    item_id: str
    prompt: str
    facets: Mapping[str, str | tuple[str, ...]]
    """What all its answers can be filtered by."""
    blocks: Texts = ()
    answers: tuple[Said, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "item_id": self.item_id,
            "prompt": self.prompt,
            "facets": {
                name: value if isinstance(value, str) else list(value)
                for name, value in self.facets.items()
            },
            "blocks": [list(one) for one in self.blocks],
            "answers": [one.to_json() for one in self.answers],
        }


def held_to(record: Any) -> Texts:
    """What the answers to an item are compared with: tests, right answers, a checklist."""
    found: list[tuple[str, BlockKind, str]] = []
    if isinstance(record, Problem):
        found.append(("tests", "code", record.test))
    for name, title in (("answers", "right answers"), ("checklist", "checklist")):
        lines = getattr(record, name, ())
        if lines:
            found.append((title, "words", "\n".join(map(str, lines))))
    return tuple(found)


def write_transcripts(path: Path, made: Iterable[Transcript]) -> None:
    """Write the file whole or not at all."""
    lines = (json.dumps(one.to_json(), sort_keys=True, ensure_ascii=False) for one in made)
    text = "".join(line + "\n" for line in lines)
    # a tokenizer can give a lone surrogate, which no file can hold
    write_text_atomically(path, text.encode("utf-8", "replace").decode("utf-8"))
