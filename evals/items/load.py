"""Reading the sets that ship with threearc, or a file of the same form."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from evals.items.records import (
    ChefItem,
    Item,
    McasItem,
    MeterItem,
    RecoveryItem,
    ShortAnswer,
    SmallTask,
)
from models.errors import UserError

T = TypeVar("T", bound=Item)

DATA = Path(__file__).resolve().parent / "data"
SETS: Mapping[str, type[Item]] = {
    "chef_train": ChefItem,
    "chef_fresh": ChefItem,
    "mcas": McasItem,
    "meter": MeterItem,
    "recovery": RecoveryItem,
    "short_answers": ShortAnswer,
    "small_tasks": SmallTask,
}
"""Name of a set -> its records. ``chef_train`` and ``chef_fresh`` have one author: results on
them report ``generator_not_independent``."""


def built_in(name: str, kind: type[T]) -> tuple[T, ...]:
    """The records of a set that ships with threearc. Raises UserError for an unknown name."""
    if SETS.get(name) is not kind:
        raise UserError(f"no set of {kind.__name__} is called {name!r}: choose {', '.join(SETS)}")
    return load(DATA / f"{name}.jsonl", kind)


def load(path: Path, kind: type[T]) -> tuple[T, ...]:
    """Read a JSONL file, one record a line, in file order.

    Raises UserError with file and line for a malformed line, an id that occurs twice, or a
    file without records.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    records: dict[str, T] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = _parse(line, kind, f"{path}, line {number}")
        if record.key in records:
            raise UserError(f"{path}, line {number}: {record.key} occurs twice")
        records[record.key] = record
    if not records:
        raise UserError(f"{path}: holds no records; one JSON object a line is expected")
    return tuple(records.values())


def french_cuisine() -> dict[str, Any]:
    """The reference that checkers of Chef answers use (data/french_cuisine.toml)."""
    return tomllib.loads((DATA / "french_cuisine.toml").read_text(encoding="utf-8"))


def items_sha256(records: Sequence[Item]) -> str:
    """sha-256 (hex) over the records' content, in order."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.model_dump_json().encode() + b"\n")
    return digest.hexdigest()


def _parse(line: str, kind: type[T], where: str) -> T:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON: {error}") from None
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise UserError(f"{where}: {field}: {first['msg'].removeprefix('Value error, ')}") from None
