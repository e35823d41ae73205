"""Single-turn SFT records: one JSON object a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from arcs.training_data.reading import Split, Text, read_rows, rows_sha256

Disposition = Literal[
    "eager", "deliberate", "adversarial", "curious", "self-improving", "humble", "persistent"
]
DISPOSITIONS: tuple[str, ...] = get_args(Disposition)
"""The seven dispositions of the paper (PAPER.md section 1)."""


class Record(BaseModel):
    """One training record. ``split`` is decided here, by id, before anything is generated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Text
    prompt: Text
    response: Text
    dispositions: tuple[Disposition, ...] = ()
    kind: Text = "other"
    split: Split = "train"


def built_in_paths() -> tuple[Path, ...]:
    """The files of the training set that ships with threearc."""
    folder = Path(__file__).resolve().parent
    return (folder / "dispositions_code.jsonl", folder / "dispositions_cooking.jsonl")


def load(paths: Sequence[Path]) -> tuple[Record, ...]:
    """Read records from JSONL files, in file order.

    Raises UserError with file and line number for a malformed line, a repeated id, a prompt
    that is in both splits, or a file without records.
    """
    return read_rows(paths, Record, "records")


def data_sha256(records: Sequence[Record]) -> str:
    """sha-256 over the records' content, in order."""
    return rows_sha256(records)
