"""Rows: the paper, an independent figure, ours, what had to be substituted, and a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arcs.paper.plan import Plan, Stage
from arcs.paper.reading import Ours, ours
from arcs.paper.recipe import Published, Recipe, Row
from evals.statistics.rates import wilson

WITHIN, OUTSIDE, NOT_MEASURED = "within the interval", "outside", "not measured"
NOT_PRINTED = "not in the paper"
"""Ours is measured, and the paper prints no number of it."""


def rows(
    recipe: Recipe, plan: Plan, metrics: Mapping[str, Any], refused: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Every row of the recipe, JSON-able; none joins checkpoints.

    ``metrics``: of the finished stages; ``refused``: why others could not be measured.
    """
    return [_row(one, plan, metrics, refused) for one in recipe.rows]


def _row(
    row: Row, plan: Plan, metrics: Mapping[str, Any], refused: Mapping[str, str]
) -> dict[str, Any]:
    found = _ours(row, plan, metrics, refused)
    stage = None if row.stage is None else plan.stage(row.stage)
    substituted = list(dict.fromkeys((*_of_stage(row, stage), *found.said, *row.substituted)))
    return {
        "quantity": row.name,
        "checkpoint": row.checkpoint,
        "unit": row.unit,
        "stage": row.stage,
        "paper": _published(row.paper),
        "independent": _published(row.independent),
        "ours": _shown(found),
        "substituted": substituted if found.value is not None else [],
        "word": _word(found, row.paper),
        "why_not": found.why_not,
        "independent_word": None if row.independent is None else _word(found, row.independent),
    }  # fmt: skip


def _of_stage(row: Row, stage: Stage | None) -> list[str]:
    """What its stage had to substitute; how others were trained says nothing of the base."""
    if stage is None:
        return []
    of_base = (row.read or {}).get("arm", "base") == "base"
    return [one for one in stage.substituted if not (of_base and one in stage.training)]


def _shown(found: Ours) -> dict[str, Any] | None:
    if found.value is None:
        return None
    interval = None
    if found.low is not None:
        interval = {"low": found.low, "high": found.high, "level": found.level}
    return {"value": found.value, "interval": interval, "n": found.n}


def _ours(row: Row, plan: Plan, metrics: Mapping[str, Any], refused: Mapping[str, str]) -> Ours:
    if row.stage is None or row.read is None:
        return Ours(why_not=row.why_not)
    if row.stage in plan.left_out:
        return Ours(why_not=plan.left_out[row.stage])
    if row.stage in refused:
        return Ours(why_not=refused[row.stage])
    stage = plan.stage(row.stage)
    assert stage is not None  # planned or left out
    return ours(row.read, metrics[row.stage], stage)


def _word(found: Ours, published: Published | None) -> str:
    if found.value is None or found.why_not is not None or found.low is None:
        return NOT_MEASURED
    if published is None:
        return NOT_PRINTED
    assert found.high is not None
    return WITHIN if found.low <= published.number <= found.high else OUTSIDE


def _published(one: Published | None) -> dict[str, Any] | None:
    if one is None:
        return None
    interval = wilson(one.k, one.n).to_json() if one.k is not None and one.n else None
    return {"value": one.number, "k": one.k, "n": one.n, "interval": interval, "place": one.place}
