"""What a paired design of n items can see, and how many items would settle a claim."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.stats import binom, norm

from evals.statistics.paired import null_variance

NEVER_DISCORDANT = 1e-20
"""Below this no item is ever discordant, and scipy's binomial overflows."""
MOST_ITEMS = 100_000
"""Beyond this, "more items" is no longer advice: the effect lies at the border."""


def mcnemar_power(
    n: int, gain: float, loss: float, *, alpha: float = 0.05, smallest_effect: float = 0.0
) -> float:
    """Exact probability that McNemar's exact test rejects and |delta| >= smallest_effect.

    ``gain`` and ``loss`` are the true shares of items that only the edited, or only the base
    arm passes. Sums over the number m of discordant items, Binomial(n, gain + loss); given m,
    the gained ones are Binomial(m, gain / (gain + loss)).
    """
    discordance = gain + loss
    if n < 1 or min(gain, loss) < 0 or discordance > 1:
        raise ValueError(f"impossible design: n {n}, gain {gain}, loss {loss}")
    if discordance < NEVER_DISCORDANT:
        return 0.0
    spread = 8 * math.sqrt(n * discordance * (1 - discordance)) + 8  # leaves out < 1e-14
    low, high = max(1, int(n * discordance - spread)), min(n, int(n * discordance + spread))
    m = np.arange(low, high + 1)
    # Rejected when the larger count is at least k: 2 P(X >= k) <= alpha for X ~ Bin(m, 1/2).
    # The sum is symmetric, so that is X' = m - k with 2 P(X <= X') <= alpha.
    fewest = binom.ppf(alpha / 2, m, 0.5)
    fewest = np.where(2 * binom.cdf(fewest, m, 0.5) < alpha, fewest, fewest - 1)
    needed = np.maximum(m - fewest, np.ceil((m + smallest_effect * n) / 2 - 1e-9))
    rejects = sum(
        binom.sf(needed - 1, m, share / discordance)  # both tails cannot hold at once
        for share in (gain, loss)
    )
    return min(1.0, float((binom.pmf(m, n, discordance) * rejects).sum()))


def exclusion_power(
    n: int, gain: float, loss: float, smallest_effect: float, *, alpha: float = 0.05
) -> float:
    """Probability that Tango's interval lies inside (-smallest_effect, smallest_effect).

    Normal approximation with the variance under each border and under the truth, as in
    Nam 1997 (Biometrics 53:1422) for equivalence of paired proportions.
    """
    z = float(norm.ppf(1 - alpha / 2))
    delta = gain - loss
    deviation = math.sqrt(max(gain + loss - delta * delta, 1e-12))

    def passes(distance: float, variance: float) -> float:
        return float(norm.cdf((distance * math.sqrt(n) - z * math.sqrt(variance)) / deviation))

    above = passes(smallest_effect - delta, null_variance(gain, loss, 1.0, smallest_effect))
    below = passes(smallest_effect + delta, null_variance(loss, gain, 1.0, smallest_effect))
    return max(0.0, above + below - 1)


def decision_power(
    n: int, gain: float, loss: float, smallest_effect: float, *, alpha: float = 0.05
) -> float:
    """Probability that n items decide the claim: effect shown, or effect excluded."""
    shown = mcnemar_power(n, gain, loss, alpha=alpha, smallest_effect=smallest_effect)
    return min(1.0, shown + exclusion_power(n, gain, loss, smallest_effect, alpha=alpha))


@lru_cache(maxsize=1024)
def n_to_settle(
    gained: int,
    lost: int,
    n: int,
    smallest_effect: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """Number of items in all with which the claim would be decided with the given power.

    Takes the observed difference and discordance for the truth: where the observed effect is
    as large as the one that matters, the answer is the n to show it, else the n to exclude
    it. Half a discordant item is added on each side, so that "none seen among 20" is not read
    as "there are none". None where even :data:`MOST_ITEMS` would not do, because the effect
    lies at the border of what matters. Never below n + 1: this many did not settle it.
    """
    gain, loss = assumed_rates(gained, lost, n)

    def enough(items: int) -> bool:
        return decision_power(items, gain, loss, smallest_effect, alpha=alpha) >= power

    found = smallest_number(enough, MOST_ITEMS)
    return None if found is None else max(found, n + 1)


@lru_cache(maxsize=1024)
def n_to_exclude(
    gained: int,
    lost: int,
    n: int,
    smallest_effect: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """Number of items in all that would exclude an effect that matters if there is none.

    At the discordance seen, and never below n + 1; None where even :data:`MOST_ITEMS` would
    not do. For planning where the observed difference lies so near the smallest effect that
    taking it for the truth gives no number.
    """
    share = sum(assumed_rates(gained, lost, n)) / 2

    def enough(items: int) -> bool:
        return exclusion_power(items, share, share, smallest_effect, alpha=alpha) >= power

    found = smallest_number(enough, MOST_ITEMS)
    return None if found is None else max(found, n + 1)


@lru_cache(maxsize=1024)
def n_to_show(
    gained: int,
    lost: int,
    n: int,
    smallest_effect: float,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """Number of items in all that would show an effect of the size seen, if it is the true one.

    At the discordance seen, and never below n + 1; None where even :data:`MOST_ITEMS` would not
    do: the effect seen is smaller than the one that matters, or lies at its border.
    """
    gain, loss = assumed_rates(gained, lost, n)
    if abs(gain - loss) < smallest_effect:
        return None

    def enough(items: int) -> bool:
        shown = mcnemar_power(items, gain, loss, alpha=alpha, smallest_effect=smallest_effect)
        return shown >= power

    found = smallest_number(enough, MOST_ITEMS)
    return None if found is None else max(found, n + 1)


@lru_cache(maxsize=1024)
def minimum_detectable_effect(
    gained: int, lost: int, n: int, *, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """Smallest true difference that McNemar's exact test would show with the given power.

    At the discordance seen, or at the difference itself where that is larger (a difference
    of d needs at least the share d of discordant items). In steps of 0.001; None where no
    difference at all can be shown with so few items.
    """
    discordance = sum(assumed_rates(gained, lost, n))

    def enough(step: int) -> bool:
        effect = step / 1000
        total = max(discordance, effect)
        return mcnemar_power(n, (total + effect) / 2, (total - effect) / 2, alpha=alpha) >= power

    found = smallest_number(enough, 1000)
    return None if found is None else found / 1000


def assumed_rates(gained: int, lost: int, n: int) -> tuple[float, float]:
    """Shares of gained and lost items: the observed difference, the discordance shrunk."""
    if n < 1 or min(gained, lost) < 0 or gained + lost > n:
        raise ValueError(f"impossible counts: gained {gained}, lost {lost}, n {n}")
    discordance = (gained + lost + 1) / (n + 1)
    delta = (gained - lost) / n
    return (discordance + delta) / 2, (discordance - delta) / 2


def smallest_number(enough: Callable[[int], bool], most: int) -> int | None:
    """Smallest whole number from 1 to ``most`` that is enough, by doubling and bisection."""
    high = 1
    while not enough(high):
        if high >= most:
            return None
        high = min(2 * high, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
