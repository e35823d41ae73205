"""AUC of a linear probe on rows it was not fitted on.

Two figures are in use under one name. The out-of-fold AUC ranks all rows together, each scored
by the fold that left it out; the fold mean averages the AUCs of the folds. They differ by 0.02
on the paper's own features (PAPER.md 5.7), and either moves by some 0.03 with the seed of the
folds, so both are given, for as many seeds as are asked for. The out-of-fold AUC is not exactly
0.5 on average where there is nothing to find: scores of different folds are compared with each
other. A permutation test that repeats the whole procedure is not troubled by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from evals.statistics.auc import BoolArray, FloatArray, boolean_labels

IntArray = NDArray[np.int64]
Split = tuple[IntArray, IntArray]
"""Row numbers of the training part and of the held-out part."""


class TooFewForFolds(ValueError):
    """A class or the groups are too few for the folds: no cross-validation, and no mistake."""


@dataclass(frozen=True)
class CrossValidatedAuc:
    """Cross-validated AUC over one or more seeds of the folds."""

    out_of_fold: FloatArray
    """[seeds] AUC of all rows ranked together."""
    fold_mean: FloatArray
    """[seeds] mean of the folds' AUCs; NaN where a fold holds one class only (groups only)."""
    scores: FloatArray
    """[seeds, n] probability of True, from the fold that left the row out."""

    @property
    def mean(self) -> float:
        """Mean of the out-of-fold AUC over seeds."""
        return float(self.out_of_fold.mean())

    @property
    def sd(self) -> float:
        """Standard deviation (n - 1) of the out-of-fold AUC over seeds; NaN for one seed.

        This is the noise of the fold assignment alone, not the sampling error of the AUC.
        """
        return float(self.out_of_fold.std(ddof=1)) if self.out_of_fold.size > 1 else float("nan")

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest out-of-fold AUC over seeds."""
        return float(self.out_of_fold.min()), float(self.out_of_fold.max())


def cross_validated_auc(
    x: ArrayLike,
    labels: ArrayLike,
    *,
    c: float = 1.0,
    folds: int = 5,
    seeds: Sequence[int] = (0,),
    groups: ArrayLike | None = None,
    max_iter: int = 2000,
) -> CrossValidatedAuc:
    """Cross-validated AUC of standardised logistic regression of ``labels`` [n] on ``x`` [n, d].

    The scaler is fitted inside each fold. Folds are stratified and shuffled by each of
    ``seeds``; with ``groups`` [n], rows of a group are never on both sides of a split. ``c`` is
    the inverse strength of the L2 penalty. Raises ValueError for lengths that differ, values
    that are not finite, fewer rows of a class (or fewer groups) than folds, and a split whose
    training part has one class.
    """
    matrix = matrix_of(x)
    truth = labels_of(matrix, labels)
    model = probe(c, max_iter)
    return cross_validated(model, matrix, truth, folds=folds, seeds=seeds, groups=groups)


def cross_validated(
    model: Pipeline,
    rows: Any,
    labels: ArrayLike,
    *,
    folds: int = 5,
    seeds: Sequence[int] = (0,),
    groups: ArrayLike | None = None,
) -> CrossValidatedAuc:
    """As :func:`cross_validated_auc`, of any classifier with probabilities.

    ``rows`` is whatever ``model`` fits on, indexed by row: an array or a sparse matrix.
    """
    truth = boolean_labels(labels)
    if not len(seeds):
        raise ValueError("no seed: give at least one seed of the folds")
    scores, fold_means = [], []
    for seed in seeds:
        splits = fold_splits(truth, folds=folds, seed=seed, groups=groups)
        row = out_of_fold_scores(model, rows, truth, splits)
        scores.append(row)
        fold_means.append(_mean_fold_auc(row, truth, splits))
    out_of_fold = np.array([roc_auc_score(truth, row) for row in scores])
    return CrossValidatedAuc(out_of_fold, np.array(fold_means), np.array(scores))


def fit_and_score(
    x_train: ArrayLike,
    y_train: ArrayLike,
    x_test: ArrayLike,
    *,
    c: float = 1.0,
    max_iter: int = 2000,
) -> FloatArray:
    """Probability of True on ``x_test`` [m, d] from a probe fitted on ``x_train`` [n, d].

    Raises ValueError for lengths or widths that differ, values that are not finite, and
    training labels of one class.
    """
    train, test = matrix_of(x_train), matrix_of(x_test)
    truth = labels_of(train, y_train)
    if train.shape[1] != test.shape[1]:
        raise ValueError(f"{train.shape[1]} columns in training, {test.shape[1]} in testing")
    if truth.all() or not truth.any():
        raise ValueError("the training labels are all of one class")
    return _true_column(probe(c, max_iter).fit(train, truth), test)


def probe(c: float, max_iter: int = 2000) -> Pipeline:
    """Return an unfitted scaler and logistic regression, in one pipeline."""
    if not c > 0:
        raise ValueError(f"the inverse penalty c must be above 0, not {c}")
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=max_iter))


def fold_splits(
    labels: BoolArray, *, folds: int = 5, seed: int = 0, groups: ArrayLike | None = None
) -> list[Split]:
    """Stratified, shuffled splits of the rows; whole groups stay together where given.

    Raises TooFewForFolds when a class has fewer rows than there are folds, when there are fewer
    groups than folds, or when the training part of a split has one class; ValueError for groups
    of another length.
    """
    smaller = int(min(labels.sum(), (~labels).sum()))
    if folds < 2 or smaller < folds:
        raise TooFewForFolds(f"{folds} folds need that many rows in each class; one has {smaller}")
    if groups is None:
        kind = StratifiedKFold(folds, shuffle=True, random_state=seed)
        return list(kind.split(labels, labels))
    named = np.asarray(groups)
    if named.shape != labels.shape:
        raise ValueError(f"{len(labels)} labels but groups of shape {named.shape}")
    if len(np.unique(named)) < folds:
        raise TooFewForFolds(f"{folds} folds need that many groups, not {len(np.unique(named))}")
    kind = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    splits = list(kind.split(labels, labels, named))
    if any(_one_class(labels[train]) for train, _ in splits):
        raise TooFewForFolds("leaving out one fold of groups leaves one class: too few groups")
    return splits


def out_of_fold_scores(
    model: Pipeline, rows: Any, labels: BoolArray, splits: list[Split]
) -> FloatArray:
    """[n] probability of True of each row from a fresh copy of ``model`` that has not seen it.

    ``rows`` is whatever ``model`` fits on, indexed by row: an array or a sparse matrix.
    """
    scores = np.full(len(labels), np.nan)
    for train, test in splits:
        scores[test] = _true_column(clone(model).fit(rows[train], labels[train]), rows[test])
    return scores


def labels_of(rows: Sequence[object] | FloatArray, labels: ArrayLike) -> BoolArray:
    """``labels`` as [n] bools; ValueError for another length or values besides true and false."""
    truth = boolean_labels(labels)
    if len(truth) != len(rows):
        raise ValueError(f"{len(rows)} rows but {len(truth)} labels")
    return truth


def matrix_of(x: ArrayLike) -> FloatArray:
    """``x`` as a table [n, d]; ValueError for another shape and values that are not finite.

    Single precision stays single: a solver stops elsewhere in double precision, which moves an
    AUC in its third digit, and features are float32 as they were extracted.
    """
    matrix = np.asarray(x)
    if matrix.dtype != np.float32:
        matrix = matrix.astype(np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(f"features must be a table of rows and columns, not {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("features hold values that are not finite")
    return matrix


def _true_column(fitted: Pipeline, rows: Any) -> FloatArray:
    return np.asarray(fitted.predict_proba(rows)[:, 1], dtype=np.float64)


def _mean_fold_auc(scores: FloatArray, labels: BoolArray, splits: list[Split]) -> float:
    if any(_one_class(labels[test]) for _, test in splits):
        return float("nan")
    return float(np.mean([roc_auc_score(labels[test], scores[test]) for _, test in splits]))


def _one_class(labels: BoolArray) -> bool:
    return bool(labels.all() or not labels.any())
