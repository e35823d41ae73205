from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from evals.statistics.agreement import cohen_kappa, quadratic_kappas

labellings = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1)


def labels_of(table: np.ndarray) -> tuple[list[int], list[int]]:
    """Two judges' labels from their table of counts."""
    cells = [cell for cell, count in np.ndenumerate(table) for _ in range(count)]
    return [a for a, _ in cells], [b for _, b in cells]


def kappa_of(share: np.ndarray) -> float:
    expected = share.sum(axis=0) @ share.sum(axis=1)
    return float((np.trace(share) - expected) / (1 - expected))


@given(labellings)
def test_kappa_is_scikit_learns_where_that_is_defined(pairs) -> None:
    first, second = zip(*pairs, strict=True)
    found = cohen_kappa(first, second)
    assert found.observed_agreement == pytest.approx(np.mean([a == b for a, b in pairs]))
    assert found.n == len(pairs)
    if len(set(first) | set(second)) == 1:
        assert found.value is None
        assert found.interval is None
    else:
        # Two sums of the same terms in another order.
        assert found.value == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
        one_label = len(set(first)) == 1 or len(set(second)) == 1
        assert (found.interval is None) == one_label
    if found.interval is not None:
        assert -1 <= found.interval.low <= found.value <= found.interval.high <= 1
        assert found.interval.low < found.interval.high


def test_kappa_and_interval_of_a_table_worked_by_hand() -> None:
    # Cohen's textbook layout: 20 and 15 agreed, 5 and 10 not. Agreement 0.7, expected
    # 0.6 x 0.5 + 0.4 x 0.5 = 0.5, kappa (0.7 - 0.5) / (1 - 0.5) = 0.4.
    found = cohen_kappa(*labels_of(np.array([[20, 5], [10, 15]])))
    assert found.value == pytest.approx(0.4)
    # Wilson's limits of 35 of 50, from the formula.
    z2 = norm.ppf(0.975) ** 2
    centre, reach = (35 + z2 / 2) / (50 + z2), np.sqrt(z2 * (50 * 0.7 * 0.3 + z2 / 4)) / (50 + z2)
    assert found.interval.low == pytest.approx((centre - reach - 0.5) / 0.5)
    assert found.interval.high == pytest.approx((centre + reach - 0.5) / 0.5)


def test_the_interval_nears_the_large_sample_one_where_that_is_good() -> None:
    table = np.array([[400, 100], [110, 390]])
    found, reference = cohen_kappa(*labels_of(table)), cohens_kappa(table)
    assert found.value == pytest.approx(float(reference.kappa), abs=1e-12)
    # Half widths are 0.05. Wilson's centre lies kappa z^2 / n = 0.0022 nearer to 0.
    assert found.interval.low == pytest.approx(float(reference.kappa_low), abs=3e-3)
    assert found.interval.high == pytest.approx(float(reference.kappa_upp), abs=3e-3)


def test_a_higher_level_gives_a_wider_interval() -> None:
    narrow, wide = (cohen_kappa(*labels_of(np.full((2, 2), 9)), p).interval for p in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("table", "n"),
    [
        ([[0.25, 0.25], [0.25, 0.25]], 60),
        ([[0.4, 0.1], [0.1, 0.4]], 60),
        ([[0.475, 0.025], [0.025, 0.475]], 100),
        ([[0.6, 0.2], [0.1, 0.1]], 60),
    ],
)
def test_the_interval_covers_the_true_kappa(table, n) -> None:
    # Found with 4000 draws: 0.94 to 0.976. The standard error with 700 draws is 0.008.
    coverage, _ = simulated_coverage(np.array(table), n)
    assert 0.925 <= coverage <= 0.985


def test_the_large_sample_interval_would_not_cover_a_high_kappa() -> None:
    # The reason for not using it: 0.87 of 0.95 with 100 items.
    _, large_sample = simulated_coverage(np.array([[0.475, 0.025], [0.025, 0.475]]), 100)
    assert large_sample < 0.9


def simulated_coverage(shares: np.ndarray, n: int) -> tuple[float, float]:
    """Coverage of ours and of the large-sample interval over 700 drawn tables."""
    draws = np.random.default_rng(3).multinomial(n, shares.ravel(), size=700).reshape(-1, 2, 2)
    tables, times = np.unique(draws, axis=0, return_counts=True)
    truth = kappa_of(shares)
    ours = [truth in cohen_kappa(*labels_of(table)).interval for table in tables]
    references = [cohens_kappa(table) for table in tables]
    theirs = [r.kappa_low <= truth <= r.kappa_upp for r in references]
    return float(np.average(ours, weights=times)), float(np.average(theirs, weights=times))


def test_perfect_agreement_still_has_an_interval() -> None:
    labels = [True] * 25 + [False] * 25
    found = cohen_kappa(labels, labels)
    # Wilson's lower limit of 50 of 50 is n / (n + z^2) = 0.92865; (0.92865 - 0.5) / 0.5.
    assert (found.value, found.interval.high) == (1.0, 1.0)
    assert found.interval.low == pytest.approx(2 * 50 / (50 + norm.ppf(0.975) ** 2) - 1)


def test_opposite_judges_have_kappa_minus_one() -> None:
    first = [True] * 10 + [False] * 10
    found = cohen_kappa(first, [not label for label in first])
    assert found.value == pytest.approx(-1.0)
    assert (found.interval.low, found.observed_agreement) == (-1.0, 0.0)
    assert found.interval.high > -1


def test_a_judge_with_one_label_agrees_no_better_than_chance() -> None:
    found = cohen_kappa([True] * 20, [True] * 18 + [False] * 2)
    assert (found.value, found.interval, found.observed_agreement) == (0.0, None, 0.9)


def test_items_without_both_labels_are_left_out() -> None:
    first = [True, None, False, True, False, True]
    second = [True, True, False, False, None, True]
    kept = cohen_kappa([True, False, True, True], [True, False, False, True])
    assert cohen_kappa(first, second) == kept
    assert kept.n == 4


def test_labels_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="both judges"):
        cohen_kappa([None, True], [True, None])
    with pytest.raises(ValueError):
        cohen_kappa([True], [True, False])


def test_kappas_with_quadratic_weights_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 5, (30, 12))
    second = np.clip(first + rng.integers(-1, 2, first.shape), 0, 4)
    first[0] = second[0] = 2  # one label from both: 0 / 0
    second[1] = 3  # one label from one judge
    found = quadratic_kappas(first, second)
    assert np.isnan(found[0]) and found[1] == pytest.approx(0, abs=1e-12)
    for row in range(1, 30):
        theirs = cohen_kappa_score(first[row], second[row], labels=range(5), weights="quadratic")
        assert found[row] == pytest.approx(theirs, abs=1e-12)  # sums in another order
    linear = cohen_kappa_score(first[2], second[2], labels=range(5), weights="linear")
    assert abs(found[2] - linear) > 1e-3
