from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from evals.statistics.calibration import (
    brier_score,
    expected_calibration_error,
    reliability_table,
    risk_coverage,
)
from evals.statistics.rates import wilson

probabilities = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
forecasts = st.lists(st.tuples(probabilities, st.booleans()), min_size=1, max_size=40)
answers = st.lists(
    st.tuples(st.sampled_from([0.1, 0.4, 0.6, 0.9]), st.booleans()), min_size=1, max_size=6
)
"""(confidence, error), with many ties."""


def test_errors_of_calibration_worked_by_hand() -> None:
    p = [0.1, 0.2, 0.8, 0.9]
    y = [False, True, True, True]
    # Two halves: |0.15 - 0.5| and |0.85 - 1|, each of two items.
    assert expected_calibration_error(p, y, bins=2) == pytest.approx((0.35 + 0.15) / 2)
    # Tenths, two of them empty of neighbours: every item is a bin of its own.
    by_width = expected_calibration_error(p, y, bins=10, equal_mass=False)
    assert by_width == pytest.approx((0.1 + 0.8 + 0.2 + 0.1) / 4)
    assert brier_score(p, y) == pytest.approx((0.01 + 0.64 + 0.04 + 0.01) / 4)


def test_bins_of_equal_mass_and_of_equal_width_differ_on_crowded_probabilities() -> None:
    p = [0.91, 0.92, 0.93, 0.94, 0.2]
    y = [True, True, False, False, False]
    masses = [row.n for row in reliability_table(p, y, bins=2)]
    widths = [row.n for row in reliability_table(p, y, bins=2, equal_mass=False)]
    assert (masses, widths) == ([3, 2], [1, 4])


@given(forecasts, st.integers(1, 12), st.booleans())
def test_bins_are_those_of_scikit_learn(items, bins, equal_mass) -> None:
    p, y = map(np.array, zip(*items, strict=True))
    table = reliability_table(p, y, bins=bins, equal_mass=equal_mass)
    rates, means = calibration_curve(
        y, p, n_bins=bins, strategy="quantile" if equal_mass else "uniform", pos_label=True
    )
    # A mean and a sum divided by a count may differ in the last digit.
    np.testing.assert_allclose([row.rate for row in table], rates, atol=1e-12)
    np.testing.assert_allclose([row.mean_probability for row in table], means, atol=1e-12)
    assert sum(row.n for row in table) == len(p)
    for row in table:
        assert row.low - 1e-12 <= row.mean_probability <= row.high + 1e-12
        assert row.interval == wilson(round(row.rate * row.n), row.n)
    weighted = sum(row.n * abs(row.rate - row.mean_probability) for row in table) / len(p)
    found = expected_calibration_error(p, y, bins=bins, equal_mass=equal_mass)
    assert found == pytest.approx(weighted)


@given(forecasts, st.randoms())
def test_the_order_of_tied_items_does_not_matter(items, random) -> None:
    shuffled = random.sample(items, len(items))
    found = [expected_calibration_error(*zip(*rows, strict=True)) for rows in (items, shuffled)]
    assert found[0] == pytest.approx(found[1], abs=1e-12)
    assert brier_score(*zip(*items, strict=True)) == pytest.approx(
        brier_score(*zip(*shuffled, strict=True)), abs=1e-12
    )


def test_a_calibrated_score_has_an_error_that_shrinks_with_n_and_a_shifted_one_has_not() -> None:
    rng = np.random.default_rng(0)

    def mean_error(n: int, shift: float) -> float:
        p = rng.uniform(0.2, 0.8, size=(60, n))
        y = rng.uniform(size=p.shape) < p + shift
        return float(
            np.mean([expected_calibration_error(*pair) for pair in zip(p, y, strict=True)])
        )

    # 10 items a bin: E|N(0, sqrt(0.22 / 10))| = 0.12 (the figure that the docstring gives).
    assert mean_error(100, 0.0) == pytest.approx(0.12, abs=0.02)
    assert mean_error(4000, 0.0) < 0.03
    assert mean_error(4000, 0.15) == pytest.approx(0.15, abs=0.02)


