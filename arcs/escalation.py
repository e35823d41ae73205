"""Larger budgets for the answers that ran out of theirs, until that no longer matters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from arcs.arc1.problems import Item
from arcs.sampled import SampledComparison
from arcs.verdicts import Comparison
from backends.interface import Completion
from evals.truncation import repetition_loop

HOPELESS = frozenset({"train_test_overlap", "instrument_differs"})
"""Reasons for INVALID that stay, however much is decoded."""


def next_budget(largest: int, cap: int) -> int | None:
    """Twice the budget, at most ``cap``; None when there is no room left."""
    return min(2 * largest, cap) if largest < cap else None


def undecided(comparisons: Iterable[Comparison | SampledComparison]) -> bool:
    """Whether some claim's conclusion would change with what its unfinished answers became.

    A claim that no text can mend is not waited for.
    """
    reasons = [comparison.claim.reasons for comparison in comparisons]
    return any("truncated" in given and HOPELESS.isdisjoint(given) for given in reasons)


def unfinished(done: Mapping[str, Completion]) -> list[str]:
    """Items stopped by the budget while still saying something new, in order.

    An exact repetition loop is a failure, not an unfinished answer (DESIGN section 4).
    """
    return [
        item
        for item, completion in done.items()
        if completion.finish_reason == "length" and repetition_loop(completion.ids) is None
    ]


def continued(items: Sequence[Item], done: Mapping[str, Completion]) -> list[Item]:
    """The items whose answers go on, each with its ids so far to be read again.

    They are replayed one a step through the decode and never ingested as a prompt, which gives
    other texts (DESIGN section 4).
    """
    waiting = set(unfinished(done))
    return [
        replace(item, prompt=replace(item.prompt, generated=done[item.key].ids))
        for item in items
        if item.key in waiting
    ]


def join(done: dict[str, Completion], later: Mapping[str, Completion]) -> None:
    """Put answers in ``done`` that were begun now, or went on, with a stage's own.

    A continued answer holds all its ids, and near-ties of those that it added: they are summed.
    """
    for item, completion in later.items():
        before = done.get(item)
        if before is not None:
            known = None not in (before.near_ties, completion.near_ties)
            ties = (before.near_ties or 0) + (completion.near_ties or 0) if known else None
            done[item] = replace(completion, near_ties=ties)
        else:
            done[item] = completion
