from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, permutation_test_score
from sklearn.naive_bayes import GaussianNB

from evals.statistics.permutation import (
    cohen_d_columns,
    cross_fitted_direction_effect,
    expected_absolute_maximum_of_normals,
    expected_in_sample_direction_effect,
    expected_maximum_of_normals,
    in_sample_direction_effect,
    largest_effect_p_value,
    max_effect_test,
    permutation_test,
    permute_labels,
    permuted_labels,
)

group_sizes = st.lists(st.integers(1, 4), min_size=2, max_size=8)


def vectors(labels, groups):
    """Label vectors of the groups as a multiset."""
    return Counter(tuple(labels[groups == group]) for group in np.unique(groups))


@given(st.lists(st.booleans(), min_size=2, max_size=30), st.integers(0, 99))
def test_permuting_items_keeps_their_number(labels, seed) -> None:
    if len(set(labels)) == 1:
        with pytest.raises(ValueError, match="one class"):
            permute_labels(labels, None, np.random.default_rng(seed))
        return
    permuted = permute_labels(labels, None, np.random.default_rng(seed))
    assert permuted.dtype == np.bool_ and permuted.sum() == sum(labels)


@given(group_sizes, st.integers(0, 99))
def test_labels_of_groups_move_with_their_whole_group(sizes, seed) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    of_group = np.arange(len(sizes)) % 2 == 0
    permuted = permute_labels(of_group[groups], groups, rng)
    now = [set(permuted[groups == g]) for g in range(len(sizes))]
    assert all(len(values) == 1 for values in now)
    assert sum(values == {True} for values in now) == of_group.sum()


@given(group_sizes, st.integers(0, 99))
def test_labels_that_vary_within_groups_are_exchanged_as_vectors_of_one_size(sizes, seed) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    labels = rng.random(len(groups)) < 0.5
    by_size = {}
    for vector in vectors(labels, groups):
        by_size.setdefault(len(vector), set()).add(vector)
    varies = any(len(set(vector)) == 2 for vector in vectors(labels, groups))
    assume(varies and any(len(kinds) > 1 for kinds in by_size.values()))
    permuted = permute_labels(labels, groups, rng)
    assert vectors(permuted, groups) == vectors(labels, groups)


def test_labels_do_change_under_either_rule() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 3)
    for labels in (groups % 2 == 0, np.arange(24) % 5 == 0):
        many = permuted_labels(labels, groups, 300, rng)
        assert len({tuple(row) for row in many}) > 10
        # Every position sees both labels: nothing is held in place.
        assert (many.any(axis=0) & ~many.all(axis=0)).all()


@pytest.mark.parametrize(
    ("labels", "groups"),
    [
        ([True, False, True], [1, 1, 2]),  # sizes 2 and 1
        ([True, False, True, False], [1, 1, 2, 2]),  # equal vectors
    ],
)
def test_labels_with_one_arrangement_are_refused(labels, groups) -> None:
    # Silently returning the same labels is the defect of ANCHORS B43.
    with pytest.raises(ValueError, match="nothing to permute"):
        permute_labels(labels, groups, np.random.default_rng(0))
    with pytest.raises(ValueError, match="nothing to permute"):
        permutation_test(lambda y: float(y[0]), labels, groups=groups)


def test_groups_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="groups of shape"):
        permute_labels([True, False], [1, 2, 3], np.random.default_rng(0))


def mean_difference(values):
    return lambda labels: values[labels].mean() - values[~labels].mean()


def ten_groups(rng):
    """ANCHORS B43: 10 groups of 8 items, values share a group effect, label = f(group)."""
    groups = np.repeat(np.arange(10), 8)
    values = rng.normal(size=10)[groups] + 0.5 * rng.normal(size=80)
    return values, groups, groups % 2 == 0


