"""How many items would settle a claim about a mean of paired differences."""

from __future__ import annotations

import math
from itertools import count

import numpy as np
from statsmodels.stats.power import TTestPower

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