def test_the_brier_score_of_one_class_is_defined() -> None:
    assert brier_score([0.5, 1.0], [True, True]) == pytest.approx(0.125)
    assert brier_score([0.5, 1.0], [False, False]) == pytest.approx(0.625)


def brute_force_risks(items: list[tuple[float, bool]]) -> np.ndarray:
    """Mean risk at each coverage over every order that confidence allows."""
    orders = [
        order
        for order in itertools.permutations(items)
        if all(a[0] >= b[0] for a, b in itertools.pairwise(order))
    ]
    errors = np.array([[wrong for _, wrong in order] for order in orders], dtype=float)
    return (errors.cumsum(axis=1) / np.arange(1, len(items) + 1)).mean(axis=0)


@settings(max_examples=60, deadline=None)
@given(answers)
def test_the_risk_is_the_mean_over_all_orders_of_equal_confidence(items) -> None:
    expected = brute_force_risks(items)
    found = risk_coverage(*zip(*items, strict=True))
    np.testing.assert_allclose(found.risk, expected, atol=1e-12)
    np.testing.assert_allclose(found.coverage, np.arange(1, len(items) + 1) / len(items))
    assert found.aurc == pytest.approx(expected.mean())


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=60))
def test_augrc_has_its_closed_form(items) -> None:
    # Traub et al. 2024: (1 - AUROC of confidence for right answers) x a (1 - a) + (1 - a)^2 / 2,
    # where a is the accuracy.
    confidence, wrong = map(np.array, zip(*items, strict=True))
    accuracy = 1 - wrong.mean()
    separation = roc_auc_score(~wrong, confidence) if 0 < accuracy < 1 else 0.0
    expected = (1 - separation) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert risk_coverage(confidence, wrong).augrc == pytest.approx(expected, abs=1e-12)


def test_confidence_that_knows_is_better_than_none_and_none_better_than_the_reverse() -> None:
    wrong = np.arange(10) < 4
    knows, none, backwards = (risk_coverage(c, wrong) for c in (~wrong, np.zeros(10), wrong))
    # No error until 6 answers are kept, then 1/7, 2/8, 3/9 and 4/10.
    assert knows.aurc == pytest.approx((1 / 7 + 2 / 8 + 3 / 9 + 4 / 10) / 10)
    assert none.aurc == pytest.approx(0.4)
    assert none.augrc == pytest.approx(0.2)
    assert knows.aurc < none.aurc < backwards.aurc
    assert knows.augrc < none.augrc < backwards.augrc
    assert knows.risk[-1] == pytest.approx(0.4)


@pytest.mark.parametrize("measure", [brier_score, expected_calibration_error, risk_coverage])
@pytest.mark.parametrize(
    ("values", "outcomes"),
    [
        ([], []),
        ([0.5], [True, False]),
        ([float("nan")], [True]),
        ([0.5, 0.6], [True, None]),
        ([0.5, 0.6], [0, 2]),
        ([[0.5]], [[True]]),
    ],
)
def test_what_cannot_be_measured_is_refused(measure, values, outcomes) -> None:
    with pytest.raises(ValueError):
        measure(values, outcomes)


@pytest.mark.parametrize("p", [-0.01, 1.01])
def test_values_that_are_no_probabilities_are_refused(p) -> None:
    for measure in (brier_score, expected_calibration_error):
        with pytest.raises(ValueError, match="between 0 and 1"):
            measure([p], [True])
    assert risk_coverage([p], [True]).aurc == 1.0  # confidence may be on any scale


def test_a_table_of_no_bins_is_refused() -> None:
    with pytest.raises(ValueError, match="bin"):
        reliability_table([0.5], [True], bins=0)
