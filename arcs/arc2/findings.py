"""From the answers at every point of a sweep to what the rules are decided from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import numpy as np
from scipy.stats import ttest_ind

from arcs.arc2.attribution import Ranking
from arcs.arc2.dispositions import Disposition, Labelled
from arcs.arc2.effects import Effect, Values, differences, family, slopes
from arcs.arc2.rules import Evidence
from arcs.arc2.selection import BASE, RANDOM, TOP, Point
from arcs.gates import Gates
from evals.statistics.rates import Interval

Read = Callable[[Labelled], "bool | None"]


@dataclass(frozen=True)
class AtPoint:
    """Everything measured at one point."""

    point: Point
    answers: tuple[Labelled, ...]
    """At all seeds."""
    contrasts: Values
    """Of the sweep's meter items; empty where there is no meter axis."""
    likelihoods: Values
    """Mean log-probability of the two continuations of the same items."""


@dataclass(frozen=True)
class Sweep:
    """All points, and how they are held to the smallest effects that matter."""

    points: Mapping[str, AtPoint]
    """By name; ``base`` is lambda 1."""
    disposition: Disposition
    axis: str
    """``text``, ``meter`` or ``none``."""
    seeds: tuple[int | None, ...]
    gates: Gates

    @property
    def base(self) -> AtPoint:
        """Lambda 1."""
        return self.points[BASE]

    def of_arm(self, arm: str) -> list[AtPoint]:
        """Points of an arm, the weakest damping first."""
        found = [one for one in self.points.values() if one.point.arm == arm]
        return sorted(found, key=lambda one: -one.point.scale)

    @property
    def arms(self) -> tuple[str, ...]:
        """All but the base, the chosen heads first."""
        names = dict.fromkeys(one.point.arm for one in self.points.values())
        return tuple(name for name in names if name != BASE)

    @property
    def smallest_axis(self) -> float:
        """Smallest move of the axis that matters, in its own unit."""
        smallest = self.gates.smallest_effect
        return smallest.rate if self.axis == "text" else smallest.shift

    def axis_values(self, at: AtPoint) -> Values:
        """The axis by item."""
        if self.axis == "meter":
            return at.contrasts
        if self.axis == "none":
            return {}
        return item_means(at.answers, self.disposition.shows)

    def axis_family(self, changes: Mapping[str, np.ndarray]) -> dict[str, Effect]:
        """Effects on the axis, corrected over ``changes``."""
        return family(
            changes, smallest=self.smallest_axis, alpha=self.gates.test.alpha,
            is_rate=self.axis == "text",
        )  # fmt: skip

    def axis_effects(self, arm: str) -> dict[str, Effect]:
        """Change of the axis at each lambda of an arm."""
        base = self.axis_values(self.base)
        return self.axis_family(
            {one.point.name: differences(base, self.axis_values(one)) for one in self.of_arm(arm)}
        )

    def likelihood_effects(self, arm: str) -> dict[str, Effect]:
        """Change of the continuations' log-probability at each lambda of an arm."""
        return family(
            {
                one.point.name: differences(self.base.likelihoods, one.likelihoods)
                for one in self.of_arm(arm)
            },
            smallest=self.gates.smallest_effect.loss,
            alpha=self.gates.test.alpha,
            is_rate=False,
        )

    def content_effects(self, arm: str, base: Read, edited: Read) -> dict[str, Effect]:
        """Change of accuracy at each lambda of an arm."""
        before = item_means(self.base.answers, base)
        return family(
            {
                one.point.name: differences(before, item_means(one.answers, edited))
                for one in self.of_arm(arm)
            },
            smallest=self.gates.smallest_effect.rate,
            alpha=self.gates.test.alpha,
            is_rate=True,
        )


def item_means(answers: Iterable[Labelled], read: Read) -> dict[str, float]:
    """Item -> mean over its answers; items of which one has no value are left out."""
    found: dict[str, list[bool | None]] = {}
    for one in answers:
        found.setdefault(one.item_id, []).append(read(one))
    return {
        item: sum(map(bool, values)) / len(values)
        for item, values in found.items()
        if None not in values
    }


def right(one: Labelled) -> bool | None:
    """As it reads."""
    return one.right


def _right_if_open(value: bool) -> Read:
    def read(one: Labelled) -> bool | None:
        return value if one.open and one.right is not None else one.right

    return read


def _shown_if_open(disposition: Disposition, value: bool) -> Read:
    def read(one: Labelled) -> bool | None:
        shown = disposition.shows(one)
        return value if one.truncated and not one.loop and shown is not None else shown

    return read


