"""JSONL of training data: one JSON object a line, checked at the door."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeVar

from pydantic import BaseModel, StringConstraints, ValidationError

from models.errors import UserError

Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
Split = Literal["train", "held_out"]


class _Row(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def split(self) -> Split: ...


R = TypeVar("R", bound=BaseModel)


def read_rows(paths: Sequence[Path], model: type[R], noun: str) -> tuple[R, ...]:
    """Read rows of ``model`` from JSONL files, in file order; ``noun`` names them in errors.

    Raises UserError with file and line number for a malformed line, a repeated id, a prompt
    that is in both splits, or a file without rows.
    """
    seen: dict[str, str] = {}
    rows: list[R] = []
    for path in paths:
        before = len(rows)
        for number, line in enumerate(_lines(path), start=1):
            if not line.strip():
                continue
            row = _parse(line, model, f"{path}, line {number}")
            key = _row(row).id
            if key in seen:
                raise UserError(f"{path}, line {number}: id {key!r} again ({seen[key]})")
            seen[key] = f"first in {path.name}, line {number}"
            rows.append(row)
        if len(rows) == before:
            raise UserError(f"{path}: holds no {noun}; one JSON object a line is expected")
    _refuse_overlap([_row(row) for row in rows], noun)
    return tuple(rows)


def rows_sha256(rows: Sequence[BaseModel]) -> str:
    """sha-256 over the rows' content, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row.model_dump_json().encode())
        digest.update(b"\n")
    return digest.hexdigest()


def normal_prompt(text: str) -> str:
    """Text as it is compared: without case and layout."""
    return " ".join(text.lower().split())


def _row(row: BaseModel) -> _Row:
    return row  # type: ignore[return-value]  # every model given here has these fields


def _lines(path: Path) -> list[str]:
    try:
        # split on "\n" only: JSON strings may hold other line separators such as U+2028
        return path.read_text(encoding="utf-8-sig").split("\n")  # with or without a BOM
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error})") from None


def _parse(line: str, model: type[R], where: str) -> R:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON: {error}") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        whole = "" if first["type"] == "value_error" else "the line"  # our own messages say what
        field = ".".join(str(part) for part in first["loc"]) or whole
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(": ".join(filter(None, (where, field, message)))) from None


def _refuse_overlap(rows: Sequence[_Row], noun: str) -> None:
    training = {normal_prompt(r.prompt): r.id for r in rows if r.split == "train"}
    for row in rows:
        twin = training.get(normal_prompt(row.prompt)) if row.split == "held_out" else None
        if twin is not None:
            raise UserError(
                f"{noun} {twin!r} (train) and {row.id!r} (held_out) have the same prompt; "
                "remove one"
            )
