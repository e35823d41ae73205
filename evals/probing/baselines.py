"""What a probe of hidden states must beat: words, lengths, the model's own probabilities.

A label that the prompt's words or the response's length predict just as well is about the prompt
or the style; PAPER.md 5.5 gives an AUC of 0.75 to another model's result on the same prompts.
Every baseline gets the probe's own protocol: fitted on the same training rows, scored on the same
fresh rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from evals.probing.probes import PRIMARY, PROBES
from evals.statistics.cross_validation import probe as logistic

FloatArray = NDArray[np.float64]
QUANTITIES = ("entropy", "margin", "nll")
STATISTICS = ("mean", "sd", "median", "q90", "q10", "max", "min")
SCALARS = (*(f"{of}.{how}" for of in QUANTITIES for how in STATISTICS), "tokens")
"""The paper's 21 scalars of a response (PAPER.md 5.1) and its length."""
PROJECTION_SEED = 0


@dataclass(frozen=True)
class Answers:
    """What there is of one set's answers beside their hidden states."""

    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    topics: tuple[str, ...]
    prompt_tokens: NDArray[np.int64]
    """[n]"""
    ids: tuple[tuple[int, ...], ...]
    """Prompt and response."""
    scalars: NDArray[np.float32]
    """[n, len(SCALARS)]"""
    difficulty: FloatArray | None = None
    """[n] another model's result on the same items, 0 to 1."""

    def scalar(self, name: str) -> FloatArray:
        """[n]"""
        return self.scalars[:, SCALARS.index(name)].astype(np.float64)


@dataclass(frozen=True)
class Baseline:
    """Rows of both sets, and what is fitted on them."""

    name: str
    train: Any
    """[n, k], an array or a sparse matrix."""
    fresh: Any
    make: Callable[[], Pipeline] | None
    """None: nothing is fitted; the rows are scores [n], their sign fixed beforehand."""


def token_scalars(nll: NDArray[Any], entropy: NDArray[Any], margin: NDArray[Any]) -> FloatArray:
    """:data:`SCALARS` of one response from its tokens' values, [T] each, T above 0."""
    found: list[float] = []
    for values in (entropy, margin, nll):  # as QUANTITIES
        v = np.asarray(values, dtype=np.float64)
        found += [v.mean(), v.std(), float(np.median(v)), *np.quantile(v, (0.9, 0.1))]
        found += [v.max(), v.min()]
    return np.array([*found, len(nll)], dtype=np.float64)


def baselines(train: Answers, fresh: Answers, *, width: int) -> list[Baseline]:
    """All that both sets have what is needed for; ``width`` is that of the probe's features."""
    found = [
        _words("prompt words (TF-IDF)", train.prompts, fresh.prompts),
        _words("response words (TF-IDF)", train.responses, fresh.responses),
        _topics(train, fresh),
        _one("prompt length", train.prompt_tokens, fresh.prompt_tokens),
        _one("response length", train.scalar("tokens"), fresh.scalar("tokens")),
        Baseline("token scalars", train.scalars, fresh.scalars, lambda: logistic(1.0)),
        Baseline(
            "mean log-probability", -train.scalar("nll.mean"), -fresh.scalar("nll.mean"), None
        ),
        _projected(train, fresh, width),
    ]
    if train.difficulty is not None and fresh.difficulty is not None:
        found.append(Baseline("another model's result", train.difficulty, fresh.difficulty, None))
    return [one for one in found if one is not None]


def _words(name: str, train: Sequence[str], fresh: Sequence[str]) -> Baseline | None:
    """Words and word pairs; None where no text holds a word.

    They are counted text by text; which of them occur, and in how many texts, is learnt inside
    each fold.
    """
    try:
        counts = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+").fit_transform(
            [*train, *fresh]
        )
    except ValueError:  # an empty vocabulary
        return None
    rows = csr_matrix(counts)
    return Baseline(name, rows[: len(train)], rows[len(train) :], _tfidf)


class SeenWords(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Counts [n, words] with those of words that no fitted text holds set to nothing.

    Such a word has the largest inverse document frequency of all; left in, it would shrink a new
    text's other words when the row is brought to length 1.
    """

    def fit(self, x: csr_matrix, y: object = None) -> SeenWords:
        """Note which words occur."""
        self.seen_ = np.asarray(x.sum(axis=0)).ravel() > 0
        return self

    def transform(self, x: csr_matrix) -> csr_matrix:
        """Of the same shape."""
        return csr_matrix(x.multiply(self.seen_))


def _tfidf() -> Pipeline:
    return make_pipeline(SeenWords(), TfidfTransformer(), LogisticRegression(C=1.0, max_iter=2000))


def _topics(train: Answers, fresh: Answers) -> Baseline | None:
    """One column a topic that both sets have; None where there is one topic only."""
    shared = sorted(set(train.topics) & set(fresh.topics))
    if len(shared) < 2:
        return None
    columns = [
        np.array([[topic == one for one in shared] for topic in side.topics], dtype=np.float64)
        for side in (train, fresh)
    ]
    return Baseline("topic", columns[0], columns[1], lambda: logistic(1.0))


def _one(name: str, train: NDArray[Any], fresh: NDArray[Any]) -> Baseline | None:
    """One column; None where it does not vary."""
    if np.ptp(train) == 0:
        return None
    rows = [np.asarray(side, dtype=np.float64)[:, None] for side in (train, fresh)]
    return Baseline(name, rows[0], rows[1], lambda: logistic(1.0))


def _projected(train: Answers, fresh: Answers, width: int) -> Baseline:
    """Bag of the token ids through random directions, as wide as the probe's features.

    What a state of that width could know of an answer without any model.
    """
    vocab = 1 + max(max(ids) for side in (train, fresh) for ids in side.ids)
    matrix = np.random.default_rng(PROJECTION_SEED).normal(size=(vocab, width)).astype(np.float32)
    rows = [
        np.stack([matrix[list(ids)].mean(axis=0) for ids in side.ids]) for side in (train, fresh)
    ]
    return Baseline("random projection of ids", rows[0], rows[1], PROBES[PRIMARY])
