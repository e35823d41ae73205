"""Difference of two rates measured on different items."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import fisher_exact
from statsmodels.stats.proportion import confint_proportions_2indep

from evals.statistics.rates import Interval


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
