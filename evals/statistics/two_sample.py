"""Can a classifier tell two sets of rows apart? If so they are not from one distribution.

Used to compare training data with fresh data. An AUC near 0.5 is what a fair comparison of
the two should give; a high one says that a probe fitted on the first set is being asked
about rows of another kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from evals.statistics.auc import BoolArray, FloatArray, auc, delong_interval, newcombe_interval
from evals.statistics.cross_validation import fold_splits, matrix_of, out_of_fold_scores, probe
from evals.statistics.permutation import permutation_test
from evals.statistics.rates import Interval


@dataclass(frozen=True)
class TwoSample:
    """How well a classifier tells the second set from the first, on rows it has not seen."""

    auc: float
    """Out of fold; about 0.5 where the sets do not differ."""
    p_value: float
    """One-sided, by permutation: the whole cross-validation is repeated for each."""
    interval: Interval
    """95 percent, of the AUC of these fitted classifiers: it leaves out that other training
    rows would have given other classifiers. The p-value does not."""
    n_first: int
    n_second: int


def classifier_two_sample(
    x_first: ArrayLike,
    x_second: ArrayLike,
    *,
    c: float = 0.1,
    folds: int = 5,
    seed: int = 0,
    permutations: int = 200,
    groups: ArrayLike | None = None,
) -> TwoSample:
    """Compare two sets of features [n_first, d] and [n_second, d] with a logistic probe.

    The classifier two-sample test of Lopez-Paz and Oquab 2017, with AUC in the place of
    accuracy, because the sets may differ in size. ``groups`` [n_first + n_second], those of
    the first set first, names rows that belong together (one prompt, or exact copies): they
    stay on one side of every split and are permuted together. Copies that are not declared
    make equal sets look different. Raises ValueError for widths that differ, values that are
    not finite, fewer rows in a set (or fewer groups) than folds, and where every group has
    the same share in both sets, so that permuting groups changes nothing.
    """
    first, second = matrix_of(x_first), matrix_of(x_second)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{first.shape[1]} columns in the first set, {second.shape[1]} in the other"
        )
    rows = np.concatenate([first, second])
    return _compare(rows, len(first), probe(c), folds, seed, permutations, groups)


def text_two_sample(
    first: Sequence[str],
    second: Sequence[str],
    *,
    c: float = 10.0,
    folds: int = 5,
    seed: int = 0,
    permutations: int = 200,
    groups: ArrayLike | None = None,
) -> TwoSample:
    """Compare two sets of texts by their words and word pairs; see the test on features.

    Words are counted once, text by text; their TF-IDF weights are learnt inside each fold.
    Such rows have length 1, not the square root of d, hence a weaker penalty by default.
    Raises ValueError for fewer texts in a set than folds, and where no text holds a word.
    """
    counts = CountVectorizer(ngram_range=(1, 2)).fit_transform([*first, *second])
    model = make_pipeline(TfidfTransformer(), LogisticRegression(C=c, max_iter=2000))
    return _compare(counts, len(first), model, folds, seed, permutations, groups)


def _compare(
    rows: Any,  # an array or a sparse matrix [n, d], with the rows of the first set first
    n_first: int,
    model: Pipeline,
    folds: int,
    seed: int,
    permutations: int,
    groups: ArrayLike | None,
) -> TwoSample:
    is_second = np.arange(rows.shape[0]) >= n_first
    named = None if groups is None else np.asarray(groups)

    def scores(labels: BoolArray) -> FloatArray:
        splits = fold_splits(labels, folds=folds, seed=seed, groups=named)
        return out_of_fold_scores(model, rows, labels, splits)

    observed = scores(is_second)
    test = permutation_test(
        lambda labels: auc(scores(labels), labels),
        is_second,
        groups=named,
        permutations=permutations,
        seed=seed,
    )
    interval = (
        delong_interval(observed, is_second)
        if named is None
        else grouped_auc_interval(observed, is_second, named, seed)
    )
    sizes = n_first, len(is_second) - n_first
    return TwoSample(auc(observed, is_second), test.p_value, interval, *sizes)


def grouped_auc_interval(
    scores: FloatArray,
    labels: BoolArray,
    groups: NDArray[Any],
    seed: int,
    resamples: int = 1000,
) -> Interval:
    """95 percent percentile bootstrap of the AUC over whole groups of rows; all inputs [n].

    Draws without either class are left out. Where nothing varies (perfect separation) the
    interval is Newcombe's (2006), with the groups of each class counted as its items.
    """
    _, member = np.unique(groups, return_inverse=True)
    count = int(member.max()) + 1
    belongs = np.eye(count)[member]  # [n, groups]
    above = (np.sign(scores[labels][:, None] - scores[~labels][None, :]) + 1) / 2
    wins = belongs[labels].T @ above @ belongs[~labels]  # [groups, groups], of pairs of rows
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64)
    pairs = (drawn @ belongs[labels].sum(axis=0)) * (drawn @ belongs[~labels].sum(axis=0))
    values = ((drawn @ wins) * drawn).sum(axis=1)[pairs > 0] / pairs[pairs > 0]
    low, high = np.quantile(values, [0.025, 0.975])
    if high - low > 1e-12:  # a smaller width is rounding
        return Interval(float(low), float(high), 0.95)
    sizes = (len(np.unique(member[side])) for side in (labels, ~labels))
    return newcombe_interval(auc(scores, labels), *sizes)
