"""Difference and ratio of two rates measured on different items."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import fisher_exact
from statsmodels.stats.proportion import confint_proportions_2indep

from evals.statistics.rates import Interval, wilson


@dataclass(frozen=True)
class Difference:
    """Second rate minus first rate."""

    value: float
    interval: Interval
    p_value: float
    """Two-sided, Fisher's exact test. It is more cautious than the interval: the interval may
    leave out 0 by a little where the test does not reject."""


def difference_of_rates(
    successes1: int, n1: int, successes2: int, n2: int, level: float = 0.95
) -> Difference:
    """Compare two independent rates, ``successes2 / n2`` against ``successes1 / n1``.

    The interval is Newcombe's hybrid of the two Wilson intervals (Newcombe 1998, Statistics in
    Medicine 17:873, method 10), from statsmodels. It never collapses to a point. For the same
    items measured twice use ``paired_difference``. Raises ValueError for impossible counts.
    """
    for successes, n in ((successes1, n1), (successes2, n2)):
        if n < 1 or not 0 <= successes <= n:
            raise ValueError(f"impossible counts: {successes} of {n}")
    low, high = confint_proportions_2indep(
        successes2, n2, successes1, n1, method="newcomb", compare="diff", alpha=1 - level
    )
    test = fisher_exact([[successes1, n1 - successes1], [successes2, n2 - successes2]])
    value = successes2 / n2 - successes1 / n1
    # Rounding may put a limit on the wrong side of the estimate by one unit in the last place.
    interval = Interval(min(float(low), value), max(float(high), value), level)
    return Difference(value, interval, float(test.pvalue))


@dataclass(frozen=True)
class Ratio:
    """Second rate over first rate."""

    value: float
    """Infinite where only the first rate is 0."""
    interval: Interval
    """The upper end is infinite where the first rate is 0."""


def ratio_of_rates(
    successes1: int, n1: int, successes2: int, n2: int, level: float = 0.95
) -> Ratio | None:
    """Compare two independent rates by (``successes2 / n2``) / (``successes1 / n1``).

    The interval is made of the two Wilson intervals, as that of the difference is (MOVER-R, Donner
    & Zou 2012, Statistical Methods in Medical Research 21:347): statsmodels' score interval leaves
    the real numbers where a rate is 0 or 1, its logarithmic ones have no width at 1. None
    where both rates are 0: any ratio fits. Raises ValueError for impossible counts.
    """
    for successes, n in ((successes1, n1), (successes2, n2)):
        if n < 1 or not 0 <= successes <= n:
            raise ValueError(f"impossible counts: {successes} of {n}")
    if successes1 == successes2 == 0:
        return None
    first, second = wilson(successes1, n1, level), wilson(successes2, n2, level)
    p1, p2 = successes1 / n1, successes2 / n2
    product = p1 * p2
    above, below = second.low * (2 * p2 - second.low), first.high * (2 * p1 - first.high)
    root = product + math.sqrt(max(product**2 - above * below, 0.0))
    low = above / root if root > 0 else 0.0  # the usual formula, without a difference of equals
    above, below = second.high * (2 * p2 - second.high), first.low * (2 * p1 - first.low)
    root = product + math.sqrt(max(product**2 - above * below, 0.0))
    high = root / below if below > 0 else math.inf
    value = p2 / p1 if p1 else math.inf
    return Ratio(value, Interval(min(low, value), max(high, value), level))
