from __future__ import annotations

import argparse
import inspect
import random
import re
import textwrap
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.humaneval.outcomes import ItemResult, Outcome
from evals.truncation import (
    MAX_PERIOD,
    MIN_REPEATS,
    MIN_TOKENS,
    bound_arm,
    corners,
    repetition_loop,
)


@given(
    st.lists(st.integers(0, 40_000), max_size=80),
    st.lists(st.integers(0, 40_000), min_size=1, max_size=MAX_PERIOD, unique=True),
    st.integers(0, MAX_PERIOD),
)
def test_a_planted_loop_is_found_with_its_smallest_period(prefix, cycle, extra) -> None:
    needed = max(MIN_REPEATS * len(cycle), MIN_TOKENS) + extra
    repeated = (cycle * (needed // len(cycle) + 1))[:needed]
    assert repetition_loop(prefix + repeated) == len(cycle)  # distinct ids: no smaller period


@given(st.integers(1, 60), st.integers(0, 2**32))
def test_a_loop_broken_by_one_token_near_the_end_is_none(period, seed) -> None:
    rng = random.Random(seed)
    cycle = rng.sample(range(1000), period)
    ids = cycle * 40
    ids[-rng.randint(1, MIN_REPEATS * period)] = 5000
    assert repetition_loop(ids, min_tokens=1) is None


@given(st.integers(1, 100), st.integers(1, 12))
def test_less_than_the_stated_repeats_or_tokens_is_no_loop(period, repeats) -> None:
    ids = [*range(10_000, 10_050), *(list(range(period)) * repeats)]
    expected = repeats >= MIN_REPEATS and period * repeats >= MIN_TOKENS
    assert (repetition_loop(ids) is not None) == expected


def test_a_period_above_the_largest_looked_for_is_not_reported() -> None:
    ids = list(range(MAX_PERIOD + 1)) * 4
    assert repetition_loop(ids) is None
    assert repetition_loop(ids, max_period=MAX_PERIOD + 1) == MAX_PERIOD + 1


def test_random_ids_are_never_loops() -> None:
    # Even with an alphabet of 4, thirty-two ids are p-periodic by chance with probability
    # 4 ** -(32 - p), at most 4 ** -21 for any p <= 10: not in 20,000 draws.
    rng = random.Random(0)
    for alphabet in (4, 50, 49_152):
        for _ in range(20_000 // 3):
            ids = [rng.randrange(alphabet) for _ in range(rng.randint(1, 300))]
            assert repetition_loop(ids) is None


def rough_tokens(text: str) -> list[int]:
    """One id a word, space run or run of signs, roughly as a tokenizer cuts code."""
    pieces = re.findall(r"\w+|\s+|[^\w\s]+", text)
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    return [vocabulary[piece] for piece in pieces]


def test_ordinary_code_cut_anywhere_is_not_a_loop() -> None:
    rng = random.Random(0)
    for module in (argparse, inspect, textwrap):
        ids = rough_tokens(inspect.getsource(module))
        for _ in range(1000):
            end = rng.randrange(256, len(ids))
            assert repetition_loop(ids[end - 256 : end]) is None


def test_the_loops_of_a_small_model_are_found() -> None:
    start, again = (
        "def f(x):\n    if x == 1:\n        return 1",
        "\n    elif x == 1:\n        return 1",
    )
    assert repetition_loop(rough_tokens(start + again * 6)) == 13
    counted = "".join(f"\n    elif x == {k}:\n        return {k}" for k in range(2, 8))
    assert repetition_loop(rough_tokens(start + counted)) is None


def test_empty_and_short_completions_are_not_loops() -> None:
    assert repetition_loop([]) is None
    assert repetition_loop([7] * (MIN_TOKENS - 1)) is None
    assert repetition_loop([7] * MIN_TOKENS) == 1


def test_impossible_thresholds_are_refused() -> None:
    with pytest.raises(ValueError, match="1 repeats"):
        repetition_loop([1, 2, 3], min_repeats=1)


def test_a_long_completion_takes_under_five_milliseconds() -> None:
    rng = random.Random(0)
    ids = [rng.randrange(3) for _ in range(8192)]
    start = time.perf_counter()
    for _ in range(20):
        repetition_loop(ids)
    assert (time.perf_counter() - start) / 20 < 0.005  # measured 0.2 ms; slack for a busy machine


def item(i: int, outcome: Outcome, *, truncated: bool = False, loop: bool = False) -> ItemResult:
    return ItemResult(f"HumanEval/{i}", outcome, truncated, loop, "sha")


def test_unfinished_answers_are_bounded_both_ways_whatever_their_outcome() -> None:
    arm = bound_arm(
        [
            item(0, Outcome.PASSED),
            item(1, Outcome.WRONG),
            item(2, Outcome.TRUNCATED, truncated=True),
            item(3, Outcome.PASSED, truncated=True),
            item(4, Outcome.TRUNCATED, truncated=True, loop=True),
            item(5, Outcome.INFRASTRUCTURE_ERROR, truncated=True),
        ]
    )
    assert arm.low == (True, False, False, False, False, None)
    assert arm.high == (True, False, True, True, False, None)
    assert (arm.unfinished, arm.resolved) == (3, 0)


def test_an_answer_that_a_larger_budget_finished_is_known_and_not_bounded() -> None:
    cut = Outcome.TRUNCATED
    small = [item(i, cut, truncated=True) for i in range(5)]
    middle = [
        item(0, Outcome.PASSED),
        item(1, Outcome.WRONG),
        item(2, cut, truncated=True),
        item(3, cut, truncated=True),
        item(4, Outcome.INFRASTRUCTURE_ERROR),
    ]
    large = [
        item(0, Outcome.PASSED),
        item(1, Outcome.WRONG),
        item(2, cut, truncated=True, loop=True),
        item(3, cut, truncated=True),
        item(4, Outcome.INFRASTRUCTURE_ERROR),
    ]
    arm = bound_arm(small, [middle, large])
    assert arm.low == (True, False, False, False, False)
    assert arm.high == (True, False, False, True, True)
    assert (arm.unfinished, arm.resolved) == (5, 3)


def test_results_of_another_item_at_the_larger_budget_are_refused() -> None:
    with pytest.raises(ValueError, match="HumanEval/1 stands where HumanEval/0"):
        bound_arm([item(0, Outcome.TRUNCATED, truncated=True)], [[item(1, Outcome.PASSED)]])


def test_the_four_corners_are_all_combinations() -> None:
    base = bound_arm([item(0, Outcome.TRUNCATED, truncated=True), item(1, Outcome.PASSED)])
    edited = bound_arm([item(0, Outcome.WRONG), item(1, Outcome.PASSED, truncated=True)])
    assert {(c.base, c.edited) for c in corners(base, edited)} == {
        ((b, True), (False, e)) for b in (False, True) for e in (False, True)
    }
    for corner in corners(base, edited):
        assert corner.base[0] is corner.base_unfinished_pass
        assert corner.edited[1] is corner.edited_unfinished_pass
