"""Which sets of an experiment belong side by side: its arms, its training and test sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from arcs.audits.results import Item, Results, ResultSet, Role

Pair = tuple[ResultSet, ResultSet]
BASE_ARMS = ("base", "baseline", "control", "original", "reference")
"""Names of the arm that the others are compared with, in lower case."""


def train_test_pairs(results: Results) -> list[Pair]:
    """Every training set with every test set of its family."""
    return [
        (train, test)
        for sets in results.families().values()
        for train in sets
        if train.role is Role.TRAIN
        for test in sets
        if test.role is Role.TEST
    ]


def arm_pairs(results: Results) -> list[Pair]:
    """Sets of two arms over the same task at one budget: the base arm with each other arm.

    Where no arm has one of the names in BASE_ARMS, the first arm takes its place.
    """
    found: dict[tuple[object, ...], list[ResultSet]] = defaultdict(list)
    for one in results.sets:
        if one.arm is not None:
            found[one.family, one.task, one.role, one.n_predict].append(one)
    return [pair for arms in found.values() for pair in _with_base(arms)]


def base_of(arms: Sequence[ResultSet]) -> ResultSet:
    """Return the arm that the others are compared with: one of BASE_ARMS, else the first."""
    return next((one for one in arms if (one.arm or "").lower() in BASE_ARMS), arms[0])


def _with_base(arms: list[ResultSet]) -> list[Pair]:
    base = base_of(arms)
    return [(base, one) for one in arms if one.arm != base.arm]


def common_items(first: ResultSet, second: ResultSet) -> list[tuple[Item, Item]]:
    """Items with one id in both sets, in the order of the first."""
    others = second.by_id
    return [(item, others[item.item_id]) for item in first.items if item.item_id in others]


def groups_of(items: Iterable[Item]) -> list[str]:
    """[n] the group of each item; an item without one is a group of its own."""
    return [f"group {one.group}" if one.group else f"item {one.item_id}" for one in items]


def between(first: ResultSet, second: ResultSet) -> str:
    """Name two sets as a person would look them up."""
    return f"{first.name} and {second.name}"


def percent(count: int, n: int) -> str:
    """``94 of 100 (94.0 %)``; the n always stands with the rate."""
    return f"{count} of {n} ({count / n:.1%})" if n else f"{count} of {n}"
