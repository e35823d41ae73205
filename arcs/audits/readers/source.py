"""Reading files of anyone: JSON, JSON lines, folders, and one-line errors that say where."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arcs.audits.results import Item
from models.errors import UserError

DEPTH = 4
"""Folders below the one given that are looked into."""


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte order mark.

    Raises UserError where it cannot be read, is empty or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); convert it first") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if not text.strip():
        raise UserError(f"{path}: is empty; nothing to audit")
    return text


def read_json(path: Path) -> Any:
    """Return a JSON document. Raises UserError with the line where it is malformed."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg}); repair it") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: JSON that cannot be read ({error}); simplify it") from None


def read_json_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return (line number from 1, object) of every line that is not blank.

    Raises UserError with file and line where a line is not a JSON object.
    """
    found: list[tuple[int, dict[str, Any]]] = []
    # Split at "\n" only: JSON strings may hold U+2028, at which str.splitlines would cut.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise UserError(f"{path}:{number}: not JSON ({why}); repair the line") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}:{number}: not a JSON object; one object a line is needed")
        found.append((number, record))
    return found


def files_under(folder: Path, depth: int = DEPTH) -> list[Path]:
    """Files in a folder and some levels below it, sorted; nothing hidden, no links followed."""
    return sorted(_walk(folder, depth))


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_file():
            yield entry
        elif depth > 0 and entry.is_dir() and not entry.is_symlink():
            yield from _walk(entry, depth - 1)


def candidates(path: Path) -> list[Path]:
    """Return the file itself, or the files of a folder. Raises UserError without permission."""
    try:
        return [path] if path.is_file() else files_under(path)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None


def text_of(value: object) -> str | None:
    """Text of a scalar as a CSV file would hold it; None is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return value if isinstance(value, str) else str(value)


def filled_text(value: object) -> str | None:
    """Text of a scalar, where an empty text is missing too."""
    text = text_of(value)
    return text if text and text.strip() else None


def count_of(value: object, where: str) -> int | None:
    """Return a whole number of at least 0; None is missing.

    Raises UserError beginning with ``where`` for anything else.
    """
    text = filled_text(value)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not (number >= 0 and math.isfinite(number) and number == int(number)):
        raise UserError(f"{where}: {text[:40]!r} is not a whole number of at least 0; correct it")
    return int(number)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as texts by dotted name; null, empty lists and empty mappings are left out."""
    found: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found.update(flatten(value, f"{name}."))
        elif isinstance(value, (list, tuple)):
            if value:
                found[name] = json.dumps(value, ensure_ascii=False, default=str)
        elif value is not None:
            found[name] = str(value)
    return found


def require_distinct(items: Sequence[Item], where: str) -> None:
    """Raise UserError where two items of one set have one id."""
    twice = [name for name, n in Counter(item.item_id for item in items).items() if n > 1]
    if twice:
        raise UserError(
            f"{where}: {len(twice)} item ids are there more than once ({twice[0][:60]!r} first); "
            "give each row of one arm and n_predict its own item_id"
        )


def require_same_length(path: Path, lengths: Mapping[str, int]) -> None:
    """Raise UserError where parts that belong together row by row differ in length."""
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise UserError(f"{path}: parts of different length ({said}); they must match row by row")


def constant(values: Iterable[Any]) -> Any:
    """Return the one value that all share; None where there are several, or none."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None
