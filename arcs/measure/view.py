"""What the report shows of a measurement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from arcs.evaluate.config import BASE
from arcs.measure.config import METER, SHORT_ANSWERS, conditions_of, parse
from arcs.report import generic, judged, parts
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
from evals.items.load import built_in, items_sha256
from evals.items.records import MeterItem, ShortAnswer
from evals.judges.labels import Label

Record = Mapping[str, Any]
Records = Mapping[str, Mapping[str, Record]]
"""Condition -> item id -> its record."""
T = TypeVar("T", MeterItem, ShortAnswer)
CHANGED = "Prompts are not shown: the items that ship have changed since the run."


def view(run: StoredRun) -> View:
    """An instrument that this page knows, or what every run shows."""
    metrics = run.metrics
    assert metrics is not None  # finished runs only
    shown = {METER: _meter, SHORT_ANSWERS: _short_answers}.get(metrics["instrument"], free_answers)
    return shown(run, metrics)


def _view(run: StoredRun, metrics: Mapping[str, Any], **found: Any) -> View:
    config = metrics["config"]
    return View(
        title=generic.title_of(run),
        kind=run.kind,
        subtitle=generic.subtitle_of(
            run, metrics["instrument"], f"{metrics['made_with']['backend']} {config['dtype']}",
            f"{metrics['n_items']} items",
        ),
        finished=True,
        made_with=generic.made_with(run),
        settings=generic.settings_of(run),
        **found,
    )  # fmt: skip


def _conditions(metrics: Mapping[str, Any]) -> list[str]:
    """The base first, then in the order of the flags."""
    return [one.name for one in conditions_of(parse(metrics["config"]))]


def _records(run: StoredRun, metrics: Mapping[str, Any]) -> Records:
    return {
        one.name: {row["item_id"]: row for row in run.lines(f"{one.slug}.jsonl")}
        for one in conditions_of(parse(metrics["config"]))
    }


def _known(
    name: str, kind: type[T], metrics: Mapping[str, Any], records: Records
) -> Mapping[str, T]:
    """The items by id; none where they are not those that were measured."""
    items = {item.key: item for item in built_in(name, kind)}
    measured = [items[item_id] for item_id in records[BASE] if item_id in items]
    same = items_sha256(measured) == metrics["made_with"]["measurement"]["items_sha256"]
    return items if same else {}


# -- the meter ------------------------------------------------------------------------------------


def _meter(run: StoredRun, metrics: Mapping[str, Any]) -> View:
    contrasts, shifts = _contrasts(metrics), _shifts(metrics)
    figures = [parts.plot_of("Contrast", contrasts, "contrast", "nats per token", null=0.0)]
    if shifts is not None:
        figures.insert(0, parts.plot_of("Shift against the base", shifts, "shift",
                                        "nats per token", null=0.0))  # fmt: skip
    records = _records(run, metrics)
    known = _known("meter", MeterItem, metrics, records)
    notes = [] if known else [CHANGED]
    notes += [
        "There is no verdict: the gates file fixes no smallest shift that matters in nats. Read "
        "the shift; the absolute contrast has an offset of its own on each axis."
    ]
    notes += [
        f"{name}: INVALID, its adapter was trained on items that are measured."
        for name in _conditions(metrics)
        if (metrics["conditions"][name]["comparison"] or {}).get("trained_on_test")
    ]
    return _view(
        run, metrics,
        notes=tuple(notes),
        tables=tuple(one for one in (shifts, contrasts) if one is not None),
        figures=(*(one for one in figures if one is not None), *generic.pictures(run)),
        items=tuple(
            _meter_item(item_id, known.get(item_id), records) for item_id in records[BASE]
        ),
    )  # fmt: skip


def _contrasts(metrics: Mapping[str, Any]) -> Table:
    rows = []
    for name in _conditions(metrics):
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
    for name in _conditions(metrics):
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


# -- short answers --------------------------------------------------------------------------------


def _short_answers(run: StoredRun, metrics: Mapping[str, Any]) -> View:
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
    records = _records(run, metrics)
    known = _known("short_answers", ShortAnswer, metrics, records)
    return _view(
        run, metrics,
        claims=claims,
        notes=() if known else (CHANGED,),
        tables=tuple(one for one in (differences, rates) if one is not None),
        figures=(*(one for one in figures if one is not None), *generic.pictures(run)),
        items=tuple(
            _question(item_id, known.get(item_id), records, n) for item_id in records[BASE]
        ),
    )  # fmt: skip


def _claims(metrics: Mapping[str, Any]) -> Iterator[ClaimCard]:
    for name in _conditions(metrics):
        compared = metrics["conditions"][name]["comparison"]
        if compared is not None:
            select = {"condition": name, "change": ("gained", "lost")}
            yield generic.card_of(compared["claim"], about=name, select=select)


def _accuracies(metrics: Mapping[str, Any]) -> Table:
    rows = []
    for name in _conditions(metrics):
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
    for name in _conditions(metrics):
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


# -- free answers that a judge labels -------------------------------------------------------------


def free_answers(run: StoredRun, metrics: Mapping[str, Any]) -> View:
    """Claims and numbers as they stand in the metrics, and the answers with their labels.

    Budgets are those of ``measurement.n_predict``. Where smaller ones cut the text is known to the
    tokenizer only, so the page shows the longest text, and what was said of each.
    """
    found = generic.view(run)
    conditions = conditions_of(parse(metrics["config"]))
    budgets = _budgets(metrics)
    answers: dict[str, list[Answer]] = {}
    for one in conditions:
        if not run.has(f"{one.slug}.jsonl"):
            continue
        labels = judged.labels_of(run, f"{one.slug}.labels.jsonl")
        for row in run.lines(f"{one.slug}.jsonl"):
            answers.setdefault(row["item_id"], []).append(_free(one.name, row, budgets, labels))
    items = tuple(Item(item_id, None, tuple(said)) for item_id, said in answers.items())
    return replace(found, items=items)


def _budgets(metrics: Mapping[str, Any]) -> tuple[int, ...]:
    found = (metrics["made_with"].get("measurement") or {}).get("n_predict", ())
    return (found,) if isinstance(found, int) else tuple(found)


def _free(
    condition: str, row: Record, budgets: Sequence[int], labels: Mapping[str, Sequence[Label]]
) -> Answer:
    """One answer at each n_predict; labels hang at the smallest at which it is the same text."""
    states = []
    for n in budgets:
        length = len(row["ids"])
        cut = length > n or (row["finish_reason"] == "length" and length >= n)
        first = n if length > n else min(one for one in budgets if one >= length)
        said = labels.get(f"{condition}/{row['item_id']}@{first}", ())
        facets: dict[str, str | tuple[str, ...]] = {
            "n_predict": str(n),
            "outcome": "cut" if cut else "finished",
        }
        if said:
            facets["label"] = judged.facet_of(said)
        states.append(State(facets, tuple(judged.blocks_of(said))))
    marks: tuple[tuple[int, str], ...] = ()
    if row["finish_reason"] == "length" and budgets:
        marks = ((len(row["text"]), f"n_predict {budgets[-1]} ended here"),)
    return Answer(condition, row["text"], tuple(states), marks)
