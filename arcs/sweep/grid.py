"""A sweep file: which cells it asks for, by name."""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcs.sweep.options import NOT_SWEPT, Commands, unknown
from models.errors import UserError

ARC, NAME, SEED = "arc", "name", "seed"
SET_HERE = ("out", "run", "json")
SECTIONS = ("grid", "options", "runs")
MOST = 10_000
_PLAIN = ("model", "backend", "profile", "recipe", "method", "benchmark", "instrument")
"""Axes whose value alone says what it is."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Cell:
    """One run of the sweep."""

    name: str
    """Its folder under ``cells/``."""
    arc: str
    settings: Mapping[str, Any]
    """Options by key, as TOML gave them."""

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {NAME: self.name, ARC: self.arc, "settings": dict(self.settings)}


def read(path: Path, commands: Commands) -> tuple[tuple[Cell, ...], bytes]:
    """The cells of a sweep file, in order, and the file as it was then.

    Raises UserError, one line, for whatever is wrong.
    """
    try:
        given = path.read_bytes()
        document = tomllib.loads(given.decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; docs/sweep.md shows one") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: {error}") from None
    try:
        return cells_of(document, commands), given
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def cells_of(document: Mapping[str, Any], commands: Commands) -> tuple[Cell, ...]:
    """The grid's cells, arc by arc and with the last axis changing first, then ``[[runs]]``."""
    for key in document:
        if key not in SECTIONS:
            raise UserError(unknown(key, SECTIONS))
    common, own = _split(_table(document, "options"), "options", commands)
    found: list[tuple[str, str | None, dict[str, Any]]] = []
    if "grid" in document:
        for arc, values in _grid(_table(document, "grid"), commands):
            settings = {**common, **own.get(arc, {}), **values}
            found.append((arc, _name(arc, values), settings))
            if len(found) > MOST:
                raise UserError(f"grid: more than {MOST:,} cells")
    for number, row in enumerate(_rows(document), start=1):
        arc, name, given = _row(row, f"runs {number}", commands)
        settings = {**common, **own.get(arc, {}), **given}
        found.append((arc, name or _name(arc, given), settings))
    if not found:
        raise UserError("no cell: give [grid] with arc = [...] and axes, or [[runs]]")
    _require_used(own, {arc for arc, _, _ in found})
    for arc, _, settings in found:
        for key in settings:
            _require_option(key, arc, commands, common)
    return tuple(_named(found))


def _grid(table: Mapping[str, Any], commands: Commands) -> Iterator[tuple[str, dict[str, Any]]]:
    arcs = table.get(ARC)
    arcs = [arcs] if isinstance(arcs, str) else arcs
    if not isinstance(arcs, list) or not arcs or not all(isinstance(one, str) for one in arcs):
        raise UserError('grid: give arc = ["arc1"], one or several of ' + ", ".join(commands))
    rest = {key: value for key, value in table.items() if key != ARC}
    common, own = _split(rest, "grid", commands)
    for arc in arcs:
        if arc in NOT_SWEPT:
            raise UserError(f"grid: arc {arc}: {NOT_SWEPT[arc]}")
    _require_used(own, set(arcs), "grid.")
    for arc in arcs:
        if arc not in commands:
            raise UserError(f"grid: arc {unknown(arc, commands)}")
        axes = {**common, **own.get(arc, {})}
        for key, values in axes.items():
            _require_option(key, arc, commands, common, section="grid")
            if not isinstance(values, list) or not values:
                raise UserError(
                    f"grid: {key} is an axis: give a list of values, e.g. {key} = "
                    f"[{json.dumps(values, default=str)}], or put it under [options]"
                )
        for combination in itertools.product(*axes.values()):
            yield arc, dict(zip(axes, combination, strict=True))


