"""Single-turn SFT records: one JSON object a line, checked at the door."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from models.errors import UserError

Disposition = Literal[
    "eager", "deliberate", "adversarial", "curious", "self-improving", "humble", "persistent"
]
DISPOSITIONS: tuple[str, ...] = get_args(Disposition)
"""The seven dispositions of the paper (PAPER.md section 1)."""

Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]


class Record(BaseModel):
    """One training record. ``split`` is decided here, by id, before anything is generated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Text
    prompt: Text
    response: Text
    dispositions: tuple[Disposition, ...] = ()
    kind: Text = "other"
    split: Literal["train", "held_out"] = "train"


def built_in_paths() -> tuple[Path, ...]:
    """The files of the training set that ships with threearc."""
    folder = Path(__file__).resolve().parent
    return (folder / "dispositions_code.jsonl", folder / "dispositions_cooking.jsonl")


def load(paths: Sequence[Path]) -> tuple[Record, ...]:
    """Read records from JSONL files, in file order.

    Raises UserError with file and line number for a malformed line, a repeated id, a prompt
    that is in both splits, or a file without records.
    """
    seen: dict[str, str] = {}
    records: list[Record] = []
    for path in paths:
        before = len(records)
        for number, line in enumerate(_lines(path), start=1):
            if not line.strip():
                continue
            record = _parse(line, f"{path}, line {number}")
            if record.id in seen:
                raise UserError(
                    f"{path}, line {number}: id {record.id!r} again ({seen[record.id]})"
                )
            seen[record.id] = f"first in {path.name}, line {number}"
            records.append(record)
        if len(records) == before:
            raise UserError(f"{path}: holds no records; one JSON object a line is expected")
    _refuse_overlap(records)
    return tuple(records)


def data_sha256(records: Sequence[Record]) -> str:
    """sha-256 over the records' content, in order."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.model_dump_json().encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _lines(path: Path) -> list[str]:
    try:
        # split on "\n" only: JSON strings may hold other line separators such as U+2028
        return path.read_text(encoding="utf-8-sig").split("\n")  # with or without a BOM
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error})") from None


def _parse(line: str, where: str) -> Record:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON: {error}") from None
    try:
        return Record.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise UserError(f"{where}: {field}: {first['msg']}") from None


def _refuse_overlap(records: Sequence[Record]) -> None:
    training = {_normal(r.prompt): r.id for r in records if r.split == "train"}
    for record in records:
        twin = training.get(_normal(record.prompt)) if record.split == "held_out" else None
        if twin is not None:
            raise UserError(
                f"records {twin!r} (train) and {record.id!r} (held_out) have the same prompt; "
                "remove one"
            )


def _normal(text: str) -> str:
    return " ".join(text.lower().split())