def test_with_labels_by_group_only_group_permutation_keeps_its_level() -> None:
    rng = np.random.default_rng(1)
    by_item, by_group = [], []
    for seed in range(200):
        values, groups, labels = ten_groups(rng)
        statistic = mean_difference(values)
        settings = {"permutations": 99, "seed": seed}
        by_item.append(permutation_test(statistic, labels, **settings).p_value)
        by_group.append(permutation_test(statistic, labels, groups=groups, **settings).p_value)
    # 200 draws of a 5 percent event: three standard errors are 0.046.
    assert np.mean(np.array(by_group) <= 0.05) < 0.05 + 0.046
    assert np.mean(np.array(by_group) <= 0.5) == pytest.approx(0.5, abs=0.11)
    assert np.mean(np.array(by_item) <= 0.05) > 0.2


def test_within_group_shuffling_is_a_no_op_where_ours_is_not() -> None:
    # scikit-learn shuffles within groups, so all of its permutations are the labels themselves.
    values, groups, labels = ten_groups(np.random.default_rng(2))
    values = values + 3.0 * labels
    _, null, p_value = permutation_test_score(
        GaussianNB(), values[:, None], labels, groups=groups, cv=GroupKFold(5), n_permutations=19
    )
    assert np.ptp(null) == 0 and p_value == 1.0
    ours = permutation_test(mean_difference(values), labels, groups=groups, permutations=499)
    assert ours.p_value < 0.02 and ours.grouped
    assert np.ptp(ours.null) > 1


def test_the_p_value_of_a_mean_difference_is_scipys() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=11) + 0.9 * (np.arange(11) < 5)
    labels = np.arange(11) < 5
    for larger, alternative in ((True, "greater"), (False, "less")):
        exact = scipy.stats.permutation_test(
            (values[labels], values[~labels]),
            lambda a, b: a.mean() - b.mean(),
            alternative=alternative,
            n_resamples=np.inf,
        )
        found = permutation_test(
            mean_difference(values), labels, permutations=6000, larger_is_more_extreme=larger
        )
        assert found.observed == pytest.approx(exact.statistic)
        # 6,000 draws: three standard errors are below 0.02; the +1 adds 1/6000.
        assert found.p_value == pytest.approx(exact.pvalue, abs=0.02)
        assert found.expected == pytest.approx(exact.null_distribution.mean(), abs=0.03)
        expected = np.quantile(exact.null_distribution, 0.9)
        assert found.quantile(0.9) == pytest.approx(expected, abs=0.08)


def test_the_p_value_is_uniform_without_an_effect_and_small_with_one() -> None:
    rng = np.random.default_rng(4)
    labels = np.arange(40) < 15
    draws = [rng.normal(size=40) for _ in range(300)]
    p = np.array(
        [
            permutation_test(mean_difference(v), labels, permutations=99, seed=i).p_value
            for i, v in enumerate(draws)
        ]
    )
    # 300 draws: three standard errors are 0.038 at 5 percent and 0.087 at 50 percent.
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.038)
    assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.087)
    strong = permutation_test(mean_difference(draws[0] + 2 * labels), labels, permutations=99)
    assert strong.p_value == 1 / 100


def test_equal_up_to_rounding_counts_as_extreme() -> None:
    # The sum of these depends on their order in the last digit only.
    rng = np.random.default_rng(5)
    noise = iter(rng.choice([0.0, 1e-15, -1e-15], size=1000))
    test = permutation_test(lambda _: 0.3 + next(noise), np.arange(10) < 5, permutations=199)
    assert test.p_value == 1.0
    falling = iter([*([0.2] * 199), 0.3])
    assert permutation_test(
        lambda _: next(falling), np.arange(10) < 5, permutations=199
    ).p_value == pytest.approx(1 / 200)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_statistic_that_is_no_number_is_refused(value) -> None:
    with pytest.raises(ValueError, match="not a number"):
        permutation_test(lambda _: value, [True, False, True], permutations=9)
    calls = iter([1.0, value, *([1.0] * 8)])
    if math.isnan(value):  # in one permutation only
        with pytest.raises(ValueError, match="not a number"):
            permutation_test(lambda _: next(calls), [True, False, True], permutations=9)
    with pytest.raises(ValueError, match="at least one permutation"):
        permutation_test(lambda _: 1.0, [True, False, True], permutations=0)