def _split(
    table: Mapping[str, Any], section: str, commands: Commands
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What holds for every arc, and what for one alone (a table of its name)."""
    common: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    for key, value in table.items():
        if not isinstance(value, dict):
            common[key] = value
        elif key in commands:
            own[key] = _keys(value, f"{section}.{key}")
        else:
            raise UserError(f"[{section}.{key}]: no arc; {unknown(key, commands)}")
    return _keys(common, section), own


def _keys(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Hyphens as underscores."""
    made: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in made:
            raise UserError(f"{where}: {name} is given twice, with - and with _")
        made[name] = value
    return made


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise UserError(f"{name}: a table is needed, [{name}]")
    return table


def _rows(document: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    rows = document.get("runs", [])
    if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
        raise UserError("runs: write each as [[runs]]")
    return rows


def _row(
    row: Mapping[str, Any], where: str, commands: Commands
) -> tuple[str, str | None, dict[str, Any]]:
    arc, name = row.get(ARC), row.get(NAME)
    if isinstance(arc, str) and arc in NOT_SWEPT:
        raise UserError(f"{where}: arc {arc}: {NOT_SWEPT[arc]}")
    if not isinstance(arc, str) or arc not in commands:
        raise UserError(f"{where}: give arc = one of {', '.join(commands)}")
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise UserError(
            f"{where}: name = {name!r}: letters, digits, '.', '_' and '-' (at most 100)"
        )
    given = _keys({key: value for key, value in row.items() if key not in (ARC, NAME)}, where)
    for key in given:
        _require_option(key, arc, commands, {}, section=where)
    return arc, name, given


def _require_option(
    key: str,
    arc: str,
    commands: Commands,
    common: Mapping[str, Any],
    section: str = "options",
) -> None:
    if key in commands[arc]:
        return
    if key in common and any(key in options for options in commands.values()):
        where = next(name for name in commands if key in commands[name])
        raise UserError(
            f"{section}: {arc} has no option {key}; write it under the arcs that have it, such as "
            f"[{section}.{where}]"
        )
    if key in SET_HERE:
        raise UserError(f"{section}: {key} is set by the sweep for each cell; leave it out")
    raise UserError(f"{section}: of {arc}, {unknown(key, commands[arc])}")


def _require_used(own: Mapping[str, Any], arcs: set[str], prefix: str = "options.") -> None:
    for arc in own:
        if arc not in arcs:
            raise UserError(f"[{prefix}{arc}]: no cell is of {arc}; leave it out")


# -- names ----------------------------------------------------------------------------------------


def _name(arc: str, values: Mapping[str, Any]) -> str:
    parts = [arc]
    for key, value in values.items():
        text = _slug(value)
        parts.append(text if key in _PLAIN else f"{key.replace('_', '-')}{_joint(key)}{text}")
    return "-".join(part for part in parts if part)[:80].rstrip("-.")


def _joint(key: str) -> str:
    return "" if key == SEED else "-"


def _slug(value: Any) -> str:
    if isinstance(value, list):
        return "_".join(map(_slug, value))
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if "/" in text:  # a path or hub id: what stands last
        text = text.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")


def _named(
    found: Sequence[tuple[str, str | None, Mapping[str, Any]]],
) -> Iterator[Cell]:
    """Cells with a name each; where two would have the same, the later ones are numbered.

    Upper and lower case are one: there are disks on which they are one folder.
    """
    taken: set[str] = set()
    for arc, wanted, settings in found:
        name, number = wanted or arc, 1
        while name.casefold() in taken:
            number += 1
            name = f"{wanted or arc}-{number}"
        taken.add(name.casefold())
        yield Cell(name, arc, dict(settings))


# -- the resolved file ----------------------------------------------------------------------------


def to_toml(cells: Sequence[Cell]) -> str:
    """A sweep file of these very cells, each written out."""
    parts = ["# Every cell of the sweep, written out. threearc sweep FILE runs the same again.\n"]
    for cell in cells:
        lines = ["[[runs]]", f"{NAME} = {_toml(cell.name)}", f"{ARC} = {_toml(cell.arc)}"]
        lines += [f"{key} = {_toml(value)}" for key, value in cell.settings.items()]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # a JSON string is a TOML basic string, and JSON's numbers, true and false are TOML's; DEL
    # alone must be escaped in TOML and is not in JSON
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
