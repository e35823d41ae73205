"""Tables of an Arc 2 report. Every number leads to the answers or readings behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arcs.arc2.selection import BASE
from arcs.arc2.sweep_table import AGAINST, RATES
from arcs.arc2.transcripts import LABELS, SWEEP, TASKS, USES
from arcs.arc2.view_items import ablated, head_name
from arcs.report import parts
from arcs.report.view import Cell, Number, Row, Select, Table, Unit

Json = Mapping[str, Any]
HEADS_SHOWN = 10
CELLS: Mapping[str, tuple[str, str]] = {
    "cr": ("right", "asserted"), "hr": ("right", "hedged"), "cw": ("wrong", "asserted"),
    "hw": ("wrong", "hedged"),
}  # fmt: skip
"""Cells of the 2x2: outcome and delivery."""


def label_of(point: Json) -> str:
    """A point of the sweep, as a row."""
    if point["arm"] == BASE:
        return "unchanged"
    if point["point"] == "untouched":
        return "untouched file"
    return f"{point['arm']}, lambda {point['lambda']:g}"


def axis_units(metrics: Json) -> tuple[Unit, Unit]:
    """Of the axis itself and of a change of it."""
    return ("share", "points") if metrics["axis"]["kind"] == "text" else ("nats", "nats")


def words(metrics: Json) -> Table:
    """The words with their states."""
    rows = tuple(
        Row(one["word"], (Cell(one["state"]), Cell(one["because"]))) for one in metrics["words"]
    )
    return Table("words", "Words", ("state", "because"), rows, head="word",
                 caption="Each a rule with numbers: docs/arc2.md.")  # fmt: skip


def baseline(metrics: Json) -> Table:
    """What the unchanged model said, and the cohorts made of it."""
    found, cohorts = metrics["baseline"], metrics["cohorts"]
    base = {"condition": BASE, "asked": LABELS, **_first_seed(metrics)}
    n = found["answers"]
    cells = [("answers", parts.count_cell(n, select=base))]
    cells += [
        (name, cell) for name, cell in zip(CELLS, _cells(found, base), strict=True)
        if found["table"] is not None
    ]  # fmt: skip
    cells += [
        ("silent", parts.count_cell(found["silent"], n=n, select={**base, "delivery": "silent"})),
        ("cut", parts.count_cell(found["truncated"], n=n, select={**base, "cut": parts.CUTS})),
        ("loops", parts.count_cell(found["loops"], n=n, select={**base, "cut": "loop"})),
    ]
    cells += [
        (f"cohort: {name}", parts.count_cell(cohorts[name], select={**base, "cohort": name}))
        for name in ("lacking", "having")
    ]
    return Table(
        "baseline", "The unchanged model", tuple(name for name, _ in cells),
        (Row("answers", tuple(cell for _, cell in cells)),),
        caption="c, h: asserted, hedged; r, w: right, wrong; silent: without a word; cut: stopped "
        f"by n_predict. Cohorts: {cohorts['formed_by']}.",
    )  # fmt: skip


def _first_seed(metrics: Json) -> dict[str, str]:
    """The cohorts and the baseline are of the first seed, where answers are drawn."""
    seeds = metrics["config"]["seeds"]
    return {"seed": str(seeds[0])} if seeds else {}


def _cells(found: Json, select: Select) -> list[Cell]:
    """The four cells of the 2x2, each linked to its answers."""
    if found["table"] is None:
        return [parts.MISSING] * len(CELLS)
    return [
        parts.count_cell(found["table"]["cells"][name], n=found["answers"],
                         select={**select, "outcome": outcome, "delivery": delivery})
        for name, (outcome, delivery) in CELLS.items()
    ]  # fmt: skip


# -- heads ----------------------------------------------------------------------------------------

EXTRA: Mapping[str, str] = {
    "statistic": "mean over error + s0",
    "items_up": "items that rose",
    "p_uncorrected": "p alone (paper's)",
    "in_sample_d": "in sample (paper's)",
    "in_sample_d_of_noise": "of noise",
    "cosine_of_means": "cosine (paper's)",
    "cosine_of_differences": "cosine, centred",
}


def rankings(metrics: Json) -> Iterator[Table]:
    """The first heads by each method, that by which the damped ones were chosen first."""
    by = metrics["selection"]["ranked_by"]
    for method in sorted(metrics["rankings"], key=lambda name: name != by):
        yield _ranking(metrics["rankings"][method], metrics)


def shown_heads(ranking: Json) -> Sequence[Json]:
    """Those that have a row."""
    found: Sequence[Json] = ranking["heads"][:HEADS_SHOWN]
    return found


def _ranking(ranking: Json, metrics: Json) -> Table:
    shown = shown_heads(ranking)
    extra = {name: title for name, title in EXTRA.items() if any(name in one for one in shown)}
    causal = ranking["method"] == "causal"
    unit: Unit = "nats" if causal and "nats" in ranking["unit"] else "number"
    cohorts: Select = {"condition": BASE, "asked": LABELS, "cohort": ("lacking", "having"),
               **_first_seed(metrics)}  # fmt: skip
    rows = tuple(
        Row(
            head_name((one["layer"], one["head"])),
            (
                parts.number_cell(
                    Number.of(one["effect"], unit, one.get("interval")), sign=True,
                    select={"condition": ablated((one["layer"], one["head"]))} if causal
                    else cohorts,
                ),
                parts.p_cell(one["p_corrected"]),
                *(_extra(name, one) for name in extra),
            ),
        )
        for one in shown
    )  # fmt: skip
    stability = ranking["stability"]
    chosen = ranking["method"] == metrics["selection"]["ranked_by"]
    return Table(
        f"{ranking['method']} attribution",
        f"{ranking['method'].capitalize()} attribution" + (", by which heads are damped" if chosen
                                                           else ""),
        ("effect", "p (corrected)", *extra.values()),
        rows,
        head="head",
        caption=f"The first {len(rows)} of {len(ranking['heads'])} heads; effect: {ranking['unit']}"
        f"; {ranking['n']}; p: {ranking['null']}; noise alone is expected to reach "
        f"{ranking['expected_maximum']:.3f}, and {ranking['critical']:.3f} at the "
        f"{100 * metrics['alpha']:g}% level; halves of the items: rank correlation "
        f"{stability['rank_correlation']:+.2f}, {100 * stability['top_shared']:.0f}% of the first "
        f"{stability['top']} shared (by chance {100 * stability['top_by_chance']:.0f}%).",
    )  # fmt: skip


def _extra(name: str, row: Json) -> Cell:
    value = row.get(name)
    if name == "items_up" and value is not None:
        head = {"condition": ablated((row["layer"], row["head"])), "change": "up"}
        return parts.count_cell(round(value), select=head)
    return parts.number_cell(Number.of(value, "p" if name.startswith("p_") else "number"))


# -- the sweep ------------------------------------------------------------------------------------


def behind(point: Json, prefix: str = "") -> dict[str, str | tuple[str, ...]]:
    """The answers at a point of the sweep. ``prefix``: of those through llama.cpp."""
    return {"condition": f"{prefix}{point['point']}", "asked": LABELS, USES: SWEEP}


def axis_behind(point: Json, metrics: Json) -> Select:
    """What the axis is measured on at a point: the meter's readings, or the answers."""
    if metrics["axis"]["kind"] == "meter":
        return {"condition": point["point"], "asked": "meter", USES: SWEEP}
    return behind(point)


