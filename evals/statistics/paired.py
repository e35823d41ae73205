"""Two arms on the same items: the exact McNemar test and an interval of the difference.

Of the intervals for a difference of paired proportions we use Tango's score interval
(Tango 1998, Statistics in Medicine 17:891). It depends on the two discordant counts and n
only, needs no resampling, keeps its level when few items are discordant, where a bootstrap
has nothing to resample (no discordant item: a BCa interval does not exist) and Newcombe's
hybrid interval can collapse to a point, and it agrees with McNemar's test: the 95 percent
interval holds zero if and only if the uncorrected McNemar statistic is below 1.96 squared.
Neither scipy nor statsmodels has an interval for this difference. Its exact coverage is
computed in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from evals.statistics.rates import Interval


@dataclass(frozen=True)
class PairedCounts:
    """How two arms compare over the items that both have a result for."""

    gained: int
    """Items that only the edited arm passes."""
    lost: int
    """Items that only the base arm passes."""
    both: int
    neither: int
    missing: int
    """Items left out because either arm has no result."""

    @property
    def n(self) -> int:
        """Number of complete pairs."""
        return self.gained + self.lost + self.both + self.neither

    @property
    def missing_share(self) -> float:
        """Share of all items that had to be left out; 1 where nothing is left."""
        return self.missing / (self.n + self.missing) if self.n else 1.0

    @property
    def delta(self) -> float:
        """Rate of the edited arm minus rate of the base arm, over the complete pairs."""
        return (self.gained - self.lost) / self.n

    @property
    def base_rate(self) -> float:
        """Share of the complete pairs that the base arm passes."""
        return (self.both + self.lost) / self.n

    @property
    def edited_rate(self) -> float:
        """Share of the complete pairs that the edited arm passes."""
        return (self.both + self.gained) / self.n


def paired_counts(base: Sequence[bool | None], edited: Sequence[bool | None]) -> PairedCounts:
    """Count the pairs of two arms given in the same item order; None is a missing result.

    Raises ValueError when the arms differ in length.
    """
    pairs = list(zip(base, edited, strict=True))
    return PairedCounts(
        gained=pairs.count((False, True)),
        lost=pairs.count((True, False)),
        both=pairs.count((True, True)),
        neither=pairs.count((False, False)),
        missing=sum(b is None or e is None for b, e in pairs),
    )


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact p-value of McNemar's test: the discordant items as fair coin flips."""
    if gained < 0 or lost < 0:
        raise ValueError(f"discordant counts cannot be negative: {gained}, {lost}")
    if gained + lost == 0:
        return 1.0
    return float(binomtest(gained, gained + lost, 0.5).pvalue)


def paired_difference(
    base: Sequence[bool | None], edited: Sequence[bool | None], level: float = 0.95
) -> Interval:
    """Tango's interval of (rate of edited - rate of base); pairs with a None are left out.

    Raises ValueError when no complete pair is left.
    """
    counts = paired_counts(base, edited)
    return tango_interval(counts.gained, counts.lost, counts.n, level)


def tango_interval(gained: int, lost: int, n: int, level: float = 0.95) -> Interval:
    """Tango's score interval of (gained - lost) / n; raises ValueError on impossible counts."""
    if n < 1 or min(gained, lost) < 0 or gained + lost > n:
        raise ValueError(f"impossible counts: gained {gained}, lost {lost}, n {n}")
    # Written with one bound only, so that swapping the arms mirrors the interval exactly.
    return Interval(-_upper(lost, gained, n, level), _upper(gained, lost, n, level), level)


@lru_cache(maxsize=4096)
def _upper(gained: int, lost: int, n: int, level: float) -> float:
    observed = (gained - lost) / n
    if observed == 1.0:
        return 1.0
    z = float(norm.ppf(0.5 + level / 2))
    # The score falls from 0 at the observed difference to minus infinity at 1.
    nearly_one = math.nextafter(1.0, 0.0)
    found = brentq(lambda d: tango_score(gained, lost, n, d) + z, observed, nearly_one, xtol=1e-12)
    return max(float(found), observed)


def tango_score(gained: float, lost: float, n: float, difference: float) -> float:
    """Score statistic, standard normal where ``difference`` is the true difference.

    The counts may be fractions: the score of (g, l, 1) times sqrt(n) is that of (gn, ln, n).
    """
    excess = gained - lost - n * difference
    if excess == 0.0:
        return 0.0
    return excess / math.sqrt(n * null_variance(gained, lost, n, difference))


def null_variance(gained: float, lost: float, n: float, difference: float) -> float:
    """Variance of one item's difference, by maximum likelihood under a given true difference.

    The share q of lost items solves 2n q^2 + ((2n - gained + lost) d - gained - lost) q
    - lost d (1 - d) = 0 (Tango 1998, equation 12); the variance is 2q + d - d^2.
    """
    d = difference
    linear = (2 * n - gained + lost) * d - gained - lost
    discriminant = max(linear * linear + 8 * n * lost * d * (1 - d), 0.0)
    q = (math.sqrt(discriminant) - linear) / (4 * n)
    # A share below its own bounds, or a variance below 0, is rounding.
    q = max(q, 0.0, -d)
    return max(2 * q + d - d * d, math.ulp(1.0))
