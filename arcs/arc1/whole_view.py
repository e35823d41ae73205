"""What the report shows of Arc 1 beside the benchmark: all arms in one table, and their claims.

Answers and labels stand in the reports of the runs in ``evaluations/``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arcs.arc1.full_report import PERCENT, claims_of
from arcs.arc1.summary import MEASURES
from arcs.report import generic, parts
from arcs.report.view import Cell, ClaimCard, Number, Row, Table, Unit

Json = Mapping[str, Any]


def whole_tables(metrics: Json) -> Iterator[Table]:
    """A row a checkpoint, ours and the paper's; nothing of a run that measured nothing else."""
    rows = metrics.get("table", [])
    shown = [m for m in MEASURES if any(row["cells"].get(m) for row in rows)]
    if not metrics.get("evaluations") or not shown:
        return
    yield Table(
        name="arms",
        title="All arms",
        columns=tuple(MEASURES[measure] for measure in shown),
        rows=tuple(
            Row(
                row["name"],
                tuple(_cell(measure, row["cells"].get(measure)) for measure in shown),
                row["checkpoint"] if row["checkpoint"] != row["name"] else "",
            )
            for row in rows
        ),
        head="checkpoint",
        caption="A row is one checkpoint. 95% intervals: Wilson for rates, BCa bootstrap over "
        "items for means; at the largest n_predict; below its bar: no claim may rest on this "
        "judge.",
    )


def _cell(measure: str, cell: Json | None) -> Cell:
    if cell is None:
        return parts.MISSING
    unit: Unit = "share" if measure in PERCENT else "number"
    number = Number.of(cell["value"], unit, cell["interval"], cell["n"])
    below = ("judge below its bar",) if cell.get("judge_not_valid") else ()
    return parts.number_cell(number, *below)


def whole_claims(metrics: Json) -> Iterator[ClaimCard]:
    """SFT's own claim where DPO followed, then every claim of the evaluations, arm by arm."""
    for name, arm in metrics.get("other_arms", {}).items():
        yield generic.card_of(arm["claim"], about=f"{name} alone")
    order = [row["name"] for row in metrics.get("table", [])]
    for evaluation, found in metrics.get("evaluations", {}).items():
        for name in (one for one in order if one in found["conditions"]):
            unit: Unit = "nats" if evaluation == "meter" else "points"
            for claim in claims_of(found["conditions"][name]["comparison"]).values():
                yield generic.card_of(claim, about=f"{evaluation}, {name}", unit=unit)