def evidence(
    sweep: Sweep,
    ranking: Ranking | None,
    faults: Sequence[str],
    chosen_on_same: int = 0,
    *,
    separated: Mapping[str, Any] | None = None,
) -> Evidence:
    """What the words about the chosen heads are decided from.

    ``separated``: what :func:`separation` said of a ranking that is not at hand.
    """
    alpha = sweep.gates.test.alpha
    top = sweep.of_arm(TOP)
    values = {1.0: sweep.axis_values(sweep.base)}
    values |= {one.point.scale: sweep.axis_values(one) for one in top}
    axis = list(sweep.axis_effects(TOP).values())
    ordered = list(values.items())
    steps = sweep.axis_family(
        {
            f"{high:g} to {low:g}": differences(before, after)
            for (high, before), (low, after) in pairwise(ordered)
        }
    )
    trend = family(
        {"trend": slopes(values)}, smallest=sweep.smallest_axis, alpha=alpha, is_rate=False
    )
    replicates, between, over = _replicates(sweep, top[-1])
    content, floor = _content(sweep)
    against, rank = _against_random(sweep, top[-1])
    return Evidence(
        axis=axis,
        steps=list(steps.values()),
        trend=trend.get("trend"),
        content=content,
        content_floor=floor,
        against_random=against,
        random_rank=rank,
        over_hedging=_over_hedging(sweep),
        replicates=replicates,
        replicate_difference=between,
        replicated_over=over,
        **(separated or separation(ranking, sweep.gates)),
        smallest_separation=sweep.gates.smallest_effect.separation,
        chosen_on_same=chosen_on_same,
        faults=[*faults, *_turned_by_truncation(sweep)],
    )


def separation(ranking: Ranking | None, gates: Gates) -> dict[str, Any]:
    """Whether a head stands out by what matters: of the meter's shift, or of Cohen's d.

    Of a cross-fitted d no size is asked: it falls far short of the best direction's.
    """
    if ranking is None:
        return {"separable": None}
    smallest = gates.smallest_effect.separation
    if ranking.method == "directional":
        smallest = 0.0
    elif ranking.simultaneous is None:
        smallest = gates.smallest_effect.shift
    effects = dict(zip(ranking.heads, ranking.found.effects, strict=True))
    found = [float(effects[head]) for head in ranking.significant(gates.test.alpha)]
    largest = max(found, default=None)
    separable = largest is not None and bool(largest >= smallest)
    small = None if separable or largest is None else f"{largest:.2g} of {smallest:g}"
    return {
        "separable": separable,
        "too_small": small,
        "largest_separation": ranking.excludes_beyond,
    }


def _content(sweep: Sweep) -> tuple[list[list[Effect]], str | None]:
    """Accuracy as read, and in the four ways in which unfinished answers could end.

    Where nothing is right or wrong about the answers, the likelihood of the meter's continuations.
    """
    known = item_means(sweep.base.answers, right)
    if not known:
        found = list(sweep.likelihood_effects(TOP).values())
        return ([found] if found else []), None
    rate, smallest = float(np.mean(list(known.values()))), sweep.gates.smallest_effect.rate
    if rate < smallest:
        return [], f"floor: {100 * rate:.1f}% of {len(known)} items are right, too few to lose"
    reads: list[tuple[Read, Read]] = [(right, right)]
    reads += [(_right_if_open(b), _right_if_open(e)) for b, e in product((False, True), repeat=2)]
    return [list(sweep.content_effects(TOP, b, e).values()) for b, e in reads], None


def _against_random(sweep: Sweep, strongest: AtPoint) -> tuple[list[Effect], float | None]:
    """Chosen minus each random set at the strongest damping, item by item, and the rank p.

    The rank p is that of the chosen heads' mean change among those of the sets: 1 / (1 + sets) is
    the smallest there can be.
    """
    base, chosen = sweep.axis_values(sweep.base), sweep.axis_values(strongest)
    drawn = {
        one.point.arm: sweep.axis_values(one)
        for one in sweep.points.values()
        if one.point.arm.startswith(RANDOM) and one.point.scale == strongest.point.scale
    }
    changes = {arm: differences(base, values) for arm, values in drawn.items()}
    change = differences(base, chosen)
    if not changes or not len(change) or not all(map(len, changes.values())):
        return [], None
    found = family(
        {arm: differences(values, chosen) for arm, values in drawn.items()},
        smallest=sweep.smallest_axis,
        alpha=sweep.gates.test.alpha,
        is_rate=sweep.axis == "text",
    )
    reached = sum(one.mean() >= change.mean() for one in changes.values())
    return list(found.values()), (1 + reached) / (1 + len(changes))


