"""What two collections of texts share: exact texts, word n-grams, near duplicates.

Character shingles are compared by the Jaccard index of their sets (Broder 1997); they are
hashed into sparse rows and intersected by one sparse product a block, so that 2,000 against
2,000 prompts take seconds. Boilerplate that a large share of all texts have in common (an
instruction in front of every question) says nothing and can be left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer

SHINGLE = 6
NEAR_DUPLICATE = 0.35
WORDS = 8
COMMON_SHARE = 0.2
"""Shingles and n-grams in more than this share of all texts are boilerplate."""
MIN_TEXTS_FOR_COMMON = 20
"""Below this many texts, "many texts have it" cannot be told from a duplicate."""
_BLOCK = 512
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Pair:
    """Two texts that share something; positions in the two collections."""

    first: int
    second: int
    similarity: float


def normalised(text: str) -> str:
    """Lower case, with every run of white space as one space."""
    return " ".join(text.lower().split())


def exact_pairs(first: Sequence[str], second: Sequence[str]) -> list[Pair]:
    """Pairs of equal texts, after ``normalised``; empty texts match nothing."""
    where = defaultdict(list)
    for j, text in enumerate(second):
        where[normalised(text)].append(j)
    keys = ((i, normalised(text)) for i, text in enumerate(first))
    return [Pair(i, j, 1.0) for i, key in keys if key for j in where.get(key, ())]


def near_duplicates(
    first: Sequence[str],
    second: Sequence[str],
    *,
    threshold: float = NEAR_DUPLICATE,
    size: int = SHINGLE,
    drop_common: bool = False,
) -> list[Pair]:
    """Pairs whose sets of character shingles have a Jaccard index above ``threshold``.

    Texts shorter than a shingle match nothing. Equal texts have an index of 1 and are among
    the pairs. Raises ValueError when the threshold is not in 0 <= threshold < 1.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"a Jaccard threshold lies in 0..1, not {threshold}")
    if not first or not second:
        return []
    a, b = _shingles(first, size), _shingles(second, size)
    if drop_common:
        a, b = _without_common(a, b)
    found = (pair for start, block in _blocks(a) for pair in _close(block, start, b, threshold))
    return sorted(found, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def duplicates_inside(
    texts: Sequence[str], *, threshold: float = NEAR_DUPLICATE, drop_common: bool = False
) -> list[Pair]:
    """Near duplicates within one collection, each pair once with first < second."""
    found = near_duplicates(texts, texts, threshold=threshold, drop_common=drop_common)
    return [pair for pair in found if pair.first < pair.second]


def shared_ngrams(
    first: Sequence[str], second: Sequence[str], *, words: int = WORDS
) -> Mapping[int, str]:
    """For each position in ``first`` that shares a word n-gram with ``second``, one such n-gram.

    N-grams in more than ``COMMON_SHARE`` of either collection are boilerplate and do not count.
    """
    mine = [_ngrams(text, words) for text in first]
    theirs = [_ngrams(text, words) for text in second]
    known = _rare(theirs) & _rare(mine)
    shared = ((i, sorted(grams & known)) for i, grams in enumerate(mine))
    return {i: grams[0] for i, grams in shared if grams}


def _ngrams(text: str, words: int) -> set[str]:
    found = _WORD.findall(text.lower())
    return {" ".join(found[i : i + words]) for i in range(len(found) - words + 1)}


def _rare(collection: Sequence[set[str]]) -> set[str]:
    counts: dict[str, int] = defaultdict(int)
    for grams in collection:
        for gram in grams:
            counts[gram] += 1
    most = _most_texts(len(collection))
    return {gram for gram, count in counts.items() if count <= most}


def _most_texts(n: int) -> float:
    return n * COMMON_SHARE if n >= MIN_TEXTS_FOR_COMMON else n


def _shingles(texts: Sequence[str], size: int) -> csr_matrix:
    """[n, 2**22] with a 1 for each shingle that a text has."""
    vectorizer = HashingVectorizer(
        analyzer="char",
        ngram_range=(size, size),
        n_features=2**22,  # some 300 shingles a prompt: a chance collision in 1 of 10,000
        binary=True,
        norm=None,
        alternate_sign=False,
        dtype=np.float32,
    )
    return vectorizer.transform([normalised(text) for text in texts])


def _without_common(a: csr_matrix, b: csr_matrix) -> tuple[csr_matrix, csr_matrix]:
    counts = np.asarray(a.sum(axis=0) + b.sum(axis=0)).ravel()
    keep = np.flatnonzero((counts > 0) & (counts <= _most_texts(a.shape[0] + b.shape[0])))
    return a[:, keep], b[:, keep]


def _blocks(rows: csr_matrix) -> Iterator[tuple[int, csr_matrix]]:
    for start in range(0, rows.shape[0], _BLOCK):
        yield start, rows[start : start + _BLOCK]


def _close(block: csr_matrix, start: int, other: csr_matrix, threshold: float) -> Iterator[Pair]:
    shared: NDArray[np.float32] = (block @ other.T).toarray()
    sizes = np.asarray(block.sum(axis=1)) + np.asarray(other.sum(axis=1)).T - shared
    jaccard = np.divide(shared, sizes, out=np.zeros_like(shared), where=sizes > 0)
    for i, j in zip(*np.nonzero(jaccard > threshold), strict=True):
        yield Pair(start + int(i), int(j), float(jaccard[i, j]))
