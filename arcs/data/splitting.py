"""Splitting a set by item id, before anything is generated from it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from arcs.data.kinds import Kind, field_named, key_of, values_of
from evals.overlap import NEAR_DUPLICATE, duplicates_inside
from models.errors import UserError

LOUD = 0.05
"""Difference of an attained share from the asked one from which on it is said."""


@dataclass(frozen=True)
class Plan:
    """How a set is to be split."""

    fractions: tuple[float, ...]
    names: tuple[str, ...]
    seed: int = 0
    by: str | None = None
    """Field: records that share a value of it stay together."""
    stratify: str | None = None
    """Field: each of its values is split by the fractions."""

    def check(self) -> None:
        """Raise UserError for what cannot be."""
        if len(self.fractions) < 2 or len(self.fractions) != len(self.names):
            raise UserError(
                f"--fractions gives {len(self.fractions)} and --names {len(self.names)}: one name "
                "for each of at least two fractions is needed"
            )
        if not all(0 < share < 1 for share in self.fractions):
            raise UserError("--fractions: each lies between 0 and 1")
        if abs(sum(self.fractions) - 1) > 1e-9:
            raise UserError(f"--fractions: they add up to {sum(self.fractions):g}, not 1")
        if not all(name.isidentifier() for name in self.names):
            raise UserError("--names: letters, digits and _ only, they become file names")
        if len({name.casefold() for name in self.names}) < len(self.names):
            raise UserError("--names: one is given twice")


@dataclass(frozen=True)
class Split:
    """Which record is where."""

    where: Mapping[str, str]
    """Item id -> name of its part, sorted by id."""
    groups: int
    """Groups of two records and more that were kept together."""
    notes: tuple[str, ...]

    def ids(self, name: str) -> list[str]:
        """Ids of one part, sorted."""
        return [one for one, part in self.where.items() if part == name]


def split(records: Sequence[Any], kind: Kind, plan: Plan) -> Split:
    """Assign every record to a part.

    Near duplicates (Jaccard index of character 6-grams of the prompts above 0.35) and records
    with one value of ``plan.by`` are one group, and a group is never divided. Groups are put in
    order by their smallest id, permuted by numpy's PCG64 with ``plan.seed``, and each goes to
    the part that lacks most. So the result depends on ids, texts and seed, not on the order of
    the file. Raises UserError where a part would be empty, or a record lacks a field.
    """
    plan.check()
    ordered = sorted(records, key=key_of)
    groups = _groups(ordered, kind, plan.by)
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for group in groups:
        strata[_stratum(ordered, group, kind, plan.stratify)].append(group)
    where: dict[str, str] = {}
    lacks = [0.0] * len(plan.names)
    for number, name in enumerate(sorted(strata)):
        random = np.random.default_rng([plan.seed, number])
        mixed = [strata[name][i] for i in random.permutation(len(strata[name]))]
        for group, part in zip(mixed, _allot(mixed, plan, lacks), strict=True):
            where.update({key_of(ordered[i]): part for i in group})
    counts = Counter(where.values())
    empty = [name for name in plan.names if not counts[name]]
    if empty:
        raise UserError(
            f"{empty[0]} would be empty: {len(ordered)} records in {len(groups)} groups are too "
            "few for these fractions"
        )
    several = sum(len(group) > 1 for group in groups)
    return Split(dict(sorted(where.items())), several, _notes(counts, plan, len(ordered)))


def _groups(records: Sequence[Any], kind: Kind, by: str | None) -> list[list[int]]:
    """Positions that stay together; each group, and the list, in rising order."""
    parent = list(range(len(records)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(i: int, j: int) -> None:
        a, b = sorted((root(i), root(j)))
        parent[b] = a

    texts = [" ".join(kind.prompts(one) or kind.answers(one)) for one in records]
    for pair in duplicates_inside(texts, threshold=NEAR_DUPLICATE, drop_common=True):
        join(pair.first, pair.second)
    first: dict[str, int] = {}
    for i, text in enumerate(texts):  # texts shorter than a shingle have no near duplicates
        join(first.setdefault(" ".join(text.lower().split()), i), i)
    if by is not None:
        attribute = field_named(kind, by)
        holders: dict[str, int] = {}
        for i, record in enumerate(records):
            for value in _required(record, attribute, "--by"):
                join(holders.setdefault(value, i), i)
    found: dict[int, list[int]] = defaultdict(list)
    for i in range(len(records)):
        found[root(i)].append(i)
    return list(found.values())


def _stratum(records: Sequence[Any], group: Sequence[int], kind: Kind, field: str | None) -> str:
    """The value that most of a group's records have; of several, the first in order."""
    if field is None:
        return ""
    attribute = field_named(kind, field)
    counted = Counter(_required(records[i], attribute, "--stratify")[0] for i in group)
    return min(counted, key=lambda value: (-counted[value], value))


def _required(record: Any, attribute: str, flag: str) -> tuple[str, ...]:
    values = values_of(record, attribute)
    if not values:
        raise UserError(f"{flag} {attribute}: record {key_of(record)!r} has none")
    return values


def _allot(groups: Sequence[Sequence[int]], plan: Plan, lacks: list[float]) -> list[str]:
    """The part of each group: the one that lacks most of its share, the first of equals.

    ``lacks`` carries from stratum to stratum what rounding left over (records by part; it is
    changed here), so that many small strata do not all round the same way.
    """
    total = sum(len(group) for group in groups)
    for i, share in enumerate(plan.fractions):
        lacks[i] += share * total
    parts = []
    for group in groups:
        most = max(range(len(lacks)), key=lambda i: (lacks[i], -i))
        lacks[most] -= len(group)
        parts.append(plan.names[most])
    return parts


def _notes(counts: Mapping[str, int], plan: Plan, total: int) -> tuple[str, ...]:
    return tuple(
        f"{name} has {counts[name] / total:.1%} of the records, {share:.1%} were asked: groups "
        "that must stay together are too large"
        for name, share in zip(plan.names, plan.fractions, strict=True)
        if abs(counts[name] / total - share) > LOUD
    )
