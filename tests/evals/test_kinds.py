"""Within kinds and over whole kinds: what items alone show too easily."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from evals.probing.kinds import by_kind, paired_by_kind
from evals.statistics.auc import auc, auc_p_value, delong_difference


def drawn(
    seed: int, kinds: int, spread: float, signal: float = 0.0
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """160 items; each kind has its own rate and, apart from that, its own mean score."""
    rng = np.random.default_rng(seed)
    of = np.sort(rng.integers(0, kinds, 160))
    rates = 1 / (1 + np.exp(-rng.normal(-0.4, spread, kinds)))
    right = rng.random(160) < rates[of]
    scores = rng.normal(0, spread, kinds)[of] + rng.normal(size=160) + signal * right
    return scores, right, [f"kind{k}" for k in of]


def test_kinds_that_differ_pass_for_a_signal_among_items_and_not_here() -> None:
    """200 worlds without any signal: 2.5% would be right; items say 18%. The bound for the other is
    2.5% and 2.3 standard errors."""
    items = kinds = 0
    for seed in range(200):
        scores, right, of = drawn(seed, 8, 1.5)
        if right.all() or not right.any():
            continue
        shown = auc(scores, right) > 0.5 and auc_p_value(scores, right) < 0.05
        items += shown
        kinds += shown and by_kind(scores, right, of, permutations=199, seed=seed).shown(0.05)
    assert items > 20
    assert kinds <= 10


def test_what_is_within_kinds_or_over_many_of_them_is_found() -> None:
    scores, right, of = drawn(0, 8, 1.5, signal=1.0)
    found = by_kind(scores, right, of)
    assert found.shown(0.05) and found.within is not None and found.within.p_value < 0.001
    assert not by_kind(-scores, right, of).shown(0.05)  # the other way round is no support
    # the kind decides both: nothing within, everything between, which needs kinds
    for kinds, enough in ((4, False), (12, True)):
        named = np.repeat(np.arange(kinds), 10)
        rng = np.random.default_rng(1)
        right = rng.random(len(named)) < np.where(named % 2, 0.9, 0.1)
        scores = named % 2 + 0.01 * rng.normal(size=len(named))
        told = by_kind(scores, right, [str(k) for k in named])
        assert told.shown(0.05) is enough
        assert told.between is not None and told.between.auc > 0.9
        assert told.between.kinds == told.kinds == kinds


def test_both_parts_are_the_exact_ones_of_small_numbers() -> None:
    scores = np.array([0.3, 0.1, 0.2, 0.2, 0.9, 0.8, 0.5, 0.7, 0.6, 0.4, 0.45])
    right = np.array([1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0], dtype=bool)
    kinds = ["a"] * 4 + ["b"] * 4 + ["c"] * 3
    rows = [range(4), range(4, 8), range(8, 11)]
    found = by_kind(scores, right, kinds, permutations=20_000)

    def order(a: float, b: float) -> float:
        return (a > b) + 0.5 * (a == b)

    def inside(labels: np.ndarray) -> float:
        pairs = [order(scores[i], scores[j]) for each in rows for i in each for j in each
                 if labels[i] and not labels[j]]  # fmt: skip
        return float(np.mean(pairs))

    ways = [np.concatenate(each) for each in product(
        *(sorted(set(permutations(right[list(each)].tolist()))) for each in rows))]  # fmt: skip
    null = np.array([inside(each) for each in ways])
    observed = inside(right)
    exact = min(1.0, 2 * min((null >= observed - 1e-9).mean(), (null <= observed + 1e-9).mean()))
    assert found.within is not None
    assert (found.within.auc, found.within.pairs, found.within.kinds) == (observed, 8, 2)
    # 20,000 draws: 4 standard errors of a doubled share
    assert found.within.p_value == pytest.approx(exact, abs=8 * np.sqrt(0.25 / 20_000))
    ranks = np.argsort(np.argsort(scores)).astype(float)
    ranks[[2, 3]] = ranks[[2, 3]].mean()
    means = [ranks[list(each)].mean() for each in rows]
    pairs = [order(means[k], means[m]) for k in range(3) for m in range(3) if k != m
             for i in rows[k] for j in rows[m] if right[i] and not right[j]]  # fmt: skip
    assert found.between is not None
    assert found.between.auc == pytest.approx(np.mean(pairs)) and found.between.pairs == len(pairs)


def test_one_kind_is_not_tested_and_pure_kinds_have_no_pairs() -> None:
    right = np.arange(20) < 10
    scores = np.arange(20.0)
    one = by_kind(scores, right, ["humaneval"] * 20)
    assert not one.tested and one.within is None and one.to_json()["tested"] is False
    pure = by_kind(scores, right, ["a"] * 10 + ["b"] * 10)
    assert pure.tested and pure.within is None and pure.between is not None
    with pytest.raises(ValueError, match="3 kinds for 20 items"):
        by_kind(scores, right, ["a"] * 3)


def test_a_score_is_better_within_kinds_or_over_many_of_them() -> None:
    """150 worlds where two scores are equally good, each with means of its own for the kinds. 2.5%
    would be right; DeLong on items says 20%. The bound is 2.5% and 2.3 standard errors."""
    items = held = 0
    for seed in range(150):
        first, right, of = drawn(seed, 8, 1.5, signal=0.5)
        if right.all() or not right.any():
            continue
        rng = np.random.default_rng(1000 + seed)
        means = dict(zip(sorted(set(of)), rng.normal(0, 1.5, len(set(of))), strict=True))
        second = np.array([means[k] for k in of]) + rng.normal(size=160) + 0.5 * right
        found = delong_difference(first, second, right)
        better = found.difference > 0 and found.p_value < 0.05
        items += better
        if better:
            held += paired_by_kind(first, second, right, of, permutations=199).shown(0.05)
    assert items > 15
    assert held <= 8
    rng = np.random.default_rng(0)
    first, right, of = drawn(0, 8, 1.5)
    told = paired_by_kind(first, first + 2.0 * right, right, of)
    assert told.shown(0.05) and told.within is not None and told.within > 0.2
    assert not paired_by_kind(first + 2.0 * right, first, right, of).shown(0.05)
    assert told.within == pytest.approx(  # as the difference of the parts that are tested alone
        _inside(first + 2.0 * right, right, of) - _inside(first, right, of)
    )


def _inside(scores: np.ndarray, right: np.ndarray, of: list[str]) -> float:
    found = by_kind(scores, right, of, permutations=9).within
    assert found is not None
    return float(found.auc)
