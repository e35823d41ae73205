"""Preference pairs for DPO: one JSON object a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, JsonValue, model_validator

from arcs.training_data.reading import Split, Text, normal_prompt, read_rows, rows_sha256
from arcs.training_data.records import Difficulty, Disposition, Record
from models.errors import UserError


class Preference(BaseModel):
    """Two answers to one prompt. ``split`` is decided here, by id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Text
    type: Literal["counterexample"] | None = None
    """None where nobody says."""
    prompt: Text
    chosen: Text
    rejected: Text
    dispositions: tuple[Disposition, ...] = ()
    kind: Text = "other"
    error: str = ""
    """What is wrong with ``rejected``, for people."""
    category: Text | None = None
    difficulty: Difficulty | None = None
    split: Split = "train"
    provenance: Mapping[str, JsonValue] | None = None
    """Who made the pair and how, where a program did."""

    @model_validator(mode="after")
    def _sides_differ(self) -> Self:
        # not without layout: wrong indentation alone can be what is wrong with an answer
        if self.chosen.strip() == self.rejected.strip():
            raise ValueError("chosen and rejected are the same")
        return self


def built_in_preference_paths() -> tuple[Path, ...]:
    """The files of pairs that ship with threearc. Raises UserError when there are none."""
    paths = tuple(sorted(Path(__file__).resolve().parent.glob("preferences_*.jsonl")))
    if not paths:
        raise UserError("this installation of threearc has no preference pairs: give --pairs FILE")
    return paths


def load_preferences(paths: Sequence[Path]) -> tuple[Preference, ...]:
    """Read pairs from JSONL files, in file order.

    Raises UserError with file and line number for a malformed line, a repeated id, equal
    sides, a prompt that is in both splits, or a file without pairs.
    """
    return read_rows(paths, Preference, "pairs")


def require_apart(records: Sequence[Record], pairs: Sequence[Preference]) -> None:
    """Raise UserError where what SFT trains on is held out for DPO, or the other way round."""
    for split, other in (("train", "held_out"), ("held_out", "train")):
        known = {normal_prompt(one.prompt): one.id for one in records if one.split == split}
        for pair in pairs:
            twin = known.get(normal_prompt(pair.prompt)) if pair.split == other else None
            if twin is not None:
                raise UserError(
                    f"record {twin!r} ({split}) and pair {pair.id!r} ({other}) have the same "
                    "prompt; remove one"
                )


def preferences_sha256(pairs: Sequence[Preference]) -> str:
    """sha-256 over the pairs' content, in order."""
    return rows_sha256(pairs)
