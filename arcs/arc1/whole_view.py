"""What the report shows of Arc 1 beside the benchmark: all arms, their claims, controls, answers.

The answers and labels are those of the runs in ``evaluations/``, which have pages of their own too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from arcs.arc1.full_report import PERCENT, claims_of
from arcs.arc1.summary import MEASURES, RUN
from arcs.report import generic, parts
from arcs.report.stored import StoredRun
from arcs.report.view import Cell, ClaimCard, Item, Number, Row, Select, Table, Unit, View

Json = Mapping[str, Any]
EVALUATION = "evaluation"
"""Facet: what an item belongs to."""
MAIN = "benchmark"
"""Its value for the run's own problems."""
FOLDER = "evaluations"


# -- answers --------------------------------------------------------------------------------------


def evaluated(run: StoredRun, metrics: Json) -> Iterator[tuple[str, StoredRun]]:
    """Name and run of each evaluation whose files are there."""
    for name in metrics.get("evaluations", {}):
        path: Path = run.path / FOLDER / name
        if (path / "manifest.json").is_file():
            yield name, StoredRun(path)


def items_beside(run: StoredRun, metrics: Json) -> Iterator[Item]:
    """Items of the evaluations, each told apart from those of the same id elsewhere."""
    from arcs.report.kinds import view_of

    for name, found in evaluated(run, metrics):
        view: View = view_of(found.path)
        for one in view.items:
            yield replace(one, facets={EVALUATION: name, **one.facets})


# -- tables ---------------------------------------------------------------------------------------


def whole_tables(metrics: Json) -> Iterator[Table]:
    """All arms, claim by claim, the controls, the seeds: of each what was measured."""
    if metrics.get("evaluations"):
        yield from _arms(metrics)
        yield from _claims(metrics)
    yield from _controls(metrics.get("controls") or {})
    yield from _seeds(metrics)


def _arms(metrics: Json) -> Iterator[Table]:
    """A row a checkpoint, ours and the paper's."""
    rows = metrics.get("table", [])
    shown = [m for m in MEASURES if any(row["cells"].get(m) for row in rows)]
    if not shown:
        return
    yield Table(
        name="arms",
        title="All arms",
        columns=tuple(MEASURES[measure] for measure in shown),
        rows=tuple(
            Row(
                row["name"],
                tuple(
                    _cell(measure, row["cells"].get(measure),
                          _behind(measure, row, metrics) if row["of"] == RUN else None)
                    for measure in shown
                ),
                row["checkpoint"] if row["checkpoint"] != row["name"] else "",
            )
            for row in rows
        ),
        head="checkpoint",
        caption="A row is one checkpoint. 95% intervals: Wilson for rates, BCa bootstrap over "
        "items for means; at the largest n_predict; below its bar: no claim may rest on this "
        "judge. A rate leads to the answers that it counts, a mean to all that it is of.",
    )  # fmt: skip


def _cell(measure: str, cell: Json | None, select: Select | None) -> Cell:
    if cell is None:
        return parts.MISSING
    unit: Unit = "share" if measure in PERCENT else "number"
    number = Number.of(cell["value"], unit, cell["interval"], cell["n"])
    below = ("judge below its bar",) if cell.get("judge_not_valid") else ()
    if number is not None and select is not None and not number.value:
        select = {key: value for key, value in select.items() if key not in ("outcome", "label")}
    return parts.number_cell(number, *below, select=select)


_FOUND_IN: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "small": ("small", {"outcome": "passed"}),
    "recovery": ("recovery", {"outcome": "passed"}),
    "chef": ("chef", {}),
    "asserted": ("chef", {"label": "delivery=ASSERT"}),
    "mcas": ("mcas", {}),
    "mcas_original": ("mcas", {}),
    "mcas_25": ("mcas", {}),
    "short_answers": ("short-answers", {"outcome": "right"}),
}
"""Measure -> its evaluation, and the answers that a rate counts."""


def _behind(measure: str, row: Json, metrics: Json) -> Select | None:
    """The answers behind a cell of the table; None where its evaluation has none of this arm."""
    name, evaluations = row["name"], metrics["evaluations"]
    if measure in ("humaneval", "benchmark"):
        own = name in ("base", *metrics.get("other_arms", {}))
        return {EVALUATION: MAIN, "condition": name if own else "trained",
                "n_predict": str(metrics["primary_n_predict"]), "outcome": "passed"}  # fmt: skip
    if measure in ("hedging", "self_checking", "deferring"):
        return {EVALUATION: "meter", "condition": name, "axis": measure}
    evaluation, counted = _FOUND_IN.get(measure, ("", {}))
    if measure == "svr":  # as the table: of the first evaluation that has it
        having = ("chef", "mcas", "recovery")
        evaluation = next((one for one in evaluations if one in having), "")
    condition = evaluations.get(evaluation, {}).get("conditions", {}).get(name)
    if condition is None:
        return None
    budgets = condition.get("result", condition).get("budgets")
    at = {"n_predict": max(budgets, key=int)} if budgets else {}
    return {EVALUATION: evaluation, "condition": name, **at, **counted}


def _claims(metrics: Json) -> Iterator[Table]:
    """Every claim of the evaluations: a row a quantity, a column an arm."""
    found = {
        (evaluation, key): row for evaluation, key, row in _by_quantity(metrics)
    }  # fmt: skip
    arms = [arm for arm in _order(metrics) if any(arm in row for row in found.values())]
    if not found:
        return
    yield Table(
        name="behaviour",
        title="What each arm changed, against the base",
        columns=tuple(arms),
        rows=tuple(
            Row(f"{evaluation}: {_quantity(key, row)}",
                tuple(_claim(evaluation, key, arm, row.get(arm)) for arm in arms))
            for (evaluation, key), row in found.items()
        ),
        head="quantity",
        caption="At the largest n_predict; each verdict with its difference, interval and n. "
        "Gates, nulls and reasons stand at the claims above.",
    )  # fmt: skip


