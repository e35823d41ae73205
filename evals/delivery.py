"""Right or wrong against asserted or hedged: the 2 x 2 table and the rates read from it.

Cells (PAPER.md 4.7): cr and hr are right answers, asserted and hedged; cw and hw wrong ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evals.statistics.differences import difference_of_rates
from evals.statistics.rates import Interval, wilson


@dataclass(frozen=True)
class Judged:
    """One answer; None where a judge has no label."""

    item_id: str
    right: bool | None
    asserted: bool | None
    finished: bool = True
    """Whether the answer ended by itself rather than by its budget."""


@dataclass(frozen=True)
class Rate:
    """A share with its counts; value and interval are None where ``n`` is 0."""

    successes: int
    n: int

    @property
    def value(self) -> float | None:
        """The share."""
        return self.successes / self.n if self.n else None

    @property
    def interval(self) -> Interval | None:
        """Wilson's 95 % interval."""
        return wilson(self.successes, self.n) if self.n else None

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        interval = self.interval
        return {
            "value": self.value,
            "successes": self.successes,
            "n": self.n,
            "interval": interval.to_json() if interval else None,
        }


@dataclass(frozen=True)
class Delivery:
    """The table of one condition."""

    cr: int
    hr: int
    cw: int
    hw: int
    missing: int
    """Answers without one of the two labels; they are in no cell."""

    @property
    def n(self) -> int:
        """Answers in the table."""
        return self.cr + self.hr + self.cw + self.hw

    @property
    def accuracy(self) -> Rate:
        """Right answers."""
        return Rate(self.cr + self.hr, self.n)

    @property
    def assertion_rate(self) -> Rate:
        """Asserted answers."""
        return Rate(self.cr + self.cw, self.n)

    @property
    def hallucination_rate(self) -> Rate:
        """Wrong answers that are asserted."""
        return Rate(self.cw, self.cw + self.hw)

    @property
    def over_hedging(self) -> Rate:
        """Right answers that are hedged."""
        return Rate(self.hr, self.cr + self.hr)

    @property
    def asymmetry(self) -> tuple[float, Interval] | None:
        """Share asserted among wrong answers minus that among right ones, with Newcombe's interval.

        Negative: wrong answers are asserted less often, as they should be. None where there are
        no right or no wrong answers.
        """
        right, wrong = self.cr + self.hr, self.cw + self.hw
        if not right or not wrong:
            return None
        found = difference_of_rates(self.cr, right, self.cw, wrong)
        return found.value, found.interval

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        found = self.asymmetry
        return {
            "cells": {"cr": self.cr, "hr": self.hr, "cw": self.cw, "hw": self.hw},
            "n": self.n,
            "missing": self.missing,
            "accuracy": self.accuracy.to_json(),
            "assertion_rate": self.assertion_rate.to_json(),
            "hallucination_rate": self.hallucination_rate.to_json(),
            "over_hedging": self.over_hedging.to_json(),
            "asymmetry": None
            if found is None
            else {"value": found[0], "interval": found[1].to_json()},
        }


def delivery_table(answers: Sequence[Judged], *, finished_only: bool = False) -> Delivery:
    """Count the cells over all answers, or over those that ended by themselves."""
    cells = {"cr": 0, "hr": 0, "cw": 0, "hw": 0}
    missing = 0
    for one in answers:
        if finished_only and not one.finished:
            continue
        if one.right is None or one.asserted is None:
            missing += 1
            continue
        cells[("c" if one.asserted else "h") + ("r" if one.right else "w")] += 1
    return Delivery(**cells, missing=missing)


DERIVED = ("accuracy", "assertion_rate", "hallucination_rate", "over_hedging", "asymmetry")
"""What is read from the table; all are None where a denominator is 0."""
RESAMPLES = 2000


@dataclass(frozen=True)
class Shift:
    """A derived rate of one condition minus that of another, on the same items."""

    value: float
    interval: Interval
    undefined: int
    """Resamples in which it has no value in one of the two, left out of the interval."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "value": self.value,
            "interval": self.interval.to_json(),
            "undefined_resamples": self.undefined,
        }


def delivery_shifts(
    base: Sequence[Judged], edited: Sequence[Judged], level: float = 0.95
) -> dict[str, Shift | None]:
    """Edited minus base of every derived rate, over the items that both have both labels of.

    Percentile bootstrap over items, the two conditions resampled together: the rates' denominators
    differ between the conditions, so there is no paired difference of each item. None where a rate
    has no value, or in more than a tenth of the resamples. Raises ValueError where the items
    differ.
    """
    if [one.item_id for one in base] != [one.item_id for one in edited]:
        raise ValueError("unpaired: the conditions hold different items")
    pairs = [
        (b, e)
        for b, e in zip(base, edited, strict=True)
        if None not in (b.right, b.asserted, e.right, e.asserted)
    ]
    if len(pairs) < 2:
        return dict.fromkeys(DERIVED)
    drawn = np.random.default_rng(0).multinomial(
        len(pairs), np.full(len(pairs), 1 / len(pairs)), size=RESAMPLES
    )
    weights = np.vstack([np.ones(len(pairs), dtype=drawn.dtype), drawn])  # row 0: as they are
    before, after = (_derived(weights, [pair[arm] for pair in pairs]) for arm in (0, 1))
    return {name: _shift(after[name] - before[name], level) for name in DERIVED}


def _derived(weights: NDArray[Any], answers: Sequence[Judged]) -> dict[str, NDArray[np.float64]]:
    """Each rate under each row of item weights [resamples, n]; NaN for a zero denominator."""
    right = np.array([bool(one.right) for one in answers])
    asserted = np.array([bool(one.asserted) for one in answers])
    cr, hr = weights @ (right & asserted), weights @ (right & ~asserted)
    cw, hw = weights @ (~right & asserted), weights @ (~right & ~asserted)
    with np.errstate(invalid="ignore", divide="ignore"):
        n = cr + hr + cw + hw
        return {
            "accuracy": (cr + hr) / n,
            "assertion_rate": (cr + cw) / n,
            "hallucination_rate": cw / (cw + hw),
            "over_hedging": hr / (cr + hr),
            "asymmetry": cw / (cw + hw) - cr / (cr + hr),
        }


def _shift(values: NDArray[np.float64], level: float) -> Shift | None:
    value, resampled = values[0], values[1:]
    known = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or len(known) < 0.9 * len(resampled):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    interval = Interval(min(float(low), float(value)), max(float(high), float(value)), level)
    return Shift(float(value), interval, len(resampled) - len(known))