def test_permutations_without_a_statistic_stay_in_the_p_value_only() -> None:
    calls = iter([1.0, -math.inf, 3.0, -math.inf, 2.0])  # four permutations, then the observed
    test = permutation_test(lambda _: next(calls), [True, False, True], permutations=4)
    assert (test.undefined, test.expected, test.p_value) == (2, 2.0, 2 / 5)
    assert test.share_at_most(1.0) == 3 / 4


def test_permutations_are_fixed_by_the_seed() -> None:
    labels = np.arange(30) < 10
    values = np.linspace(0, 1, 30) ** 2
    nulls = [permutation_test(mean_difference(values), labels, seed=s).null for s in (1, 1, 2)]
    assert (nulls[0] == nulls[1]).all()
    assert (nulls[0] != nulls[2]).any()


def cohen_d(a, b):
    """Cohen's d by its definition."""
    pooled = ((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / (len(a) + len(b) - 2)
    return (a.mean() - b.mean()) / math.sqrt(pooled)


@given(st.integers(2, 10), st.integers(2, 10), st.integers(0, 99), st.sampled_from([0.0, 1e3]))
def test_cohens_d_of_every_column(n_true, n_false, seed, offset) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_true + n_false, 4)) * [1, 10, 0.01, 1] + offset
    labels = rng.permutation(np.arange(len(x)) < n_true)
    expected = [cohen_d(column[labels], column[~labels]) for column in x.T]
    # Columns of spread 0.01 around 1,000 lose five digits to rounding.
    assert cohen_d_columns(x, labels) == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_a_column_without_spread_has_no_effect() -> None:
    labels = np.arange(10) < 5
    x = np.stack([np.full(10, 3.0), 1e-9 * np.arange(10), labels * 1.0, np.arange(10.0)], axis=1)
    assert list(cohen_d_columns(x, labels)[:3]) == [0.0, 0.0, 0.0]
    assert cohen_d_columns(x, labels)[3] < -2


@pytest.mark.parametrize(
    ("x", "labels"),
    [
        (np.zeros((3, 2)), [True, False]),
        (np.zeros((3, 2)), [True, True, True]),
        (np.zeros((2, 2)), [True, False]),
        (np.full((3, 2), np.nan), [True, False, True]),
        (np.zeros(3), [True, False, True]),
        (np.zeros((3, 0)), [True, False, True]),
    ],
)
def test_effects_that_do_not_exist_are_refused(x, labels) -> None:
    for function in (cohen_d_columns, max_effect_test, in_sample_direction_effect):
        with pytest.raises(ValueError):
            function(x, labels)


@pytest.mark.parametrize("signed", [True, False])
def test_the_largest_effect_of_noise_has_a_uniform_p_value(signed) -> None:
    rng = np.random.default_rng(6)
    labels = np.arange(40) < 15
    p, best_alone = [], []
    for seed in range(200):
        shared = rng.normal(size=(40, 1))
        x = shared + rng.normal(size=(40, 20))  # correlated columns
        p.append(max_effect_test(x, labels, signed=signed, permutations=99, seed=seed).p_value)
        best_alone.append(scipy.stats.ttest_ind(x[labels], x[~labels]).pvalue.min())
    # 200 draws: three standard errors are 0.046 at 5 percent and 0.106 at 50 percent.
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.046)
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.106)
    # Picking the best column without paying for the choice is wrong far more often.
    assert np.mean(np.array(best_alone) <= 0.05) > 0.25


