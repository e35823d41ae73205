"""Reading sequences: hidden states at chosen points, and log-probabilities of responses.

Sequences are padded on the right, where causal layers and recurrences never look, so MLX's models
need no mask. Of a batch's states only the asked positions are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from backends.interface import Float32, HiddenPoint, TokenStatistics
from backends.mlx.decoder import Decoder, Tap, tapped
from backends.mlx.device import reading_tokens
from backends.mlx.loss import response_nll, response_scalars
from backends.mlx.prefix import Prefix
from backends.mlx.streams import evaluated
from backends.sequences import PaddedBatch, padded_batches, shared_prefix
from models.errors import UserError


def hidden_states(
    decoder: Decoder,
    sequences: Sequence[Sequence[int]],
    positions: Sequence[int],
    points: Sequence[HiddenPoint],
) -> Float32:
    """Float32 states [n, points, d]; see :meth:`LanguageModel.hidden_states`."""
    _check_points(points, len(decoder.layers))
    found = np.zeros((len(sequences), len(points), decoder.dimension), dtype=np.float32)
    if not points:
        return found
    shared = shared_prefix(sequences, positions)
    prefix, rest = prefix_of(decoder, sequences, shared)

    def build(batch: PaddedBatch) -> mx.array:
        where = mx.array([positions[place] - shared for place in batch.places], mx.int32)
        return _states(decoder, prefix, mx.array(batch.ids), where, points)

    batches = padded_batches(rest, max_tokens=reading_tokens(), prefix=shared)
    for batch, states in evaluated(decoder, batches, build, prefix=shared):
        found[list(batch.places)] = np.array(states)
    return found


def prefix_of(
    decoder: Decoder, sequences: Sequence[Sequence[int]], shared: int
) -> tuple[Prefix, list[Sequence[int]]]:
    """The first ``shared`` ids of all sequences, read, and what follows in each."""
    first = sequences[0][:shared] if shared else ()
    return Prefix(decoder, first), [ids[shared:] for ids in sequences]


def _states(
    decoder: Decoder,
    prefix: Prefix,
    ids: mx.array,
    positions: mx.array,
    points: Sequence[HiddenPoint],
) -> mx.array:
    """States [b, points, d] of ids [b, T] at positions [b], to be evaluated."""
    kept: dict[int, mx.array] = {}
    wanted = sorted({point.layer for point in points})
    taps = [_keeping(decoder, layer, positions, kept) for layer in wanted]
    with tapped(taps):
        prefix.hidden(ids)
    # Taps are gone, but not what they kept: layers above it are never computed.
    states = [
        decoder.backbone.norm(kept[layer]) if normed else kept[layer] for layer, normed in points
    ]
    return mx.stack([state.astype(mx.float32) for state in states], axis=1)


def _keeping(
    decoder: Decoder, layer: int, positions: mx.array, kept: dict[int, mx.array]
) -> tuple[object, Tap]:
    """A tap that keeps the states [b, d] of ``layer``, 0 being what enters the first one."""

    def keep(states: mx.array) -> mx.array:
        kept[layer] = states[mx.arange(states.shape[0]), positions]
        return states

    def see(states: mx.array) -> None:
        keep(states)

    if layer == 0:
        return decoder.layers[0], Tap(before=keep)
    return decoder.layers[layer - 1], Tap(after=see)


def _check_points(points: Sequence[HiddenPoint], n_layers: int) -> None:
    for point in points:
        if not 0 <= point.layer <= n_layers:
            raise UserError(
                f"no hidden state of layer {point.layer}: the model has 0 (the embedding) to "
                f"{n_layers}"
            )


def logprobs(
    decoder: Decoder, sequences: Sequence[Sequence[int]], response_starts: Sequence[int]
) -> list[Float32]:
    """Log-probabilities of each response's ids; see :meth:`LanguageModel.logprobs`."""

    def negated(states: mx.array, targets: mx.array) -> mx.array:
        return -response_nll(decoder, states, targets, gradient=False)

    return _by_response(decoder, sequences, response_starts, negated)


def token_statistics(
    decoder: Decoder, sequences: Sequence[Sequence[int]], response_starts: Sequence[int]
) -> list[TokenStatistics]:
    """See :meth:`LanguageModel.token_statistics`."""

    def scalars(states: mx.array, targets: mx.array) -> mx.array:
        return response_scalars(decoder, states, targets)

    found = _by_response(decoder, sequences, response_starts, scalars)
    return [TokenStatistics(*np.ascontiguousarray(rows.T)) for rows in found]


def _by_response(
    decoder: Decoder,
    sequences: Sequence[Sequence[int]],
    response_starts: Sequence[int],
    reduce: Callable[[mx.array, mx.array], mx.array],
) -> list[Float32]:
    """What ``reduce`` makes of the states that predict each response's ids, and of those ids."""
    found: dict[int, Float32] = {}
    # the state before a response predicts its first id
    shared = shared_prefix(sequences, [start - 1 for start in response_starts])
    prefix, rest = prefix_of(decoder, sequences, shared)

    def build(batch: PaddedBatch) -> mx.array:
        width = batch.ids.shape[1]
        # The state at position t - 1 predicts id t.
        predicting = [row * width + t - 1 for row, t in _responses(batch, response_starts, shared)]
        hidden = prefix.hidden(mx.array(batch.ids), reuse=True).reshape(-1, decoder.dimension)
        return hidden[mx.array(predicting, mx.int32)]

    batches = padded_batches(rest, max_tokens=reading_tokens(), prefix=shared)
    for batch, picked in evaluated(decoder, batches, build, prefix=shared):
        at = _responses(batch, response_starts, shared)
        targets = [int(batch.ids[row, t]) for row, t in at]
        made = np.array(reduce(picked, mx.array(targets, mx.int32)))
        ends = np.cumsum(np.bincount([row for row, _ in at], minlength=len(batch.places)))
        found.update(zip(batch.places, np.split(made, ends[:-1]), strict=True))
    return [found[place] for place in range(len(sequences))]


def _responses(
    batch: PaddedBatch, response_starts: Sequence[int], shared: int
) -> list[tuple[int, int]]:
    """(row, place in ``batch.ids``) of every response id."""
    return [
        (row, t)
        for row, (place, length) in enumerate(zip(batch.places, batch.lengths, strict=True))
        for t in range(response_starts[place] - shared, int(length))
    ]
