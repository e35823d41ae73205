from __future__ import annotations

import json

import numpy as np
import pytest

from evals.statistics.auc import auc, newcombe_interval
from evals.statistics.two_sample import (
    classifier_two_sample,
    grouped_auc_interval,
    text_two_sample,
)

WORDS = ["model", "answers", "question", "about", "code", "with", "care", "says", "when", "know"]


def normals(seed: int, n: int, d: int = 3, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def texts(seed: int, n: int, extra: str = "") -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join([*rng.choice(WORDS, size=8), extra]).strip() for _ in range(n)]


def test_equal_sets_are_called_different_as_often_as_alpha_says() -> None:
    # 19 permutations: p <= 0.05 has probability 0.05 under the null, p has mean 0.525. 30
    # repeats: the mean has a standard error of 0.053; P(more than 5 of 30) is 0.003.
    p_values = np.array(
        [
            classifier_two_sample(
                normals(2 * i, 14), normals(2 * i + 1, 10), folds=2, permutations=19, seed=i
            ).p_value
            for i in range(30)
        ]
    )
    assert (p_values <= 0.05).sum() <= 5
    assert p_values.mean() == pytest.approx(0.525, abs=0.16)


def test_a_shift_is_found() -> None:
    found = classifier_two_sample(normals(0, 40), normals(1, 50, shift=1.0), permutations=19)
    # Three columns 1 apart: AUC = Phi(sqrt(3 / 2)) = 0.89, standard error 0.04.
    assert found.auc == pytest.approx(0.89, abs=0.1)
    assert found.p_value == 1 / 20
    assert found.auc in found.interval
    assert found.interval.low > 0.5
    assert (found.n_first, found.n_second) == (40, 50)


def test_which_set_comes_first_does_not_matter() -> None:
    first, second = normals(0, 30), normals(1, 30, shift=0.5)
    there, back = (
        classifier_two_sample(a, b, permutations=1) for a, b in ((first, second), (second, first))
    )
    # The folds fall otherwise, so that the two agree only within the noise of the folds.
    assert there.auc == pytest.approx(back.auc, abs=0.08)


def test_the_papers_step16_and_fresh_features_are_told_apart(paper_artifacts) -> None:
    golden = json.loads((paper_artifacts / "golden.json").read_text())
    expected = golden["smollm.nuisance_probes_C1_cv_auc"]["step16_vs_fresh"]
    with (
        np.load(paper_artifacts / "smollm_step16_features.npz") as step16,
        np.load(paper_artifacts / "smollm_fresh_features.npz") as fresh,
    ):
        found = classifier_two_sample(step16["X"], fresh["X"], c=1.0, permutations=4)
    # Another BLAS swaps up to 4 of the 19,300 pairs of a single-precision fit. Other seeds of the
    # folds move it by 0.01.
    assert found.auc == pytest.approx(expected, abs=5 / (100 * 193))
    assert found.p_value == 1 / 5
    assert found.interval.low > 0.7


def test_copies_must_be_declared_or_equal_sets_look_different() -> None:
    # ANCHORS B42: every row three times within its own set.
    first, second = (np.repeat(normals(seed, 16, d=30), 3, axis=0) for seed in (5, 6))
    rows = np.repeat(np.arange(32), 3)
    declared = classifier_two_sample(first, second, folds=3, groups=rows, permutations=19)
    hidden = classifier_two_sample(first, second, folds=3, permutations=19)
    assert hidden.p_value == 1 / 20
    assert hidden.auc > 0.8
    assert declared.p_value > 0.1
    assert declared.auc < 0.7
    # 32 rows, not 96: about +-0.2 and not +-0.12 at an AUC of 0.5.
    assert declared.interval.high - declared.interval.low > 0.3


def test_groups_with_the_same_share_in_both_sets_cannot_be_permuted() -> None:
    with pytest.raises(ValueError, match="nothing to permute"):
        classifier_two_sample(normals(0, 20), normals(1, 20), groups=np.tile(np.arange(20), 2))


def test_an_interval_of_copies_is_as_wide_as_that_of_the_rows_themselves() -> None:
    rng = np.random.default_rng(9)
    labels = np.arange(60) < 30
    scores = rng.normal(size=60) + labels
    alone = grouped_auc_interval(scores, labels, np.arange(60), seed=1)
    copied = grouped_auc_interval(*(np.repeat(v, 4) for v in (scores, labels, np.arange(60))), 1)
    undeclared = grouped_auc_interval(np.repeat(scores, 4), np.repeat(labels, 4), np.arange(240), 1)
    # The same groups are drawn; the copies only multiply all weights by four.
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    # Four times the items would halve the width.
    assert undeclared.high - undeclared.low < 0.65 * (alone.high - alone.low)


def test_the_grouped_interval_covers_the_true_auc() -> None:
    # Three rows a prompt that share two thirds of their variance. True AUC Phi(1 / sqrt(2)).
    # Percentile bootstrap of 40 groups: 0.92 to 0.94; 200 repeats have a standard error of 0.018.
    rng, truth = np.random.default_rng(2), 0.7602
    groups = np.repeat(np.arange(40), 3)
    labels = groups < 20
    covered = 0
    for seed in range(200):
        shared, own = rng.normal(size=40), rng.normal(size=120)
        scores = labels + np.sqrt(2 / 3) * shared[groups] + np.sqrt(1 / 3) * own
        covered += truth in grouped_auc_interval(scores, labels, groups, seed, resamples=200)
    assert 0.87 * 200 < covered < 0.98 * 200


def test_perfect_separation_has_an_interval_by_the_number_of_groups() -> None:
    labels = np.arange(40) < 20
    groups = np.arange(40) // 4
    found = grouped_auc_interval(labels.astype(float), labels, groups, seed=0)
    assert found == newcombe_interval(1.0, 5, 5)
    assert auc(labels.astype(float), labels) == 1.0


def test_texts_of_one_kind_are_not_told_apart_and_other_words_are() -> None:
    same = text_two_sample(texts(1, 30), texts(2, 30), permutations=19)
    other = text_two_sample(texts(1, 30), texts(2, 30, "honestly"), permutations=19)
    assert same.p_value > 0.05
    assert same.auc == pytest.approx(0.5, abs=0.2)
    # Not 1: thirty short texts, in which 80 rare word pairs outweigh the one that tells.
    assert other.auc > 0.8
    assert other.p_value == 1 / 20
    assert other.interval.low > 0.6


def test_word_order_alone_is_seen_by_word_pairs() -> None:
    forward = [f"{text} not sure" for text in texts(1, 30)]
    backward = [f"{text} sure not" for text in texts(2, 30)]
    assert text_two_sample(forward, backward, permutations=1).auc > 0.95


def test_the_same_seed_gives_the_same_answer() -> None:
    first, second = normals(0, 20), normals(1, 20)
    runs = [classifier_two_sample(first, second, permutations=9, seed=s) for s in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize(
    "call",
    [
        lambda: classifier_two_sample(normals(0, 20), normals(1, 20, d=4)),
        lambda: classifier_two_sample(normals(0, 20), normals(1, 4)),
        lambda: classifier_two_sample(normals(0, 20), np.full((20, 3), np.nan)),
        lambda: classifier_two_sample(normals(0, 20), normals(1, 20), groups=np.arange(20)),
        lambda: classifier_two_sample(normals(0, 20), normals(1, 20), permutations=0),
        lambda: text_two_sample([""] * 9, [""] * 9),
        lambda: text_two_sample(["one word"] * 9, []),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(call) -> None:
    with pytest.raises(ValueError):
        call()
