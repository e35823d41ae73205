from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm

from evals.statistics.bootstrap import bootstrap_mean, bootstrap_paired_difference


def limits(interval):
    return interval.low, interval.high


def test_without_groups_it_is_scipys_bca_of_the_mean() -> None:
    values = np.random.default_rng(1).exponential(size=40)
    reference = bootstrap(
        (values,),
        np.mean,
        method="BCa",
        n_resamples=4000,
        random_state=np.random.default_rng(8),
    ).confidence_interval
    # Another seed: a limit of 4,000 resamples is good to 0.007 here.
    found = limits(bootstrap_mean(values, resamples=4000))
    assert found == pytest.approx((reference.low, reference.high), abs=0.03)
    # Not the percentile interval, which is nearer to symmetric.
    upper, lower = found[1] - values.mean(), values.mean() - found[0]
    assert upper > 1.15 * lower


def bca_over_groups(groups, resamples, seed):
    """BCa limits of the mean over a list of groups, each a list of values, by plain loops."""
    rng = np.random.default_rng(seed)

    def mean(chosen):
        return np.mean(np.concatenate([groups[i] for i in chosen]))

    k = len(groups)
    observed = mean(range(k))
    drawn = np.array([mean(rng.integers(0, k, k)) for _ in range(resamples)])
    left_out = np.array([mean([j for j in range(k) if j != i]) for i in range(k)])
    influence = left_out.mean() - left_out
    acceleration = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    bias = norm.ppf(((drawn < observed).mean() + (drawn <= observed).mean()) / 2)
    shifted = [bias + norm.ppf(q) for q in (0.025, 0.975)]
    return [np.quantile(drawn, norm.cdf(bias + z / (1 - acceleration * z))) for z in shifted]


def test_with_groups_of_unequal_size_it_is_bca_over_whole_groups() -> None:
    rng = np.random.default_rng(2)
    groups = [rng.exponential() + 0.3 * rng.normal(size=rng.integers(1, 9)) for _ in range(25)]
    names = np.repeat([f"prompt {i}" for i in range(25)], [len(g) for g in groups])
    shuffled = rng.permutation(len(names))  # groups need not be contiguous
    values = np.concatenate(groups)[shuffled]
    found = bootstrap_mean(values, groups=names[shuffled], resamples=4000)
    expected = bca_over_groups(groups, 4000, seed=3)
    # A limit of 4,000 resamples is good to 0.01 here, and so is the other one.
    assert limits(found) == pytest.approx(expected, abs=0.045)
    ungrouped = bootstrap_mean(values, resamples=4000)
    assert found.high - found.low > 1.3 * (ungrouped.high - ungrouped.low)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=12), st.integers(0, 20))
def test_groups_of_one_item_are_items(values, seed) -> None:
    assume(np.ptp(values) > 1e-6)
    found = bootstrap_mean(values, resamples=200, seed=seed)
    names = np.arange(len(values))
    assert bootstrap_mean(values, groups=names, resamples=200, seed=seed) == found
    assert found.low <= found.high


def covered(draw, truth, draws, seed, **arguments):
    """Share of intervals holding ``truth`` over data made by ``draw(rng)``."""
    rng = np.random.default_rng(seed)
    found = [bootstrap_mean(draw(rng), resamples=400, seed=i, **arguments) for i in range(draws)]
    return np.mean([truth in interval for interval in found])


def test_the_interval_covers_the_mean_of_independent_values() -> None:
    # 300 draws: three standard errors are 0.038. Bootstrap intervals of 60 skewed values are
    # 1 to 2 points short, and 400 resamples instead of thousands cost another.
    assert covered(lambda rng: rng.random(100) < 0.3, 0.3, 300, seed=4) > 0.95 - 0.045
    skewed = covered(lambda rng: rng.exponential(size=60), 1.0, 300, seed=5)
    assert 0.95 - 0.065 < skewed < 0.99


