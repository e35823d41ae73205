"""How alike texts of two classes are: similarity within the classes against that between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.feature_extraction.text import TfidfVectorizer

from evals.statistics.auc import BoolArray, FloatArray, boolean_labels
from evals.statistics.permutation import permutation_test
from evals.statistics.rates import Interval

WORDS = r"\w+"


@dataclass(frozen=True)
class Similarity:
    """Mean cosine of TF-IDF rows over pairs of different texts; 0 to 1."""

    within_true: float
    within_false: float
    between: float
    excess: float
    """Mean of the two within minus between: 0 where the classes are written alike."""
    interval: Interval
    """Of the excess, percentile bootstrap of texts, each class on its own."""
    p_value: float
    """Of the excess, one-sided, over permuted labels."""
    n_true: int
    n_false: int


def text_similarity(
    texts: Sequence[str],
    labels: ArrayLike,
    *,
    permutations: int = 1000,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Similarity:
    """Compare texts [n] whose label [n] is true with the others.

    A text is not compared with itself, nor with its copies in a bootstrap draw. The percentile
    interval is for display: the excess of few texts is skewed. Raises ValueError for fewer than 2
    texts in a class, and where no text holds a word.
    """
    truth = boolean_labels(labels)
    if len(truth) != len(texts):
        raise ValueError(f"{len(texts)} texts but {len(truth)} labels")
    if min(int(truth.sum()), int((~truth).sum())) < 2:
        raise ValueError("similarity within a class needs 2 texts of it")
    rows = TfidfVectorizer(token_pattern=WORDS).fit_transform(texts)
    cosines = np.asarray((rows @ rows.T).todense(), dtype=np.float64)
    np.fill_diagonal(cosines, 0.0)
    ones = np.ones(len(truth))
    within_true, within_false, between = _means(cosines, truth, ones)
    test = permutation_test(
        lambda permuted: _excess(cosines, permuted, ones), truth,
        permutations=permutations, seed=seed,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    drawn = [_excess(cosines, truth, _draw(truth, rng)) for _ in range(resamples)]
    excess = _excess(cosines, truth, ones)
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Similarity(
        within_true, within_false, between, excess,
        Interval(min(float(low), excess), max(float(high), excess), level),
        test.p_value, int(truth.sum()), int((~truth).sum()),
    )  # fmt: skip


def _draw(truth: BoolArray, rng: np.random.Generator) -> FloatArray:
    """[n] how often each text is drawn, each class as often as it is large."""
    counts = np.zeros(len(truth))
    for side in (truth, ~truth):
        size = int(side.sum())
        counts[side] = rng.multinomial(size, np.full(size, 1 / size))
    return counts


def _excess(cosines: FloatArray, truth: BoolArray, counts: FloatArray) -> float:
    within_true, within_false, between = _means(cosines, truth, counts)
    return (within_true + within_false) / 2 - between


def _means(cosines: FloatArray, truth: BoolArray, counts: FloatArray) -> tuple[float, float, float]:
    """Means over pairs within True, within False, and between; NaN where a draw has no pair."""
    sides = [counts * side for side in (truth, ~truth)]
    of_true = cosines @ sides[0]
    within = [
        _share(float(side @ (cosines @ side)), float(side.sum() ** 2 - (side**2).sum()))
        for side in sides
    ]
    pairs = float(sides[0].sum() * sides[1].sum())
    return within[0], within[1], _share(float(sides[1] @ of_true), pairs)


def _share(total: float, pairs: float) -> float:
    return total / pairs if pairs else float("nan")
