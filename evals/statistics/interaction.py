"""Does the difference between two arms depend on the token budget?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

Passes = Sequence[bool | None]


def budget_interaction(
    base_small: Passes, edited_small: Passes, base_large: Passes, edited_large: Passes
) -> float:
    """Two-sided p-value of a budget-by-arm interaction, by paired sign flips over items.

    An item's value is (edited - base) at the small budget minus (edited - base) at the large
    one, a whole number from -2 to 2. Without an interaction it is as likely to be v as -v, so
    the null distribution of the sum is that of all sign flips of the non-zero values. Those
    are ones and twos only: the distribution is a convolution of two binomials and is computed
    exactly at any size. There is no Monte Carlo, hence no seed and no +1 correction.

    All four sequences are in the same item order; an item missing (None) anywhere is left out.
    Raises ValueError when the lengths differ.
    """
    rows = zip(base_small, edited_small, base_large, edited_large, strict=True)
    values = [
        (int(es) - int(bs)) - (int(el) - int(bl))
        for bs, es, bl, el in rows
        if bs is not None and es is not None and bl is not None and el is not None
    ]
    ones = sum(abs(v) == 1 for v in values)
    twos = sum(abs(v) == 2 for v in values)
    probability = _sum_of_flips(ones, twos)
    largest = ones + 2 * twos
    sums = np.arange(-largest, largest + 1)
    return min(1.0, float(probability[np.abs(sums) >= abs(sum(values))].sum()))


def _sum_of_flips(ones: int, twos: int) -> NDArray[np.float64]:
    """Probabilities of the sums -(ones + 2 twos) ... +(ones + 2 twos), [2 ones + 4 twos + 1]."""
    return np.convolve(_binomial_steps(ones, 2), _binomial_steps(twos, 4))


def _binomial_steps(count: int, step: int) -> NDArray[np.float64]:
    """Probabilities of the sum of ``count`` flipped values, on a grid of spacing 1."""
    grid = np.zeros(count * step + 1)
    grid[::step] = binom.pmf(np.arange(count + 1), count, 0.5)
    return grid
