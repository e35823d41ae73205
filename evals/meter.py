"""The judge-free disposition meter: how a model inclines, read from its log-probabilities.

An item is a context and two continuations that differ in one disposition
(evals/items/data/METER_CARD.md). Its *contrast* is the mean log-probability per token of the
positive continuation minus that of the negative one, in nats per token. Which ids count: those of
the continuation after the chat-templated context, encoded jointly and once, *without* the
end-of-turn id, which says how ready a model is to stop and nothing about the disposition.

Nothing is generated and nothing judged: the numbers follow from the weights alone and are the
same on every engine up to float32 rounding. Absolute values mean little, since each axis has an
offset of its own; a model is compared with itself before an edit, item by item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from evals.items.records import MeterItem
from models.chat import EncodedExample, Message
from models.errors import UserError

AXES = ("hedging", "self_checking", "deferring")


class EncodesReplies(Protocol):
    """What :class:`models.chat.ChatEncoder` does here."""

    def encode_reply(
        self, context: Sequence[Message], response: str, *, item: str = ""
    ) -> EncodedExample:
        """Context and answer as one sequence of ids."""


class ReadsLogprobs(Protocol):
    """What an engine (:class:`backends.interface.LanguageModel`) does here."""

    def logprobs(
        self, sequences: Sequence[Sequence[int]], response_starts: Sequence[int]
    ) -> Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        """Nats of each id from the start on, given the ids before it."""


@dataclass(frozen=True)
class Continuation:
    """A context and a continuation as ids, the end-of-turn left out."""

    ids: tuple[int, ...]
    start: int
    """Index of the continuation's first id."""


@dataclass(frozen=True)
class EncodedPair:
    """One item, ready for an engine."""

    item: MeterItem
    positive: Continuation
    negative: Continuation


@dataclass(frozen=True)
class MeterReading:
    """One item under one model."""

    item_id: str
    axis: str
    domain: str
    positive: float
    """Mean log-probability of the positive continuation, nats per token."""
    negative: float
    positive_tokens: int
    negative_tokens: int

    @property
    def contrast(self) -> float:
        """Positive minus negative."""
        return self.positive - self.negative


def encode_pair(encoder: EncodesReplies, item: MeterItem) -> EncodedPair:
    """Encode both continuations after the item's context. Raises UserError as the encoder does."""
    context = [Message(turn.role, turn.content) for turn in item.context]
    made = [
        _continuation(encoder.encode_reply(context, text, item=item.id))
        for text in (item.positive, item.negative)
    ]
    return EncodedPair(item, *made)


def _continuation(example: EncodedExample) -> Continuation:
    start = example.response_mask.index(True)
    count = sum(example.response_mask)  # the end-of-turn is the last of them
    return Continuation(example.ids[: start + count - 1], start)


def read_pairs(model: ReadsLogprobs, pairs: Sequence[EncodedPair]) -> list[MeterReading]:
    """Read all pairs in one call, in order.

    How the call is divided changes rounding: for the same last bit give the same pairs. Means
    are taken in float64. Raises UserError where a log-probability is not a finite number, and
    what the engine raises.
    """
    sequences = [side for pair in pairs for side in (pair.positive, pair.negative)]
    found = model.logprobs([one.ids for one in sequences], [one.start for one in sequences])
    means = [_mean(values, pairs[place // 2]) for place, values in enumerate(found)]
    return [
        MeterReading(
            item_id=pair.item.id,
            axis=pair.item.axis,
            domain=pair.item.domain,
            positive=means[2 * place],
            negative=means[2 * place + 1],
            positive_tokens=len(found[2 * place]),
            negative_tokens=len(found[2 * place + 1]),
        )
        for place, pair in enumerate(pairs)
    ]


def _mean(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], pair: EncodedPair) -> float:
    mean = float(np.asarray(values, dtype=np.float64).mean())
    if not np.isfinite(mean):
        raise UserError(
            f"item {pair.item.id}: a log-probability is not a finite number; the model or the "
            "adapter is damaged, or its dtype is too narrow (try float32)"
        )
    return mean


def choose(items: Iterable[MeterItem], axes: Sequence[str], limit: int | None) -> list[MeterItem]:
    """The first ``limit`` items of each of ``axes`` (all if None), in the order of ``items``.

    Within an axis domains are interleaved, so a prefix is balanced.
    """
    chosen: list[MeterItem] = []
    taken = dict.fromkeys(axes, 0)
    for item in items:
        if item.axis in taken and (limit is None or taken[item.axis] < limit):
            taken[item.axis] += 1
            chosen.append(item)
    return chosen


def ids_sha256(pairs: Sequence[EncodedPair]) -> str:
    """sha-256 (hex) over items and ids, in order: what exactly was read."""
    digest = hashlib.sha256()
    for pair in pairs:
        sides = [(side.start, side.ids) for side in (pair.positive, pair.negative)]
        digest.update(repr((pair.item.id, sides)).encode())
    return digest.hexdigest()
