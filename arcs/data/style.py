"""What a training set would teach beside its content: lengths in tokens, code, doubt, style."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from arcs.data.statistics import Quartiles
from arcs.training_data import Preference, Record
from arcs.training_data.quality import words
from evals.judges.lexicon import hedges
from evals.overlap import duplicates_inside
from evals.self_verification import verifies

MAX_LENGTH = 1024
"""Ids of prompt and response together, where nobody says."""
_MARKER_TEXT = """
    the a an and or but if of to in on at by for with from as is are was be it this that you i we
    not no so then there here my your its their can will would should may might must do does have
"""
_MARKERS = tuple(_MARKER_TEXT.split())
_MARKS = (",", ".", ";", ":", "!", "?", "-", "(", '"', "\n", "**", "`", "#", "- ")
_FENCE = re.compile(r"```.+?```", re.DOTALL)
_MARKDOWN = re.compile(r"\*\*\S|^#{1,6} |^\s*[-*] |^\s*\d+\. ", re.MULTILINE)
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")


class Encoder(Protocol):
    """What :class:`models.chat.ChatEncoder` does."""

    def encode_example(self, prompt: str, response: str, *, item: str = "") -> Any:
        """Prompt and answer jointly, as ``.ids``."""


@dataclass(frozen=True)
class TokenLengths:
    """As the trainer counts: template, prompt and answer together."""

    model: str
    n: int
    """Sequences: a pair has two."""
    ids: Quartiles
    max_length: int
    truncated: int
    """Sequences longer than that: the trainer cuts or refuses them."""


@dataclass(frozen=True)
class Style:
    """Shares of the answers that a model would be trained towards."""

    n: int
    code: float
    """With a fenced block of code."""
    hedged: float
    """With an expression of doubt (evals/judges/lexicon.py)."""
    self_checked: float
    """That carry out a check (evals/self_verification.py)."""
    markdown: float
    emoji: float
    commonest_opener: tuple[str, float]
    """The commonest first two words, and their share."""
    length_variation: float
    """Coefficient of variation of the lengths in words."""
    uniformity: float | None
    """Mean cosine, over all pairs of answers, of the shares of function words and marks (after
    Burrows 2002): 1: all are written alike. None for a single answer."""
    near_duplicates: int
    """Pairs of answers with a Jaccard index of character 6-grams above the threshold."""
    licences: Mapping[str, int]
    """Licence of a teacher -> records, from their provenance."""
    without_provenance: int

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def style(records: Sequence[Record | Preference]) -> Style:
    """Measure what is trained towards: responses, of pairs the chosen ones."""
    texts = [one.response if isinstance(one, Record) else one.chosen for one in records]
    lengths = np.array([len(words(text)) for text in texts], dtype=float)
    openers = Counter(" ".join(words(text)[:2]) for text in texts)
    opener, most = min(openers.items(), key=lambda pair: (-pair[1], pair[0]))
    licences: Counter[str] = Counter()
    for one in records:
        found = (one.provenance or {}).get("licences")
        licences.update(map(str, found) if isinstance(found, list | tuple) else ())
    n = len(texts)
    return Style(
        n=n,
        code=sum(_FENCE.search(text) is not None for text in texts) / n,
        hedged=sum(hedges(text.lower()) > 0 for text in texts) / n,
        self_checked=sum(verifies(text) for text in texts) / n,
        markdown=sum(_MARKDOWN.search(text) is not None for text in texts) / n,
        emoji=sum(_EMOJI.search(text) is not None for text in texts) / n,
        commonest_opener=(opener, most / n),
        length_variation=float(lengths.std() / lengths.mean()) if lengths.any() else 0.0,
        uniformity=_uniformity(texts),
        near_duplicates=len(duplicates_inside(texts, drop_common=True)),
        licences=dict(sorted(licences.items())),
        without_provenance=sum(one.provenance is None for one in records),
    )


def _uniformity(texts: Sequence[str]) -> float | None:
    """Mean cosine of all pairs, from the length of the sum of unit vectors."""
    if len(texts) < 2:
        return None
    rows = np.array([_profile(text) for text in texts])
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    units = rows / np.where(norms > 0, norms, 1.0)
    n = len(texts)
    together = float(np.square(units.sum(axis=0)).sum())
    return float((together - np.square(units).sum()) / (n * (n - 1)))


def _profile(text: str) -> list[float]:
    """Square roots of the shares of function words and marks: rarer ones count as well."""
    counted = Counter(words(text))
    total = max(1, sum(counted.values()))
    shares = [counted[one] / total for one in _MARKERS]
    return [math.sqrt(one) for one in (*shares, *(text.count(mark) / total for mark in _MARKS))]


def token_lengths(
    records: Sequence[Record | Preference], encoder: Encoder, model: str, max_length: int
) -> TokenLengths:
    """Lengths as trained on. Raises UserError for a text that holds a special token."""
    pairs = [
        (one.id, one.prompt, answer)
        for one in records
        for answer in ((one.response,) if isinstance(one, Record) else (one.chosen, one.rejected))
    ]
    lengths = [len(encoder.encode_example(p, answer, item=item).ids) for item, p, answer in pairs]
    return TokenLengths(
        model=model,
        n=len(lengths),
        ids=Quartiles.of(lengths),
        max_length=max_length,
        truncated=sum(length > max_length for length in lengths),
    )
