"""The sign-flip test and pass@k, against what they must equal."""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.statistics import budget_interaction, mcnemar_exact
from evals.statistics.pass_at_k import pass_at_k
from evals.statistics.sign_flips import sign_flip_p_value


@given(st.lists(st.integers(-5, 5), max_size=9))
def test_the_sign_flip_test_is_all_flips_counted(values: list[int]) -> None:
    flips = product((-1, 1), repeat=len(values))
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in flips]
    expected = np.mean([one >= abs(sum(values)) for one in sums])
    assert sign_flip_p_value(values) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5))
def test_of_single_answers_it_is_mcnemars(gained: int, lost: int, same: int) -> None:
    values = [1] * gained + [-1] * lost + [0] * same
    assert sign_flip_p_value(values) == pytest.approx(mcnemar_exact(gained, lost), rel=1e-9)


@given(st.lists(st.tuples(*[st.booleans()] * 4), max_size=40))
def test_of_single_answers_it_is_the_budget_interaction(rows: list[tuple[bool, ...]]) -> None:
    values = [(es - bs) - (el - bl) for bs, es, bl, el in rows]
    columns = [list(one) for one in zip(*rows, strict=True)] or [[]] * 4
    assert sign_flip_p_value(values) == pytest.approx(budget_interaction(*columns), rel=1e-9)


@pytest.mark.parametrize(("samples", "passed", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 4)])
def test_pass_at_k_is_the_share_of_draws_with_a_pass(samples: int, passed: int, k: int) -> None:
    draws = combinations([n < passed for n in range(samples)], k)
    share = sum(map(any, draws)) / comb(samples, k)
    assert pass_at_k(samples, passed, k) == pytest.approx(share)


@pytest.mark.parametrize(("samples", "passed", "k"), [(5, 6, 1), (5, -1, 1), (5, 2, 6), (5, 2, 0)])
def test_impossible_counts_are_refused(samples: int, passed: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(samples, passed, k)
