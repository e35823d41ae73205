"""A sweep on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from arcs.evaluate.report import COLOURS
from arcs.report.view import Number, interval_text, shown
from arcs.sweep.results import (
    number_of,
    seeds_text,
    sentences,
    value_of,
    verdicts_text,
)

FEW = 3
"""Claims of a cell that the terminal shows; the rest are counted, and stand on the page."""


def render(metrics: Mapping[str, Any], console: Console) -> None:
    """Print cells, spread over seeds, and what follows."""
    console.print(Group(*_parts(metrics)))


def _parts(metrics: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield _cells(metrics)
    if metrics["over_seeds"]:
        yield _seeds(metrics["over_seeds"])
    for line in sentences(metrics):
        yield Text(line)
    for row in metrics["cells"]:
        if row["state"] != "finished":
            yield Text(f"{row['name']} failed: {row['line']}", style="red")


def _cells(metrics: Mapping[str, Any]) -> Grid:
    table = Grid(box=SIMPLE_HEAD, pad_edge=False, title="Cells")
    for name in ("cell", "claim", "verdict", "effect", "p", "Holm"):
        justify: Any = "right" if name in ("effect", "p", "Holm") else "left"
        table.add_column(name, justify=justify, overflow="fold")
    for row in metrics["cells"]:
        if row["state"] != "finished":
            table.add_row(Text(row["name"]), Text("-"), Text("failed", style="red"))
            continue
        claims = row["claims"]
        if not claims:
            table.add_row(Text(row["name"]), Text("-"), Text("no claim"))
        for place, one in enumerate(claims[:FEW]):
            number = number_of(one)
            reasons = f" ({', '.join(one['reasons']).replace('_', ' ')})" if one["reasons"] else ""
            table.add_row(
                Text("" if place else row["name"]),
                Text(one["about"] or _short(one["statement"])),
                Text(one["verdict"], style=COLOURS.get(one["verdict"], "")).append(reasons),
                Text(f"{shown(number)} {interval_text(number)}".strip()),
                Text(_p(one["p_value"])),
                Text(_p(one["p_adjusted"])),
            )
        if len(claims) > FEW:
            table.add_row("", Text(f"and {len(claims) - FEW} more on the page"))
    return table


def _seeds(groups: Sequence[Mapping[str, Any]]) -> Grid:
    table = Grid(box=SIMPLE_HEAD, pad_edge=False, title="Over seeds")
    for name in ("first cell", "claim", "values", "mean", "least", "most", "verdicts"):
        justify: Any = "left" if name in ("first cell", "claim", "verdicts") else "right"
        table.add_column(name, justify=justify, overflow="fold")
    for one in groups:
        numbers = (value_of(one, key) for key in ("mean", "least", "most"))
        table.add_row(
            Text(one["cells"][0]), Text(one["about"] or _short(one["statement"])),
            Text(seeds_text(one)), *(Text(shown(number)) for number in numbers),
            Text(verdicts_text(one)),
        )  # fmt: skip
    return table


def _p(value: float | None) -> str:
    return shown(Number.of(value, "p"))


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
