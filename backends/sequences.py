"""Token sequences to be read, not continued: where h_last lies, and how they are batched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backends.interface import Float32, HiddenPoint, LanguageModel
from models.errors import UserError


class Position(StrEnum):
    """Where a sequence's h_last is read (DESIGN section 3)."""

    LAST_CONTENT = "last_content"
    """The last id before the stop token, white space included; of a cut response its last id."""
    END_OF_TURN = "end_of_turn"
    """The stop token itself: missing for a response without one, never another position."""


class Pooling(StrEnum):
    """Which layers' states make one feature row."""

    H_LAST = "h_last"
    """The final layer's state after the final norm."""
    MEAN_NORMED = "mean_normed"
    """Mean over the last k layers, each through the final norm."""
    PAPER_MIXED = "paper_mixed"
    """The paper's mean over the last k layers as transformers returns them: the last one after
    the final norm, the others before it, so that the un-normed ones set the scale."""
    ALL_LAYERS = "all_layers"
    """Every layer's state through the final norm: [n, layers + 1, d], the embedding first."""


@dataclass(frozen=True)
class TokenSequence:
    """A prompt with its response, as ids."""

    item_id: str
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    source: Literal["generated", "retokenised"]
    """Whether the response's ids are the generated ones, or were made from imported text. An
    analysis never mixes the two."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Prompt and response."""
        return self.prompt_ids + self.response_ids


def position_of(sequence: TokenSequence, position: Position, stop_ids: Sequence[int]) -> int | None:
    """Index into ``sequence.ids``, or None where the response has no such position."""
    response = sequence.response_ids
    ended = bool(response) and response[-1] in stop_ids
    if position is Position.END_OF_TURN:
        return len(sequence.ids) - 1 if ended else None
    content = len(response) - 1 if ended else len(response)
    return len(sequence.prompt_ids) + content - 1 if content else None


@dataclass(frozen=True)
class HiddenFeatures:
    """Feature rows with the ids of the items they belong to."""

    item_ids: tuple[str, ...]
    x: Float32
    """[n, d], or [n, layers + 1, d] for all layers."""
    missing: tuple[str, ...]
    """Items without the asked position."""
    position: Position
    pooling: Pooling
    source: str


def extract(
    model: LanguageModel,
    sequences: Sequence[TokenSequence],
    *,
    n_layers: int,
    stop_ids: Sequence[int],
    position: Position = Position.LAST_CONTENT,
    pooling: Pooling = Pooling.H_LAST,
    last_k: int = 4,
) -> HiddenFeatures:
    """Read one feature row a sequence; items without the position are listed, not filled in.

    Raises UserError when ids of different sources are mixed, an item occurs twice, or no item
    has the position.
    """
    sources = {sequence.source for sequence in sequences}
    if len(sources) > 1:
        raise UserError("features of generated and of re-tokenised responses cannot be mixed")
    names = [sequence.item_id for sequence in sequences]
    if len(set(names)) < len(names):
        raise UserError("an item occurs twice among the sequences: give each item once")
    places = [position_of(sequence, position, stop_ids) for sequence in sequences]
    present = [i for i, place in enumerate(places) if place is not None]
    if not present:
        raise UserError(f"no response has the position {position.value}")
    points = points_of(pooling, n_layers, last_k)
    states = model.hidden_states(
        [sequences[i].ids for i in present],
        [place for place in places if place is not None],
        points,
    )
    return HiddenFeatures(
        item_ids=tuple(names[i] for i in present),
        x=pooled(states, pooling),
        missing=tuple(names[i] for i, place in enumerate(places) if place is None),
        position=position,
        pooling=pooling,
        source=sequences[0].source,
    )


def points_of(pooling: Pooling, n_layers: int, last_k: int = 4) -> list[HiddenPoint]:
    """Return the points a pooling needs; raises UserError for more layers than there are."""
    if pooling in (Pooling.MEAN_NORMED, Pooling.PAPER_MIXED) and not 1 <= last_k <= n_layers:
        raise UserError(f"the model has {n_layers} layers: pool over 1 to {n_layers}, not {last_k}")
    if pooling is Pooling.H_LAST:
        return [HiddenPoint(n_layers, True)]
    if pooling is Pooling.ALL_LAYERS:
        return [HiddenPoint(layer, True) for layer in range(n_layers + 1)]
    mixed = pooling is Pooling.PAPER_MIXED
    layers = range(n_layers - last_k + 1, n_layers + 1)
    return [HiddenPoint(layer, not mixed or layer == n_layers) for layer in layers]


