"""A table of other people's, row by row, onto one kind of record."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from arcs.data.kinds import Kind, key_of
from arcs.data.lines import Problem, parse_object, read_bytes, split_lines, validate
from models.errors import UserError

Row = dict[str, Any]
_MORE, _FEWER = "\0more", "\0fewer"
"""Keys under which csv reports rows of another width; no header holds a NUL."""


@dataclass(frozen=True)
class Columns:
    """Where each field of a record comes from."""

    mapped: Mapping[str, str] = field(default_factory=dict)
    """Field -> column."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Field -> text that every record gets."""
    make_ids: str | None = None
    """Ids are made: this, a hyphen and the row's number."""
    list_separator: str | None = None
    """Splits a cell of a field that holds several texts; None: a JSON array, or one text."""
    delimiter: str | None = None
    """Of a CSV file; None: a comma, or a tab for *.tsv."""


@dataclass(frozen=True)
class Imported:
    """What came of a table."""

    records: tuple[BaseModel, ...]
    problems: tuple[Problem, ...]
    """Every bad row, by the number it has in the file: the header of a CSV is row 1."""
    used: Mapping[str, str]
    """Field -> column, those of one name included."""
    unused: tuple[str, ...]
    """Columns that nothing was taken from."""
    rows: int


def import_table(
    path: Path, kind: Kind, columns: Columns, form: Literal["csv", "jsonl"]
) -> Imported:
    """Read a CSV or JSONL file into records of ``kind``.

    A column with a field's own name needs no mapping. Raises UserError for a mapping that
    cannot be, and a file that cannot be read; a bad row is a problem of the result.
    """
    _check_fields(kind, columns)
    rows, problems = _csv(path, columns) if form == "csv" else _jsonl(path)
    names, total = _names(rows), len(rows) + len(problems)
    used = _used(path, kind, columns, names)
    records: dict[str, tuple[BaseModel, int]] = {}
    for number, row in rows:
        found = _record(kind, columns, used, row, number, texts_only=form == "csv")
        if isinstance(found, str):
            problems.append(Problem(str(path), number, found))
        elif (key := key_of(found)) in records:
            first = records[key][1]
            problems.append(Problem(str(path), number, f"id {key!r} again, first in row {first}"))
        else:
            records[key] = (found, number)
    taken = set(used.values())
    return Imported(
        tuple(record for record, _ in records.values()),
        tuple(sorted(problems, key=lambda one: one.line)),
        used,
        tuple(name for name in names if name not in taken),
        total,
    )


def pairs_of(flag: str, text: str | Sequence[str]) -> dict[str, str]:
    """``prompt=question,id=qid`` as one text, or one pair a text, whose value may be empty.

    Raises UserError for another form.
    """
    found: dict[str, str] = {}
    for part in text.split(",") if isinstance(text, str) else text:
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or (not value and isinstance(text, str)):
            raise UserError(f"{flag} {part!r}: FIELD=... is expected")
        if name.strip() in found:
            raise UserError(f"{flag}: {name.strip()} is given twice")
        found[name.strip()] = value
    return found


def _check_fields(kind: Kind, columns: Columns) -> None:
    for flag, names in (("--map", columns.mapped), ("--set", columns.constants)):
        unknown = [name for name in names if name not in kind.fields]
        if unknown:
            raise UserError(
                f"{flag} {unknown[0]}: {kind.name} records have no such field; they have "
                f"{', '.join(kind.fields)}"
            )
    both = [name for name in columns.constants if name in columns.mapped]
    if both:
        raise UserError(f"{both[0]}: it is given by --map and by --set; leave one out")
    if columns.make_ids is not None and _id_field(kind) in {**columns.mapped, **columns.constants}:
        raise UserError("--make-ids: ids are mapped already; leave one out")


def _id_field(kind: Kind) -> str:
    return kind.model.model_fields["id"].alias or "id"


def _names(rows: Sequence[tuple[int, Row]]) -> list[str]:
    """All columns in order of their first appearance."""
    found = dict.fromkeys(name for _, row in rows for name in row)
    return [name for name in found if name not in (_MORE, _FEWER)]


