"""What two sets share: prompts or answers that are the same, nearly the same, or partly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from arcs.data.kinds import Kind, key_of
from arcs.data.sets import DataSet
from evals.overlap import WORDS, exact_pairs, near_duplicates, normalised, shared_ngrams

How = Literal["exact", "near", "n-gram"]
Part = Literal["prompts", "answers"]


@dataclass(frozen=True)
class Overlap:
    """Two records of different sets that share text."""

    first_set: str
    second_set: str
    part: Part
    how: How
    first: str
    """Id."""
    second: str | None
    """Id; None of a shared n-gram, which may be in several records."""
    similarity: float | None
    """Jaccard index of character 6-grams; None of a shared n-gram."""
    text: str
    """The start of the first text, or the n-gram."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def overlaps(sets: Sequence[DataSet]) -> list[Overlap]:
    """Compare every pair of sets: prompts with prompts, answers with answers."""
    return [
        found
        for number, first in enumerate(sets)
        for second in sets[number + 1 :]
        for part in ("prompts", "answers")
        for found in _between(first, second, part)
    ]


def _between(first: DataSet, second: DataSet, part: Part) -> Iterator[Overlap]:
    (ids, texts), (other_ids, others) = (
        _texts(one.records, one.kind, part) for one in (first, second)
    )
    same = exact_pairs(texts, others)
    told = {(ids[p.first], other_ids[p.second]) for p in same}
    for p in same:
        yield Overlap(
            first.name, second.name, part, "exact", ids[p.first], other_ids[p.second], 1.0,
            _shown(texts[p.first]),
        )  # fmt: skip
    for p in near_duplicates(texts, others, drop_common=True):
        pair = ids[p.first], other_ids[p.second]
        if pair not in told:
            told.add(pair)
            yield Overlap(
                first.name, second.name, part, "near", *pair, round(p.similarity, 4),
                _shown(texts[p.first]),
            )  # fmt: skip
    known = {pair[0] for pair in told}
    for i, gram in shared_ngrams(texts, others).items():
        if ids[i] not in known:
            known.add(ids[i])
            yield Overlap(first.name, second.name, part, "n-gram", ids[i], None, None, gram)


def _texts(records: Sequence[Any], kind: Kind, part: Part) -> tuple[list[str], list[str]]:
    """Ids and texts, of answers only those of eight words and more.

    Two sets whose answers are both "Paris", or "yes", share nothing that could be learnt from
    one of them.
    """
    of = kind.prompts if part == "prompts" else kind.answers
    found = [
        (key_of(record), text)
        for record in records
        for text in of(record)
        if part == "prompts" or len(text.split()) >= WORDS
    ]
    return [one for one, _ in found], [text for _, text in found]


def _shown(text: str) -> str:
    return normalised(text)[:100]