def test_the_largest_effect_finds_a_signal_on_its_own_side_only() -> None:
    rng = np.random.default_rng(7)
    labels = np.arange(60) < 25
    x = rng.normal(size=(60, 50))
    x[:, 17] -= 1.8 * labels
    both = max_effect_test(x, labels)
    assert both.p_value == 1 / 1001
    assert both.observed == pytest.approx(-cohen_d(x[labels, 17], x[~labels, 17]))
    assert max_effect_test(x, labels, signed=True).p_value > 0.02
    assert max_effect_test(-x, labels, signed=True).p_value == 1 / 1001


def test_the_null_of_the_maximum_is_that_of_plain_loops() -> None:
    rng = np.random.default_rng(8)
    x, labels = rng.normal(size=(8, 3)) + 5, np.arange(8) < 3
    every = []
    for chosen in itertools.combinations(range(8), 3):
        side = np.isin(np.arange(8), chosen)
        every.append(max(abs(cohen_d(c[side], c[~side])) for c in x.T))
    test = max_effect_test(x, labels, permutations=6000)
    # 6,000 draws: three standard errors of a share are below 0.02.
    assert test.p_value == pytest.approx(np.mean(np.array(every) >= test.observed - 1e-9), abs=0.02)
    assert test.expected == pytest.approx(np.mean(every), abs=0.03)


def test_the_maximum_over_groups_keeps_its_level() -> None:
    rng = np.random.default_rng(9)
    groups = np.repeat(np.arange(12), 5)
    labels = groups % 2 == 0
    by_group, by_item = [], []
    for seed in range(150):
        x = rng.normal(size=(12, 6))[groups] + 0.5 * rng.normal(size=(60, 6))
        found = max_effect_test(x, labels, groups=groups, permutations=99, seed=seed)
        assert found.grouped
        by_group.append(found.p_value)
        by_item.append(max_effect_test(x, labels, permutations=99, seed=seed).p_value)
    # 150 draws of a 5 percent event: three standard errors are 0.053.
    assert np.mean(np.array(by_group) <= 0.05) < 0.05 + 0.053
    assert np.mean(np.array(by_item) <= 0.05) > 0.3


def test_expected_maxima_of_normals() -> None:
    # PAPER 4.4 for 280 and 48 heads; closed forms for one and two.
    assert expected_maximum_of_normals(280) == pytest.approx(2.86, abs=0.005)
    assert expected_maximum_of_normals(48) == pytest.approx(2.23, abs=0.005)
    assert expected_maximum_of_normals(1) == pytest.approx(0, abs=1e-9)
    assert expected_maximum_of_normals(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-9)
    assert expected_absolute_maximum_of_normals(1) == pytest.approx(math.sqrt(2 / math.pi))
    assert expected_absolute_maximum_of_normals(2) == pytest.approx(2 / math.sqrt(math.pi))
    # |Z| of k is nearly Z of 2k in the tail.
    assert expected_absolute_maximum_of_normals(280) == pytest.approx(
        expected_maximum_of_normals(560), abs=0.002
    )
    for k in (0, -1):
        with pytest.raises(ValueError, match="maximum of"):
            expected_maximum_of_normals(k)


def test_expected_maxima_by_simulation() -> None:
    draws = np.random.default_rng(10).normal(size=(20_000, 30))
    # Standard error of either mean: 0.0035.
    assert expected_maximum_of_normals(30) == pytest.approx(draws.max(axis=1).mean(), abs=0.012)
    found = expected_absolute_maximum_of_normals(30)
    assert found == pytest.approx(np.abs(draws).max(axis=1).mean(), abs=0.012)


def directions(d, draws, seed, n_true=64, n_false=18):
    """Noise [draws, n, d] and its labels [n]."""
    x = np.random.default_rng(seed).normal(size=(draws, n_true + n_false, d))
    return x, np.arange(n_true + n_false) < n_true


