"""How many items would decide each claim, how many there are, and when they are looked at.

All of it is fixed, written and hashed before a new item is opened. The number of items depends on
the run's answers only through how often (or how much) its arms differ, never on which way: where
the edit does nothing, the ways are coin flips whatever that number is, so that looking at it first
costs no alpha.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from arcs.settling.statistic import Needs
from arcs.settling.subject import OWN, OpenClaim, Piece, Pool, Subject
from evals.statistics.sequential import crossing, nominal_levels, spent
from evals.statistics.sequential_power import Decided

LOOKS = 4
"""Looks at new items, where there are enough."""
FEWEST = 8
"""New items of a look."""
SPENDING = "O'Brien-Fleming type (Lan & DeMets 1983), two-sided"


@dataclass(frozen=True)
class Schedule:
    """The looks at the items of one group, the run itself being the first."""

    sizes: tuple[int, ...]
    """Items in all."""
    fractions: tuple[float, ...]


@dataclass(frozen=True)
class Planned:
    """One claim's part of the plan."""

    claim: OpenClaim
    needs: Needs
    schedule: Schedule
    alpha: float
    """Over all looks."""
    levels: tuple[float, ...]
    """Two-sided, of each look."""
    allowed: tuple[float, ...]
    """Alpha spent up to each look."""
    as_seen: Decided
    """By each look to come, if the difference seen is the true one."""
    no_effect: Decided

    @cached_property
    def either(self) -> float:
        """Probability of a false effect in the run's own test or here, together, for this claim.

        At most: of several axes (Holm) the run's own test was at the whole alpha or less.
        """
        first = (self.alpha * self.claim.family, *self.levels[1:])
        return sum(crossing(self.schedule.fractions, first))