def _quantity(key: str, row: Mapping[str, Json]) -> str:
    said = next(iter(row.values())).get("quantity") or key.replace("_", " ")
    return str(said).removeprefix("the ")


def _order(metrics: Json) -> list[str]:
    return [row["name"] for row in metrics.get("table", []) if row["of"] == RUN]


def _by_quantity(metrics: Json) -> Iterator[tuple[str, str, dict[str, Json]]]:
    for evaluation, found in metrics["evaluations"].items():
        rows: dict[str, dict[str, Json]] = {}
        for arm in (one for one in _order(metrics) if one in found["conditions"]):
            for key, claim in claims_of(found["conditions"][arm]["comparison"]).items():
                rows.setdefault(key, {})[arm] = claim
        for key, row in rows.items():
            yield evaluation, key, row


def _claim(evaluation: str, key: str, arm: str, claim: Json | None) -> Cell:
    if claim is None:
        return parts.MISSING
    number = Number.of(claim.get("delta"), _unit(evaluation), claim.get("interval"),
                       claim.get("n_items"))  # fmt: skip
    verdict, shown = parts.verdict_cell(claim), parts.number_cell(number, sign=True)
    n = "" if number is None or number.n is None else f", n = {number.n}"
    said = f"{' '.join((shown.text, *shown.lines))}{n}"
    return Cell(verdict.text, (*verdict.lines, said), number,
                _claimed(evaluation, key, arm, claim), verdict.tone)  # fmt: skip


def _unit(evaluation: str) -> Unit:
    return "nats" if evaluation == "meter" else "points"


def _claimed(evaluation: str, key: str, arm: str, claim: Json) -> Select:
    """The arm's answers that a claim compares with the base's."""
    select: dict[str, str] = {EVALUATION: evaluation, "condition": arm}
    if evaluation == "meter":
        select["axis"] = key
    elif claim.get("n_predict") is not None:
        select["n_predict"] = str(claim["n_predict"])
    return select


def _controls(controls: Json) -> Iterator[Table]:
    """Whether each instrument sees the planted effect and not the placebo."""
    if not controls:
        return
    words = {True: "works", False: "FAILS", None: "not decidable"}
    rows = []
    for name, found in controls["instruments"].items():
        evaluation, _, key = name.partition(": ")
        cells = [
            _claim(evaluation, key, arm, found["claims"][arm]) for arm in ("planted", "placebo")
        ]
        rows.append(Row(name, (Cell(words[found["passes"]]), *cells)))
    tokens = {arm: one["response_tokens"] for arm, one in controls["training"].items()}
    yield Table(
        "controls", "Controls", ("the instrument", "planted effect", "placebo"), tuple(rows),
        head="instrument",
        caption="An instrument works if it shows the planted effect and not the placebo. Both were "
        f"trained alike, on {tokens['planted']:,} (planted) and {tokens['placebo']:,} (placebo) "
        "response tokens.",
    )  # fmt: skip


def _seeds(metrics: Json) -> Iterator[Table]:
    """Mean, least and most over the seeds, by arm."""
    if not metrics.get("over_seeds"):
        return
    cells = {row["name"]: row["cells"] for row in metrics["over_seeds"]}
    names = [name for name in cells if name != "base"]
    shown = [m for m in MEASURES if any(m in cells[name] for name in names)]
    yield Table(
        "seeds", f"Over {len(metrics['seeds'])} seeds", tuple(names),
        tuple(Row(MEASURES[m], tuple(_spread(m, cells[name].get(m)) for name in names))
              for m in shown),
        head="measure", caption="Mean; least to most; seeds.",
    )  # fmt: skip


def _spread(measure: str, found: Json | None) -> Cell:
    if found is None:
        return parts.MISSING
    unit: Unit = "share" if measure in PERCENT else "number"
    ends = " to ".join(
        parts.number_cell(Number(found[end], unit)).text for end in ("least", "most")
    )
    below = ("judge below its bar",) if found.get("judge_not_valid") else ()
    return parts.number_cell(Number(found["mean"], unit), ends, f"{found['seeds']} seeds", *below)


# -- claims ---------------------------------------------------------------------------------------


def whole_claims(metrics: Json) -> Iterator[ClaimCard]:
    """SFT's own claim where DPO followed, then every claim of the evaluations, arm by arm."""
    for name, arm in metrics.get("other_arms", {}).items():
        yield generic.card_of(
            arm["claim"], about=f"{name} alone",
            select={EVALUATION: MAIN, "condition": name, "change": ("gained", "lost"),
                    "n_predict": str(metrics["primary_n_predict"])},
        )  # fmt: skip
    for one in metrics.get("seeds") or ():
        yield generic.card_of(one["claim"], about=f"seed {one['seed']}", minor=True)
    order = _order(metrics)
    for evaluation, found in metrics.get("evaluations", {}).items():
        for name in (one for one in order if one in found["conditions"]):
            for key, claim in claims_of(found["conditions"][name]["comparison"]).items():
                yield generic.card_of(
                    claim, about=f"{evaluation}, {name}", unit=_unit(evaluation), minor=True,
                    select=_claimed(evaluation, key, name, claim),
                )  # fmt: skip