@pytest.mark.parametrize(
    ("d", "paper"), [(256, 4.38), (64, 2.15), (42, 1.76), (30, 1.46), (20, 1.18)]
)
def test_a_direction_scored_on_its_own_rows_finds_an_effect_in_noise(d, paper) -> None:
    # PAPER 4.3, simulated there with unrecorded size; 9.1, assertion 9.
    x, labels = directions(d, 150, seed=d)
    found = [in_sample_direction_effect(rows, labels) for rows in x]
    expected = expected_in_sample_direction_effect(d, 64, 18)
    # The formula is exact for this noise: four standard errors of the simulated mean.
    error = 4 * np.std(found) / math.sqrt(len(found))
    assert np.mean(found) == pytest.approx(expected, abs=error)
    assert expected == pytest.approx(paper, abs=0.15 if d == 256 else 0.04)
    assert expected == pytest.approx(math.sqrt(d * (1 / 64 + 1 / 18)), rel=0.02)
    if d == 256:
        assert min(found) > 2.5 and np.mean(found) > 3.8


def test_a_cross_fitted_direction_finds_no_effect_in_noise() -> None:
    x, labels = directions(256, 60, seed=11)
    x += 40 * np.random.default_rng(0).normal(size=256)  # a large mean that all rows share
    found = [cross_fitted_direction_effect(rows, labels) for rows in x]
    # An effect of 64 against 18 has a standard deviation of about 0.27: four standard errors.
    assert np.mean(found) == pytest.approx(0, abs=0.14)


def test_a_cross_fitted_direction_finds_a_real_effect() -> None:
    x, labels = directions(20, 20, seed=12)
    x[:, labels, 3] += 4.0
    x += 40 * np.random.default_rng(0).normal(size=20)  # shared by all rows, so no effect
    crossed = [cross_fitted_direction_effect(rows, labels) for rows in x]
    inside = [in_sample_direction_effect(rows, labels) for rows in x]
    assert 3.2 < np.mean(crossed) < 4.1  # somewhat below 4: the direction is estimated
    assert np.mean(inside) > np.mean(crossed)
    first, again, other = (cross_fitted_direction_effect(x[0], labels, seed=s) for s in (1, 1, 2))
    assert first == again != other


def test_equal_class_means_have_no_direction() -> None:
    x = np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert in_sample_direction_effect(x, [True, True, False, False]) == 0.0


def test_too_many_folds_and_impossible_sizes_are_refused() -> None:
    x, labels = directions(4, 1, seed=0, n_true=10, n_false=4)
    with pytest.raises(ValueError, match="smaller class has 4"):
        cross_fitted_direction_effect(x[0], labels)
    with pytest.raises(ValueError, match="folds"):
        cross_fitted_direction_effect(x[0], labels, folds=1)
    for sizes in ((0, 5, 5), (3, 0, 5), (3, 1, 2)):
        with pytest.raises(ValueError, match="impossible"):
            expected_in_sample_direction_effect(*sizes)


@pytest.mark.parametrize("signed", [True, False])
def test_the_largest_of_many_noise_effects_has_a_uniform_p_value(signed: bool) -> None:
    draws = np.random.default_rng(3).standard_t(80, (4000, 50))
    largest = (draws if signed else np.abs(draws)).max(axis=1)
    p = np.array([largest_effect_p_value(float(t), 50, 80, signed=signed) for t in largest])
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.001
    wrong = np.array([largest_effect_p_value(float(t), 25, 80, signed=signed) for t in largest])
    assert scipy.stats.kstest(wrong, "uniform").pvalue < 1e-6


def test_the_papers_strongest_heads_are_what_noise_gives() -> None:
    gemma = largest_effect_p_value(0.5990696549415588 / (1 / 38 + 1 / 53) ** 0.5, 280, 89)
    qwen = largest_effect_p_value(0.5570887923240662 / (1 / 18 + 1 / 64) ** 0.5, 48, 80)
    assert gemma == pytest.approx(0.57, abs=0.01) and qwen == pytest.approx(0.62, abs=0.01)
