"""What an AUC, or a difference of two independent rates, can show with so many items."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from statsmodels.stats.proportion import power_proportions_2indep

from evals.statistics.auc import hanley_mcneil_variance
from evals.statistics.rates import Interval

MOST_ITEMS = 100_000
"""Beyond this, "more items" is no longer advice: the effect lies at the border."""


def auc_half_width(
    n_positive: int, n_negative: int, auc: float = 0.5, level: float = 0.95
) -> float:
    """Half the width that the interval of an AUC of this size is expected to have.

    Variance of Hanley and McNeil 1982 (Radiology 143:29); at 0.5 it is the exact variance of
    the Mann-Whitney statistic without ties. Raises ValueError for an empty class and for an
    AUC outside 0..1.
    """
    return _z(level) * _error(auc, n_positive, n_negative)


def minimum_detectable_auc(
    n_positive: int, n_negative: int, *, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """Smallest true AUC above 0.5 that a two-sided test against 0.5 shows with this power.

    Normal approximation with the variance under 0.5 and under the truth, both of Hanley and
    McNeil 1982. None where not even a perfect score can be shown. Raises ValueError for an
    empty class and for a power not above alpha / 2.
    """
    if not alpha / 2 < power < 1:
        raise ValueError(f"power must lie between alpha / 2 and 1, not {power}")
    critical = 0.5 + auc_half_width(n_positive, n_negative, level=1 - alpha)
    quantile = float(norm.ppf(power))

    def excess(auc: float) -> float:
        error = _error(auc, n_positive, n_negative)
        return auc - critical - quantile * error

    return float(brentq(excess, 0.5, 1.0)) if excess(1.0) > 0 > excess(0.5) else None


def n_to_settle_auc(
    auc: float,
    n_positive: int,
    n_negative: int,
    smallest_effect: float,
    *,
    null: float = 0.5,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """Items in all, at the same share of positives, that would decide the claim.

    Takes ``auc`` for the truth. Decided means shown (significantly away from ``null``, and
    the estimate at least ``smallest_effect`` from it) or excluded (the interval lies wholly
    within ``smallest_effect`` of ``null``). Normal approximation, variance of Hanley and
    McNeil 1982. None where even :data:`MOST_ITEMS` would not do, because the AUC lies at the
    border of what matters. Never below the present number + 1: this many did not settle it.
    Raises ValueError for impossible counts, AUCs or effects.
    """
    _check_design(n_positive, n_negative)
    if not (0 <= auc <= 1 and 0 < null < 1 and smallest_effect >= 0):
        raise ValueError(f"impossible claim: {auc} against {null}, effect {smallest_effect}")

    def enough(positive: int, negative: int) -> bool:
        truth = _error(auc, positive, negative)
        critical = _z(1 - alpha) * _error(null, positive, negative)
        return _decision_power(auc - null, truth, critical, smallest_effect, alpha) >= power

    return _least_more(n_positive, n_negative, enough)


def n_to_exclude_auc(
    n_positive: int,
    n_negative: int,
    smallest_effect: float,
    *,
    null: float = 0.5,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """Items in all, at the same share of positives, that exclude an AUC that matters if it is
    ``null``.

    Excluded means that the two-sided interval at 1 - ``alpha`` ends below ``null`` +
    ``smallest_effect``, as a claim that an AUC is *above* chance is refuted; how far below chance
    it reaches is nothing to such a claim. Normal approximation, variance of Hanley and McNeil
    1982. None where even :data:`MOST_ITEMS` would not do. Never below the present number + 1.
    Raises ValueError as :func:`n_to_settle_auc`.
    """
    _check_design(n_positive, n_negative)
    if not (0 < null < 1 and smallest_effect > 0):
        raise ValueError(f"nothing to exclude: {smallest_effect} above {null}")

    def enough(positive: int, negative: int) -> bool:
        error = _error(null, positive, negative)
        return float(norm.cdf(smallest_effect / error - _z(1 - alpha))) >= power

    return _least_more(n_positive, n_negative, enough)


def _least_more(n_positive: int, n_negative: int, enough: Callable[[int, int], bool]) -> int | None:
    """The least number above the present one, at its share of positives, that is enough.

    Neither class ever shrinks as items are added, so the standard errors only fall.
    """
    n, share = n_positive + n_negative, n_positive / (n_positive + n_negative)

    def at(items: int) -> bool:
        positive = round(items * share)
        return enough(positive, items - positive)

    tried = range(n + 1, MOST_ITEMS + 1)
    found = bisect_left(tried, True, key=at)
    return tried[found] if found < len(tried) else None


def n_to_hold(
    value: float, interval: Interval, n: int, threshold: float, *, power: float = 0.8
) -> int | None:
    """Items in all whose interval would lie wholly on one side of ``threshold``.

    Takes ``value`` for the truth and the width of ``interval``, of ``n`` items, for its error,
    which falls with the root of n (normal approximation). None where even :data:`MOST_ITEMS` would
    not do. Never below the present number + 1.
    """
    distance = abs(value - threshold)
    critical = float(norm.ppf((1 + interval.level) / 2))
    error = (interval.high - interval.low) / (2 * critical)
    if distance == 0:
        return None
    needed = math.ceil(n * ((critical + float(norm.ppf(power))) * error / distance) ** 2)
    return None if needed > MOST_ITEMS else max(needed, n + 1)


def minimum_detectable_rate_difference(
    rate: float, n1: int, n2: int, *, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """Smallest rise above ``rate`` that a two-sided comparison of two groups would show.

    ``rate`` is the true rate of the first group, of ``n1`` items; the other group has ``n2``.
    Power of the score test of two independent proportions, from statsmodels. For the smallest
    fall give ``1 - rate``. None where not even a rise to 1 can be shown. Raises ValueError
    for an empty group and a rate outside 0..1.
    """
    _check_design(n1, n2)
    if not 0 <= rate <= 1:
        raise ValueError(f"a rate lies between 0 and 1, not {rate}")

    def excess(rise: float) -> float:
        reached = power_proportions_2indep(
            rise, rate, n2, ratio=n1 / n2, alpha=alpha, return_results=False
        )
        return float(reached) - power

    # Rates of exactly 0 or 1 have no variance, and the power there is 0 / 0.
    low, high = 1e-9, 1 - rate - 1e-9
    if low >= high or not excess(high) > 0:
        return None
    return float(brentq(excess, low, high))


def _decision_power(
    effect: float, error: float, critical: float, smallest_effect: float, alpha: float
) -> float:
    """Probability that an estimate of this standard error shows the effect, or excludes it."""
    needed, z = max(critical, smallest_effect), _z(1 - alpha)
    shown = norm.sf((needed - effect) / error) + norm.cdf((-needed - effect) / error)
    above, below = norm.cdf(np.array([-effect, effect]) / error + smallest_effect / error - z)
    return float(shown + max(above + below - 1, 0.0))


def _error(auc: float, n_positive: int, n_negative: int) -> float:
    # A perfect AUC has no variance; a division by it must not fail.
    return max(math.sqrt(hanley_mcneil_variance(auc, n_positive, n_negative)), 1e-12)


def _check_design(first: int, second: int) -> None:
    if min(first, second) < 1:
        raise ValueError(f"both groups need an item: {first}, {second}")


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"a confidence level lies between 0 and 1, not {level}")
    return float(norm.ppf(0.5 + level / 2))
