"""What judges are held to: labelled pairs that ship with threearc, one set an instrument.

They were written without sight of lexicons and judge prompts, and nothing was tuned on them
(cards in ``data/``). ``svr`` holds answers for the measure of self-verification, which is a rule.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.judges.instruments import INSTRUMENTS, Value
from evals.judges.labels import Question

DATA = Path(__file__).resolve().parent / "data"


@dataclass(frozen=True)
class Reference:
    """A text with the label it should get."""

    question: Question
    label: Value
    kind: str = ""
    """What is hard about it, e.g. ``wrong_number`` or ``injection``."""
    twin: str | None = None
    """Id of the reference that it was made from."""


def references(instrument: str) -> tuple[Reference, ...]:
    """The reference pairs of an instrument. Raises KeyError for an unknown one."""
    chosen = INSTRUMENTS[instrument]
    name, _, axis = instrument.partition(".")
    found = []
    for record in records(name):
        label, texts = _label(record, axis), _texts(record)
        question = Question(
            id=record["id"],
            instrument=chosen,
            fields={field: texts[field] for field in chosen.fields},
            accept=tuple(record.get("accept", ())),
        )
        found.append(Reference(question, label, record.get("kind", ""), record.get("twin")))
    return tuple(found)


def records(name: str) -> list[dict[str, Any]]:
    """The records of one file of ``data/``."""
    text = (DATA / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _label(record: Mapping[str, Any], axis: str) -> Value:
    if axis == "holistic":
        return int(record["holistic"])
    if axis:
        scores = record.get("scores") or record["axes"]
        return int(scores[axis])
    return str(record["label"])


def _texts(record: Mapping[str, Any]) -> dict[str, str]:
    return {**record, "question": record.get("question") or record.get("prompt", "")}
