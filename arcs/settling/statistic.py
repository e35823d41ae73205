"""What is counted of a claim's items: a paired rate, a paired mean, or an AUC.

Everything that the plan and the looks need to know of a statistic is here, so that neither asks
which it is. ``values`` are what :meth:`arcs.settling.subject.Subject.values` gives: a difference
an item, or of an AUC its (score, whether it is right).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evals.statistics.auc import auc, delong_interval, hanley_mcneil_variance
from evals.statistics.bootstrap import student_interval
from evals.statistics.paired import tango_interval
from evals.statistics.power import assumed_rates, n_to_exclude, n_to_show
from evals.statistics.power_auc import n_to_exclude_auc, n_to_settle_auc
from evals.statistics.power_means import mean_to_exclude, mean_to_show
from evals.statistics.rates import Interval
from evals.statistics.sequential import NO_ALPHA, exact_bounds
from evals.statistics.sequential_power import Decided, of_means, of_rates

Values = Sequence[Any]
CHANCE = 0.5


@dataclass(frozen=True)
class Needs:
    """Items in all."""

    to_show: int | None
    """An effect of the size seen, if it is the true one; None: smaller than one that matters."""
    to_exclude: int | None
    """An effect that matters, if there is none."""

    def at_least(self, fewest: int) -> Needs:
        """Where fewer items could not do, whatever they came to."""
        show, exclude = (None if n is None else max(n, fewest)
                         for n in (self.to_show, self.to_exclude))  # fmt: skip
        return Needs(show, exclude)


@dataclass(frozen=True)
class Bound:
    """The test of one look."""

    level: float
    """Two-sided; an effect has a p below it."""
    reachable: bool
    """Whether any outcome of these items could be an effect."""
    lowered: bool
    crossed: float | None
    """Exact: that a path without effect would have crossed by now; None where it is not counted."""


@dataclass(frozen=True)
class Summary:
    """All items together."""

    n: int
    delta: float
    """From no effect."""
    counts: Mapping[str, int]


class Statistic(Protocol):
    """One kind of number."""

    def summary(self, values: Values) -> Summary:
        """Of all items together; there is at least one (of an AUC, one of each label)."""

    def needs(self, values: Values, smallest: float, *, alpha: float, power: float) -> Needs:
        """Both numbers, from the items so far."""

    def blind(self, values: Values, smallest: float, *, level: float, power: float) -> int | None:
        """Items in all that exclude an effect, free of which way the items so far went."""

    def decided(
        self, values: Values, sizes: Sequence[int], levels: Sequence[float], smallest: float
    ) -> tuple[Decided, Decided]:
        """By each look to come: if the effect seen is the true one, and if there is none."""

    def bound(
        self, by_look: Sequence[Values], levels: Sequence[float], allowed: Sequence[float]
    ) -> Bound:
        """The test of the last of the looks so far."""

    def of_source(self, values: Values, level: float) -> tuple[float | None, Interval | None]:
        """As :attr:`Summary.delta`, with its interval; None where these few items have none."""

    def excludes(self, interval: Interval, smallest: float) -> bool:
        """Whether it holds no effect that matters."""

    def shown_within(self, interval: Interval | None) -> bool:
        """Whether what items of several sources show is shown within the sources as well.

        ``interval``: over the sources, in strata; None where a source has none.
        """


@dataclass(frozen=True)
class _Paired(ABC):
    """Differences edited minus base, of which either sign may be an effect."""

    @abstractmethod
    def whole(self, values: Values) -> list[int]:
        """Differences in whole steps, for the exact test."""

    def summary(self, values: Values) -> Summary:
        """See the protocol."""
        counts = {"gained": sum(v > 0 for v in values), "lost": sum(v < 0 for v in values)}
        return Summary(len(values), float(np.mean(values)), counts)

    def bound(
        self, by_look: Sequence[Values], levels: Sequence[float], allowed: Sequence[float]
    ) -> Bound:
        """See the protocol."""
        found = exact_bounds([self.whole(added) for added in by_look], levels, allowed)[-1]
        return Bound(found.level, found.least is not None, found.lowered, found.crossed)

    def excludes(self, interval: Interval, smallest: float) -> bool:
        """See the protocol."""
        return interval.excludes_effect(smallest)

    def shown_within(self, interval: Interval | None) -> bool:
        """See the protocol."""
        del interval  # each difference has its own sign: the exact test is stratified already
        return True


@dataclass(frozen=True)
class Rates(_Paired):
    """Yes-or-no items: each difference is -1, 0 or 1."""

    def whole(self, values: Values) -> list[int]:
        """See the protocol."""
        return whole_steps(values, None)

    def needs(self, values: Values, smallest: float, *, alpha: float, power: float) -> Needs:
        """See the protocol."""
        counts = (*self._counts(values), len(values))
        return Needs(
            n_to_show(*counts, smallest, alpha=alpha, power=power),
            n_to_exclude(*counts, smallest, alpha=alpha, power=power),
        )

    def blind(self, values: Values, smallest: float, *, level: float, power: float) -> int | None:
        """See the protocol."""
        differing = sum(1 for value in values if value)
        half = differing // 2
        return n_to_exclude(half, differing - half, len(values), smallest, alpha=level, power=power)

    def decided(
        self, values: Values, sizes: Sequence[int], levels: Sequence[float], smallest: float
    ) -> tuple[Decided, Decided]:
        """See the protocol."""
        counts = (*self._counts(values), len(values))
        seen = assumed_rates(*counts)
        alike = (sum(seen) / 2, sum(seen) / 2)
        as_seen, none = (of_rates(counts, sizes, levels, rates, smallest)
                         for rates in (seen, alike))  # fmt: skip
        return as_seen, none

    def of_source(self, values: Values, level: float) -> tuple[float | None, Interval | None]:
        """See the protocol."""
        interval = tango_interval(*self._counts(values), len(values), level)
        return self.summary(values).delta, interval

    def _counts(self, values: Values) -> tuple[int, int]:
        steps = self.whole(values)
        return sum(step > 0 for step in steps), sum(step < 0 for step in steps)


@dataclass(frozen=True)
class Means(_Paired):
    """Differences of any size, tested in whole steps of ``unit``."""

    unit: float

    def whole(self, values: Values) -> list[int]:
        """See the protocol."""
        return whole_steps(values, self.unit)

    def needs(self, values: Values, smallest: float, *, alpha: float, power: float) -> Needs:
        """See the protocol."""
        mean, deviation, n = *_moments(values), len(values)
        return Needs(
            mean_to_show(mean, deviation, n, smallest, alpha=alpha, power=power),
            mean_to_exclude(deviation, n, smallest, alpha=alpha, power=power),
        )

    def blind(self, values: Values, smallest: float, *, level: float, power: float) -> int | None:
        """See the protocol."""
        deviation = float(np.sqrt(np.mean(np.square(values))))  # about no effect
        return mean_to_exclude(deviation, len(values), smallest, alpha=level, power=power)

    def decided(
        self, values: Values, sizes: Sequence[int], levels: Sequence[float], smallest: float
    ) -> tuple[Decided, Decided]:
        """See the protocol."""
        mean, deviation = _moments(values)
        as_seen, none = (
            of_means((mean, len(values)), sizes, levels, (truth, deviation), smallest)
            for truth in (mean, 0.0)
        )
        return as_seen, none

    def of_source(self, values: Values, level: float) -> tuple[float | None, Interval | None]:
        """See the protocol."""
        if len(values) < 2:
            return self.summary(values).delta, None
        return self.summary(values).delta, student_interval(values, level)


@dataclass(frozen=True)
class Auc:
    """Scores of right and wrong answers by a probe that no new item changes.

    Each look's AUC is of all items so far. Its increments are those of a Brownian motion in the
    limit, at items for time while the share of right answers stays (the projection of a U
    statistic is a sum over items), which is what the levels rest on; nothing is counted exactly.
    Only an AUC above chance is an effect.
    """

    def summary(self, values: Values) -> Summary:
        """See the protocol."""
        scores, right = _split(values)
        n_right = int(right.sum())
        counts = {"right": n_right, "wrong": len(right) - n_right}
        return Summary(len(right), auc(scores, right) - CHANCE, counts)

    def needs(self, values: Values, smallest: float, *, alpha: float, power: float) -> Needs:
        """See the protocol."""
        found = self.summary(values)
        classes = found.counts["right"], found.counts["wrong"]
        to_show = None
        if found.delta >= smallest:
            to_show = n_to_settle_auc(
                found.delta + CHANCE, *classes, smallest, null=CHANCE, alpha=alpha, power=power
            )
        excluded = n_to_exclude_auc(*classes, smallest, null=CHANCE, alpha=alpha, power=power)
        return Needs(to_show, excluded)

    def blind(self, values: Values, smallest: float, *, level: float, power: float) -> int | None:
        """See the protocol."""
        counts = self.summary(values).counts  # of the labels alone: no score has a say
        return n_to_exclude_auc(
            counts["right"], counts["wrong"], smallest, null=CHANCE, alpha=level, power=power
        )

    def decided(
        self, values: Values, sizes: Sequence[int], levels: Sequence[float], smallest: float
    ) -> tuple[Decided, Decided]:
        """As means of items whose deviation gives the AUC its error at chance."""
        found = self.summary(values)
        variance = hanley_mcneil_variance(CHANCE, found.counts["right"], found.counts["wrong"])
        deviation = math.sqrt(found.n * variance)
        as_seen, none = (
            of_means((found.delta, found.n), sizes, levels, (truth, deviation), smallest,
                     upwards=True)
            for truth in (found.delta, 0.0)
        )  # fmt: skip
        return as_seen, none

    def bound(
        self, by_look: Sequence[Values], levels: Sequence[float], allowed: Sequence[float]
    ) -> Bound:
        """See the protocol."""
        del by_look, allowed
        return Bound(levels[-1], levels[-1] > NO_ALPHA, lowered=False, crossed=None)

    def of_source(self, values: Values, level: float) -> tuple[float | None, Interval | None]:
        """See the protocol."""
        scores, right = _split(values)
        if right.all() or not right.any():  # an AUC needs both
            return None, None
        interval = from_chance(delong_interval(scores, right, level))
        return self.summary(values).delta, interval

    def excludes(self, interval: Interval, smallest: float) -> bool:
        """See the protocol."""
        return interval.high < smallest

    def shown_within(self, interval: Interval | None) -> bool:
        """See the protocol."""
        return interval is not None and interval.low > 0


def from_chance(interval: Interval) -> Interval:
    """Of an AUC -> of its distance from chance."""
    return replace(interval, low=interval.low - CHANCE, high=interval.high - CHANCE)


def whole_steps(values: Sequence[float], unit: float | None) -> list[int]:
    """Differences in whole steps, for the exact test; of yes and no they are whole already."""
    return [round(value / (unit or 1.0)) for value in values]


def _moments(values: Values) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1))


def _split(values: Values) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores = np.array([score for score, _ in values], dtype=np.float64)
    return scores, np.array([right for _, right in values], dtype=np.bool_)