def clustered(rng):
    """Values of 40 groups of 8 items, half of the variance between groups; the mean is 0."""
    return (rng.normal(size=40)[:, None] + rng.normal(size=(40, 8))).ravel()


def test_grouping_matters_where_items_of_a_group_are_alike() -> None:
    groups = np.repeat(np.arange(40), 8)
    grouped = covered(clustered, 0.0, 250, seed=6, groups=groups)
    # 250 draws: three standard errors are 0.041; 40 groups cost about 1 point.
    assert grouped > 0.95 - 0.055
    # Design effect 1 + 7 * 0.5 = 4.5: an item interval is 0.47 as long, coverage 0.64.
    assert covered(clustered, 0.0, 250, seed=6) < 0.75


def test_a_paired_difference_is_second_minus_first_and_uses_the_pairing() -> None:
    rng = np.random.default_rng(7)
    difficulty = rng.normal(size=80)
    first = difficulty + 0.3 * rng.normal(size=80)
    second = difficulty + 0.4 + 0.3 * rng.normal(size=80)
    found = bootstrap_paired_difference(first, second)
    assert 0.4 in found and found.low > 0
    assert found == bootstrap_mean(second - first)
    back = bootstrap_paired_difference(second, first)
    # The same resamples, mirrored; quantiles of BCa levels are not mirrored exactly.
    assert limits(back) == pytest.approx((-found.high, -found.low), abs=0.01)
    unpaired = math.hypot(
        *(i.high - i.low for i in (bootstrap_mean(first), bootstrap_mean(second)))
    )
    assert found.high - found.low < 0.6 * unpaired


def test_the_paired_difference_of_groups_resamples_groups() -> None:
    rng = np.random.default_rng(8)
    groups = np.repeat(np.arange(40), 8)
    first, second = rng.normal(size=320), clustered(rng)
    by_group = bootstrap_paired_difference(first, second, groups=groups)
    by_item = bootstrap_paired_difference(first, second)
    assert by_group == bootstrap_mean(second - first, groups=groups)
    assert by_group.high - by_group.low > 1.2 * (by_item.high - by_item.low)


def test_level_and_seed() -> None:
    values = np.random.default_rng(9).normal(size=50)
    narrow, wide = (bootstrap_mean(values, level=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert (narrow.level, wide.level) == (0.8, 0.99)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_a_point_is_never_returned() -> None:
    with pytest.raises(ValueError, match="no variation"):
        bootstrap_mean([0.1] * 30)
    with pytest.raises(ValueError, match="no variation"):
        bootstrap_paired_difference([0.1, 0.4, 0.3], [0.2, 0.5, 0.4])
    # Items vary, but every group has the same mean, whatever its size.
    values, groups = [0, 1, 0, 1, 0, 1, 1, 0], [1, 1, 2, 2, 3, 3, 3, 3]
    with pytest.raises(ValueError, match="no variation: all 3 groups"):
        bootstrap_mean(values, groups=groups)
    moved = bootstrap_mean([*values[:-1], 1], groups=groups)
    assert moved.low < moved.high


@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        ([], None, "at least two values"),
        ([1.0], None, "at least two values"),
        ([1.0, 2.0], ["a", "a"], "at least two groups"),
        ([1.0, None, 2.0], None, "missing"),
        ([1.0, math.inf, 2.0], None, "missing or infinite"),
        ([1.0, 2.0, 3.0], [1, 2], "groups of shape"),
    ],
)
def test_what_has_no_interval_is_refused(values, groups, message) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values, groups=groups)


@pytest.mark.filterwarnings("ignore")
def test_too_few_resamples_for_bca_are_refused() -> None:
    with pytest.raises(ValueError, match="one side of the mean"):
        bootstrap_mean([0.0, 1.0, 5.0], resamples=1)


def test_unpaired_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="unpaired"):
        bootstrap_paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="missing"):
        bootstrap_paired_difference([1.0, 2.0], [1.0, None])
