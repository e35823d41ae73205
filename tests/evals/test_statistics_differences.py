from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, hypergeom
from statsmodels.stats.proportion import confint_proportions_2indep

from evals.statistics.differences import difference_of_rates, ratio_of_rates
from evals.statistics.rates import wilson

groups = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
"""(successes, n)"""


@pytest.mark.parametrize(
    ("second", "first", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0000),
        ((10, 10), (0, 10), 0.6075, 1.0000),
    ],
)
def test_newcombes_published_examples(second, first, low, high) -> None:
    # Newcombe 1998, table II, method 10: the difference of the first named minus the other,
    # printed to four digits.
    found = difference_of_rates(*first, *second)
    assert found.value == pytest.approx(second[0] / second[1] - first[0] / first[1])
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), abs=6e-5)


@given(groups, groups, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_is_the_square_and_add_of_two_wilson_intervals(first, second, level) -> None:
    one, two = wilson(*first, level), wilson(*second, level)
    p1, p2 = first[0] / first[1], second[0] / second[1]
    low = p2 - p1 - math.hypot(p2 - two.low, one.high - p1)
    high = p2 - p1 + math.hypot(two.high - p2, p1 - one.low)
    found = difference_of_rates(*first, *second, level).interval
    # Two implementations of one closed form.
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    assert found.level == level


@given(groups, groups)
def test_swapping_the_groups_mirrors_the_difference(first, second) -> None:
    there, back = difference_of_rates(*first, *second), difference_of_rates(*second, *first)
    assert there.value == -back.value
    assert there.interval.low == pytest.approx(-back.interval.high, abs=1e-12)
    assert there.p_value == pytest.approx(back.p_value, rel=1e-9)
    assert there.value in there.interval
    assert there.interval.low < there.interval.high


@given(groups, groups)
def test_the_p_value_is_fishers(first, second) -> None:
    tables = hypergeom(first[1] + second[1], first[0] + second[0], first[1])
    probability = tables.pmf(np.arange(first[1] + 1))
    # Fisher's two sides: all tables that are no more likely than the one seen, up to rounding.
    as_unlikely = probability <= probability[first[0]] * (1 + 1e-7)
    found = difference_of_rates(*first, *second).p_value
    assert found == pytest.approx(float(probability[as_unlikely].sum()), rel=1e-6)


@pytest.mark.parametrize(("p1", "p2"), [(0.1, 0.1), (0.5, 0.5), (0.1, 0.3), (0.4, 0.9)])
def test_the_interval_covers_the_true_difference(p1, p2) -> None:
    # Exact coverage over all tables of 20 and 30. Newcombe 1998 reports 0.93 to 0.98 there.
    n1, n2 = 20, 30
    covered = 0.0
    for a in range(n1 + 1):
        for b in range(n2 + 1):
            weight = binom.pmf(a, n1, p1) * binom.pmf(b, n2, p2)
            if weight > 1e-7:
                covered += weight * (p2 - p1 in difference_of_rates(a, n1, b, n2).interval)
    assert 0.93 < covered < 0.985


@pytest.mark.parametrize("counts", [(0, 0, 1, 2), (3, 2, 1, 2), (1, 2, -1, 2)])
def test_impossible_counts_are_refused(counts) -> None:
    with pytest.raises(ValueError, match="impossible counts"):
        difference_of_rates(*counts)


def test_a_ratio_agrees_with_the_score_interval_where_that_works() -> None:
    """Within 4 percent of each limit, on counts of 40 and more (docstring: another method)."""
    for counts in ((56, 100, 9, 193), (60, 160, 55, 160), (20, 40, 30, 90)):
        found = ratio_of_rates(*counts)
        assert found is not None
        x1, n1, x2, n2 = counts
        limits = confint_proportions_2indep(x2, n2, x1, n1, method="score", compare="ratio")
        assert found.value == pytest.approx(x2 / n2 / (x1 / n1))
        assert (found.interval.low, found.interval.high) == pytest.approx(limits, rel=0.04)


def test_a_ratio_has_a_width_at_its_ends() -> None:
    for counts, value in (
        ((56, 100, 0, 193), 0.0),
        ((9, 9, 9, 9), 1.0),
        ((0, 20, 3, 20), math.inf),
    ):
        found = ratio_of_rates(*counts)
        assert found is not None and found.value == value
        assert found.interval.low < found.interval.high
    assert ratio_of_rates(0, 20, 0, 30) is None
    with pytest.raises(ValueError, match="impossible counts"):
        ratio_of_rates(3, 2, 1, 5)


def test_the_interval_of_a_ratio_covers_as_often_as_it_says() -> None:
    """95 percent nominal; 3 standard errors of 400 draws are 3.3 points."""
    rng = np.random.default_rng(0)
    for p1, n1, p2, n2 in ((0.56, 100, 0.05, 193), (0.4, 40, 0.4, 40)):
        drawn = zip(rng.binomial(n1, p1, 400).tolist(), rng.binomial(n2, p2, 400).tolist(),
                    strict=True)  # fmt: skip
        found = [ratio_of_rates(x1, n1, x2, n2) for x1, x2 in drawn]
        covered = [one is not None and p2 / p1 in one.interval for one in found]
        assert 0.917 <= np.mean(covered) <= 0.99
