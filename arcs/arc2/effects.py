"""What damping did: differences item by item against the same items at lambda 1.

The item is the unit everywhere. With several seeds an item's value is the mean over its seeds, and
every seed is compared with lambda 1 at that seed: a seed shared between lambdas pairs nothing once
the texts part (PAPER.md 8.3 S8).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from arcs.sampled_arms import difference_interval
from evals.meter_scores import PERMUTATIONS
from evals.statistics.bootstrap import RESAMPLES, bootstrap_mean, student_interval
from evals.statistics.multiplicity import holm
from evals.statistics.paired import mcnemar_exact, tango_interval
from evals.statistics.ranked_effects import ranked_means
from evals.statistics.rates import Interval

FEWEST_BEYOND = 4
"""Resamples that must lie beyond an interval's limit: of fewer there is no quantile."""
Values = Mapping[str, float]
"""Item -> value; items without one are absent."""


@dataclass(frozen=True)
class Effect:
    """A mean difference, held to the smallest that matters.

    The interval is simultaneous over the family, and ``p_adjusted`` is corrected over it, so what
    is read from either holds for all members at once.
    """

    name: str
    value: float
    interval: Interval
    p: float
    p_adjusted: float
    n: int
    smallest: float
    alpha: float

    @property
    def up(self) -> bool:
        """A rise is shown, and estimated at the smallest effect that matters or more."""
        return self.p_adjusted < self.alpha and self.value >= self.smallest

    @property
    def down(self) -> bool:
        """A fall, likewise."""
        return self.p_adjusted < self.alpha and self.value <= -self.smallest

    @property
    def not_below(self) -> bool:
        """A fall that matters is excluded."""
        return self.interval.low > -self.smallest

    @property
    def not_above(self) -> bool:
        """A rise that matters is excluded."""
        return self.interval.high < self.smallest

    @property
    def within(self) -> bool:
        """Any effect that matters is excluded."""
        return self.not_below and self.not_above

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        known = math.isfinite(self.interval.low) and math.isfinite(self.interval.high)
        return {
            "value": self.value,
            "interval": self.interval.to_json() if known else None,
            "p": self.p,
            "p_adjusted": self.p_adjusted,
            "n": self.n,
            "smallest": self.smallest,
        }


def differences(base: Values, edited: Values) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Edited minus base of the items that both have, in the base's order."""
    return np.array([edited[key] - base[key] for key in base if key in edited], dtype=np.float64)


def family(
    changes: Mapping[str, np.ndarray[tuple[int], np.dtype[np.float64]]],
    *,
    smallest: float,
    alpha: float,
    is_rate: bool,
) -> dict[str, Effect]:
    """Effects of a declared family, corrected over it (Holm; intervals by Bonferroni).

    ``is_rate``: single answers of 0 and 1, so that exact McNemar and Tango's interval apply;
    differences that are not whole numbers (several seeds, nats) are tested by random signs, with
    BCa intervals over items (Student's at levels that resamples do not reach). Members without
    items are left out.
    """
    present = {name: values for name, values in changes.items() if len(values)}
    if not present:
        return {}
    level = 1 - alpha / len(present)
    p_values = {name: _p(values, is_rate) for name, values in present.items()}
    adjusted = holm(p_values, alpha=alpha)
    return {
        name: Effect(
            name=name,
            value=float(values.mean()),
            interval=_interval(values, level, is_rate),
            p=p_values[name],
            p_adjusted=adjusted[name].adjusted,
            n=len(values),
            smallest=smallest,
            alpha=alpha,
        )
        for name, values in present.items()
    }


def _whole(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bool:
    return bool((values == np.round(values)).all())


def _p(values: np.ndarray[tuple[int], np.dtype[np.float64]], is_rate: bool) -> float:
    if is_rate and _whole(values):
        return mcnemar_exact(int((values > 0).sum()), int((values < 0).sum()))
    if len(values) < 2 or not values.any():
        return 1.0
    return float(ranked_means(values[:, None], permutations=PERMUTATIONS).corrected_p[0])


def _interval(
    values: np.ndarray[tuple[int], np.dtype[np.float64]], level: float, is_rate: bool
) -> Interval:
    mean = float(values.mean())
    if is_rate:
        if _whole(values):
            found = tango_interval(
                int((values > 0).sum()), int((values < 0).sum()), len(values), level
            )
            return Interval(min(found.low, mean), max(found.high, mean), level)
        return difference_interval(values.tolist(), level)
    if len(values) < 2 or np.ptp(values) == 0:
        # nothing varies: certain where every item is unchanged to the last bit, else unknown
        exact = not values.any()
        return Interval(0.0, 0.0, level) if exact else Interval(-np.inf, np.inf, level)
    if (1 - level) / 2 * RESAMPLES < FEWEST_BEYOND:
        return student_interval(values, level)
    try:
        found = bootstrap_mean(values, level=level)
    except ValueError:
        return Interval(-np.inf, np.inf, level)
    return Interval(min(found.low, mean), max(found.high, mean), level)


def fewest_unchanged(smallest: float, level: float) -> int:
    """Fewest answers that exclude a change of a rate by ``smallest`` if none of them changes."""
    n = 1
    while tango_interval(0, 0, n, level).high >= smallest:
        n += 1
    return n


def slopes(
    by_scale: Mapping[float, Values],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Each item's least-squares slope of the value over damping (1 - lambda); items with all."""
    scales = list(by_scale)
    damping = 1.0 - np.array(scales)
    centred = damping - damping.mean()
    first = by_scale[scales[0]]
    keys = [key for key in first if all(key in by_scale[one] for one in scales)]
    table = np.array([[by_scale[one][key] for one in scales] for key in keys], dtype=np.float64)
    if not keys:
        return np.empty(0)
    found: np.ndarray[tuple[int], np.dtype[np.float64]] = table @ centred / (centred @ centred)
    return found
