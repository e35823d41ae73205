"""Every group of numbers that the published files determine, by its key.

Keys and structure of the 36 groups in PAPER.md 5.9 are those of its golden values; the others
hold what PAPER.md recomputes besides, and intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from arcs.reproduction.artifacts import Artifacts, FileAbsent
from arcs.reproduction.groups import (
    arc1,
    attribution,
    dispositions,
    extras,
    judges,
    labels,
    printed,
    probes,
    smollm,
    texts,
    verifier,
)
from arcs.reproduction.groups.group import Group
from models.errors import UserError

Facts = Callable[[str], Mapping[str, Any]]
"""Recomputed values of a group, by its key."""

GROUPS: Mapping[str, Group] = {
    **arc1.GROUPS,
    **dispositions.GROUPS,
    **judges.GROUPS,
    **labels.GROUPS,
    **texts.GROUPS,
    **verifier.GROUPS,
    **attribution.GROUPS,
    **smollm.GROUPS,
    **probes.GROUPS,
    **extras.GROUPS,
    **printed.GROUPS,
}

RECOMPUTE: Mapping[str, Callable[[Artifacts], dict[str, Any]]] = {
    key: group.compute for key, group in GROUPS.items()
}


def recompute(artifacts: Artifacts, key: str) -> Mapping[str, Any]:
    """Recompute one group.

    Raises FileAbsent where a file it reads is not there, and UserError where one of its files
    is not the published one and does not fit the computation.
    """
    group = GROUPS[key]
    absent = artifacts.absent(group.files)
    if absent:
        raise FileAbsent(", ".join(absent))
    try:
        return group.compute(artifacts)
    except MISFITS as error:
        problem = misfit(artifacts, group.files, error)
        if problem is None:
            raise
        raise problem from None


MISFITS = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError)
"""What a computation raises for files whose contents do not fit together."""


def misfit(artifacts: Artifacts, files: Iterable[str], error: Exception) -> UserError | None:
    """Return what to tell the user where some of ``files`` are not the published ones.

    None where all are: then the fault is ours.
    """
    suspects = sorted(artifacts.changed & set(files))
    if not suspects:
        return None
    return UserError(
        f"{artifacts.folder}: {', '.join(suspects)} is not the published file and does not fit "
        f"({' '.join(str(error).split())}); fetch it with: threearc reproduce --download"
    )


def facts_of(artifacts: Artifacts) -> Facts:
    """Lookup of groups by key that computes each once; raises as :func:`recompute` does."""

    @cache
    def lookup(key: str) -> Mapping[str, Any]:
        return recompute(artifacts, key)

    return lookup
