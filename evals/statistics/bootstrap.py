"""Intervals of a mean and of a paired difference by bootstrap, over items or over whole groups.

Where items come in groups (several answers to one prompt), the groups are the independent
units. Resampling items then gives an interval that is too short, by about the square root of
the design effect, so whole groups are resampled instead. With fewer than about 20 units any
bootstrap interval is somewhat too short.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap
from scipy.stats import t as student

from evals.statistics.rates import Interval

FloatArray = NDArray[np.float64]

RESAMPLES = 2000
"""Drawn where no other number is asked for."""
_BATCH = 4_000_000
"""Most resampled values held at a time, about 32 MB."""


def bootstrap_mean(
    values: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """BCa interval (Efron 1987) of the mean of ``values`` [n], by scipy.

    With ``groups`` [n] (labels of one sortable kind) whole groups are resampled and the mean
    is the ratio (sum of the drawn values) / (number of drawn values); bias and acceleration
    come from leaving out one group at a time.

    Raises ValueError where a value is missing, where there are fewer than two values or
    groups, where nothing varies (a point would claim a certainty that no data give), and where
    so few resamples were drawn that all lie on one side of the mean.
    """
    checked = _finite(values)
    if groups is None:
        sums, sizes = checked, np.ones_like(checked)
    else:
        sums, sizes = _group_totals(checked, groups)
    _check_variation(sums, sizes, "values" if groups is None else "groups")
    # A ratio of sums over units of size 1 is the mean: one path for both cases.
    found = bootstrap(
        (sums, sizes),
        _ratio_of_sums,
        paired=True,
        vectorized=True,
        method="BCa",
        confidence_level=level,
        n_resamples=resamples,
        batch=max(1, _BATCH // len(sums)),
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    if not np.isfinite([found.low, found.high]).all():
        raise ValueError(
            f"no BCa interval: all resamples lie on one side of the mean ({resamples})"
        )
    return Interval(float(found.low), float(found.high), level)


def student_interval(values: ArrayLike, level: float) -> Interval:
    """Of the mean of ``values`` [n], by Student's t: at levels so high that a bootstrap has no
    tails there. Raises ValueError where a value is missing, and for fewer than two."""
    checked = _finite(values)
    if len(checked) < 2:
        raise ValueError(f"an interval needs at least two values, not {len(checked)}")
    mean, error = float(checked.mean()), float(checked.std(ddof=1)) / np.sqrt(len(checked))
    half = float(student.isf((1 - level) / 2, len(checked) - 1)) * error
    return Interval(mean - half, mean + half, level)


def bootstrap_paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """BCa interval of the mean of (second - first), two rows [n] in the same item order.

    Raises ValueError as :func:`bootstrap_mean` does, and where the lengths differ.
    """
    before, after = _finite(first), _finite(second)
    if len(before) != len(after):
        raise ValueError(f"unpaired: {len(before)} values against {len(after)}")
    return bootstrap_mean(
        after - before, groups=groups, level=level, resamples=resamples, seed=seed
    )


def _ratio_of_sums(sums: FloatArray, sizes: FloatArray, axis: int = -1) -> FloatArray:
    ratio: FloatArray = sums.sum(axis=axis) / sizes.sum(axis=axis)
    return ratio


def _group_totals(values: FloatArray, groups: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Sum of the values and number of items of each group, [g] and [g]."""
    labels = np.asarray(groups)
    if labels.shape != values.shape:
        raise ValueError(f"groups of shape {labels.shape} for {len(values)} values")
    _, index = np.unique(labels, return_inverse=True)
    sums = np.bincount(index, weights=values).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _check_variation(sums: FloatArray, sizes: FloatArray, units: str) -> None:
    """Refuse data on which every resample gives the same mean."""
    if len(sums) < 2:
        raise ValueError(f"an interval needs at least two {units}, not {len(sums)}")
    mean = sums.sum() / sizes.sum()
    scale = max(1.0, float(np.abs(sums).max()))
    if np.abs(sums - mean * sizes).max() <= 1e-12 * scale:
        raise ValueError(f"no variation: all {len(sums)} {units} have the mean {mean:g}")


def _finite(values: ArrayLike) -> FloatArray:
    checked = np.asarray(values, dtype=np.float64)
    if checked.ndim != 1 or not np.isfinite(checked).all():
        raise ValueError("a value is missing or infinite: leave the item out and report it")
    return checked
