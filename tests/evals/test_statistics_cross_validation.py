from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evals.statistics.cross_validation import (
    cross_validated_auc,
    fit_and_score,
    fold_splits,
    out_of_fold_scores,
    probe,
)

ONE_PAIR = 1 / (56 * 44)
"""The step of the paper's AUC: another BLAS may swap one pair of nearly equal scores."""


def noise(seed: int, n: int = 60, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.permutation(np.arange(n) < n // 2)


@pytest.fixture(scope="module")
def step16(paper_artifacts):
    with np.load(paper_artifacts / "smollm_step16_features.npz") as file:
        return file["X"], file["coverage"] >= 0.5


@pytest.mark.parametrize("c", [1.0, 0.1])
def test_the_probe_of_the_papers_features_is_reproduced(step16, paper_artifacts, c) -> None:
    golden = json.loads((paper_artifacts / "golden.json").read_text())[f"smollm.probe.C={c}"]
    found = cross_validated_auc(*step16, c=c)
    assert found.out_of_fold[0] == pytest.approx(golden["cv_oof_auc_seed0"], abs=1.01 * ONE_PAIR)
    # A fold has 11 or 12 positives and 8 or 9 negatives, so a pair weighs five times less.
    fold_mean = golden["cv_fold_mean_auc_seed0"]
    assert found.fold_mean[0] == pytest.approx(fold_mean, abs=1 / (5 * 11 * 8))
    assert abs(found.fold_mean[0] - found.out_of_fold[0]) > 0.01


def test_seeds_of_the_folds_move_the_auc_as_far_as_the_paper_audit_says(step16) -> None:
    # PAPER.md 5.7, to the three digits given there. Its standard deviation divides by n.
    found = cross_validated_auc(*step16, c=0.1, seeds=range(20))
    assert found.mean == pytest.approx(0.5747, abs=5e-4)
    assert found.sd * np.sqrt(19 / 20) == pytest.approx(0.0311, abs=5e-4)
    assert found.range == pytest.approx((0.506, 0.630), abs=1e-3)
    assert found.scores.shape == (20, 100)


@pytest.mark.parametrize(("c", "published"), [(1.0, 0.518719806763285), (0.1, 0.5048309178743962)])
def test_the_papers_fresh_auc_is_reproduced(step16, paper_artifacts, c, published) -> None:
    with np.load(paper_artifacts / "smollm_fresh_features.npz") as file:
        fresh = file["X"]
    judged = json.loads((paper_artifacts / "smollm_fresh_judged_gold.json").read_text())
    gold = np.array(judged["coverage"]) >= 0.5
    assert gold.sum() == 9
    found = roc_auc_score(gold, fit_and_score(*step16, fresh, c=c))
    assert found == pytest.approx(published, abs=1.01 / (9 * 184))


def test_scores_are_those_of_scikit_learns_own_cross_validation() -> None:
    x, labels = noise(0)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3))
    folds = StratifiedKFold(4, shuffle=True, random_state=7)
    reference = cross_val_predict(model, x, labels, cv=folds, method="predict_proba")[:, 1]
    found = cross_validated_auc(x, labels, c=0.3, folds=4, seeds=(7, 8))
    # The same solver from the same start: only rounding may differ.
    np.testing.assert_allclose(found.scores[0], reference, atol=1e-12)
    assert np.abs(found.scores[1] - reference).max() > 0.01
    assert found.out_of_fold[0] == pytest.approx(roc_auc_score(labels, reference))
    by_fold = [roc_auc_score(labels[t], reference[t]) for _, t in folds.split(x, labels)]
    assert found.fold_mean[0] == pytest.approx(np.mean(by_fold))