def axis(metrics: Json) -> Table:
    """The axis at every point."""
    unit, unit_of_change = axis_units(metrics)
    rows = []
    for point in metrics["sweep"]:
        level, select = point["axis"], axis_behind(point, metrics)
        mean = None if level is None else Number.of(level["mean"], unit, level["interval"],
                                                    level["n"])  # fmt: skip
        cells = (parts.number_cell(mean, select=select),
                 *_change(point["axis_change"], unit_of_change, select),
                 Cell("-") if level is None else Cell(str(level["n"])))  # fmt: skip
        rows.append(Row(label_of(point), cells, _heads(point)))
    found = metrics["axis"]
    return Table(
        "axis", "Sweep of lambda: the axis", ("mean", "change", "p (corrected)", "n"), tuple(rows),
        head="heads",
        caption=f"{found['measure']}" + (f", {found['unit']}" if found["unit"] else "")
        + f"; mean over n items; change: {AGAINST}.",
    )  # fmt: skip


def _heads(point: Json) -> str:
    return " ".join(head_name(one) for one in point["heads"])


def _change(found: Json | None, unit: Unit, select: Select | None) -> tuple[Cell, Cell]:
    if found is None:
        return parts.MISSING, parts.MISSING
    number = Number.of(found["value"], unit, found["interval"], found["n"])
    return parts.number_cell(number, select=select), parts.p_cell(found["p_adjusted"])