@dataclass(frozen=True)
class Portion:
    """Items of one pool that a look opens."""

    source: str
    ids: tuple[str, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that is fixed beforehand."""

    claims: tuple[Planned, ...]
    pools: tuple[Pool, ...]
    looks: tuple[tuple[Portion, ...], ...]
    """Of new items; the run itself is not among them."""

    def beyond(self, one: Planned) -> int:
        """Unused items that the plan does not open."""
        there = sum(pool.count(one.claim.group) for pool in self.pools)
        return there - (one.schedule.sizes[-1] - one.schedule.sizes[0])

    def missing(self, one: Planned) -> int | None:
        """Items that the number to exclude asks for beyond those that there are."""
        if one.needs.to_exclude is None:
            return None
        return max(0, one.needs.to_exclude - one.schedule.sizes[-1])

    def to_json(self) -> dict[str, Any]:
        """What is written and hashed."""
        return {
            "spending": SPENDING,
            "claims": [_claim_json(one) for one in self.claims],
            "pools": [asdict(one) for one in self.pools],
            "looks": [[asdict(portion) for portion in look] for look in self.looks],
        }


def make(subject: Subject, pools: Sequence[Pool], most: int | None) -> Plan:
    """The plan for a run's open claims; ``most``: new items at most (of each axis), whatever
    number would be planned. No looks where no item is unused."""
    groups = {claim.group: subject.first_counts[claim.group] for claim in subject.claims}
    new = {}
    for group, first in groups.items():
        there = sum(pool.count(group) for pool in pools)
        wanted = most
        if wanted is None:
            needed = [_excluding(subject, claim, first) for claim in subject.claims
                      if claim.group == group]  # fmt: skip
            least = max(claim.fewest for claim in subject.claims if claim.group == group)
            wanted = there if None in needed else (
                max(least, *(n for n in needed if n is not None)) - first)  # fmt: skip
        new[group] = max(0, min(there, wanted))
    growing = {group: count for group, count in new.items() if count}
    count = max(1, min(LOOKS, min(growing.values()) // FEWEST)) if growing else 0
    opened = new | _beside(subject, pools, new)
    schedules = {
        group: Schedule(
            sizes := (first, *(first + new[group] * k // count for k in range(1, count + 1)
                               if new[group])),
            tuple(size / sizes[-1] for size in sizes),
        )
        for group, first in groups.items()
    }  # fmt: skip
    planned = tuple(_planned(subject, claim, schedules[claim.group]) for claim in subject.claims)
    looks = tuple(_portions(pools, opened, k, count) for k in range(1, count + 1))
    return Plan(planned, tuple(pools), looks)


def _beside(subject: Subject, pools: Sequence[Pool], new: Mapping[str, int]) -> dict[str, int]:
    """New items of groups that no claim counts, in proportion to those that are counted, at most.

    So each look's share of them is no smaller than its share of those counted, whose levels then
    hold for them too: the more looks have in common, the less often one of them crosses.
    """
    first = subject.first_counts
    found: dict[str, int] = {}
    for claim in subject.claims:
        for group in claim.beside:
            there = sum(pool.count(group) for pool in pools)
            found[group] = min(there, new[claim.group] * first[group] // first[claim.group])
    return found


def _excluding(subject: Subject, claim: OpenClaim, first: int) -> int | None:
    """Items in all that exclude an effect at the level that the last look will have.

    Of the differences only their sizes are used; of an AUC, only the labels.
    """
    values = subject.values(claim, _first(subject))
    level, power = subject.gates.test.alpha / claim.family, subject.gates.test.power
    found: int | None = first + 1
    for _ in range(3):  # the last level hardly depends on the number that it gives
        found = claim.statistic.blind(values, claim.smallest, level=level, power=power)
        if found is None:
            return None
        step = [first + (found - first) * k // LOOKS for k in range(LOOKS + 1)]
        fractions = sorted({size / found for size in step})
        level = nominal_levels(fractions, subject.gates.test.alpha / claim.family)[-1]
    return found


def _planned(subject: Subject, claim: OpenClaim, schedule: Schedule) -> Planned:
    alpha = subject.gates.test.alpha / claim.family
    values = subject.values(claim, _first(subject))
    levels = nominal_levels(schedule.fractions, alpha)
    decided = claim.statistic.decided(values, schedule.sizes[1:], levels[1:], claim.smallest)
    needs = claim.statistic.needs(
        values, claim.smallest, alpha=alpha, power=subject.gates.test.power
    ).at_least(claim.fewest)
    return Planned(
        claim, needs, schedule, alpha, levels,
        tuple(spent(fraction, alpha) for fraction in schedule.fractions), *decided,
    )  # fmt: skip


def _portions(
    pools: Sequence[Pool], new: Mapping[str, int], k: int, count: int
) -> tuple[Portion, ...]:
    found: dict[str, list[tuple[str, str]]] = {}
    for group in new:
        line = [(pool.source, item) for pool in pools for item in pool.items.get(group, ())]
        for source, item in line[new[group] * (k - 1) // count : new[group] * k // count]:
            found.setdefault(source, []).append((item, group))
    return tuple(
        Portion(source, tuple(item for item, _ in items), tuple(group for _, group in items))
        for source, items in found.items()
    )


def _claim_json(one: Planned) -> dict[str, Any]:
    claim = one.claim
    return {
        "key": claim.key, "condition": claim.condition, "part": claim.part, "group": claim.group,
        "stated": dict(claim.stated), "smallest_effect": claim.smallest, "unit": claim.unit,
        "family": claim.family, "needs": asdict(one.needs), "sizes": list(one.schedule.sizes),
        "fractions": list(one.schedule.fractions), "alpha": one.alpha,
        "levels": list(one.levels), "spent": list(one.allowed),
        "power": {"as_seen": asdict(one.as_seen), "no_effect": asdict(one.no_effect)},
        "either_run_false": one.either,
        **({"statistic": "AUC"} if claim.auc else {}),
        **({"beside": list(claim.beside), "counted": claim.one_of_several, "fewest": claim.fewest}
           if claim.one_of_several else {}),
    }  # fmt: skip


def _first(subject: Subject) -> Piece:
    return Piece(OWN, subject.run, first=True)
