"""The primary probe's cross-validation under many labellings at once: cheap permutation nulls.

A logistic regression with an L2 penalty needs its rows only through their products with each other
(representer theorem), so n rows cost n x n whatever their width, and these products are made once
for a fold and serve all labellings. The fit is the same optimum that scikit-learn's solver goes to;
here it is reached by the bound optimisation of Boehning & Lindsay (1988): the curvature of the
logistic loss is at most 1/4, and with that constant in its place every step is one product of a
fixed n x n matrix with all labellings. Nesterov's momentum, restarted where it turns back
(O'Donoghue & Candes 2015), makes the steps few.

Labels are permuted *within* the folds, which are stratified by the observed labels and stay as they
are: every permuted labelling is stratified in the same folds as well as the observed one, so each
could have been the observed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from evals.statistics.auc import auc
from evals.statistics.cross_validation import Split, fold_splits
from evals.statistics.permutation import PermutationTest, permutation_result

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
TOLERANCE = 1e-6
"""Largest last step of a row's log-odds. Scores of two answers that are that near are one."""
MOST_STEPS = 5000


@dataclass(frozen=True, eq=False)
class Labellings:
    """The labels as they are and permuted, with the folds that serve all of them."""

    labels: BoolArray
    """[1 + permutations, n], the observed ones first."""
    splits: Sequence[Split]

    @classmethod
    def of(cls, labels: BoolArray, *, folds: int, permutations: int, seed: int) -> Labellings:
        """``seed``: of folds and permutations.

        Raises TooFewForFolds where a class is smaller than the number of folds.
        """
        splits = fold_splits(labels, folds=folds, seed=seed)
        drawn = _within_folds(labels, splits, permutations, np.random.default_rng(seed))
        return cls(np.vstack([labels, drawn]), splits)

    def out_of_fold_aucs(self, x: NDArray[np.float32], c: float) -> FloatArray:
        """[1 + permutations] AUC of all rows of ``x`` [n, d] ranked together.

        The probe is a standardised logistic regression with inverse penalty ``c``. Raises
        RuntimeError where a fit does not converge.
        """
        scores = np.empty(self.labels.shape)
        for train, test in self.splits:
            scores[:, test] = log_odds(x[train], self.labels[:, train], x[test], c)
        return np.array([auc(row, own) for row, own in zip(scores, self.labels, strict=True)])


def null_of_the_best(aucs: ArrayLike) -> PermutationTest:
    """The largest of k probes' AUCs against the largest ones of permuted labels.

    ``aucs`` [k, 1 + permutations] as :meth:`Labellings.out_of_fold_aucs` gives them. The maximum is
    taken anew in every permutation, which pays for the choice of the best (Westfall & Young).
    """
    best = np.asarray(aucs, dtype=np.float64).max(axis=0)
    return permutation_result(float(best[0]), best[1:], grouped=False, larger_is_more_extreme=True)


def log_odds(
    x: NDArray[np.float32], labels: BoolArray, x_new: NDArray[np.float32], c: float
) -> FloatArray:
    """[m, k] log-odds of new rows [k, d], from fits on ``x`` [n, d] to each row of labels [m, n].

    The intercept is not penalised, as in scikit-learn.
    """
    rows, new = _standardised(x, x_new)
    n = len(rows)
    products = rows @ rows.T
    # A step regresses the working response f + 4 (y - p) on the rows with penalty 4 / c, and on
    # the intercept; the rows are centred, so the two do not meet.
    step = np.asarray(np.linalg.solve(products + 4 / c * np.eye(n), products) + 1 / n)
    truth = labels.T.astype(np.float64)
    fitted = _converged(step, truth)
    residuals = truth - expit(fitted)
    # the optimum's weights of the rows are c (y - p), which sum to 0; f itself has the intercept
    intercepts = fitted.mean(axis=0)
    return np.asarray((c * (new @ (rows.T @ residuals)) + intercepts).T)


def _converged(step: FloatArray, truth: FloatArray) -> FloatArray:
    """The fixed point f [n, m] of f = step (f + 4 (y - sigmoid(f)))."""
    found = np.zeros_like(truth)
    ahead, momentum = found, np.ones(truth.shape[1])
    for _ in range(MOST_STEPS):
        latest: FloatArray = step @ (ahead + 4 * (truth - expit(ahead)))
        if np.abs(latest - ahead).max() < TOLERANCE:
            return latest
        back = ((ahead - latest) * (latest - found)).sum(axis=0) > 0
        momentum = np.where(back, 1.0, momentum)
        grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = latest + (momentum - 1) / grown * (latest - found)
        found, momentum = latest, grown
    raise RuntimeError(f"a probe of permuted labels did not converge in {MOST_STEPS} steps")


def _standardised(
    x: NDArray[np.float32], x_new: NDArray[np.float32]
) -> tuple[FloatArray, FloatArray]:
    """As scikit-learn's StandardScaler: a column that does not vary is only centred."""
    old, new = x.astype(np.float64), x_new.astype(np.float64)
    mean, spread = old.mean(axis=0), old.std(axis=0)
    flat = spread <= 10 * np.finfo(np.float64).eps * np.abs(mean)
    spread = np.where(flat, 1.0, spread)
    return (old - mean) / spread, (new - mean) / spread


def _within_folds(
    labels: BoolArray, splits: Sequence[Split], permutations: int, rng: np.random.Generator
) -> BoolArray:
    """[permutations, n] with the labels of each fold in random order."""
    if permutations < 1:
        raise ValueError(f"at least one permutation is needed, not {permutations}")
    drawn = np.tile(labels, (permutations, 1))
    for _, test in splits:
        drawn[:, test] = rng.permuted(drawn[:, test], axis=1)
    return drawn
