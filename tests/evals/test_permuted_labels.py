"""The cheap null: the same fits as scikit-learn's, on labels that are permuted within folds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evals.probing.controls import plant
from evals.probing.permuted_labels import Labellings, log_odds, null_of_the_best
from evals.probing.probes import PRIMARY, PRIMARY_C, PROBES, scores_on
from evals.statistics.cross_validation import TooFewForFolds, cross_validated


def rows(seed: int, n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * np.exp(rng.normal(size=d)) + 3).astype(np.float32)


@pytest.mark.parametrize("c", [PRIMARY_C, 1.0])
@pytest.mark.parametrize("d", [8, 200])
def test_the_fits_are_those_of_scikit_learn(c: float, d: int) -> None:
    """More columns than rows, or fewer; probabilities within 2e-5: ours stop at steps of 1e-6 in
    the log-odds, its solver is let run to the end."""
    x, new = rows(0, 60, d), rows(1, 20, d)
    x[:, 2] = 5  # a column that says nothing is no division by zero
    y = np.random.default_rng(2).random((3, 60)) < 0.35
    found = expit(log_odds(x, y, new, c))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-10, max_iter=50_000))
    for row, labels in zip(found, y, strict=True):
        wanted = scores_on(model, x.astype(np.float64), labels, new.astype(np.float64))
        assert row == pytest.approx(wanted, abs=2e-5)


def test_the_observed_auc_is_the_probes_own() -> None:
    """Up to where the probe's solver stops, which moves an AUC in its third digit."""
    x, y = rows(0, 90, 64), np.random.default_rng(1).random(90) < 0.4
    planted = plant(x, y, seed=3, scale_of=x)
    drawn = Labellings.of(y, folds=5, permutations=1, seed=7)
    own = cross_validated(PROBES[PRIMARY](), planted, y, folds=5, seeds=(7,)).mean
    assert drawn.out_of_fold_aucs(planted, PRIMARY_C)[0] == pytest.approx(own, abs=5e-3)


def test_every_labelling_is_stratified_in_the_same_folds() -> None:
    y = np.random.default_rng(1).random(83) < 0.3
    drawn = Labellings.of(y, folds=5, permutations=40, seed=0)
    assert np.array_equal(drawn.labels[0], y) and drawn.labels.shape == (41, 83)
    assert len({row.tobytes() for row in drawn.labels}) == 41
    for _, test in drawn.splits:
        assert (drawn.labels[:, test].sum(axis=1) == y[test].sum()).all()
    with pytest.raises(TooFewForFolds):
        Labellings.of(np.arange(30) < 4, folds=5, permutations=3, seed=0)


def test_the_best_of_many_is_held_to_the_best_of_permuted_labels() -> None:
    """Noise: the best of 8 looks good and is not; one that knows is found among them."""
    y = np.random.default_rng(1).random(80) < 0.4
    tables = [rows(seed, 80, 20) for seed in range(8)]
    drawn = Labellings.of(y, folds=5, permutations=30, seed=0)
    noise = [drawn.out_of_fold_aucs(x, PRIMARY_C) for x in tables]
    best = null_of_the_best(noise)
    assert best.observed == max(each[0] for each in noise) and best.p_value > 0.1
    alone = [float(each[1:].mean()) for each in noise]
    assert best.expected > max(alone) + 0.05  # what the choice of the best is worth
    knows = drawn.out_of_fold_aucs(plant(tables[0], y, seed=3, scale_of=tables[0]), PRIMARY_C)
    assert null_of_the_best([*noise[1:], knows]).p_value == pytest.approx(1 / 31)
