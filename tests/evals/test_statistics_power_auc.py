from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm, rankdata

from evals.statistics.auc import auc, delong_interval, hanley_mcneil_interval
from evals.statistics.power_auc import (
    MOST_ITEMS,
    auc_half_width,
    minimum_detectable_auc,
    minimum_detectable_rate_difference,
    n_to_hold,
    n_to_settle_auc,
)
from evals.statistics.rates import Interval

sizes = st.integers(1, 2000)


def simulated_aucs(auc: float, n_positive: int, n_negative: int, repeats: int) -> np.ndarray:
    """AUCs of two unit normal scores whose true AUC is ``auc``."""
    scores = np.random.default_rng(1).normal(size=(repeats, n_positive + n_negative))
    scores[:, :n_positive] += np.sqrt(2) * norm.ppf(auc)
    ranks = rankdata(scores, axis=1)[:, :n_positive].sum(axis=1)
    return (ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def null_error(n_positive: int, n_negative: int) -> float:
    """Exact standard error of the Mann-Whitney AUC of two equal distributions, no ties."""
    return float(np.sqrt((n_positive + n_negative + 1) / (12 * n_positive * n_negative)))


@pytest.mark.parametrize(
    ("n_positive", "expected"), [(9, 0.194), (30, 0.113), (55, 0.090), (96, 0.082)]
)
def test_half_widths_are_those_of_the_table(n_positive, expected) -> None:
    # ANCHORS E2, to the three digits given there.
    assert auc_half_width(n_positive, 193 - n_positive) == pytest.approx(expected, abs=5e-4)


@given(sizes, sizes, st.sampled_from([0.8, 0.95]))
def test_the_half_width_at_chance_is_exact(n_positive, n_negative, level) -> None:
    expected = norm.ppf(0.5 + level / 2) * null_error(n_positive, n_negative)
    assert auc_half_width(n_positive, n_negative, level=level) == pytest.approx(expected)


@given(st.floats(0.3, 0.7), st.integers(50, 500), st.integers(50, 500))
def test_the_half_width_is_that_of_the_interval(auc, n_positive, n_negative) -> None:
    interval = hanley_mcneil_interval(auc, n_positive, n_negative)
    width = interval.high - interval.low
    assert 2 * auc_half_width(n_positive, n_negative, auc) == pytest.approx(width)


@pytest.mark.parametrize(("positives_of_20", "expected"), [(1, 840), (3, 310), (6, 190), (10, 160)])
def test_items_to_tell_an_auc_from_chance_are_those_of_the_table(positives_of_20, expected) -> None:
    # ANCHORS E2 says "about" and rounds to tens: 6 percent.
    found = n_to_settle_auc(0.63, positives_of_20, 20 - positives_of_20, 0.05)
    assert found == pytest.approx(expected, rel=0.06)


@given(st.floats(0.56, 0.95), st.integers(1, 30), st.integers(1, 30))
@settings(deadline=None)
def test_the_number_of_items_is_the_smallest_that_detects_the_auc(auc, positive, negative) -> None:
    total = positive + negative
    found = n_to_settle_auc(auc, positive, negative, 0.0)

    def detectable(items: int) -> float:
        many = round(items * positive / total)
        return minimum_detectable_auc(many, items - many) or 1.0

    assert found is not None
    # Two forms of one equation, but for the wrong tail, which holds less than 1e-5.
    assert detectable(found) <= auc + 1e-4
    if found > total + 1:
        assert detectable(found - 1) > auc - 1e-4


@pytest.mark.parametrize(("n_positive", "n_negative"), [(100, 100), (30, 163)])
def test_the_detectable_auc_is_detected_with_the_stated_power(n_positive, n_negative) -> None:
    auc = minimum_detectable_auc(n_positive, n_negative)
    limit = norm.ppf(0.975) * null_error(n_positive, n_negative)
    found = simulated_aucs(auc, n_positive, n_negative, 4000)
    # Standard error of the simulation 0.006. The variance assumed is for exponential scores.
    assert np.mean(np.abs(found - 0.5) > limit) == pytest.approx(0.8, abs=0.03)
    assert np.mean(np.abs(found - 0.5) > limit * 1.3) < 0.72  # a wrong limit would be noticed


def test_fewer_items_detect_less_and_very_few_nothing() -> None:
    detectable = [minimum_detectable_auc(k, 4 * k) for k in (4, 20, 100, 500)]
    assert detectable == sorted(detectable, reverse=True)
    assert 0.5 < detectable[-1] < 0.56
    assert minimum_detectable_auc(2, 2) is None
    assert minimum_detectable_auc(50, 50, power=0.95) > minimum_detectable_auc(50, 50)
    assert minimum_detectable_auc(50, 50, alpha=0.01) > minimum_detectable_auc(50, 50)


@pytest.mark.parametrize(("n_positive", "n_negative"), [(2, 8), (5, 5)])
def test_so_many_items_show_an_effect_with_the_stated_power(n_positive, n_negative) -> None:
    items = n_to_settle_auc(0.65, n_positive, n_negative, 0.1)
    positive = round(items * n_positive / (n_positive + n_negative))
    found = simulated_aucs(0.65, positive, items - positive, 4000)
    shown = (found > 0.6) & (found - 0.5 > norm.ppf(0.975) * null_error(positive, items - positive))
    assert shown.mean() == pytest.approx(0.8, abs=0.03)


def test_so_many_items_exclude_an_effect_with_the_stated_power() -> None:
    items = n_to_settle_auc(0.5, 3, 7, 0.1)
    positive = round(items * 0.3)
    found = simulated_aucs(0.5, positive, items - positive, 1500)
    intervals = [hanley_mcneil_interval(auc, positive, items - positive) for auc in found]
    excluded = np.mean([i.low > 0.4 and i.high < 0.6 for i in intervals])
    # Standard error of the simulation 0.01.
    assert excluded == pytest.approx(0.8, abs=0.03)
    fewer = n_to_settle_auc(0.5, 3, 7, 0.1, power=0.6)
    assert fewer < 0.9 * items


def test_an_effect_at_the_border_is_never_settled() -> None:
    assert n_to_settle_auc(0.6, 55, 138, 0.1) is None
    assert n_to_settle_auc(0.62, 55, 138, 0.1) < MOST_ITEMS


def test_the_present_number_is_never_said_to_be_enough() -> None:
    assert n_to_settle_auc(0.9, 500, 500, 0.1) == 1001
    assert n_to_settle_auc(1.0, 5, 5, 0.1) == 11


@pytest.mark.parametrize("auc", [0.5, 0.56, 0.63, 0.7])
def test_low_and_high_aucs_are_alike_when_the_classes_are_too(auc) -> None:
    # Hanley and McNeil's variance has that symmetry when the classes change places.
    found = n_to_settle_auc(auc, 20, 60, 0.1)
    assert found == n_to_settle_auc(1 - auc, 60, 20, 0.1)


def test_another_null_moves_the_question() -> None:
    near, far = (n_to_settle_auc(0.7, 30, 70, 0.05, null=null) for null in (0.6, 0.5))
    assert near > far


@pytest.mark.parametrize(("rate", "n1", "n2"), [(0.13, 164, 164), (0.1, 100, 600), (0.1, 600, 100)])
def test_the_detectable_rise_is_shown_with_the_stated_power(rate, n1, n2) -> None:
    rise = minimum_detectable_rate_difference(rate, n1, n2)
    a, b = np.arange(n1 + 1)[:, None], np.arange(n2 + 1)[None, :]
    pooled = (a + b) / (n1 + n2)
    error = np.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n2))
    rejected = np.abs(b / n2 - a / n1) > norm.ppf(0.975) * error
    weight = binom.pmf(a, n1, rate) * binom.pmf(b, n2, rate + rise)
    # Exact power over all tables; counts are whole numbers and the formula is normal. With
    # the groups mixed up, 0.73 and 0.86.
    assert float(weight[rejected].sum()) == pytest.approx(0.8, abs=0.02)


