"""Estimates that the claims rest on, made from counts."""

from __future__ import annotations

import math

from scipy.stats import norm

from arcs.estimates import Estimate
from arcs.gates import load_gates
from evals.statistics.auc import hanley_mcneil_interval
from evals.statistics.differences import difference_of_rates
from evals.statistics.paired import mcnemar_exact, tango_interval

SMALLEST = load_gates().smallest_effect
"""The smallest effects that matter, from the gates file that ships with threearc."""


def paired_change(quantity: str, gained: int, lost: int, n: int) -> Estimate:
    """Difference of two rates over the same n items."""
    return Estimate(
        quantity=quantity,
        value=(gained - lost) / n,
        interval=tango_interval(gained, lost, n),
        interval_method="Tango, paired",
        n=n,
        p_value=mcnemar_exact(gained, lost),
        test="exact McNemar",
    )


def change_of_counts(quantity: str, before: tuple[int, int], after: tuple[int, int]) -> Estimate:
    """Second rate minus first, each (successes, n), as if of independent items."""
    found = difference_of_rates(*before, *after)
    return Estimate(
        quantity=quantity,
        value=found.value,
        interval=found.interval,
        interval_method="Newcombe, unpaired",
        n=before[1] + after[1],
        p_value=found.p_value,
        test="Fisher's exact",
    )


def published_auc(quantity: str, value: float, n_positive: int, n_negative: int) -> Estimate:
    """An AUC whose scores are not published."""
    return Estimate(
        quantity=quantity,
        value=value,
        interval=hanley_mcneil_interval(value, n_positive, n_negative),
        interval_method="Hanley-McNeil, from the counts",
        n=n_positive + n_negative,
        null=0.5,
    )


def change_between_budgets(
    small: tuple[int, int], large: tuple[int, int], n: int
) -> tuple[float, float]:
    """Difference of differences, small budget minus large, and its two-sided p.

    Each budget is (passes of base, passes of edited) of n items. Without per-item results the
    four rates are taken as independent, which is conservative: the same items at two budgets
    are positively correlated, so the true variance is smaller. Normal approximation.
    """
    rates = [count / n for count in (*small, *large)]
    change = (rates[1] - rates[0]) - (rates[3] - rates[2])
    deviation = math.sqrt(sum(rate * (1 - rate) for rate in rates) / n)
    return change, float(2 * norm.sf(abs(change) / deviation))
