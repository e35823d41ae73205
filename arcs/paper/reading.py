"""Our number of one row, found in the metrics of its stage; or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from arcs.arc1.summary import cells_of
from arcs.evaluate.config import BASE
from arcs.paper.plan import Stage
from evals.statistics.rates import wilson

Found = Mapping[str, Any]


@dataclass(frozen=True)
class Ours:
    """A number, or only a reason."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    level: float | None = None
    """Of the interval."""
    why_not: str | None = None
    """Why there is no number, or why the one there is decides nothing."""
    said: tuple[str, ...] = ()
    """More that is substituted in this row."""

    @classmethod
    def of(cls, value: float | None, interval: Found | None, n: int | None, **more: Any) -> Ours:
        """From a metrics file; without a value or an interval nothing is decided."""
        if value is None:
            return cls(n=n, why_not="no answer has what it takes", **more)
        if interval is None:
            return cls(value=value, n=n, why_not="its interval is not determined", **more)
        return cls(value, interval["low"], interval["high"], n, interval["level"], **more)


def ours(read: Found, metrics: Found, stage: Stage) -> Ours:
    """The number that ``read`` names. Raises KeyError for a recipe that names what is not there."""
    return _READERS[read["from"]](read, metrics, stage)


def _pass(read: Found, metrics: Found, stage: Stage) -> Ours:
    """pass@1 of an arm at the n_predict that stands for the paper's."""
    asked = int(read["n_predict"])
    n = stage.budget(asked)
    arm = _arm_at(metrics, read.get("arm", "base"), n)
    said = () if n == asked else (f"n_predict {n} for {asked}",)
    return Ours.of(arm["pass_at_1"], arm["interval"], arm["n_items"] - arm["missing"], said=said)


def _arm_at(metrics: Found, arm: str, n: int) -> Found:
    if "quantisations" in metrics:  # threearc eval
        conditions = next(iter(metrics["quantisations"].values()))
        found: Found = conditions[arm]["budgets"][str(n)]
        return found
    at = next(one for one in metrics["budgets"] if one["n_predict"] == n)
    found = at[arm]
    return found


def _cell(read: Found, metrics: Found, stage: Stage) -> Ours:
    """A cell of Arc 1's table, of one checkpoint."""
    row = next(one for one in metrics["table"] if one["of"] == "run" and one["name"] == read["arm"])
    cell = row["cells"][read["cell"]]
    if cell is None:
        return Ours(why_not="this run did not measure it")
    return _of_cell(cell, said=_evaluated_at(read["cell"], stage))


def _of_cell(cell: Found, **more: Any) -> Ours:
    found = Ours.of(cell["value"], cell["interval"], cell["n"], **more)
    if cell.get("judge_not_valid"):
        return replace(found, why_not="the rule or judge behind it is below its bar")
    return found


def _mcas(read: Found, metrics: Found, stage: Stage) -> Ours:
    """A score of MCAS, of the base or of the adapter."""
    del stage
    edited = read["arm"] != BASE
    name = next(one for one in metrics["conditions"] if (one != BASE) == edited)
    cell = cells_of("mcas", metrics, name)[read["cell"]]
    return _of_cell(cell if read["cell"] == "mcas_25" else _as_share(cell))


def _as_share(cell: Found) -> Found:
    """A cell that is in percent, between 0 and 1."""
    value, at = cell["value"], cell["interval"]
    ends = None if at is None else {**at, "low": at["low"] / 100, "high": at["high"] / 100}
    return {**cell, "value": None if value is None else value / 100, "interval": ends}


def _evaluated_at(cell: str, stage: Stage) -> tuple[str, ...]:
    """The n_predict of a cell whose answers the paper states none for."""
    if cell not in ("recovery", "svr"):
        return ()
    return (f"answered at n_predict {max(stage.config.evaluation_n_predict)}",)


def _kept(read: Found, metrics: Found, stage: Stage) -> Ours:
    """Share of the base's thinking that an edit keeps."""
    thinking = metrics["thinking"]
    if not thinking:
        return Ours(why_not="nothing was thought: the model has no thinking mode")
    kept = thinking["kept"][read["arm"]]
    asked = max(stage.recipe.settings["n_predict"])
    n = stage.budget(asked)
    said = () if n == asked else (f"n_predict {n} for {asked}",)
    return Ours.of(kept["geometric_mean"], kept["interval"], kept["n"], said=said)


def _asserted(read: Found, metrics: Found, stage: Stage) -> Ours:
    del read, stage
    rate = _last(metrics)["all"]["assertion_rate"]
    below = [name for name, one in metrics["judge"]["validity"].items() if not one["passes"]]
    found = _rate(rate)
    if below:
        return replace(found, why_not="the judge is below its bar")
    return found


def _cut(read: Found, metrics: Found, stage: Stage) -> Ours:
    """Share of answers that n_predict ended."""
    del read, stage
    at = _last(metrics)
    cut = at["n"] - at["finished"]
    return Ours.of(cut / at["n"], wilson(cut, at["n"]).to_json(), at["n"])


def _last(metrics: Found) -> Found:
    budgets = metrics["conditions"]["base"]["result"]["budgets"]
    found: Found = budgets[max(budgets, key=int)]
    return found


def _rate(rate: Found | None) -> Ours:
    if rate is None:
        return Ours(why_not="no answer has what it takes")
    return Ours.of(rate["value"], rate.get("interval"), rate.get("n"))