def test_a_rise_that_needs_more_room_than_there_is_is_missing() -> None:
    assert minimum_detectable_rate_difference(0.9, 20, 20) is None
    assert minimum_detectable_rate_difference(1.0, 20, 20) is None
    assert 0.02 < minimum_detectable_rate_difference(0.0, 100, 100) < 0.1


@pytest.mark.parametrize(
    "call",
    [
        lambda: auc_half_width(0, 5),
        lambda: auc_half_width(5, 5, auc=1.2),
        lambda: auc_half_width(5, 5, level=1.0),
        lambda: minimum_detectable_auc(5, 0),
        lambda: minimum_detectable_auc(5, 5, power=1.0),
        lambda: n_to_settle_auc(0.6, 0, 5, 0.1),
        lambda: n_to_settle_auc(1.6, 5, 5, 0.1),
        lambda: n_to_settle_auc(0.6, 5, 5, -0.1),
        lambda: n_to_settle_auc(0.6, 5, 5, 0.1, null=1.0),
        lambda: minimum_detectable_rate_difference(0.5, 0, 5),
        lambda: minimum_detectable_rate_difference(1.5, 5, 5),
    ],
)
def test_impossible_designs_are_refused(call) -> None:
    with pytest.raises(ValueError):
        call()


def test_so_many_items_put_an_interval_on_one_side() -> None:
    """At the number given, the interval of that AUC clears the threshold 4 times in 5."""
    rng = np.random.default_rng(0)
    right = np.arange(60) < 30

    def drawn(n: int) -> tuple[float, Interval]:
        y = np.arange(n) < n // 2
        scores = rng.normal(size=n) + 0.95 * y  # a true AUC of 0.749
        return auc(scores, y), delong_interval(scores, y)

    scores = rng.normal(size=60) + 0.95 * right
    n = n_to_hold(0.749, delong_interval(scores, right), 60, 0.63)
    assert n is not None and 60 < n < 400
    cleared = np.mean([drawn(n)[1].low >= 0.63 for _ in range(150)])
    assert 0.65 < cleared < 0.95  # 0.8, give or take the interval that it was planned from
    assert n_to_hold(0.63, Interval(0.5, 0.7, 0.95), 60, 0.63) is None
    assert n_to_hold(0.6301, Interval(0.5, 0.7, 0.95), 60, 0.63) is None
    assert n_to_hold(0.9, Interval(0.8, 0.95, 0.95), 60, 0.63) == 61
