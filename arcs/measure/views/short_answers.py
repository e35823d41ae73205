"""Claims, accuracies and transcripts of short answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    ClaimCard,
    Item,
    Number,
    Row,
    Select,
    State,
    Table,
    View,
)
from evals.items.records import ShortAnswer


def short_answers(run: StoredRun, metrics: Mapping[str, Any]) -> View:
    """Differences first, then every condition's accuracy."""
    n = str(metrics["made_with"]["measurement"]["n_predict"])
    rates, differences = _accuracies(metrics), _changes(metrics)
    figures = [parts.plot_of("Right answers", rates, "right")]
    claims = tuple(_claims(metrics))
    if differences is not None:
        smallest = metrics["made_with"]["gates"]["smallest_effect"]["rate"]
        figures.insert(0, parts.plot_of(
            "Differences of accuracy", differences, "difference",
            "the band is what does not matter", null=0.0, band=(-smallest, smallest),
        ))  # fmt: skip
    records = shared.records(run, metrics)
    known = shared.known("short_answers", ShortAnswer, metrics, records)
    return shared.view(
        run, metrics,
        claims=claims,
        notes=() if known else (shared.CHANGED,),
        tables=tuple(one for one in (differences, rates) if one is not None),
        figures=(*(one for one in figures if one is not None), *generic.pictures(run)),
        items=tuple(
            _question(item_id, known.get(item_id), records, n) for item_id in records[BASE]
        ),
    )  # fmt: skip


def _claims(metrics: Mapping[str, Any]) -> Iterator[ClaimCard]:
    for name in shared.conditions(metrics):
        compared = metrics["conditions"][name]["comparison"]
        if compared is not None:
            select = {"condition": name, "change": ("gained", "lost")}
            yield generic.card_of(compared["claim"], about=name, select=select)


def _accuracies(metrics: Mapping[str, Any]) -> Table:
    rows = []
    for name in shared.conditions(metrics):
        result = metrics["conditions"][name]["result"]
        rows.append(Row(name, _accuracy(result, {"condition": name})))
        rows += [
            Row(f"{name}, {domain}", _accuracy(one, {"condition": name, "domain": domain}))
            for domain, one in result["domains"].items()
        ]
    return Table(
        name="accuracy",
        title="Right answers",
        columns=("right", "unread", "cut", "open"),
        rows=tuple(rows),
        caption="Wilson intervals; unread: no word that could be an answer, counted as not right; "
        "cut: stopped by n_predict; open: of these, more text could change how it reads.",
    )


def _accuracy(found: Mapping[str, Any], select: Select) -> tuple[Cell, ...]:
    n = found["n"]
    number = Number.of(found["accuracy"], "share", found["interval"], n)
    behind = parts.passed_of(select, "right", found["right"])
    return (
        parts.number_cell(number, f"{found['right']}/{n}", select=behind),
        parts.count_cell(found["unparsed"], n=n, select={**select, "outcome": "unparsed"}),
        parts.count_cell(found["truncated"], n=n,
                         select={**select, "cut": (*parts.CUTS, "settled")}),
        parts.count_cell(found["open"], n=n, select={**select, "cut": "unfinished"}),
    )  # fmt: skip


def _changes(metrics: Mapping[str, Any]) -> Table | None:
    rows = []
    for name in shared.conditions(metrics):
        compared = metrics["conditions"][name]["comparison"]
        if compared is None:
            continue
        claim = compared["claim"]
        whole = {"delta": claim["delta"], "interval": claim["interval"], "n": claim["n_items"],
                 "gained": compared["gained"], "lost": compared["lost"]}  # fmt: skip
        cells = (_difference(whole, {"condition": name}), parts.p_cell(claim["p_value"]),
                 parts.verdict_cell(claim))  # fmt: skip
        rows.append(Row(name, cells))
        for domain, one in compared["domains"].items():
            select = {"condition": name, "domain": domain}
            rows.append(
                Row(f"{name}, {domain}", (_difference(one, select), parts.MISSING, parts.MISSING))
            )
    if not rows:
        return None
    return Table(
        name="difference",
        title="Differences of accuracy against the base",
        columns=("difference", "p", "verdict"),
        rows=tuple(rows),
        caption="Tango intervals; +gained −lost questions; p: exact McNemar. Differences by domain "
        "are for orientation: they carry no test.",
    )


def _difference(found: Mapping[str, Any], select: Select) -> Cell:
    number = Number.of(found["delta"], "points", found["interval"], found["n"])
    lines = f"+{found['gained']} −{found['lost']}"
    return parts.number_cell(number, lines, select={**select, "change": ("gained", "lost")})


def _question(item_id: str, known: ShortAnswer | None, records: Records, n: str) -> Item:
    before = records[BASE][item_id]
    blocks = (Block("accepted", "\n".join(known.answers)),) if known is not None else ()
    answers = tuple(
        _short_answer(name, before if name != BASE else None, rows[item_id], n)
        for name, rows in records.items()
    )
    facets = {"domain": before["domain"], "kind": before["kind"]}
    return Item(item_id, None if known is None else known.prompt, answers, facets, blocks)


def _short_answer(name: str, before: Record | None, row: Record, n: str) -> Answer:
    facets = {"n_predict": n, "outcome": row["reading"], "cut": _cut(row)}
    if before is not None:
        sides = (before["reading"] == "right", row["reading"] == "right")
        names = {(False, True): "gained", (True, False): "lost", (True, True): "both right"}
        facets["change"] = names.get(sides, "neither right")
    marks: Sequence[tuple[int, str]] = ()
    if row["truncated"]:
        marks = ((len(row["text"]), f"n_predict {n} ended here"),)
    return Answer(name, row["text"], (State(facets),), tuple(marks))


def _cut(row: Record) -> str:
    if not row["truncated"]:
        return "finished"
    if row["loop"]:
        return "loop"
    return "unfinished" if row["open"] else "settled"
