"""SmolLM2: the only model with published features, so the only probe that can be fitted again.

All fits stay in the features' single precision, as the published numbers were made: in double
precision the solver stops elsewhere, and three of the AUCs here differ in the third digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.groups.dispositions import SMOLLM
from arcs.reproduction.groups.group import (
    Group,
    Values,
    rate,
    rates_apart,
    scored_auc,
    with_interval,
)
from arcs.reproduction.groups.labels import SMOLLM_FRESH
from evals.statistics.auc import auc, auc_p_value, bootstrap_auc
from evals.statistics.cross_validation import fold_splits, out_of_fold_scores
from evals.statistics.cross_validation import probe as unfitted
from evals.statistics.thresholds import (
    Threshold,
    asymmetry_gate_false_positive_rate,
    asymmetry_null,
    best_asymmetry,
)

TRAIN, FRESH = "smollm_step16_features.npz", "smollm_fresh_features.npz"
FEATURES = (TRAIN, FRESH, SMOLLM_FRESH)
HIGHER_CUT, WALL, GATE, FOLD_SEEDS = 0.6, 1500, -0.15, 20
Bools = NDArray[np.bool_]
Scores = NDArray[np.float64]


def transfer_scores(artifacts: Artifacts, correct: Bools, c: float) -> Scores:
    """[193] probability of correct on the fresh prompts, fitted on labels [100] of the first."""
    fitted = unfitted(c).fit(artifacts.smollm_step16_features, correct)
    scores = fitted.predict_proba(artifacts.smollm_fresh_features)[:, 1]
    return np.asarray(scores, dtype=np.float64)


def fold_scores(x: NDArray[np.float32], labels: Bools, c: float, seed: int = 0) -> Scores:
    """[n] probability of True of each row from the folds that left it out."""
    return out_of_fold_scores(unfitted(c), x, labels, fold_splits(labels, seed=seed))


def fold_mean(scores: Scores, labels: Bools) -> float:
    """Mean of the folds' AUCs for the folds of seed 0."""
    return float(np.mean([auc(scores[test], labels[test]) for _, test in fold_splits(labels)]))


def probe(artifacts: Artifacts, *, c: float) -> Values:
    """AUC on fresh prompts, the oracle threshold, and cross-validation on the first prompts."""
    correct, labels = artifacts.smollm_step16().labels, artifacts.smollm_fresh().labels
    scores = transfer_scores(artifacts, correct, c)
    held_out = fold_scores(artifacts.smollm_step16_features, correct, c)
    best = _oracle(scores, labels)
    return {
        "fresh_auc": auc(scores, labels),
        "oracle_balanced": {
            "asym": best.asymmetry,
            "thr": best.value,
            "p_assert_correct": best.p_assert_correct,
            "p_assert_wrong": best.p_assert_wrong,
        },
        "cv_oof_auc_seed0": auc(held_out, correct),
        "cv_fold_mean_auc_seed0": fold_mean(held_out, correct),
    }


def _oracle(scores: Scores, labels: Bools) -> Threshold:
    best = best_asymmetry(scores, labels)
    if best is None:
        raise ValueError("no threshold asserts 0.70 of the correct answers")
    return best


def probe_intervals(artifacts: Artifacts, *, c: float) -> Values:
    """Intervals, and how often chance reaches as good a threshold or passes the gate."""
    correct, labels = artifacts.smollm_step16().labels, artifacts.smollm_fresh().labels
    scores = transfer_scores(artifacts, correct, c)
    held_out = fold_scores(artifacts.smollm_step16_features, correct, c)
    bootstrap = bootstrap_auc(scores, labels)
    return {
        "fresh_auc": scored_auc(scores, labels),
        "fresh_auc_bootstrap": with_interval(
            auc(scores, labels), bootstrap, "stratified bootstrap", len(labels)
        ),
        "fresh_auc_p": auc_p_value(scores, labels),
        "cv_oof_auc_seed0": scored_auc(held_out, correct),
        "oracle_balanced": _oracle_intervals(scores, labels),
    }


def _oracle_intervals(scores: Scores, labels: Bools) -> Values:
    best, gate = _oracle(scores, labels), GATE
    positive, negative = int(labels.sum()), int((~labels).sum())
    correct = round(best.p_assert_correct * positive), positive
    wrong = round(best.p_assert_wrong * negative), negative
    return {
        "asym": rates_apart(correct, wrong),
        "p_assert_correct": rate(*correct),
        "p_assert_wrong": rate(*wrong),
        "asserted_wrong": wrong[0],
        "asserted_correct": correct[0],
        "null_p": asymmetry_null(scores, labels, gate=gate).p_value,
        "gate_pass_by_chance": asymmetry_gate_false_positive_rate(
            positive, negative, gate=gate, scores=scores
        ),
    }


