"""Contrasts and shifts of the meter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arcs.evaluate.config import BASE
from arcs.measure.views import shared
from arcs.measure.views.shared import Record, Records
from arcs.report import generic, parts
from arcs.report.stored import StoredRun
from arcs.report.view import (
    Answer,
    Block,
    Cell,
    Item,
    Number,
    Row,
    Select,
    State,
    Table,
    View,
)
from evals.items.records import MeterItem


def meter(run: StoredRun, metrics: Mapping[str, Any]) -> View:
    """Shifts first: the absolute contrast has an offset of its own."""
    contrasts, shifts = _contrasts(metrics), _shifts(metrics)
    figures = [parts.plot_of("Contrast", contrasts, "contrast", "nats per token", null=0.0)]
    if shifts is not None:
        figures.insert(0, parts.plot_of("Shift against the base", shifts, "shift",
                                        "nats per token", null=0.0))  # fmt: skip
    records = shared.records(run, metrics)
    known = shared.known("meter", MeterItem, metrics, records)
    notes = [] if known else [shared.CHANGED]
    notes.append("Read the shift; the absolute contrast has an offset of its own on each axis.")
    notes += [
        f"{name}: INVALID, its adapter was trained on items that are measured."
        for name in shared.conditions(metrics)
        if (metrics["conditions"][name]["comparison"] or {}).get("trained_on_test")
    ]
    claims = [
        generic.card_of(claim, about=name, unit="nats", select={"condition": name, "axis": axis})
        for name in shared.conditions(metrics)
        for axis, claim in (metrics["conditions"][name]["comparison"] or {})
        .get("claims", {})
        .items()
    ]
    return shared.view(
        run, metrics,
        claims=tuple(claims),
        notes=tuple(notes),
        tables=tuple(one for one in (shifts, contrasts) if one is not None),
        figures=(*(one for one in figures if one is not None), *generic.pictures(run)),
        items=tuple(
            _meter_item(item_id, known.get(item_id), records) for item_id in records[BASE]
        ),
    )  # fmt: skip


def _contrasts(metrics: Mapping[str, Any]) -> Table:
    rows = []
    for name in shared.conditions(metrics):
        for axis, score in metrics["conditions"][name]["result"]["axes"].items():
            select = {"condition": name, "axis": axis}
            cells = (_nats(score, select), parts.count_cell(score["n"], select=select))
            rows.append(Row(f"{name}, {axis}", cells))
    return Table(
        name="contrast",
        title="Contrast",
        columns=("contrast", "n"),
        rows=tuple(rows),
        caption="Mean log-probability of the positive continuation minus the negative's, nats per "
        "token; BCa bootstrap intervals over items.",
    )


def _shifts(metrics: Mapping[str, Any]) -> Table | None:
    rows = []
    for name in shared.conditions(metrics):
        compared = metrics["conditions"][name]["comparison"]
        for axis, shift in (compared or {}).get("axes", {}).items():
            select = {"condition": name, "axis": axis}
            rows.append(
                Row(
                    f"{name}, {axis}",
                    (
                        _nats(shift, select),
                        parts.p_cell(shift["p_holm"]),
                        parts.count_cell(shift["up"], n=shift["n"],
                                         select={**select, "change": "up"}),
                        parts.count_cell(shift["unchanged"], n=shift["n"],
                                         select={**select, "change": "unchanged"}),
                        parts.count_cell(shift["n"], select=select),
                    ),
                )
            )  # fmt: skip
    if not rows:
        return None
    return Table(
        name="shift",
        title="Shift against the base",
        columns=("shift", "p (Holm)", "up", "unchanged", "n"),
        rows=tuple(rows),
        caption="Item by item, nats per token; BCa bootstrap intervals; p: random signs, Holm over "
        "the axes of a condition; up: items whose contrast rose.",
    )


def _nats(found: Mapping[str, Any], select: Select) -> Cell:
    number = Number.of(found["mean"], "nats", found["interval"], found["n"])
    return parts.number_cell(number, select=select)


def _meter_item(item_id: str, known: MeterItem | None, records: Records) -> Item:
    before = records[BASE][item_id]
    blocks: tuple[Block, ...] = ()
    prompt = None
    if known is not None:
        prompt = "\n\n".join(f"{turn.role}: {turn.content}" for turn in known.context)
        blocks = (Block("positive continuation", known.positive),
                  Block("negative continuation", known.negative))  # fmt: skip
    answers = tuple(
        Answer(name, None, (_reading(name, before, rows[item_id]),))
        for name, rows in records.items()
    )
    return Item(item_id, prompt, answers, {"axis": before["axis"], "domain": before["domain"]},
                blocks)  # fmt: skip


def _reading(name: str, before: Record, row: Record) -> State:
    shift = row["contrast"] - before["contrast"]
    facets = {"outcome": "positive likelier" if row["contrast"] > 0 else "negative likelier"}
    text = (
        f"contrast {row['contrast']:+.4f}\n"
        f"positive {row['positive']:+.4f} nats per token over {row['positive_tokens']} tokens\n"
        f"negative {row['negative']:+.4f} nats per token over {row['negative_tokens']} tokens"
    )
    if name != BASE:
        facets["change"] = "up" if shift > 0 else "down" if shift < 0 else "unchanged"
        text += f"\nshift {shift:+.4f}"
    return State(facets, (Block("log-probabilities", text, "output"),))