def answer_tables(points: Sequence[Json], what: str = "", prefix: str = "") -> Iterator[Table]:
    """What the answers came to, and what became of content and text."""
    name, title = (f"{what} ", f", {what}") if what else ("", "")
    rows = []
    for point in points:
        select, table = behind(point, prefix), point["table"]
        rates = [
            _rate(table[key], _successes(shown, select), _both(shown, select))
            for shown, key in RATES.items()
        ] if table is not None else [
            _rate(point["assertion"], {**select, "delivery": "asserted"},
                  {**select, "delivery": ("asserted", "hedged")}) if shown == "asserted"
            else parts.MISSING
            for shown in RATES
        ]  # fmt: skip
        rows.append(Row(label_of(point), (*rates, *_cells(point, select))))
    yield Table(
        f"{name}answers", f"Sweep of lambda: the answers{title}", (*RATES, *CELLS), tuple(rows),
        head="heads",
        caption="c, h: asserted, hedged; r, w: right, wrong. Accuracy: right of all with a label; "
        "asserted: of all that are neither silent nor without a label; hallucination: asserted of "
        "the wrong; over-hedging: hedged of the right.",
    )  # fmt: skip
    rows = []
    for point in points:
        select, n = behind(point, prefix), point["answers"]
        unit: Unit = "points" if point["accuracy_change"] is not None else "nats"
        found = point["accuracy_change"] or point["likelihood_change"]
        changed = {**select, "change": ("gained", "lost")} if unit == "points" else None
        covered = point["coverage"]
        share = None if covered is None else Number(covered["mean"], "number", n=covered["n"])
        cells = (
            *_change(found, unit, changed),
            parts.number_cell(share, select=select),
            parts.count_cell(point["silent"], n=n, select={**select, "delivery": "silent"}),
            parts.count_cell(point["truncated"], n=n, select={**select, "cut": parts.CUTS}),
            parts.count_cell(point["loops"], n=n, select={**select, "cut": "loop"}),
            parts.count_cell(point["texts_changed"], n=n, select={**select, "text": "changed"}),
        )
        rows.append(Row(label_of(point), cells))
    columns = ("change of content", "p (corrected)", "coverage", "silent", "cut", "loops",
               "texts changed")  # fmt: skip
    yield Table(
        f"{name}content", f"Sweep of lambda: content and text{title}", columns, tuple(rows),
        head="heads",
        caption="Content: accuracy, or the log-likelihood of the meter's texts (nats per token) "
        f"where nothing is right or wrong; its change: {AGAINST}, linked to the answers that were "
        "gained or lost; texts changed: other ids than at lambda 1.",
    )  # fmt: skip


