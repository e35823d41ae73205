"""The numbers that the paper prints, as a table: numbers/*.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

HERE = Path(__file__).parent
TABLES = ("arc1", "arc2", "arc3", "extras")
_FIELD = re.compile(r"<([a-z0-9_]+)>")


class Number(BaseModel):
    """One printed or published number and where its recomputation is found.

    References read ``group:path/to/value`` (a group of arcs.reproduction.groups) or, for
    ``published``, ``file.json:path/to/value``. In ``reason``, ``{group:path|format}`` is
    replaced by the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    section: str
    quantity: str
    paper: str | None = None
    """As printed: its digits are the precision of the comparison."""
    source: str | None = None
    """Where it is printed."""
    published: str | None = None
    digits: int | None = None
    """Decimals to which the published value was rounded; None for full precision."""
    recomputed: str | None = None
    interval: str | None = None
    """Group value with an interval; by default the same path in the group's ``.intervals``."""
    pairs: str | None = None
    """For a fitted AUC: group value [rows of each class], to count swapped pairs."""
    printed_only: bool = False
    """``recomputed`` comes from other printed numbers, not from data."""
    check: str | None = None
    """Group value that is true where the number is consistent with what is known."""
    status: Literal["contradicts", "not determined"] | None = None
    """For what no comparison of values can show; ``reason`` must say why."""
    reason: str = ""


@cache
def numbers() -> tuple[Number, ...]:
    """Every entry of the tables, in order. Raises ValueError for a key that occurs twice."""
    found = tuple(number for table in TABLES for number in _read(HERE / f"{table}.toml"))
    keys = [number.key for number in found]
    if len(set(keys)) != len(keys):
        raise ValueError(f"keys occur twice: {sorted({k for k in keys if keys.count(k) > 1})}")
    return found


def _read(path: Path) -> list[Number]:
    sections = tomllib.loads(path.read_text(encoding="utf-8"))
    return [
        Number(section=section["title"], **entry)
        for section in sections.values()
        for entry in (*section.get("number", ()), *_expanded(section.get("family", ())))
    ]


def _expanded(families: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Entries of each row of each family: ``<field>`` stands for the row's cell.

    Where the cell for ``paper`` is empty, the paper does not print that number.
    """
    for family in families:
        for cells in family["rows"]:
            row = dict(zip(family["fields"], cells, strict=True))
            for template in family["number"]:
                entry = {name: _filled(value, row) for name, value in template.items()}
                if entry.get("paper") == "":
                    entry |= {"paper": None, "source": None}
                yield entry


def _filled(value: Any, row: Mapping[str, str]) -> Any:
    if not isinstance(value, str):
        return value
    return _FIELD.sub(lambda match: row[match[1]], value)
