"""Audits of ranked effects: the largest of many, and directions scored on their own items."""

from __future__ import annotations

import math
from functools import lru_cache

from arcs.audits.findings import Audit, Finding, Outcome, Severity, outcome
from arcs.audits.results import EffectRanking, Results
from evals.statistics.permutation import (
    expected_absolute_maximum_of_normals,
    expected_in_sample_direction_effect,
    expected_maximum_of_normals,
    largest_effect_p_value,
)

ALPHA = 0.05


def selection_without_null(results: Results) -> Outcome:
    """Find rankings whose best effects were taken without saying what noise would give."""
    places = [r for r in results.rankings if _is_plain_ranking(r)]
    return outcome((_ranking_finding(r) for r in places if not r.null_reported), len(places))


def _is_plain_ranking(ranking: EffectRanking) -> bool:
    """Whether the null of the ranking is that of two groups of a number each.

    A direction scored on its own items has another null, which its own audit gives.
    """
    fitted = ranking.direction_dimension is not None and not ranking.cross_fitted
    return len(ranking.effects) > 1 and min(ranking.n_first, ranking.n_second) > 1 and not fitted


def _ranking_finding(ranking: EffectRanking) -> Finding:
    values = [one.effect for one in ranking.effects]
    top = max(ranking.effects, key=lambda one: one.effect if ranking.signed else abs(one.effect))
    error = math.sqrt(1 / ranking.n_first + 1 / ranking.n_second)
    statistic = (top.effect if ranking.signed else abs(top.effect)) / error
    freedom = ranking.n_first + ranking.n_second - 2
    p_value = largest_effect_p_value(statistic, len(values), freedom, signed=ranking.signed)
    expected = _expected_maximum(len(values), ranking.signed)
    noise = p_value > ALPHA
    message = (
        f"{top.name} has the largest effect of {len(values)} ({top.effect:.3f}, {statistic:.2f} "
        f"standard errors); noise alone is expected to give {expected:.2f}"
    )
    verdict = "it cannot be told from a pick of noise" if noise else "no null was reported for it"
    return Finding(
        Severity.INVALIDATES if noise else Severity.CAUTION,
        f"{ranking.name} ({ranking.source.name})",
        f"{message}, and a maximum this large has p = {p_value:.2g} if the candidates are "
        f"independent (correlated ones make it smaller): {verdict}.",
        "Permute the group labels and compare with the distribution of the maximum, or choose "
        "on one half of the items and test on the other.",
        {
            "candidates": len(values),
            "largest": top.name,
            "effect": top.effect,
            "null_standard_error": error,
            "statistic": statistic,
            "expected_maximum": expected,
            "p_of_maximum_if_independent": p_value,
            "mean_effect": sum(values) / len(values),
            "share_above_zero": sum(v > 0 for v in values) / len(values),
        },
    )


@lru_cache(maxsize=256)
def _expected_maximum(candidates: int, signed: bool) -> float:
    if signed:
        return float(expected_maximum_of_normals(candidates))
    return float(expected_absolute_maximum_of_normals(candidates))


def in_sample_direction(results: Results) -> Outcome:
    """Find effects along a direction that was fitted on the very items it is scored on."""
    places = [
        (ranking, ranking.direction_dimension)
        for ranking in results.rankings
        if ranking.direction_dimension and ranking.effects
    ]
    found = (_direction_finding(r, d) for r, d in places if not r.cross_fitted)
    return outcome(found, len(places))


def _direction_finding(ranking: EffectRanking, dimension: int) -> Finding:
    largest = max(abs(one.effect) for one in ranking.effects)
    possible = min(ranking.n_first, ranking.n_second) > 1
    expected = _in_sample(ranking, dimension) if possible else None
    enough = _explaining_dimension(ranking, largest, dimension) if possible else None
    says = "" if expected is None else f"; noise gives {expected:.2f} in {dimension} dimensions"
    if enough is not None:
        says += f", and {enough} effective ones are enough for the effect seen"
    return Finding(
        Severity.INVALIDATES,
        f"{ranking.name} ({ranking.source.name})",
        f"The direction was fitted on the same {ranking.n_first} and {ranking.n_second} items "
        f"that it is scored on: the largest effect is {largest:.2f}{says}.",
        "Fit the direction on some folds and score it on the others, and permute the labels.",
        {
            "largest_effect": largest,
            "dimension": dimension,
            "n_first": ranking.n_first,
            "n_second": ranking.n_second,
            "expected_without_effect": expected,
            "dimensions_that_explain_it": enough,
        },
    )


@lru_cache(maxsize=1024)
def _in_sample_effect(dimension: int, n_first: int, n_second: int) -> float:
    return float(expected_in_sample_direction_effect(dimension, n_first, n_second))


def _in_sample(ranking: EffectRanking, dimension: int) -> float:
    return _in_sample_effect(dimension, ranking.n_first, ranking.n_second)


def _explaining_dimension(ranking: EffectRanking, effect: float, most: int) -> int | None:
    """Fewest effective dimensions in which noise is expected to give the effect; None: none."""
    if _in_sample(ranking, most) < effect:
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _in_sample(ranking, middle) >= effect else (middle, high)
    return high


AUDITS: tuple[Audit, ...] = (
    Audit(
        "selection-without-null",
        "Were the best of many effects taken without what noise would give?",
        "ranked effects of at least two candidates",
        selection_without_null,
    ),
    Audit(
        "in-sample-direction",
        "Is an effect measured along a direction fitted on the same items?",
        "effects along a fitted direction",
        in_sample_direction,
    ),
)
