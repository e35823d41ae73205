"""Measures of a training set: diversity, lengths, and overlap with what is evaluated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

_WORD = re.compile(r"[a-z0-9_]+", re.IGNORECASE)


def words(text: str) -> list[str]:
    """Lower-case words; punctuation does not count."""
    return _WORD.findall(text.lower())


def ngrams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    """All word n-grams of a text, in order."""
    tokens = words(text)
    return (tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def distinct_openers(texts: Sequence[str], n: int = 5) -> float:
    """Distinct first-n-words over the number of texts (1.0: no two begin alike)."""
    return len({tuple(words(text)[:n]) for text in texts}) / len(texts)


def distinct_ngram_share(texts: Iterable[str], n: int = 4) -> float:
    """Distinct word n-grams over all word n-grams of all texts together (distinct-n)."""
    grams = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(grams)) / len(grams)


def shared_ngrams(texts: Iterable[str], others: Iterable[str], n: int = 8) -> list[tuple[str, ...]]:
    """Word n-grams that occur on both sides, sorted."""
    left = {gram for text in texts for gram in ngrams(text, n)}
    right = {gram for text in others for gram in ngrams(text, n)}
    return sorted(left & right)
