from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from evals.statistics import budget_interaction

cell = st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans())


@settings(max_examples=60)
@given(st.lists(cell, min_size=1, max_size=9))
def test_the_p_value_is_that_of_all_sign_flips(rows) -> None:
    columns = list(zip(*rows, strict=True))
    values = [(int(es) - int(bs)) - (int(el) - int(bl)) for bs, es, bl, el in rows]
    flips = itertools.product((-1, 1), repeat=len(values))
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in flips]
    expected = sum(s >= abs(sum(values)) for s in sums) / len(sums)
    assert budget_interaction(*columns) == pytest.approx(expected, abs=1e-12)


def test_it_agrees_with_scipys_permutation_test_at_the_size_of_humaneval() -> None:
    rng = np.random.default_rng(0)
    base_small, edited_small, base_large, edited_large = rng.random((4, 164)) < np.array(
        [[0.2], [0.32], [0.3], [0.3]]
    )
    values = (edited_small.astype(int) - base_small) - (edited_large.astype(int) - base_large)
    reference = permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=20_000, rng=0
    ).pvalue
    found = budget_interaction(
        base_small.tolist(), edited_small.tolist(), base_large.tolist(), edited_large.tolist()
    )
    # 20,000 random flips: standard error of p at most 0.0036, three of them.
    assert found == pytest.approx(float(reference), abs=0.011)


def test_equal_results_at_both_budgets_show_no_interaction() -> None:
    base, edited = [True, False, True, False], [True, True, False, False]
    assert budget_interaction(base, edited, base, edited) == 1.0


def test_a_gain_that_vanishes_with_the_budget_is_an_interaction() -> None:
    base_small, edited_small = [False] * 30, [True] * 12 + [False] * 18
    p = budget_interaction(base_small, edited_small, edited_small, edited_small)
    assert p == pytest.approx(2 / 2**12, rel=1e-12)


def test_a_budget_that_helps_both_arms_alike_is_none() -> None:
    small, large = [False] * 40, [True] * 20 + [False] * 20
    assert budget_interaction(small, small, large, large) == 1.0


@given(st.lists(cell, min_size=1, max_size=40))
def test_swapping_arms_or_budgets_changes_nothing(rows) -> None:
    bs, es, bl, el = zip(*rows, strict=True)
    p = budget_interaction(bs, es, bl, el)
    assert budget_interaction(es, bs, el, bl) == p
    assert budget_interaction(bl, el, bs, es) == p
    assert 0 < p <= 1


def test_an_item_missing_anywhere_is_left_out() -> None:
    base = [False] * 10
    edited = [True] * 8 + [False] * 2
    large: list[bool | None] = [None, None, *[False] * 8]
    assert budget_interaction(base, edited, base, large) == budget_interaction(
        base[2:], edited[2:], base[2:], large[2:]
    )


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError):
        budget_interaction([True], [True], [True], [True, False])


def test_without_an_interaction_it_is_significant_in_at_most_five_percent() -> None:
    # The edit gains and loses equally often, at either budget. 2,000 runs: standard error
    # 0.0049; the test is discrete and so below 0.05. Three standard errors of slack.
    rng = np.random.default_rng(1)
    significant = 0
    for _ in range(2000):
        base_small = rng.random(164) < 0.15
        base_large = base_small | (rng.random(164) < 0.1)
        flip_small, flip_large = rng.random((2, 164)) < 0.1
        # Which arm is called base is a coin flip for each item: that is the null.
        swap = rng.random(164) < 0.5
        edited_small, edited_large = base_small ^ flip_small, base_large ^ flip_large
        arms = (
            np.where(swap, edited_small, base_small),
            np.where(swap, base_small, edited_small),
            np.where(swap, edited_large, base_large),
            np.where(swap, base_large, edited_large),
        )
        significant += budget_interaction(*(arm.tolist() for arm in arms)) < 0.05
    assert 0.02 < significant / 2000 < 0.05 + 3 * 0.0049
