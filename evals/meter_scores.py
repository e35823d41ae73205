"""What the meter's readings come to: a score an axis, and what an edit shifted, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import permutation_test

from evals.meter import AXES, MeterReading
from evals.statistics.bootstrap import bootstrap_mean
from evals.statistics.multiplicity import holm
from evals.statistics.rates import Interval

RESAMPLES = 4000
PERMUTATIONS = 9999
SEED = 0
"""Of the resamples: the same readings give the same intervals."""
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class AxisScore:
    """One axis under one model."""

    n: int
    mean: float
    """Mean contrast, nats per token."""
    interval: Interval | None
    """BCa bootstrap over items; None where there is none (see :func:`mean_interval`)."""
    deviation: float | None
    """Standard deviation of the contrast over items; None for one item."""
    positive_share: float
    """Share of items whose positive continuation is the likelier one."""
    positive_tokens: float
    """Mean number of ids."""
    negative_tokens: float

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return _plain(self)


@dataclass(frozen=True)
class AxisShift:
    """What an edit did to one axis: differences of contrasts, item by item, edited minus base."""

    n: int
    mean: float
    """Nats per token."""
    interval: Interval | None
    """BCa bootstrap over items."""
    deviation: float | None
    up: int
    """Items whose contrast rose."""
    unchanged: int
    """Items whose contrast is the same to the last bit."""
    p_value: float
    """Two-sided, random signs of the differences (the null: an edit moves an item either way)."""
    p_holm: float
    """The same, corrected for the axes measured in this condition (Holm)."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return _plain(self)


def scores(readings: Sequence[MeterReading], level: float = 0.95) -> dict[str, AxisScore]:
    """Score each axis that has readings."""
    return {axis: _score(found, level) for axis, found in by_axis(readings).items()}


def shifts(
    base: Sequence[MeterReading], edited: Sequence[MeterReading], level: float = 0.95
) -> dict[str, AxisShift]:
    """Compare an edit with its base on each axis.

    Raises ValueError where the two are not readings of the same items in the same order, or an
    item has other numbers of ids: another tokenizer's contrasts cannot be paired.
    """
    _require_pairs(base, edited)
    before, after = by_axis(base), by_axis(edited)
    changes = {axis: _contrasts(after[axis]) - _contrasts(before[axis]) for axis in before}
    p_values = {axis: sign_flip_p(values) for axis, values in changes.items()}
    adjusted = holm(p_values, alpha=1 - level)
    return {
        axis: AxisShift(
            n=len(values),
            mean=float(values.mean()),
            interval=mean_interval(values, level),
            deviation=_deviation(values),
            up=int((values > 0).sum()),
            unchanged=int((values == 0).sum()),
            p_value=p_values[axis],
            p_holm=adjusted[axis].adjusted,
        )
        for axis, values in changes.items()
    }


def by_axis(readings: Sequence[MeterReading]) -> dict[str, list[MeterReading]]:
    """Readings of each axis that has any, axes in the order of AXES."""
    found = {axis: [one for one in readings if one.axis == axis] for axis in AXES}
    return {axis: group for axis, group in found.items() if group}


def mean_interval(values: FloatArray, level: float) -> Interval | None:
    """BCa interval of a mean; None where none exists: fewer than two values, or all the same.

    A BCa interval does not exist either where every resample lies on one side of the mean,
    which takes very few items.
    """
    try:
        return bootstrap_mean(values, level=level, resamples=RESAMPLES, seed=SEED)
    except ValueError:
        if not np.isfinite(values).all():
            raise
        return None


def sign_flip_p(differences: FloatArray) -> float:
    """Two-sided p of "differences are symmetric about 0", by random signs (scipy).

    Exact, over all arrangements, where there are no more than PERMUTATIONS of them: so 1 where
    all differences are 0, and for a single one.
    """
    if len(differences) < 2 or not differences.any():
        return 1.0
    found = permutation_test(
        (differences,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        random_state=np.random.default_rng(SEED),
    )
    return min(1.0, float(found.pvalue))


def _score(readings: Sequence[MeterReading], level: float) -> AxisScore:
    values = _contrasts(readings)
    return AxisScore(
        n=len(values),
        mean=float(values.mean()),
        interval=mean_interval(values, level),
        deviation=_deviation(values),
        positive_share=float((values > 0).mean()),
        positive_tokens=float(np.mean([one.positive_tokens for one in readings])),
        negative_tokens=float(np.mean([one.negative_tokens for one in readings])),
    )


def _require_pairs(base: Sequence[MeterReading], edited: Sequence[MeterReading]) -> None:
    keys = [
        [(one.item_id, one.positive_tokens, one.negative_tokens) for one in side]
        for side in (base, edited)
    ]
    if keys[0] != keys[1]:
        raise ValueError("unpaired: the two are not readings of the same ids in the same order")


def _contrasts(readings: Sequence[MeterReading]) -> FloatArray:
    return np.array([one.contrast for one in readings], dtype=np.float64)


def _deviation(values: FloatArray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _plain(found: AxisScore | AxisShift) -> dict[str, Any]:
    plain: Mapping[str, Any] = asdict(found)
    return {**plain, "interval": found.interval.to_json() if found.interval else None}
