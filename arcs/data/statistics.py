"""What a data set looks like: counts, lengths, diversity, near duplicates within."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from arcs.data.kinds import Kind, key_of, values_of
from arcs.training_data.quality import distinct_ngram_share, distinct_openers, words
from evals.overlap import NEAR_DUPLICATE, duplicates_inside

OPENER, NGRAM = 5, 4
MOST_PAIRS = 20


@dataclass(frozen=True)
class Quartiles:
    """Smallest, first quartile, median, third quartile, largest."""

    least: float
    q1: float
    median: float
    q3: float
    most: float

    @classmethod
    def of(cls, values: Sequence[int]) -> Quartiles:
        """Linear interpolation between order statistics (numpy's default)."""
        return cls(*(float(q) for q in np.quantile(values, (0, 0.25, 0.5, 0.75, 1))))


@dataclass(frozen=True)
class TextStatistics:
    """Of the prompts, or of the answers."""

    n: int
    words: Quartiles
    characters: Quartiles
    distinct_openers: float
    """Distinct first five words over texts."""
    distinct_4_grams: float | None
    """Distinct word 4-grams over all; None where no text has four words."""


@dataclass(frozen=True)
class NearPair:
    """Two records whose prompts (or, without prompts, answers) are alike."""

    first: str
    second: str
    similarity: float


@dataclass(frozen=True)
class Statistics:
    """A set in numbers."""

    n: int
    kind: str
    counts: Mapping[str, Mapping[str, int]]
    """Field -> value -> records; a record with several values counts for each."""
    prompts: TextStatistics | None
    answers: TextStatistics | None
    near_duplicates: int
    """Pairs with a Jaccard index of character 6-grams above the threshold."""
    near_duplicate_threshold: float
    nearest: tuple[NearPair, ...]
    """The most alike of them, at most twenty."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def statistics(records: Sequence[Any], kind: Kind) -> Statistics:
    """Measure a set of records of one kind."""
    prompts = [text for record in records for text in kind.prompts(record)]
    answers = [text for record in records for text in kind.answers(record)]
    pairs = near_pairs(records, kind)
    return Statistics(
        n=len(records),
        kind=kind.name,
        counts={field: _counts(records, field) for field in kind.categories},
        prompts=_texts(prompts),
        answers=_texts(answers),
        near_duplicates=len(pairs),
        near_duplicate_threshold=NEAR_DUPLICATE,
        nearest=tuple(pairs[:MOST_PAIRS]),
    )


def near_pairs(records: Sequence[Any], kind: Kind) -> list[NearPair]:
    """Near duplicates within a set, the most alike first; shared boilerplate does not count."""
    texts = [" ".join(kind.prompts(one) or kind.answers(one)) for one in records]
    return [
        NearPair(key_of(records[p.first]), key_of(records[p.second]), round(p.similarity, 4))
        for p in duplicates_inside(texts, drop_common=True)
    ]


def _counts(records: Sequence[Any], field: str) -> dict[str, int]:
    counted = Counter(value for one in records for value in values_of(one, field))
    return dict(sorted(counted.items(), key=lambda pair: (-pair[1], pair[0])))


def _texts(texts: Sequence[str]) -> TextStatistics | None:
    filled = [text for text in texts if text.strip()]
    if not filled:
        return None
    lengths = [len(text.split()) for text in filled]
    return TextStatistics(
        n=len(filled),
        words=Quartiles.of(lengths),
        characters=Quartiles.of([len(text) for text in filled]),
        distinct_openers=distinct_openers(filled, OPENER),
        distinct_4_grams=distinct_ngram_share(filled, NGRAM)
        if any(len(words(text)) >= NGRAM for text in filled)
        else None,
    )
