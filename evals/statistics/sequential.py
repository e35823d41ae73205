"""Looking at a growing experiment more than once without more false effects than promised.

Alpha is spent over looks (Lan & DeMets 1983, Biometrika 70:659) by the function whose bounds are
nearly O'Brien and Fleming's: almost nothing early, nearly all of it at the last look. Looks need
not be equally spaced, and the bound of a look depends on no later one.

Two bounds are made of it. :func:`nominal_levels` treats the statistic as Brownian motion and is
known before any item is seen. :func:`exact_bounds` takes the sizes of the paired differences that
were seen and works out, over all flips of their signs, how often a path with no effect would have
crossed by now; where the nominal level would spend more than was allowed, it is lowered. The
exact bound therefore holds its level whatever the discreteness, and however many items differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import norm

from evals.statistics.sign_flips import flipped_sums

FloatArray = NDArray[np.float64]

NODES = 300
"""Of the integration between two bounds; 5 published bounds come out to 4 digits with 100."""
NO_ALPHA = 1e-12
"""Less than this cannot be told from nothing: such a look decides nothing."""
_FARTHEST = 9.0


def spent(fraction: float, alpha: float) -> float:
    """Two-sided alpha that may be spent up to this fraction of the last look's items.

    Each side spends 2 - 2 Phi(z_{alpha/4} / sqrt(t)), the O'Brien-Fleming type of Lan and DeMets.
    Raises ValueError unless 0 < fraction <= 1 and 0 < alpha < 1.
    """
    if not 0 < fraction <= 1 or not 0 < alpha < 1:
        raise ValueError(f"no spending at fraction {fraction} of alpha {alpha}")
    return float(4 * norm.sf(norm.isf(alpha / 4) / math.sqrt(fraction)))


def nominal_levels(fractions: Sequence[float], alpha: float) -> tuple[float, ...]:
    """The two-sided level at which each look is tested; 0 where there is no alpha to speak of.

    ``fractions`` rise to at most 1. By numerical integration (Armitage, McPherson & Rowe 1969).
    """
    levels: list[float] = []
    path, before, charged = _Path(), 0.0, 0.0
    for fraction in _rising(fractions):
        allowed = spent(fraction, alpha)
        bound = path.bound(fraction - before, math.sqrt(fraction), allowed - charged)
        levels.append(0.0 if bound is None else float(2 * norm.sf(bound)))
        path = path.after(fraction - before, (bound or _FARTHEST) * math.sqrt(fraction))
        charged, before = charged if bound is None else allowed, fraction
    return tuple(levels)


def crossing(
    fractions: Sequence[float], levels: Sequence[float], drift: float = 0.0
) -> tuple[float, ...]:
    """Probability of the first crossing at each look, of either bound.

    ``drift``: expected z at fraction 1.
    """
    found: list[float] = []
    path, before = _Path(), 0.0
    for fraction, level in zip(_rising(fractions), levels, strict=True):
        bound = norm.isf(level / 2) if level > NO_ALPHA else _FARTHEST
        edge = float(bound) * math.sqrt(fraction)
        found.append(path.beyond(fraction - before, edge, drift))
        path = path.after(fraction - before, edge, drift)
        before = fraction
    return tuple(found)


class _Path:
    """Density of the score of paths that crossed no bound, on nodes between the last bounds."""

    def __init__(self, nodes: FloatArray | None = None, mass: FloatArray | None = None) -> None:
        self.nodes = np.zeros(1) if nodes is None else nodes
        self.mass = np.ones(1) if mass is None else mass

    def beyond(self, time: float, edge: float, drift: float = 0.0) -> float:
        """Mass that lies beyond +edge or -edge after ``time``."""
        spread, middle = math.sqrt(time), self.nodes + drift * time
        tails = ndtr((middle - edge) / spread) + ndtr((-middle - edge) / spread)
        return float(self.mass @ tails)

    def bound(self, time: float, deviation: float, allowed: float) -> float | None:
        """The z beyond which ``allowed`` of the mass lies; None where that is nothing."""
        if allowed < NO_ALPHA:
            return None
        if self.beyond(time, 0.0) <= allowed:
            return 0.0
        found = brentq(
            lambda z: self.beyond(time, z * deviation) - allowed, 0.0, _FARTHEST, xtol=1e-10
        )
        return float(found)

    def after(self, time: float, edge: float, drift: float = 0.0) -> _Path:
        """What is left between the bounds after ``time``."""
        unit, weights = _nodes()
        nodes, spread = unit * edge, math.sqrt(time)
        steps = (nodes[:, None] - self.nodes[None, :] - drift * time) / spread
        moved = np.exp(-(steps**2) / 2) / (spread * math.sqrt(2 * math.pi))
        return _Path(nodes, (moved @ self.mass) * weights * edge)


@lru_cache(maxsize=1)
def _nodes() -> tuple[FloatArray, FloatArray]:
    unit, weights = np.polynomial.legendre.leggauss(NODES)
    return unit, weights


@dataclass(frozen=True)
class ExactBound:
    """The test of one look."""

    least: int | None
    """Smallest size of the sum of differences that counts as an effect; None: none does."""
    level: float
    """An exact two-sided sign-flip p below this is an effect; it may lie below every p there is."""
    lowered: bool
    """Whether the nominal level would have spent more than was allowed by now."""
    crossed: float
    """Probability, over all signs of the differences seen, that a path without any effect has
    crossed at this look or an earlier one."""


def exact_bounds(
    differences: Sequence[Sequence[int]], levels: Sequence[float], allowed: Sequence[float]
) -> list[ExactBound]:
    """The bound of each look so far, by the distribution of its cumulative sum over sign flips.

    ``differences``: the items' whole-number differences that each look added; their signs do not
    matter here. ``levels``: nominal ones; ``allowed``: alpha that may be spent up to each look.
    Raises ValueError where the three differ in length.
    """
    found: list[ExactBound] = []
    marginal, inside, crossed = np.ones(1), np.ones(1), 0.0
    for added, level, most in zip(differences, levels, allowed, strict=True):
        marginal, inside = flipped_sums(added, marginal), flipped_sums(added, inside)
        bound = _bound(_tails(marginal), _tails(inside), level, most - crossed)
        crossed += bound.crossed
        found.append(ExactBound(bound.least, bound.level, bound.lowered, crossed))
        if bound.least is not None:
            inside = _absorbed(inside, bound.least)
    return found


def _bound(marginal: FloatArray, inside: FloatArray, level: float, room: float) -> ExactBound:
    """``marginal``, ``inside``: P(|sum| >= s) at s = 0, 1, ...; ``crossed`` is of this look."""
    attained = np.flatnonzero(-np.diff(np.append(marginal, 0.0)) > 0)  # sizes that a sum can have
    nominal = [int(s) for s in attained if s > 0 and marginal[s] < level and level > NO_ALPHA]
    kept = [s for s in nominal if inside[s] <= room]
    spends = float(inside[kept[0]]) if kept else 0.0
    if len(kept) == len(nominal):
        return ExactBound(kept[0] if kept else None, level, False, spends)
    # Between two attained p-values, so that rounding of a p does not decide.
    smaller = nominal[len(nominal) - len(kept) - 1]
    next_p = float(marginal[kept[0]]) if kept else 0.0
    between = (next_p + float(marginal[smaller])) / 2
    return ExactBound(kept[0] if kept else None, between, True, spends)


def _tails(probability: FloatArray) -> FloatArray:
    """P(|sum| >= s) for s = 0 ... the largest sum."""
    middle = len(probability) // 2
    of_size = probability[middle:].copy()
    of_size[1:] += probability[:middle][::-1]
    tails: FloatArray = np.cumsum(of_size[::-1])[::-1]
    return tails


def _absorbed(probability: FloatArray, least: int) -> FloatArray:
    sums = np.arange(len(probability)) - len(probability) // 2
    return np.where(np.abs(sums) >= least, 0.0, probability)


def _rising(fractions: Sequence[float]) -> Sequence[float]:
    if not fractions or any(b <= a for a, b in zip((0.0, *fractions), fractions, strict=False)):
        raise ValueError(f"looks are at rising fractions above 0, not {list(fractions)}")
    if fractions[-1] > 1 + 1e-12:
        raise ValueError(f"no look lies beyond the last item: {fractions[-1]}")
    return fractions