def _over_hedging(sweep: Sweep) -> list[Effect] | None:
    """Change of the measure among answers that are right before and after, item by item.

    Of each seed's pair of answers; an item's value is the mean over its pairs. Whatever the axis:
    the meter's contrast says nothing about the answers that are right.
    """
    base = {one.key: one for one in sweep.base.answers}
    labelled = any(one.right is not None for one in base.values())
    if not sweep.disposition.of_the_wrong or not labelled:
        return None

    def changes(at: AtPoint) -> np.ndarray:
        found: dict[str, list[float]] = {}
        for after in at.answers:
            before = base.get(after.key)
            if before is None or not (before.right and after.right):
                continue
            shown = sweep.disposition.shows(before), sweep.disposition.shows(after)
            if None not in shown:
                change = float(bool(shown[1])) - float(bool(shown[0]))
                found.setdefault(after.item_id, []).append(change)
        return np.array([np.mean(values) for values in found.values()])

    effects = family(
        {one.point.name: changes(one) for one in sweep.of_arm(TOP)},
        smallest=sweep.gates.smallest_effect.rate,
        alpha=sweep.gates.test.alpha,
        is_rate=True,
    )
    return list(effects.values())


def _replicates(sweep: Sweep, strongest: AtPoint) -> tuple[list[Effect], Effect | None, str]:
    """The change at the strongest damping by seed, or in two halves of the items."""
    if sweep.axis == "none":
        return [], None, "halves of the items"
    if sweep.axis == "text" and len(sweep.seeds) > 1:
        changes = {
            f"seed {seed}": differences(
                item_means(_at_seed(sweep.base, seed), sweep.disposition.shows),
                item_means(_at_seed(strongest, seed), sweep.disposition.shows),
            )
            for seed in sweep.seeds
        }
        over = "seeds"
    else:
        change = differences(sweep.axis_values(sweep.base), sweep.axis_values(strongest))
        changes = {"first half": change[0::2], "second half": change[1::2]}
        over = "halves of the items"
    found = list(sweep.axis_family(changes).values())
    return found, _between(sweep, changes), over


def _at_seed(at: AtPoint, seed: int | None) -> list[Labelled]:
    return [one for one in at.answers if one.seed == seed]


def _between(sweep: Sweep, changes: Mapping[str, np.ndarray]) -> Effect | None:
    """Difference of the two replicates that are furthest apart (Welch; items as if unpaired)."""
    usable = [one for one in changes.values() if len(one) > 1]
    if len(usable) < 2:
        return None
    usable.sort(key=lambda one: float(one.mean()))
    low, high = usable[0], usable[-1]
    if np.ptp(low) == 0 and np.ptp(high) == 0:
        return None
    tests = len(usable) * (len(usable) - 1) // 2
    alpha = sweep.gates.test.alpha
    found = ttest_ind(high, low, equal_var=False)
    level = 1 - alpha / tests
    interval = found.confidence_interval(level)
    return Effect(
        name="between replicates",
        value=float(high.mean() - low.mean()),
        interval=Interval(float(interval.low), float(interval.high), level),
        p=float(found.pvalue),
        p_adjusted=min(1.0, tests * float(found.pvalue)),
        n=len(low) + len(high),
        smallest=sweep.smallest_axis,
        alpha=alpha,
    )


def _turned_by_truncation(sweep: Sweep) -> list[str]:
    """A fault where unfinished answers could turn around what is shown of a text axis."""
    if sweep.axis != "text" or sweep.disposition.of_the_cut:
        return []
    seen = set()
    for b, e in product((None, False, True), repeat=2):
        base, edited = (
            sweep.disposition.shows if value is None else _shown_if_open(sweep.disposition, value)
            for value in (b, e)
        )
        if (b is None) != (e is None):
            continue
        before = item_means(sweep.base.answers, base)
        found = sweep.axis_family(
            {
                one.point.name: differences(before, item_means(one.answers, edited))
                for one in sweep.of_arm(TOP)
            }
        ).values()
        seen.add((any(one.up for one in found), any(one.down for one in found)))
    if len(seen) > 1:
        return ["truncated: unfinished answers could turn the axis around"]
    return []


def restricted(at: AtPoint, items: Sequence[str]) -> AtPoint:
    """The answers to some items alone: the baseline answers more prompts than the sweep."""
    wanted = set(items)
    return replace(at, answers=tuple(one for one in at.answers if one.item_id in wanted))
