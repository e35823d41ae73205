"""One table in the form of the paper's Table 1: a row a checkpoint, each measure with interval.

A cell holds what one instrument measured on that row's checkpoint and on no other. The paper's
values stand in rows of their own where the run's model is one of the paper's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from evals.judges.instruments import MCAS_AXES
from evals.statistics.rates import wilson

FILE = Path(__file__).with_name("paper_rows.toml")
RUN, PAPER = "run", "paper"
HUMANEVAL = "HumanEval"
Json = Mapping[str, Any]
Cell = dict[str, Any]
MEASURES: Mapping[str, str] = {
    "humaneval": "HumanEval",
    "benchmark": "benchmark",
    "small": "small tasks",
    "short_answers": "short answers",
    "recovery": "recovery",
    "chef": "Chef coverage",
    "asserted": "asserted",
    "svr": "SVR",
    "mcas": "MCAS %",
    "mcas_original": "MCAS % as first scored",
    "mcas_25": "MCAS of 25",
    "hedging": "meter: hedging",
    "self_checking": "meter: self-checking",
    "deferring": "meter: deferring",
}
"""Key of a cell -> what people read."""


SVR_FROM: Sequence[str] = ("chef", "mcas", "recovery")
"""Whose answers the column SVR is of: the first of these that the run has, for every row."""


class Compared(Protocol):
    """What of an arm's comparison with the base the table needs."""

    @property
    def budgets(self) -> Any:
        """Rising n_predict."""


def own_rows(
    arms: Mapping[str, Compared], benchmark: str, evaluations: Mapping[str, Json]
) -> list[dict[str, Any]]:
    """Base and each arm of a run, controls too. ``arms``: pass@1 on ``benchmark`` by arm."""
    solved = "humaneval" if benchmark == HUMANEVAL else "benchmark"
    first = next(iter(arms.values()))
    rates = {"base": first.budgets[-1].base}
    rates |= {arm: one.budgets[-1].trained for arm, one in arms.items()}
    names = [*rates]
    for found in evaluations.values():
        names += [name for name in found["conditions"] if name not in names]
    svr_from = next((one for one in SVR_FROM if one in evaluations), None)
    rows = []
    for name in names:
        cells: dict[str, Cell | None] = dict.fromkeys(MEASURES)
        if name in rates:
            cells[solved] = _pass_rate(rates[name].model_dump(mode="json"))
        for evaluation, found in evaluations.items():
            if name in found["conditions"]:
                _fill(cells, evaluation, found, name, svr_from)
        rows.append({"of": RUN, "name": name, "checkpoint": name, "cells": cells})
    return rows


def _fill(
    cells: dict[str, Cell | None], evaluation: str, found: Json, name: str, svr_from: str | None
) -> None:
    """Put what an evaluation says of a condition into its row, SVR from ``svr_from`` alone."""
    for measure, cell in cells_of(evaluation, found, name).items():
        if measure != "svr" or evaluation == svr_from:
            cells[measure] = cell


def cells_of(evaluation: str, found: Json, name: str) -> dict[str, Cell]:
    """What an evaluation says of a condition, by measure; each says whether its judge failed."""
    condition, failing = found["conditions"][name], _failing(found)
    return {
        measure: {**cell, "judge_not_valid": bool(failing & set(_NEEDS.get(measure, ())))}
        for measure, cell in _CELLS[evaluation](condition.get("result", condition)).items()
        if cell is not None
    }


def paper_rows(model: str) -> list[dict[str, Any]]:
    """The paper's rows of this model; none for a model that is not among its own."""
    return [
        {
            "of": PAPER,
            "name": row["name"],
            "checkpoint": row["checkpoint"],
            "cells": {measure: _published(row.get(measure)) for measure in MEASURES},
        }
        for row in _published_rows()
        if row["model"] == model
    ]