def _successes(shown: str, select: Select) -> Select:
    return {
        "accuracy": {**select, "outcome": "right"},
        "asserted": {**select, "outcome": ("right", "wrong"), "delivery": "asserted"},
        "hallucination": {**select, "outcome": "wrong", "delivery": "asserted"},
        "over-hedging": {**select, "outcome": "right", "delivery": "hedged"},
    }[shown]


def _both(shown: str, select: Select) -> Select:
    """All that a rate is of."""
    outcome = {"hallucination": "wrong", "over-hedging": "right"}.get(shown, ("right", "wrong"))
    delivery = {} if shown == "accuracy" else {"delivery": ("asserted", "hedged")}
    return {**select, "outcome": outcome, **delivery}


def _rate(found: Json, successes: Select, all_of: Select) -> Cell:
    number = Number.of(found["value"], "share", found["interval"], found["n"])
    select = successes if found["successes"] else all_of
    return parts.number_cell(number, f"{found['successes']}/{found['n']}", select=select)


def tasks(metrics: Json) -> Iterator[Table]:
    """Python tasks at every point, where they were asked."""
    if not metrics["tasks"]:
        return
    rows = []
    for one in metrics["tasks"]:
        select = {"condition": one["point"], "asked": TASKS}
        rate = one["table"]["accuracy"] if one["table"] else {"value": None, "interval": None,
                                                              "n": 0, "successes": 0}  # fmt: skip
        cells = (
            _rate(rate, {**select, "outcome": "right"}, {**select, "outcome": ("right", "wrong")}),
            *_change(one["change"], "points", {**select, "change": ("gained", "lost")}),
            parts.count_cell(one["truncated"], n=one["answers"],
                             select={**select, "cut": parts.CUTS}),
        )  # fmt: skip
        rows.append(Row(one["point"], cells))
    dataset = metrics["made_with"]["tasks"]["dataset"]
    yield Table("tasks", f"{dataset}, at every point", ("pass@1", "change", "p (corrected)", "cut"),
                tuple(rows), head="point", caption="Against the unchanged model.")  # fmt: skip


# -- what the words rest on -----------------------------------------------------------------------

EVIDENCE: Mapping[str, str] = {
    "trend": "trend over lambda", "steps": "step of lambda", "replicates": "replicate",
    "replicate_difference": "replicates", "against_random": "more than", "over_hedging":
    "over-hedging at",
}  # fmt: skip


def evidence(metrics: Json) -> Table | None:
    """Effects that stand in no other table."""
    _, unit = axis_units(metrics)
    rows = []
    for key, what in EVIDENCE.items():
        for one in metrics["evidence"].get(key) or ():
            of = "points" if key == "over_hedging" else unit
            label = what if key in ("trend", "replicate_difference") else f"{what} {one['name']}"
            rows.append(Row(label, (*_change(one, of, None), Cell(str(one["n"])))))
    if not rows:
        return None
    return Table(
        "evidence", "What the words rest on beside the sweep", ("effect", "p (corrected)", "n"),
        tuple(rows),
        caption="Differences item by item on the axis, intervals as in the sweep; more than a "
        "random set: the chosen heads minus that set, at the strongest lambda.",
        folded=True,
    )  # fmt: skip


def measures(metrics: Json) -> Table:
    """By what each disposition could be measured on the unchanged model's answers."""
    rows = []
    for name, one in metrics["measures"].items():
        said = one["answers"] or {}
        rows.append(
            Row(
                name,
                (
                    Cell(one["measure"]),
                    Cell("-") if not said else Cell(f"{said['shown']}/{said['n']}"),
                    Cell(one["meter_axis"] or "-"),
                    Cell(one["why_not"] or "-"),
                ),
            )
        )
    return Table(
        "measures", "All seven dispositions", ("text measure", "answers that show it", "meter axis",
                                               "why it cannot be measured"),
        tuple(rows), head="disposition", folded=True,
        caption="A text measure needs 10 answers on either side.",
    )  # fmt: skip
