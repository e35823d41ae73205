"""Items that a paired mean needs, against statsmodels' own power."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from statsmodels.stats.power import TTestPower

from evals.statistics.power_means import paired_items
from evals.statistics.sign_flips import sign_flip_p_value, smallest_sign_flip_p


@pytest.mark.parametrize("effect", [0.1, 0.3, 1.0])
def test_the_power_is_reached_and_not_before(effect: float) -> None:
    n = paired_items(effect, 2, alpha=0.05, power=0.8)
    assert n is not None
    power = TTestPower().power
    assert power(effect, n, 0.05) >= 0.8 > power(effect, n - 1, 0.05)


def test_a_large_effect_still_needs_items_that_could_be_significant() -> None:
    assert paired_items(50.0, 3, alpha=0.05, power=0.8) == 6
    assert paired_items(50.0, 9, alpha=0.05, power=0.8) == 10


@example(5.0, 0.05)
@given(st.floats(3.0, 1e6), st.sampled_from([0.05, 0.01, 1e-4]))
def test_any_large_effect_has_a_number(effect: float, alpha: float) -> None:
    """scipy's noncentral t is NaN at some of them (an effect of 5 among 6 items is one)."""
    fewest = next(k for k in range(2, 99) if smallest_sign_flip_p(k) < alpha)
    assert paired_items(effect, 3, alpha=alpha, power=0.8) == fewest


def test_an_effect_of_nothing_has_none() -> None:
    assert paired_items(1e-9, 3, alpha=0.05, power=0.8) is None
    assert paired_items(5.0, 3, alpha=0.05, power=0.8) == 6


@pytest.mark.parametrize("n", [1, 2, 5, 6, 9])
def test_the_least_p_is_that_of_values_of_one_sign(n: int) -> None:
    assert smallest_sign_flip_p(n) == pytest.approx(sign_flip_p_value([1] * n))
