"""Records for SFT, of every type: one JSON object a line.

A generator writes them, ``threearc data validate`` checks them and ``arc1`` trains on them; all
three read this one schema. The fourth type, the counterexample pair, is
:class:`arcs.training_data.preferences.Preference`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, JsonValue, model_validator

from arcs.training_data.reading import Split, Text, read_rows, rows_sha256

Disposition = Literal[
    "eager", "deliberate", "adversarial", "curious", "self-improving", "humble", "persistent"
]
DISPOSITIONS: tuple[str, ...] = get_args(Disposition)
"""The seven dispositions of the paper (PAPER.md section 1)."""


Difficulty = Literal["easy", "medium", "hard"]
RecordType = Literal["gold", "failure_trace", "boundary", "placebo", "planted"]
"""``gold``: a good answer. ``failure_trace``: a student's attempt, a critique of it, and the
correction, which is the response. ``boundary``: a question without a definite answer, and a
response that says so and why. ``placebo`` and ``planted`` are controls of the method: neutral
answers, and answers that all show one planted behaviour."""
RECORD_TYPES: tuple[RecordType, ...] = get_args(RecordType)
_FILES: Mapping[RecordType, str] = {
    "gold": "dispositions",
    "failure_trace": "failure_traces",
    "boundary": "boundary",
    "placebo": "placebo",
    "planted": "always_hedge",
}


class Record(BaseModel):
    """One training record. ``split`` is decided here, by id, before anything is generated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Text
    type: RecordType | None = None
    """None where nobody says, as in a user's plain prompts and responses."""
    prompt: Text
    response: Text
    """What is trained on: the good answer, a failure trace's correction."""
    attempt: Text | None = None
    """A failure trace's wrong first answer. Nothing trains on it."""
    critique: Text | None = None
    """What is wrong with ``attempt``. Nothing trains on it."""
    check: Text | None = None
    """Python assertions on the names that the response's Python blocks define: they hold for the
    response, and fail for the attempt where there is one."""
    dispositions: tuple[Disposition, ...] = ()
    kind: Text = "other"
    category: Text | None = None
    difficulty: Difficulty | None = None
    split: Split = "train"
    provenance: Mapping[str, JsonValue] | None = None
    """Who made the record and how, where a program did."""

    @model_validator(mode="after")
    def _parts_fit_the_type(self) -> Self:
        parts = {"attempt": self.attempt, "critique": self.critique}
        for name, part in parts.items():
            if self.type == "failure_trace" and part is None:
                raise ValueError(f"a failure_trace needs {name!r}")
            if self.type != "failure_trace" and part is not None:
                raise ValueError(f'{name!r} belongs to records of "type": "failure_trace" alone')
        if self.attempt is not None and self.attempt.strip() == self.response.strip():
            raise ValueError("attempt and response are the same")
        if self.type == "boundary" and self.category is None:
            raise ValueError("a boundary record needs 'category': why no answer is definite")
        return self


def built_in_paths(*types: RecordType) -> tuple[Path, ...]:
    """The files that ship with threearc and hold records of ``types``; of none given: gold."""
    folder = Path(__file__).resolve().parent
    return tuple(
        folder / f"{_FILES[one]}_{kind}.jsonl"
        for one in types or ("gold",)
        for kind in ("code", "cooking")
    )


def load(paths: Sequence[Path]) -> tuple[Record, ...]:
    """Read records from JSONL files, in file order.

    Raises UserError with file and line number for a malformed line, a repeated id, a prompt
    that is in both splits, or a file without records.
    """
    return read_rows(paths, Record, "records")


def data_sha256(records: Sequence[Record]) -> str:
    """sha-256 over the records' content, in order."""
    return rows_sha256(records)
