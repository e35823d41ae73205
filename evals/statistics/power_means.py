"""How many items would settle a claim about a mean of paired differences."""

from __future__ import annotations

import math
from itertools import count

from scipy.stats import norm
from scipy.stats import t as student
from statsmodels.stats.power import TTestPower

from evals.statistics.power import MOST_ITEMS, smallest_number
from evals.statistics.sign_flips import smallest_sign_flip_p


def paired_items(effect: float, n: int, *, alpha: float, power: float) -> int | None:
    """Items, more than the ``n`` there are, at which the paired t test (statsmodels) finds a mean
    of ``effect`` standard deviations of the differences with ``power``; never so few that no
    sign-flip p is below ``alpha``. None where even :data:`MOST_ITEMS` would not do.
    """
    fewest = next(k for k in count(2) if smallest_sign_flip_p(k) < alpha)
    found = smallest_number(
        lambda items: _t_power(effect, max(items, fewest), alpha) >= power, MOST_ITEMS
    )
    return None if found is None else max(found, fewest, n + 1)


def _t_power(effect: float, items: int, alpha: float) -> float:
    """Power of the paired t test. scipy's noncentral t is NaN here and there where the mean lies
    some ten standard errors away; the normal approximation is 1 there to many digits.
    """
    found = float(TTestPower().power(effect, items, alpha))
    if not math.isnan(found):
        return found
    return float(norm.cdf(abs(effect) * math.sqrt(items) - student.isf(alpha / 2, items - 1)))


def mean_to_show(
    mean: float, deviation: float, n: int, smallest: float, *, alpha: float, power: float
) -> int | None:
    """Items in all at which a true mean like the one seen is shown, by the normal approximation:
    significant, and estimated as large as ``smallest``. None where it is smaller, or at the border.
    """
    if abs(mean) < smallest:
        return None
    if deviation <= 0:  # every item moves alike: any further one agrees
        return n + 1
    z = float(norm.isf(alpha / 2))

    def enough(items: int) -> bool:
        error = deviation / math.sqrt(items)
        least = max(z * error, smallest)
        return float(norm.cdf((abs(mean) - least) / error)) >= power

    found = smallest_number(enough, MOST_ITEMS)
    return None if found is None else max(found, n + 1)


def mean_to_exclude(
    deviation: float, n: int, smallest: float, *, alpha: float, power: float
) -> int | None:
    """Items in all that exclude a mean as large as ``smallest``, if it is 0 (normal)."""
    if deviation <= 0:
        return n + 1
    z = float(norm.isf(alpha / 2))

    def enough(items: int) -> bool:
        return 2 * float(norm.cdf(smallest * math.sqrt(items) / deviation - z)) - 1 >= power

    found = smallest_number(enough, MOST_ITEMS)
    return None if found is None else max(found, n + 1)