def scores_with_outer_scaler(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    scaled = StandardScaler().fit_transform(x)
    model = make_pipeline(LogisticRegression())
    return out_of_fold_scores(model, scaled, labels, fold_splits(labels))


def change_of_its_fold(score, x: np.ndarray, labels: np.ndarray) -> float:
    """Largest change in the scores of a fold when one other row of that fold becomes extreme."""
    held_out = fold_splits(labels)[0][1]
    extreme = x.copy()
    extreme[held_out[0]] = 1e3
    others = held_out[1:]
    return float(np.abs(score(extreme, labels)[others] - score(x, labels)[others]).max())


def test_held_out_rows_have_no_part_in_the_scaling() -> None:
    # The folds depend on the labels alone, so nothing else may change a row's score.
    x, labels = noise(1)
    assert change_of_its_fold(lambda a, b: cross_validated_auc(a, b).scores[0], x, labels) == 0.0
    assert change_of_its_fold(scores_with_outer_scaler, x, labels) > 0.01


def test_a_rows_score_does_not_depend_on_its_own_label() -> None:
    x, labels = noise(2)
    splits = fold_splits(labels)
    flipped = labels.copy()
    flipped[splits[0][1]] ^= True
    before, after = (out_of_fold_scores(probe(1.0), x, y, splits) for y in (labels, flipped))
    np.testing.assert_array_equal(before[splits[0][1]], after[splits[0][1]])
    assert np.abs(before[splits[1][1]] - after[splits[1][1]]).max() > 0.01


def test_copies_of_a_prompt_are_only_harmless_when_declared_as_groups() -> None:
    # ANCHORS B42: every row twice, random labels. 20 sets of 40 prompts: the mean AUC of an
    # honest procedure has a standard error of about 0.1 / sqrt(20) = 0.022.
    grouped, ungrouped = [], []
    for seed in range(20):
        x, labels = noise(seed, n=40, d=40)
        twice, both = np.repeat(x, 2, axis=0), np.repeat(labels, 2)
        prompts = np.repeat(np.arange(40), 2)
        grouped.append(cross_validated_auc(twice, both, groups=prompts).mean)
        ungrouped.append(cross_validated_auc(twice, both).mean)
    assert np.mean(grouped) == pytest.approx(0.5, abs=0.07)
    assert np.mean(ungrouped) > 0.85


def test_grouped_folds_keep_groups_whole_and_follow_the_seed() -> None:
    x, labels = noise(3)
    groups = np.arange(60) // 3
    for train, test in fold_splits(labels, seed=5, groups=groups):
        assert not set(groups[train]) & set(groups[test])
    model = make_pipeline(StandardScaler(), LogisticRegression())
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=5)
    reference = cross_val_predict(
        model, x, labels, groups=groups, cv=folds, method="predict_proba"
    )[:, 1]
    found = cross_validated_auc(x, labels, seeds=(5, 6), groups=groups)
    np.testing.assert_allclose(found.scores[0], reference, atol=1e-12)
    assert np.abs(found.scores[1] - reference).max() > 0.01


def test_group_names_may_be_text() -> None:
    x, labels = noise(3)
    numbers = np.arange(60) // 3
    names = [f"prompt {i:02}" for i in numbers]
    by_name = cross_validated_auc(x, labels, groups=names)
    np.testing.assert_array_equal(
        by_name.scores, cross_validated_auc(x, labels, groups=numbers).scores
    )


def test_a_fold_of_one_class_leaves_the_fold_mean_missing() -> None:
    x, _ = noise(4, n=12)
    labels = np.arange(12) < 6
    found = cross_validated_auc(x, labels, folds=3, groups=np.arange(12) // 4)
    assert np.isnan(found.fold_mean[0])
    assert np.isfinite(found.out_of_fold[0])


def test_a_real_difference_is_found_and_a_penalty_weakens_the_scores() -> None:
    x, labels = noise(5, n=200)
    x[labels, 0] += 2.0
    weak, strong = cross_validated_auc(x, labels, c=1e-4), cross_validated_auc(x, labels, c=1.0)
    # Two unit normals 2 apart: AUC = Phi(2 / sqrt(2)) = 0.921; its standard error is 0.02.
    assert strong.mean == pytest.approx(0.921, abs=0.05)
    assert np.ptp(weak.scores) < 0.1 < np.ptp(strong.scores)


def test_one_seed_has_no_spread() -> None:
    found = cross_validated_auc(*noise(6))
    assert np.isnan(found.sd)
    assert found.range == (found.mean, found.mean)


def test_fit_and_score_scales_by_the_training_rows_only() -> None:
    x, labels = noise(7)
    scores = fit_and_score(x[:40], labels[:40], x[40:])
    alone = np.concatenate([fit_and_score(x[:40], labels[:40], row[None]) for row in x[40:]])
    # A matrix product and a vector product may round differently.
    np.testing.assert_allclose(scores, alone, atol=1e-12)
    assert np.ptp(scores) > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.arange(59) < 30}, "59 labels"),
        ({"labels": np.arange(60)}, "True or False"),
        ({"labels": np.arange(60) < 4}, "one has 4"),
        ({"folds": 1}, "folds"),
        ({"seeds": ()}, "no seed"),
        ({"c": 0.0}, "penalty"),
        ({"x": np.full((60, 2), np.nan)}, "not finite"),
        ({"x": np.zeros(60)}, "table"),
        ({"groups": np.arange(50)}, "groups of shape"),
        ({"groups": np.arange(60) // 20}, "not 3"),
    ],
)
def test_impossible_arguments_are_refused(change, message) -> None:
    x, labels = noise(8)
    with pytest.raises(ValueError, match=message):
        cross_validated_auc(**{"x": x, "labels": labels, **change})


def test_folds_that_leave_one_class_to_learn_from_are_refused() -> None:
    x, _ = noise(9, n=20)
    with pytest.raises(ValueError, match="leaves one class"):
        cross_validated_auc(x, np.arange(20) < 10, folds=2, groups=np.arange(20) // 10)


def test_fit_and_score_refuses_what_it_cannot_fit() -> None:
    x, labels = noise(10)
    with pytest.raises(ValueError, match="one class"):
        fit_and_score(x, np.ones(60, bool), x)
    with pytest.raises(ValueError, match="columns"):
        fit_and_score(x, labels, x[:, :3])
