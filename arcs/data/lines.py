"""JSONL as it is: every record, and every line that is none with what is wrong about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from arcs.data.kinds import Kind, key_of, kinds_with
from models.errors import UserError

_MOST_FAULTS = 3
"""Faults of one line that are told; the rest is counted."""


@dataclass(frozen=True)
class Problem:
    """A line that is no good record."""

    file: str
    line: int
    """From 1; 0 for the file as a whole."""
    what: str

    def __str__(self) -> str:
        where = f"{self.file}, line {self.line}" if self.line else self.file
        return f"{where}: {self.what}"


@dataclass(frozen=True)
class Contents:
    """A file, read."""

    path: Path
    kind: Kind | None
    """None where no line tells."""
    records: tuple[Any, ...]
    lines: tuple[int, ...]
    """Of the records, from 1."""
    raw: tuple[str, ...]
    """The records' own text, without the line end."""
    problems: tuple[Problem, ...]
    sha256: str
    """Of the file."""


def read(path: Path, kind: Kind | None = None) -> Contents:
    """Read a JSONL file of one kind of record, told by its lines where ``kind`` is None.

    Raises UserError where the file cannot be read as UTF-8 text; all else is a problem.
    """
    content = read_bytes(path)
    lines = split_lines(path, content)
    objects, problems = _objects(path, lines)
    chosen = kind or _kind_of([value for _, value in objects])
    records: dict[str, tuple[Any, int]] = {}
    if chosen is None and objects:
        problems.append(_unknown_kind(path, objects[0]))
    for number, value in objects:
        if chosen is None:
            break
        found = validate(value, chosen)
        if isinstance(found, str):
            problems.append(Problem(str(path), number, found))
        elif (key := key_of(found)) in records:
            first = records[key][1]
            problems.append(Problem(str(path), number, f"id {key!r} again, first in line {first}"))
        else:
            records[key] = (found, number)
    if not objects and not problems:
        problems.append(
            Problem(str(path), 0, "holds no records; one JSON object a line is expected")
        )
    kept = list(records.values())
    if chosen is not None:
        problems += _in_both_splits(path, kept)
    return Contents(
        path,
        chosen,
        tuple(record for record, _ in kept),
        tuple(number for _, number in kept),
        tuple(lines[number - 1] for _, number in kept),
        tuple(sorted(problems, key=lambda one: one.line)),
        hashlib.sha256(content).hexdigest(),
    )


def read_good(path: Path, kind: Kind | None = None) -> Contents:
    """As :func:`read`. Raises UserError at the first problem."""
    found = read(path, kind)
    if found.problems:
        more = len(found.problems) - 1
        rest = f"; {more} more: threearc data validate {path}" if more else ""
        raise UserError(f"{found.problems[0]}{rest}")
    return found


def validate(value: Any, kind: Kind) -> BaseModel | str:
    """The record that ``value`` is, or what is wrong with it, in one line."""
    try:
        return kind.model.model_validate(value)
    except ValidationError as error:
        return _faults(error)


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises UserError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def split_lines(path: Path, content: bytes) -> list[str]:
    """Text lines, ended by "\\n" only: JSON strings may hold U+2028. Raises UserError."""
    try:
        return content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error})") from None


def parse_object(line: str) -> dict[str, Any] | str:
    """The JSON object of one line, or what is wrong with it."""
    try:
        value = json.loads(line, object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return value if isinstance(value, dict) else "not a JSON object"


def _objects(
    path: Path, lines: Sequence[str]
) -> tuple[list[tuple[int, dict[str, Any]]], list[Problem]]:
    objects, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        value = parse_object(line)
        if isinstance(value, str):
            problems.append(Problem(str(path), number, value))
        else:
            objects.append((number, value))
    return objects, problems


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"key {twice!r} occurs twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _kind_of(values: Sequence[dict[str, Any]]) -> Kind | None:
    """The kind of the first line that tells: a file holds one."""
    for value in values:
        found = kinds_with(set(value))
        if len(found) == 1:
            return found[0]
    return None


def _unknown_kind(path: Path, first: tuple[int, dict[str, Any]]) -> Problem:
    number, value = first
    keys = ", ".join(sorted(map(str, value))) or "no keys at all"
    return Problem(
        str(path), number, f"no kind of record has just these keys ({keys}): name one with --as"
    )


def _faults(error: ValidationError) -> str:
    found = []
    for one in error.errors(include_url=False):
        field = ".".join(str(part) for part in one["loc"])
        message = one["msg"].removeprefix("Value error, ")
        if one["type"] == "literal_error":  # what was given tells a separator from a value
            message += f", not {one['input']!r}"[:80]
        found.append(f"{field}: {message}" if field else message)
    more = len(found) - _MOST_FAULTS
    return "; ".join(found[:_MOST_FAULTS]) + (f"; and {more} more" if more > 0 else "")


def _in_both_splits(path: Path, kept: Sequence[tuple[Any, int]]) -> Iterator[Problem]:
    """Prompts that a training file both trains on and holds out."""
    from arcs.training_data.reading import normal_prompt

    trained = {
        normal_prompt(record.prompt): record.id
        for record, _ in kept
        if getattr(record, "split", None) == "train"
    }
    for record, number in kept:
        if getattr(record, "split", None) == "held_out":
            twin = trained.get(normal_prompt(record.prompt))
            if twin is not None:
                what = f"{record.id!r} (held_out) has the prompt of {twin!r} (train)"
                yield Problem(str(path), number, what)