def fresh_interval(artifacts: Artifacts) -> Values:
    """DeLong's interval of the AUC on fresh prompts at C = 1.0."""
    correct, labels = artifacts.smollm_step16().labels, artifacts.smollm_fresh().labels
    return scored_auc(transfer_scores(artifacts, correct, 1.0), labels)


def fold_spread(artifacts: Artifacts) -> Values:
    """Out-of-fold AUC within the first prompts over 20 seeds of the folds, C = 0.1."""
    x, correct = artifacts.smollm_step16_features, artifacts.smollm_step16().labels
    found = [auc(fold_scores(x, correct, 0.1, seed), correct) for seed in range(FOLD_SEEDS)]
    return {
        "seeds": FOLD_SEEDS,
        "mean": float(np.mean(found)),
        "sd": float(np.std(found)),
        "min": min(found),
        "max": max(found),
    }


def higher_cut(artifacts: Artifacts, *, c: float) -> Values:
    """The probe with training labels cut at 0.6, which the fresh 5-claim lists amount to."""
    # Half a rounding step below 0.6, which single precision does not hold exactly.
    correct = artifacts.smollm_step16_coverage >= HIGHER_CUT - 1e-6
    labels = artifacts.smollm_fresh().labels
    held_out = fold_scores(artifacts.smollm_step16_features, correct, c)
    return {
        "n_pos": int(correct.sum()),
        "fresh": scored_auc(transfer_scores(artifacts, correct, c), labels),
        "cv": scored_auc(held_out, correct),
    }


def features(artifacts: Artifacts) -> Values:
    """Shapes, label counts, norms, and the first two components of the fresh features."""
    x_train, x_fresh = artifacts.smollm_step16_features, artifacts.smollm_fresh_features
    components = PCA(n_components=2, svd_solver="full")
    components.fit(StandardScaler().fit_transform(x_fresh))
    return {
        "step16_shape": list(x_train.shape),
        "fresh_shape": list(x_fresh.shape),
        "step16_pos": int(artifacts.smollm_step16().labels.sum()),
        "fresh_pos": int(artifacts.smollm_fresh().labels.sum()),
        "row_norm_step16_mean": float(np.linalg.norm(x_train, axis=1).mean()),
        "row_norm_fresh_mean": float(np.linalg.norm(x_fresh, axis=1).mean()),
        "pca2_evr_fresh_standardised": [float(v) for v in components.explained_variance_ratio_],
    }


def _nuisances(artifacts: Artifacts) -> Mapping[str, tuple[NDArray[np.float32], Bools]]:
    train, fresh = artifacts.smollm_step16_features, artifacts.smollm_fresh_features
    samples = artifacts.smollm_profile.samples
    both = np.concatenate([train, fresh])
    return {
        "truncated_at_1500_chars": (train, np.array([len(s.text) == WALL for s in samples])),
        "verbal_assert": (train, np.array([s.verbal == "assert" for s in samples])),
        "step16_vs_fresh": (both, np.arange(len(both)) >= len(train)),
    }


def nuisances(artifacts: Artifacts) -> Values:
    """Out-of-fold AUC of what the position also carries (C = 1.0, seed 0)."""
    found = _nuisances(artifacts)
    return {name: auc(fold_scores(x, y, 1.0), y) for name, (x, y) in found.items()}


def nuisance_intervals(artifacts: Artifacts) -> Values:
    """The same with intervals."""
    found = _nuisances(artifacts)
    return {name: scored_auc(fold_scores(x, y, 1.0), y) for name, (x, y) in found.items()}


def _of_penalty(name: str, c: float) -> dict[str, Group]:
    return {
        f"smollm.probe.{name}": Group(FEATURES, partial(probe, c=c)),
        f"smollm.probe.{name}.intervals": Group(FEATURES, partial(probe_intervals, c=c)),
        f"smollm.higher_cut.{name}": Group(FEATURES, partial(higher_cut, c=c)),
    }


NUISANCES = "smollm.nuisance_probes_C1_cv_auc"
GROUPS: dict[str, Group] = {
    "smollm.fresh_interval": Group(FEATURES, fresh_interval),
    "smollm.folds": Group((TRAIN,), fold_spread),
    "smollm.features": Group(FEATURES, features),
    NUISANCES: Group((TRAIN, FRESH, SMOLLM), nuisances),
    f"{NUISANCES}.intervals": Group((TRAIN, FRESH, SMOLLM), nuisance_intervals),
    **_of_penalty("C=1.0", 1.0),
    **_of_penalty("C=0.1", 0.1),
}