def spread(rows: Sequence[Sequence[Json]]) -> list[dict[str, Any]]:
    """By arm and measure, the values of all seeds: mean, least, most. ``rows``: a table a seed."""
    by_seed = [{row["name"]: row["cells"] for row in table} for table in rows]
    made = []
    for name in (row["name"] for row in rows[0]):
        cells = {}
        for measure in MEASURES:
            found = [own[name].get(measure) for own in by_seed if name in own]
            there = [one for one in found if one and one["value"] is not None]
            known = [one["value"] for one in there]
            if known:
                cells[measure] = {
                    "mean": sum(known) / len(known),
                    "least": min(known),
                    "most": max(known),
                    "seeds": len(known),
                    "judge_not_valid": any(one.get("judge_not_valid", False) for one in there),
                }
        made.append({"name": name, "cells": cells})
    return made


@cache
def _published_rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads(FILE.read_text(encoding="utf-8"))["row"]
    return found


def _published(given: Json | None) -> Cell | None:
    if given is None:
        return None
    if "k" in given:
        interval = wilson(given["k"], given["n"]).to_json()
        return {"value": given["k"] / given["n"], "n": given["n"], "interval": interval}
    return {"value": given["value"], "n": given["n"], "interval": None}


def _pass_rate(arm: Json) -> Cell:
    counted = arm["n_items"] - arm["missing"]
    return {"value": arm["pass_at_1"], "n": counted, "interval": arm["interval"]}


def _cell(found: Json | None, key: str = "value") -> Cell | None:
    if found is None:
        return None
    return {"value": found[key], "n": found["n"], "interval": found["interval"]}


def _last(result: Json) -> Json:
    """What a result says at its largest n_predict."""
    budgets: Mapping[str, Json] = result["budgets"]
    return budgets[max(budgets, key=int)]


def _small(result: Json) -> dict[str, Cell | None]:
    return {"small": _pass_rate(_last(result))}


def _meter(result: Json) -> dict[str, Cell | None]:
    return {axis: _cell(one, "mean") for axis, one in result["axes"].items()}


def _chef(result: Json) -> dict[str, Cell | None]:
    found = _last(result)
    asserted = found["all"]["delivery"]["0.5"]["assertion_rate"]
    return {"chef": _cell(found["all"]["coverage"], "mean"), "asserted": _cell(asserted),
            **_svr(found)}  # fmt: skip


def _mcas(result: Json) -> dict[str, Cell | None]:
    found = _last(result)
    scores = found["all"]["all"]
    return {
        "mcas": _cell(scores["penalised_percent"]),
        "mcas_original": _cell(scores["original_percent"]),
        "mcas_25": _cell(scores["out_of_25"]),
        **_svr(found),
    }


def _recovery(result: Json) -> dict[str, Cell | None]:
    found = _last(result)
    return {"recovery": _cell(found["all"]["recovered"]), **_svr(found)}


def _svr(found: Json) -> dict[str, Cell | None]:
    return {"svr": _cell(found["self_verification"]["all"]["precise"])}


def _short(result: Json) -> dict[str, Cell | None]:
    found = {"value": result["accuracy"], "n": result["n"], "interval": result["interval"]}
    return {"short_answers": found}


_CELLS: Mapping[str, Callable[[Json], dict[str, Cell | None]]] = {
    "small": _small,
    "meter": _meter,
    "short-answers": _short,
    "chef": _chef,
    "mcas": _mcas,
    "recovery": _recovery,
}
_NEEDS: Mapping[str, Sequence[str]] = {
    "svr": ("svr",),
    "chef": ("coverage",),
    "asserted": ("delivery",),
    "mcas": ("mcas.holistic", "delivery"),
    "mcas_original": ("mcas.holistic",),
    "mcas_25": tuple(one.name for one in MCAS_AXES),
}
"""Instruments of a judge that a cell rests on."""


def _failing(evaluation: Json) -> set[str]:
    held = dict((evaluation["judge"] or {"validity": {}})["validity"])
    if evaluation.get("self_verification"):  # a rule, held to the bar as well
        held["svr"] = evaluation["self_verification"]
    return {name for name, one in held.items() if not one["passes"]}
