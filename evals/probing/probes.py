"""Probes behind one protocol: scaler and classifier in one pipeline, fitted inside each fold.

The paper's are standardised logistic regressions (PAPER.md 5.2). The others are what a reader
asks for beside them: one with more capacity, and one with no capacity at all beyond two means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from evals.statistics.cross_validation import probe as logistic

PRIMARY_C = 0.1
PRIMARY = f"logistic C={PRIMARY_C}"
"""Declared before any label is seen; every other probe is exploratory."""
MLP_WIDTH = 32
MLP_ITERATIONS = 500
MLP_SEED = 0


class MeanDifference(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Projection on the difference of the class means, [n, d] -> [n].

    ``predict_proba`` puts a logistic curve through the projections of the rows it was fitted on,
    which lie further apart than those of new rows: its ranking is the probe, its probabilities
    are too sure of themselves.
    """

    def fit(self, x: NDArray[np.float32], y: NDArray[np.bool_]) -> MeanDifference:
        """Take the two means."""
        labels = np.asarray(y, dtype=np.bool_)
        self.classes_ = np.array([False, True])
        difference = x[labels].mean(axis=0) - x[~labels].mean(axis=0)
        self.direction_ = difference.astype(np.float64)
        projected = self._projected(x)
        self.scale_ = float(projected.std()) or 1.0
        self.curve_ = LogisticRegression().fit(projected[:, None] / self.scale_, labels)
        return self

    def predict_proba(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """[n, 2]"""
        projected = self._projected(x)[:, None] / self.scale_
        return np.asarray(self.curve_.predict_proba(projected), dtype=np.float64)

    def _projected(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.asarray(x, dtype=np.float64) @ self.direction_
        return found


def mlp() -> Pipeline:
    """The paper's small network (v1a)."""
    network = MLPClassifier((MLP_WIDTH,), max_iter=MLP_ITERATIONS, random_state=MLP_SEED)
    return make_pipeline(StandardScaler(), network)


def mean_difference() -> Pipeline:
    """Standardised mean difference."""
    return make_pipeline(StandardScaler(), MeanDifference())


PROBES: Mapping[str, Callable[[], Pipeline]] = {
    PRIMARY: lambda: logistic(PRIMARY_C),
    "logistic C=1.0": lambda: logistic(1.0),
    "mean difference": mean_difference,
    f"MLP({MLP_WIDTH})": mlp,
}
"""Name -> a fresh, unfitted probe."""


def scores_on(
    model: Pipeline, x_train: object, y_train: NDArray[np.bool_], x_new: object
) -> NDArray[np.float64]:
    """[m] probability of True on new rows from ``model`` fitted on the training rows."""
    fitted = model.fit(x_train, y_train)
    return np.asarray(fitted.predict_proba(x_new)[:, 1], dtype=np.float64)