def _answers(read: Found, metrics: Found, stage: Stage) -> Ours:
    """Arc 3's answers of one set: right or wrong against asserted or hedged."""
    del stage
    found = _of_table(metrics["decoupling"][read["set"]]["all"], read["rate"])
    delivery = metrics["made_with"]["delivery"]
    if read["rate"] != "accuracy" and delivery is not None and not delivery["passes"]:
        return replace(found, why_not="the judge of delivery is below its bar")
    return _valid(found, metrics, "transfer")


def _valid(found: Ours, metrics: Found, name: str) -> Ours:
    """Where the claim on these answers is INVALID, a number of them decides nothing."""
    claim = metrics["claims"][name]
    if found.why_not is not None or claim["verdict"] != "INVALID":
        return found
    reasons = ", ".join(claim["reasons"]).replace("_", " ")
    return replace(found, why_not=f"its claim is INVALID ({reasons})")


def _of_table(table: Found | None, name: str) -> Ours:
    if table is None:
        return Ours(why_not="no answer has a label")
    found = table[name]
    if found is None:
        return Ours(why_not="no answer is right, or none is wrong")
    one = _rate(found)
    return replace(one, n=one.n or table["n"])


def _probe(read: Found, metrics: Found, stage: Stage) -> Ours:
    del stage
    if metrics["probes"] is None:
        return Ours(why_not=_undecided(metrics))
    one = next(
        one for one in metrics["probes"]
        if one["features"] == read["features"] and one["probe"] == read["probe"]
    )  # fmt: skip
    fresh = one["fresh"]
    found = Ours.of(fresh["auc"], fresh["interval"], fresh["n_right"] + fresh["n_wrong"])
    return _valid(found, metrics, "transfer")


def _undecided(metrics: Found) -> str:
    reasons = ", ".join(metrics["claims"]["transfer"]["reasons"]).replace("_", " ")
    sides = "; ".join(
        f"{name} {one['right']} right of {one['used']}" for name, one in metrics["sets"].items()
    )
    return f"no probe could be fitted or tested ({reasons}: {sides})"


def _step(read: Found, metrics: Found, stage: Stage) -> Ours:
    """A number of the protocol."""
    del stage
    step = next(one for one in metrics["steps"] if one["step"] == read["step"])
    if step["state"] == "not run":
        return Ours(why_not=f"step not run: {step['reason']}")
    gate = next(one for one in step["gates"] if one["gate"] == read["gate"])
    if gate["estimate"] is None:
        return Ours(why_not=gate["why"] or "not determined")
    at = gate["estimate"]
    return _valid(Ours.of(at["value"], at["interval"], at["n"]), metrics, "this_model")


def _baseline(read: Found, metrics: Found, stage: Stage) -> Ours:
    """Arc 2's unchanged model, on all its prompts."""
    del stage
    return _held(metrics, _of_table(metrics["baseline"]["table"], read["rate"]))


def _sweep(read: Found, metrics: Found, stage: Stage) -> Ours:
    """Arc 2's answers at one lambda of the chosen heads."""
    del stage
    point = _point(metrics, float(read["scale"]))
    if point is None:
        return Ours(why_not="this lambda is not among those swept")
    return _held(metrics, _of_table(point["table"], read["rate"]))


def _axis(read: Found, metrics: Found, stage: Stage) -> Ours:
    """Arc 2's text measure at one lambda."""
    del stage
    point = _point(metrics, float(read["scale"]))
    if point is None:
        return Ours(why_not="this lambda is not among those swept")
    if metrics["axis"]["kind"] != "text":
        return Ours(why_not=f"the answers do not tell ({metrics['axis']['why']}), so the sweep is "
                    f"read by {metrics['axis']['measure']}")  # fmt: skip
    at = point["axis"]
    if at is None:
        return Ours(why_not="no answer has what it takes")
    return Ours.of(at["mean"], at["interval"], at["n"])


def _point(metrics: Found, scale: float) -> Found | None:
    """Lambda 1 is the unchanged model; None for one that was not swept."""
    wanted = ("base",) if scale == 1 else ("top",)
    for one in metrics["sweep"]:
        if one["arm"] in wanted and (scale == 1 or one["lambda"] == scale):
            found: Found = one
            return found
    return None


def _head(read: Found, metrics: Found, stage: Stage) -> Ours:
    """The first head of a ranking; its size was selected, so its corrected p stands beside it."""
    del stage
    first = metrics["rankings"][read["method"]]["heads"][0]
    said = (
        f"L{first['layer']}H{first['head']}, the largest of all heads: corrected p "
        f"{first['p_corrected']:.2g}",
    )
    labelled = sum(
        int(word) for word in metrics["rankings"][read["method"]]["n"].split() if word.isdigit()
    )
    return Ours.of(first["effect"], first["interval"], labelled, said=said)


def _held(metrics: Found, found: Ours) -> Ours:
    """Where a judge labels, it must be above its bar."""
    judge = metrics["judge"]
    if judge is None or not judge["failing"]:
        return found
    return replace(found, why_not="the judge is below its bar")


_READERS: Mapping[str, Callable[[Found, Found, Stage], Ours]] = {
    "pass": _pass, "cell": _cell, "mcas": _mcas, "kept": _kept, "asserted": _asserted, "cut": _cut,
    "answers": _answers, "probe": _probe, "step": _step, "baseline": _baseline,
    "sweep": _sweep, "axis": _axis, "head": _head,
}  # fmt: skip
READERS = frozenset(_READERS)
"""Names that a recipe may use."""
