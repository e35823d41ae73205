"""How likely looks still to come decide a claim, given what the first look saw: by simulation.

One path is one way in which the items to come could fall out. Rates, or mean and deviation, are
assumed; the rule at each look is that of the experiment: an effect is shown where p is below the
look's level and the estimate is as large as one that matters, and excluded where the repeated
interval (Jennison & Turnbull 1989) holds none that large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from evals.statistics.paired import tango_score
from evals.statistics.sequential import NO_ALPHA

PATHS, SEED = 4000, 0
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Decided:
    """Shares of paths up to each look to come, cumulative."""

    shown: tuple[float, ...]
    excluded: tuple[float, ...]

    @property
    def power(self) -> float:
        """That the last look leaves nothing open."""
        return self.shown[-1] + self.excluded[-1] if self.shown else 0.0


def of_rates(
    first: tuple[int, int, int],
    sizes: Sequence[int],
    levels: Sequence[float],
    rates: tuple[float, float],
    smallest: float,
    *,
    paths: int = PATHS,
    seed: int = SEED,
) -> Decided:
    """Yes-or-no items. ``first``: gained, lost and items so far; ``sizes``: items in all at each
    look to come; ``rates``: true shares of gained and lost items. Exact McNemar, Tango's interval.
    """
    rng = np.random.default_rng(seed)
    gained, lost = (np.full(paths, count) for count in first[:2])
    before, seen = first[2], _Seen(paths)
    for n, level in zip(sizes, levels, strict=True):
        new = rng.multinomial(n - before, [*rates, max(0.0, 1 - sum(rates))], size=paths)
        gained, lost, before = gained + new[:, 0], lost + new[:, 1], n
        pairs, place = np.unique(np.stack([gained, lost]), axis=1, return_inverse=True)
        p = np.minimum(1.0, 2 * binom.cdf(pairs.min(axis=0), pairs.sum(axis=0), 0.5))
        enough = np.abs(pairs[0] - pairs[1]) >= smallest * n - 1e-9
        shown = (p < level) & enough
        z = float(norm.isf(level / 2)) if level > NO_ALPHA else math.inf
        excluded = np.array([_excludes(int(g), int(b), n, smallest, z) for g, b in pairs.T])
        at = place.reshape(-1)
        seen.look(shown[at], (excluded & ~shown)[at])
    return seen.decided()


def of_means(
    first: tuple[float, int],
    sizes: Sequence[int],
    levels: Sequence[float],
    truth: tuple[float, float],
    smallest: float,
    *,
    upwards: bool = False,
    paths: int = PATHS,
    seed: int = SEED,
) -> Decided:
    """Means of differences. ``first``: mean and items so far; ``truth``: mean and standard
    deviation. Normal test and interval. ``upwards``: only a rise is claimed, so that a fall shows
    nothing and excludes it."""
    rng = np.random.default_rng(seed)
    (mean, deviation), before, seen = truth, first[1], _Seen(paths)
    total = np.full(paths, first[0] * first[1])
    for n, level in zip(sizes, levels, strict=True):
        new = n - before
        total = total + rng.normal(mean * new, deviation * math.sqrt(new), size=paths)
        before, error, estimate = n, deviation / math.sqrt(n), total / n
        z = float(norm.isf(level / 2)) if level > NO_ALPHA else math.inf
        size = estimate if upwards else np.abs(estimate)
        shown = (size >= max(z * error, smallest)) & math.isfinite(z)
        excluded = size + z * error < smallest
        seen.look(shown, excluded & ~shown)
    return seen.decided()


def _excludes(gained: int, lost: int, n: int, smallest: float, z: float) -> bool:
    """Whether Tango's interval lies inside the smallest effect; without solving for its ends."""
    above = tango_score(gained, lost, n, smallest)
    return above < -z and tango_score(gained, lost, n, -smallest) > z


class _Seen:
    """What became of the paths, look by look."""

    def __init__(self, paths: int) -> None:
        self.open = np.ones(paths, dtype=bool)
        self.counts: list[tuple[float, float]] = []

    def look(self, shown: Bools, excluded: Bools) -> None:
        """Close the open paths that this look decides."""
        now = (float((self.open & shown).mean()), float((self.open & excluded).mean()))
        self.counts.append(now)
        self.open &= ~(shown | excluded)

    def decided(self) -> Decided:
        shown, excluded = (np.cumsum([one[side] for one in self.counts]) for side in (0, 1))
        return Decided(tuple(map(float, shown)), tuple(map(float, excluded)))
