"""Similarity of texts within and between classes."""

from __future__ import annotations

import numpy as np
import pytest

from evals.statistics.similarity import text_similarity


def texts(extra: tuple[str, str], n: int = 40) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2 == 0
    common = [" ".join(rng.choice(["salt", "lake", "roof", "pine", "iron"], 4)) for _ in range(n)]
    return [f"{text} {extra[int(one)]}" for text, one in zip(common, labels, strict=True)], labels


def test_classes_that_are_written_alike_have_no_excess() -> None:
    found = text_similarity(*texts(("end", "end")), permutations=200, resamples=200)
    assert found.interval.low < 0 < found.interval.high and found.p_value > 0.05
    assert found.n_true == found.n_false == 20


def test_classes_of_their_own_words_have_one() -> None:
    found = text_similarity(*texts(("yes indeed", "no never")), permutations=200, resamples=200)
    assert found.interval.low > 0.1 and found.p_value == pytest.approx(1 / 201)
    assert min(found.within_true, found.within_false) > found.between


def test_means_are_those_of_all_pairs_of_different_texts() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    said, labels = texts(("yes", "no"), n=8)
    rows = TfidfVectorizer(token_pattern=r"\w+").fit_transform(said).toarray()
    found = text_similarity(said, labels, permutations=10, resamples=10)
    pairs = [(i, j) for i in range(8) for j in range(8) if i != j]
    for kept, value in (
        ([p for p in pairs if labels[p[0]] and labels[p[1]]], found.within_true),
        ([p for p in pairs if not labels[p[0]] and not labels[p[1]]], found.within_false),
        ([p for p in pairs if labels[p[0]] != labels[p[1]]], found.between),
    ):
        assert value == pytest.approx(np.mean([rows[i] @ rows[j] for i, j in kept]))


def test_one_text_has_no_similarity_within() -> None:
    with pytest.raises(ValueError, match="2 texts"):
        text_similarity(["a", "b", "c"], [True, False, False])
