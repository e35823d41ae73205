"""The page of a sweep: its cells side by side, behind what they gave together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from arcs.report import generic
from arcs.report.compare import compared
from arcs.report.kinds import view_of
from arcs.report.parts import MISSING, number_cell, p_cell
from arcs.report.stored import StoredRun
from arcs.report.view import Cell, Row, Table, View
from arcs.runs import MANIFEST
from arcs.sweep.results import (
    CELLS,
    number_of,
    seeds_text,
    sentences,
    value_of,
    verdicts_text,
)
from models.errors import UserError


def view(run: StoredRun) -> View:
    """The cells' own views, compared, behind the tables of the sweep."""
    metrics = run.metrics or {}
    folder = run.path / CELLS
    views: dict[str, View] = {}
    failures: list[str] = []
    notes = list(sentences(metrics))
    for row in metrics["cells"]:
        if row["state"] != "finished":
            failures.append(f"{row['name']} failed: {row['line']}")
        if (folder / row["name"] / MANIFEST).is_file():
            try:
                views[row["name"]] = view_of(folder / row["name"])
            except UserError as error:
                notes.append(f"{row['name']} is not shown: {error}")
    if failures:
        failures.insert(0, notes.pop(0))  # how many are finished, and how many failed
    together = compared(views)
    tables = [_cell_table(metrics)]
    if metrics["over_seeds"]:
        tables.append(_seed_table(metrics["over_seeds"]))
    return replace(
        together,
        title=f"{run.name}: a sweep of {len(metrics['cells'])} runs",
        kind="sweep",
        finished=True,
        failures=(*failures, *together.failures),
        notes=(*notes, *together.notes),
        tables=(*tables, *together.tables),
        settings=generic.settings_of(run),
    )


def _cell_table(metrics: Mapping[str, Any]) -> Table:
    rows = []
    for row in metrics["cells"]:
        if row["state"] != "finished":
            rows.append(Row(row["name"], (Cell("failed", (str(row["line"]),)), *[MISSING] * 3)))
        elif not row["claims"]:
            rows.append(Row(row["name"], (Cell("no claim"), *[MISSING] * 3)))
        for place, one in enumerate(row["claims"]):
            label = row["name"] if len(row["claims"]) == 1 else f"{row['name']}, {place + 1}"
            reasons = ", ".join(one["reasons"]).replace("_", " ")
            rows.append(Row(
                label,
                (
                    Cell(one["verdict"], (reasons,) if reasons else (), tone=one["verdict"]),
                    number_cell(number_of(one)),
                    p_cell(one["p_value"]),
                    p_cell(one["p_adjusted"]),
                ),
                detail=one["about"] or one["statement"],
            ))  # fmt: skip
    found = metrics["multiplicity"]
    return Table(
        "sweep cells", "Cells", ("verdict", "effect", "p", "p, Holm"), tuple(rows), head="cell",
        caption=f"{found['claims']} claims; Holm over the {found['with_p']} that have a p. The "
        "verdict is each run's own, at its own level.",
    )  # fmt: skip


def _seed_table(groups: Sequence[Mapping[str, Any]]) -> Table:
    rows = tuple(
        Row(
            f"{one['cells'][0]}, {place}",
            (
                Cell(seeds_text(one)),
                *(number_cell(value_of(one, key)) for key in ("mean", "least", "most")),
                Cell(verdicts_text(one)),
            ),
            detail=one["about"] or one["statement"],
        )
        for place, one in enumerate(groups, start=1)
    )
    return Table(
        "sweep seeds", "Over seeds", ("values", "mean", "least", "most", "verdicts"), rows,
        head="cells that differ in their seed alone, by the first",
        caption="Of each claim's number where it is not INVALID; no interval is made of so "
        "few.",
    )  # fmt: skip
