"""Larger budgets for the answers that ran out of theirs, until that no longer matters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from arcs.sampled import SampledComparison
from arcs.verdicts import Comparison
from backends.interface import Completion
from evals.truncation import repetition_loop


def next_budget(largest: int, cap: int) -> int | None:
    """Twice the budget, at most ``cap``; None when there is no room left."""
    return min(2 * largest, cap) if largest < cap else None


def undecided(comparisons: Iterable[Comparison | SampledComparison]) -> bool:
    """Whether some claim's conclusion would change with what its unfinished answers became."""
    return any("truncated" in comparison.claim.reasons for comparison in comparisons)


def unfinished(done: Mapping[str, Completion]) -> list[str]:
    """Items stopped by the budget while still saying something new, in order.

    An exact repetition loop is a failure, not an unfinished answer (DESIGN section 4).
    """
    return [
        item
        for item, completion in done.items()
        if completion.finish_reason == "length" and repetition_loop(completion.ids) is None
    ]