def pooled(states: Float32, pooling: Pooling) -> Float32:
    """Reduce states [n, points, d] to feature rows."""
    if pooling is Pooling.ALL_LAYERS:
        return states
    mean = states.mean(axis=1, dtype=np.float64)
    return np.asarray(mean, dtype=np.float32)


@dataclass(frozen=True)
class PaddedBatch:
    """Sequences padded on the right with id 0."""

    places: tuple[int, ...]
    """Which of the sequences these rows are."""
    ids: NDArray[np.int32]
    """[b, T]"""
    lengths: NDArray[np.int32]
    """[b]"""


CPU_TOKENS = 512
"""Ids in one batch on a CPU: their states stay in its caches. SmolLM2-135M reads rows of 240
ids with 333 tokens a CPU second so, with 306 in batches of 1,024 and 227 in batches of 8,192."""
GPU_TOKENS = 16384
"""Ids in one batch on a GPU, which small batches leave idle: a pass over a small model takes as
long as its kernels' launches (docs/bench.md)."""
PREFIX_TOKENS = 8192
"""Ids whose keys and values the rows of one batch hold together behind a shared beginning."""


def padded_batches(
    sequences: Sequence[Sequence[int]],
    *,
    max_tokens: int = PREFIX_TOKENS,
    max_rows: int = 32,
    prefix: int = 0,
) -> Iterator[PaddedBatch]:
    """Group sequences of like length, at most ``max_tokens`` ids with the padding (one row at
    least), the longest first, so that memory is bounded by the first batch.

    ``prefix``: ids that stand before each and are not computed again; every row has its copy of
    their keys and values, so all of a batch stay within PREFIX_TOKENS.
    """
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    while order:
        width = len(sequences[order[0]])
        rows = max(1, min(max_rows, max_tokens // max(1, width)))
        if prefix:
            rows = max(1, min(rows, PREFIX_TOKENS // (prefix + width)))
        taken, order = order[:rows], order[rows:]
        ids = np.zeros((len(taken), width), dtype=np.int32)
        for row, place in enumerate(taken):
            ids[row, : len(sequences[place])] = sequences[place]
        lengths = np.array([len(sequences[place]) for place in taken], dtype=np.int32)
        yield PaddedBatch(tuple(taken), ids, lengths)


MIN_SHARED = 8
"""A shorter common beginning is not worth a cache."""


def shared_prefix(
    sequences: Sequence[Sequence[int]], needed: Sequence[int], *, saving: int = 0
) -> int:
    """How many first ids all ``sequences`` have in common, to be read once instead of n times.

    A chat template alone makes some 25 ids, a system prompt hundreds. At most min(``needed``),
    the first position whose state each sequence is read for; 0 where it would save little, fewer
    than ``saving`` ids in all.
    """
    if len(sequences) < 2:
        return 0
    in_order = sorted(map(tuple, sequences))
    first, last = in_order[0], in_order[-1]  # what these two begin with, all begin with
    longest = min(len(first), *needed)
    same = (i for i in range(longest) if first[i] != last[i])
    length = next(same, longest)
    saves = length * (len(sequences) - 1)
    return length if length >= MIN_SHARED and saves >= saving else 0


def check_sequences(
    sequences: Sequence[Sequence[int]],
    *,
    vocab: int,
    context: int,
    positions: Sequence[int] | None = None,
    response_starts: Sequence[int] | None = None,
    first_response: int = 0,
) -> None:
    """Raise UserError, with the index of the sequence, for what no engine can read."""
    for name, given in (("positions", positions), ("response starts", response_starts)):
        if given is not None and len(given) != len(sequences):
            raise UserError(f"{len(sequences)} sequences but {len(given)} {name}: give one each")
    for index, ids in enumerate(sequences):
        if not len(ids):
            raise UserError(f"sequence {index} is empty")
        if not 0 <= min(ids) <= max(ids) < vocab:
            raise UserError(
                f"sequence {index} has ids outside 0..{vocab - 1}: another tokenizer's?"
            )
        if len(ids) > context:
            raise UserError(f"sequence {index} has {len(ids)} ids, the context holds {context}")
        if positions is not None and not 0 <= positions[index] < len(ids):
            raise UserError(f"sequence {index}: no position {positions[index]} in {len(ids)} ids")
        if response_starts is not None and not first_response <= response_starts[index] < len(ids):
            raise UserError(
                f"sequence {index}: a response from id {response_starts[index]} on in {len(ids)} "
                f"ids; it must start between {first_response} and {len(ids) - 1}"
            )