def _used(path: Path, kind: Kind, columns: Columns, names: Sequence[str]) -> dict[str, str]:
    for target, name in columns.mapped.items():
        if names and name not in names:
            raise UserError(
                f"--map {target}={name}: {path} has no such column; it has {', '.join(names)}"
            )
    made = {_id_field(kind)} if columns.make_ids is not None else set()
    free = [
        name for name in kind.fields if name not in {*columns.mapped, *columns.constants, *made}
    ]
    return {**columns.mapped, **{name: name for name in free if name in names}}


def _record(
    kind: Kind,
    columns: Columns,
    used: Mapping[str, str],
    row: Row,
    number: int,
    *,
    texts_only: bool,
) -> BaseModel | str:
    for key, what in ((_MORE, "more"), (_FEWER, "fewer")):
        if key in row:
            return f"{what} cells than the header has columns"
    value: dict[str, Any] = {}
    for target, name in used.items():
        if name in row:
            cell = row[name]
            if isinstance(cell, str) and texts_only:
                cell = _from_text(cell, target, kind, columns)
            elif type(cell) is int and _shapes(kind.model)[target][1] <= {"string", "null"}:
                cell = str(cell)  # ids are often numbers in JSON
            if cell is not None:
                value[target] = cell
    for target, text in columns.constants.items():
        constant = _from_text(text, target, kind, columns)
        if constant is not None:
            value[target] = constant
    if columns.make_ids is not None:
        value[_id_field(kind)] = f"{columns.make_ids}-{number:04d}"
    return validate(value, kind)


def _from_text(text: str, target: str, kind: Kind, columns: Columns) -> Any:
    """What a cell means for a field: text as it is, or JSON where the field is no text.

    An empty cell is no value where the field can do without (None), else an empty text.
    """
    required, types = _shapes(kind.model)[target]
    if not text and not required:
        return None
    if "array" in types:
        return _several(text, columns.list_separator)
    if types <= {"string", "null"}:
        return text
    parsed = _json(text)
    # a text among several possible types stays a text unless it reads as one of the others
    return text if parsed is None or isinstance(parsed, str) else parsed


@functools.cache
def _shapes(model: type[BaseModel]) -> dict[str, tuple[bool, frozenset[str]]]:
    """Field -> whether a record must have it, and the JSON types that it can be of."""
    schema = model.model_json_schema()
    return {
        name: (
            name in schema.get("required", ()),
            frozenset(one.get("type", "object") for one in shape.get("anyOf", [shape])),
        )
        for name, shape in schema["properties"].items()
    }


def _several(text: str, separator: str | None) -> Any:
    if text.lstrip().startswith("["):
        parsed = _json(text)
        if isinstance(parsed, list):
            return parsed
    if separator is None:
        return [text] if text else []
    return [part.strip() for part in text.split(separator) if part.strip()]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _csv(path: Path, columns: Columns) -> tuple[list[tuple[int, Row]], list[Problem]]:
    text = "\n".join(split_lines(path, read_bytes(path)))
    delimiter = columns.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise UserError(f"--delimiter {delimiter!r}: one character is needed")
    # csv's own limit of 131,072 characters a cell is below a long transcript
    csv.field_size_limit(max(len(text), 1 << 17))
    stream = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(stream, [])
        _check_header(path, header)
        return list(_csv_rows(stream, header)), []
    except csv.Error as error:
        # nothing after it can be told into cells
        raise UserError(f"{path}, line {stream.line_num}: not CSV ({error})") from None


def _csv_rows(stream: Iterator[list[str]], header: Sequence[str]) -> Iterator[tuple[int, Row]]:
    for number, cells in enumerate(stream, start=2):
        if not cells:
            continue  # an empty line
        row: Row = dict(zip(header, cells, strict=False))
        if len(cells) > len(header):
            row[_MORE] = None
        elif len(cells) < len(header):
            row[_FEWER] = None
        yield number, row


def _check_header(path: Path, header: Sequence[str]) -> None:
    if not header:
        raise UserError(f"{path}: is empty; a first row with the columns' names is expected")
    name, times = Counter(header).most_common(1)[0]
    if times > 1:
        raise UserError(f"{path}: {times} columns are called {name!r}; rename them")


def _jsonl(path: Path) -> tuple[list[tuple[int, Row]], list[Problem]]:
    rows, problems = [], []
    for number, line in enumerate(split_lines(path, read_bytes(path)), start=1):
        if not line.strip():
            continue
        value = parse_object(line)
        if isinstance(value, str):
            problems.append(Problem(str(path), number, value))
        else:
            rows.append((number, value))
    return rows, problems
