"""What a budget that ran out does to a result: repetition loops, and bounds on the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evals.humaneval.outcomes import ItemResult

# A false loop counts an unfinished answer as failed, a missed one only widens the bounds, so
# the thresholds lean to missing. Measured with SmolLM2's tokenizer on 20,000 cuts at random
# places of each kind of text: at 32 tokens no false loop in Python's standard library or in
# prose and tables (at 24: 3 and 0, all "\\x00\\x00..." literals; at 12: 8 and 13), and 16 in
# HumanEval's own tests, each a literal list written out three times or more.
MIN_REPEATS = 3
MIN_TOKENS = 32
# Periods 1 to 37 were seen in SmolLM2-135M's answers; a loop over a whole paragraph or function
# is longer. 256 still fits three times into the smallest primary budget in use, 1024.
MAX_PERIOD = 256


def repetition_loop(
    ids: Sequence[int],
    *,
    min_repeats: int = MIN_REPEATS,
    min_tokens: int = MIN_TOKENS,
    max_period: int = MAX_PERIOD,
) -> int | None:
    """Return the period of the exact repetition loop that the ids end in, or None.

    The ids end in a loop of period p when their last max(min_repeats * p, min_tokens) ids
    are p-periodic; the smallest such p is returned. Meant for completions that ran out of
    budget: greedy decoding that has gone round exactly three times seldom leaves again.
    """
    if min_repeats < 2 or max_period < 1:
        raise ValueError(f"no loop has {min_repeats} repeats and a period up to {max_period}")
    tail = list(ids[-max(min_repeats * max_period, min_tokens) :])
    length = len(tail)
    for period in range(1, min(max_period, length // min_repeats) + 1):
        covered = max(min_repeats * period, min_tokens)
        if covered > length or tail[-1] != tail[-1 - period]:
            continue
        if tail[length - covered + period :] == tail[length - covered : length - period]:
            return period
    return None


@dataclass(frozen=True)
class ArmBounds:
    """One arm's results at one budget, with what is not known about them.

    ``low`` and ``high`` are in item order: unfinished answers all fail, or all pass.
    """

    low: tuple[bool | None, ...]
    high: tuple[bool | None, ...]
    unfinished: int
    """Answers cut off by this budget while still saying something new."""
    resolved: int
    """Those of them that a larger budget of the same decode finished: their result is known
    and stands in both ``low`` and ``high``."""


@dataclass(frozen=True)
class Corner:
    """One of the four ways in which the unfinished answers of two arms could have ended."""

    base_unfinished_pass: bool
    edited_unfinished_pass: bool
    base: tuple[bool | None, ...]
    edited: tuple[bool | None, ...]


def bound_arm(
    results: Sequence[ItemResult], larger: Sequence[Sequence[ItemResult]] = ()
) -> ArmBounds:
    """Bound one arm at one budget; ``larger``: the same items at larger budgets, rising.

    An unfinished answer may fail or pass, whatever the part of it that exists does now. Only
    where the same decode, at a larger budget, ended (by itself or in a loop) is its result
    known, and is not bounded. A missing result (None) stays missing.
    """
    low: list[bool | None] = []
    high: list[bool | None] = []
    resolved = 0
    for position, result in enumerate(results):
        known = _final(result, [at_larger[position] for at_larger in larger])
        resolved += result.unfinished and known is not None and result.passed is not None
        open_ended = result.passed is not None and known is None
        low.append(False if open_ended else known)
        high.append(True if open_ended else known)
    unfinished = sum(result.unfinished for result in results)
    return ArmBounds(tuple(low), tuple(high), unfinished, resolved)


def _final(result: ItemResult, later: Sequence[ItemResult]) -> bool | None:
    """Whether the finished answer passes; None where that is missing or not known."""
    if result.passed is None:
        return None
    for at_budget in (result, *later):
        if at_budget.item_id != result.item_id:
            raise ValueError(f"{at_budget.item_id} stands where {result.item_id} should")
        if not at_budget.unfinished and at_budget.passed is not None:
            return at_budget.passed
    return None


def corners(base: ArmBounds, edited: ArmBounds) -> tuple[Corner, ...]:
    """All four combinations: each arm's unfinished answers all fail or all pass."""
    return tuple(
        Corner(b, e, base.high if b else base.low, edited.high if e else edited.low)
        for b in (False, True)
        for e in (False, True)
    )
