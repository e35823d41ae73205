from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint

from evals.statistics import Interval, wilson


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_statsmodels(counts) -> None:
    k, n = counts
    low, high = proportion_confint(k, n, method="wilson")
    found = wilson(k, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert k / n in found or math.isclose(k / n, found.low) or math.isclose(k / n, found.high)


def test_wilson_of_a_published_count() -> None:
    # ANCHORS D4: 52 of 164 gives 25.1 to 39.2 percent.
    found = wilson(52, 164)
    assert (100 * found.low, 100 * found.high) == pytest.approx((25.1, 39.2), abs=0.05)


@pytest.mark.parametrize("rate", [0.06, 0.15, 0.3, 0.5, 0.9])
def test_wilson_covers_the_true_rate_at_the_size_of_humaneval(rate) -> None:
    # Exact coverage, no simulation. Wilson's oscillates about 0.95; within 0.02 here.
    n = 164
    covered = [rate in wilson(k, n) for k in range(n + 1)]
    coverage = float(binom.pmf(np.arange(n + 1)[covered], n, rate).sum())
    assert coverage == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_impossible_counts_are_refused(k, n) -> None:
    with pytest.raises(ValueError):
        wilson(k, n)


def test_an_effect_is_excluded_only_when_the_whole_interval_is_inside() -> None:
    assert Interval(-0.04, 0.049, 0.95).excludes_effect(0.05)
    assert not Interval(-0.04, 0.05, 0.95).excludes_effect(0.05)
    assert not Interval(-0.05, 0.04, 0.95).excludes_effect(0.05)


@pytest.mark.parametrize(
    ("low", "high", "level"), [(0.2, 0.1, 0.95), (float("nan"), 1, 0.95), (0, 1, 1.0), (0, 1, 95)]
)
def test_what_is_not_an_interval_is_refused(low, high, level) -> None:
    with pytest.raises(ValueError):
        Interval(low, high, level)
