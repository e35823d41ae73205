"""The exact sign-flip test of paired whole-number differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def sign_flip_p_value(values: Sequence[int]) -> float:
    """Two-sided exact p-value of "each value is as likely to be v as -v", by the sum.

    The distribution of the sum over all sign flips is a convolution of two-point distributions,
    computed exactly at any size: no Monte Carlo, no seed. Of values of -1, 0 and 1 it is the
    exact McNemar test. Zeros do not count. 1 where nothing differs.
    """
    probability = flipped_sums(values)
    sums = np.arange(len(probability)) - len(probability) // 2
    return min(1.0, float(probability[np.abs(sums) >= abs(sum(values))].sum()))


def flipped_sums(
    values: Sequence[int], start: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Distribution of the sum over all sign flips: [i] is the probability of i - len // 2.

    ``start``: the distribution that the values are added to, of the same form; None: a sum of 0.
    """
    probability = np.ones(1) if start is None else start
    for size in sorted(abs(int(value)) for value in values if value):
        grown = np.zeros(len(probability) + 2 * size)
        grown[: len(probability)] += probability / 2
        grown[2 * size :] += probability / 2
        probability = grown
    return probability


def smallest_sign_flip_p(n: int) -> float:
    """The least two-sided p that ``n`` values can have: all of one sign, 2 of 2^n flips.

    Where it is not below alpha no shift could be shown, and a bootstrap's interval, too short on so
    few values, excludes none either.
    """
    return min(1.0, 2.0 ** (1 - n))
