"""How many items would settle a claim about a mean of paired differences."""

from __future__ import annotations

import math
from itertools import count

import numpy as np
from scipy.stats import norm
from statsmodels.stats.power import TTestPower

from evals.statistics.power import MOST_ITEMS, smallest_number
from evals.statistics.sign_flips import smallest_sign_flip_p


def paired_items(effect: float, n: int, *, alpha: float, power: float) -> int:
    """Items, more than the ``n`` there are, at which the paired t test (statsmodels) finds a mean
    of ``effect`` standard deviations of the differences with ``power``; never so few that no
    sign-flip p is below ``alpha``.
    """
    fewest = next(k for k in count(2) if smallest_sign_flip_p(k) < alpha)
    test = TTestPower()
    # asked first: statsmodels' solver finds nothing where a handful of items is enough
    if test.power(effect, fewest, alpha) >= power:
        return max(n + 1, fewest)
    needed = test.solve_power(effect_size=effect, alpha=alpha, power=power)
    return max(n + 1, math.ceil(float(np.squeeze(needed))))


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
