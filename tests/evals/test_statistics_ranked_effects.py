"""Rankings paid for the choice of the best: nulls of maxima, cross-fitting, stability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.statistics.permutation import cross_fitted_direction_effect
from evals.statistics.ranked_effects import (
    effect_interval,
    ranked_differences,
    ranked_directions,
    ranked_means,
    split_half,
    uncorrected_p,
)

LABELS = np.arange(60) < 25


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_a_direction_is_scored_on_other_folds_as_one_at_a_time() -> None:
    blocks = [noise(i, 60, 8) for i in range(3)]
    blocks[1][LABELS, 0] += 2.0
    found = ranked_directions(blocks, LABELS, permutations=200)
    alone = [cross_fitted_direction_effect(block, LABELS) for block in blocks]
    assert found.effects == pytest.approx(alone, abs=1e-9)
    assert found.corrected_p[1] < 0.01 < found.corrected_p[0]


def test_the_null_of_a_cross_fitted_direction_is_around_zero_where_the_in_sample_one_is_not() -> (
    None
):
    found = ranked_directions([noise(7, 60, 30)], LABELS, permutations=400)
    assert abs(found.null.mean()) < 0.1  # 400 draws of a d with standard error near 0.26
    assert 0.01 < found.corrected_p[0] <= 1


def test_p_is_corrected_for_the_choice_of_the_best_column() -> None:
    """Uncorrected, the best of 200 noise columns looks significant in nearly every data set."""
    alone, paid = [], []
    for seed in range(20):
        x = noise(seed, 60, 200)
        alone.append(uncorrected_p(x, LABELS).min() < 0.05)
        paid.append(
            ranked_differences(x, LABELS, permutations=200, seed=seed).corrected_p.min() < 0.05
        )
    assert sum(alone) >= 19
    assert sum(paid) <= 4  # 20 x 0.05 = 1 expected; P(5 or more) = 0.3 percent


def test_sign_flips_of_few_items_are_all_taken() -> None:
    values = noise(0, 6, 10)
    values[:, 3] += 8
    found = ranked_means(values, permutations=1000)
    assert len(found.null) == 2**5 - 1  # half of them: a flip of all signs changes no |mean|
    assert found.corrected_p[3] == pytest.approx(1 / 32)
    assert found.effects[3] == pytest.approx(values[:, 3].mean())


def test_one_large_true_mean_does_not_hide_the_next() -> None:
    """Flipped, the first column alone exceeds the second in most arrangements."""
    values = noise(0, 24, 20) * 0.01
    values[:, 0] -= 2.0
    values[:, 1] += 0.3
    found = ranked_means(values, permutations=2000)
    assert found.corrected_p[:2] == pytest.approx(1 / 2001)
    assert (found.null >= 0.3).mean() > 0.4
    assert found.corrected_p[2:].min() > 0.05


def test_steps_down_keep_the_level_where_some_columns_do_move() -> None:
    """A false one among 30 columns of noise beside 5 true ones: 5 percent of 200 data sets."""
    wrong = 0
    for seed in range(200):
        values = noise(seed, 12, 35)
        values[:, :5] += 4.0
        wrong += ranked_means(values, permutations=100).corrected_p[5:].min() < 0.05
    assert wrong <= 20  # 10 expected; P(21 or more) = 0.1 percent


def shifts(seed: int) -> np.ndarray:
    """40 quiet heads, four that move items far to both sides, and one that moves all up a little"""
    values = noise(seed, 8, 45) * 0.01
    values[:, 40:44] = noise(seed + 1000, 8, 4)
    values[:, 44] = 0.06 + 0.01 * noise(seed + 2000, 8)
    return values


def test_heads_that_shift_to_both_sides_do_not_hide_one_that_shifts_all_items() -> None:
    plain, paid = [], []
    for seed in range(10):
        values = shifts(seed)
        found = ranked_means(values, permutations=200, fudge_quantile=0.5)
        assert int(np.argmax(found.scores)) == 44
        assert found.effects[44] == pytest.approx(values[:, 44].mean())  # shown as it is
        paid.append(found.corrected_p[44])
        plain.append(ranked_means(values, permutations=200).corrected_p[44])
    assert np.median(paid) == pytest.approx(1 / 128) and max(paid) < 0.02
    assert min(plain) > 0.2


def test_a_luckily_small_spread_does_not_come_first() -> None:
    """s0 is the median error: without it the first column has t = 100, the second 20."""
    values = noise(3, 8, 40)
    values[:, 0] = 0.01 + np.tile([1e-4, -1e-4], 4) * 2
    values[:, 1] = 4.0 + np.tile([0.5, -0.5], 4)
    found = ranked_means(values, permutations=200, fudge_quantile=0.5)
    assert found.scores[1] > 4 > 0.1 > found.scores[0]
    errors = values.std(axis=0, ddof=1) / np.sqrt(8)
    assert found.fudge == pytest.approx(np.median(errors))
    assert found.scores == pytest.approx(values.mean(axis=0) / (errors + np.median(errors)))


def test_the_studentised_null_keeps_its_level() -> None:
    """A false one among 30 heads of very different spread: 5 percent of 200 data sets."""
    wrong = 0
    for seed in range(200):
        values = noise(seed, 8, 30) * np.geomspace(0.01, 1, 30)
        found = ranked_means(values, permutations=100, fudge_quantile=0.5)
        wrong += found.corrected_p.min() < 0.05
    assert wrong <= 20  # 10 expected; P(21 or more) = 0.1 percent


def test_columns_without_spread_are_ranked_by_their_mean() -> None:
    values = np.zeros((8, 5))
    values[:, 3] = 0.5
    found = ranked_means(values, permutations=200, fudge_quantile=0.5)
    assert int(np.argmax(found.scores)) == 3 and np.isfinite(found.scores).all()
    assert found.corrected_p.tolist() == [1, 1, 1, pytest.approx(1 / 128), 1]


@given(st.integers(2, 12), st.integers(1, 6), st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_corrected_p_are_probabilities_and_fall_with_the_effect(n: int, k: int, seed: int) -> None:
    found = ranked_means(noise(seed, n, k), permutations=100, seed=seed)
    p, sizes = found.corrected_p, np.abs(found.effects)
    assert ((p > 0) & (p <= 1)).all()
    assert (np.diff(p[np.argsort(sizes)]) <= 1e-12).all()


def test_halves_agree_on_a_signal_and_not_on_noise() -> None:
    signal = noise(1, 40, 30) * 0.5 + np.linspace(-2, 2, 30)
    strong = split_half(lambda rows: signal[rows].mean(axis=0), np.zeros(40), top=3)
    weak = noise(2, 40, 30)
    nothing = split_half(lambda rows: weak[rows].mean(axis=0), np.zeros(40), top=3)
    assert strong.rank_correlation > 0.9
    assert abs(nothing.rank_correlation) < 0.3
    assert nothing.top_by_chance == pytest.approx(0.1)


def test_an_interval_of_d_covers_as_it_says() -> None:
    """True d of 0.8 in 400 data sets: 95 percent within 3.3 standard errors (1.1 percent each)."""
    held = 0
    for seed in range(400):
        x = noise(seed, 60)
        x[LABELS] += 0.8
        first, second = x[LABELS], x[~LABELS]
        pooled = np.sqrt((24 * first.var(ddof=1) + 34 * second.var(ddof=1)) / 58)
        held += 0.8 in effect_interval(float((first.mean() - second.mean()) / pooled), 25, 35)
    assert 0.91 < held / 400 < 0.985


def test_a_cross_fitted_d_varies_as_its_permutations_say_and_not_as_a_plain_d() -> None:
    """200 heads of noise: the interval of a plain d would miss 0 in one of six of them."""
    found = ranked_directions([noise(i, 95, 20) for i in range(200)], np.arange(95) < 54,
                              permutations=100)  # fmt: skip
    assert found.null_spread is not None
    held = [
        sum(0 in effect_interval(float(d), 54, 41, null_spread=spread) for d, spread in
            zip(found.effects, spreads, strict=True))
        for spreads in (found.null_spread, [None] * 200)
    ]  # fmt: skip
    assert held[0] >= 180 > held[1]  # 190 expected; P(fewer than 180) = 0.2 percent


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(ValueError, match="folds are impossible"):
        ranked_directions([noise(0, 60, 2)], np.arange(60) < 3, permutations=10)
    with pytest.raises(ValueError, match="finite values of two items"):
        ranked_means(np.zeros((1, 3)), permutations=10)
