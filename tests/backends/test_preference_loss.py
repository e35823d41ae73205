"""The DPO loss against the formula, numbers by hand, and finite differences."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.interface import Batch, PreferenceBatch
from backends.preference_loss import LN2, preference_terms, row_coefficients


def batch(reference: list[float], beta: float = 0.1, normaliser: float = 1.0) -> PreferenceBatch:
    rows = len(reference)
    return PreferenceBatch(
        rows=Batch(
            ids=np.ones((rows, 3), np.int32),
            lengths=np.full(rows, 3, np.int32),
            loss_mask=np.tile([False, True, True], (rows, 1)),
            normaliser=normaliser,
        ),
        reference=np.array(reference, np.float64),
        beta=beta,
    )


def test_two_pairs_by_hand() -> None:
    """Margins 0.1 * ((-9 + 10) - (-21 + 20)) = 0.2 and 0.1 * ((-7 + 5) - (-30 + 30)) = -0.2."""
    given_batch = batch([-10.0, -5.0, -20.0, -30.0])
    terms = preference_terms(given_batch, np.array([-9.0, -7.0, -21.0, -30.0]))
    np.testing.assert_allclose(terms.rewards_chosen, [0.1, -0.2], rtol=1e-12)
    np.testing.assert_allclose(terms.rewards_rejected, [-0.1, 0.0], atol=1e-12)
    expected = [math.log(1 + math.exp(-0.2)), math.log(1 + math.exp(0.2))]
    np.testing.assert_allclose(terms.losses, expected, rtol=1e-12)
    assert terms.loss_sum == pytest.approx(sum(expected), rel=1e-12)
    assert terms.tokens == 8


def test_equal_policies_give_ln_2_and_no_reward() -> None:
    reference = [-100.0, -3.0, -50.0, -700.0]
    terms = preference_terms(batch(reference), np.array(reference))
    np.testing.assert_allclose(terms.losses, math.log(2), rtol=1e-15)
    assert math.log(2) == LN2
    assert not terms.rewards_chosen.any() and not terms.rewards_rejected.any()


@given(
    policy=st.lists(st.floats(-40, 0), min_size=4, max_size=4),
    reference=st.lists(st.floats(-40, 0), min_size=4, max_size=4),
    beta=st.floats(0.01, 2),
)
def test_coefficients_are_the_derivative(
    policy: list[float], reference: list[float], beta: float
) -> None:
    here = replace(batch(reference, beta), rows=batch(reference, normaliser=3.0).rows)
    found = row_coefficients(here, np.array(policy))
    step = 1e-5
    for row in range(4):
        up, down = np.array(policy), np.array(policy)
        up[row] += step
        down[row] -= step
        rise = preference_terms(here, up).loss_sum - preference_terms(here, down).loss_sum
        assert found[row] == pytest.approx(rise / (2 * step) / 3.0, rel=1e-4, abs=1e-7)


def test_extreme_margins_do_not_overflow() -> None:
    terms = preference_terms(batch([0.0, 0.0], beta=1.0), np.array([0.0, -5000.0]))
    assert terms.losses == pytest.approx([0.0])
    wrong = preference_terms(batch([0.0, 0.0], beta=1.0), np.array([-5000.0, 0.0]))
    assert wrong.losses == pytest.approx([5000.0])
    slopes = row_coefficients(batch([0.0, 0.0], beta=1.0), np.array([-5000.0, 0.0]))
    np.testing.assert_allclose(slopes, [-1.0, 1.0])
