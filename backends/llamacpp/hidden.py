"""States after the final norm and log-probabilities, read in a context of their own.

The decoding context is never touched, so that its repeatable mode stays as it is. Every
sequence is ingested alone and split only where decoding would split it, at ``n_ubatch``.
llama.cpp makes *every* token of a batch an output once embeddings are on, and computes its
logits too; they are therefore switched on for a sequence's last piece alone, which bounds
memory by ``n_ubatch`` rows of logits however long the sequence is.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from backends.interface import Float32, HiddenPoint, TokenStatistics
from backends.llamacpp.context import Batch, Context, Settings
from backends.llamacpp.native import NativeModel
from backends.sequences import check_sequences
from models.errors import CapabilityError, UserError

Reduce = Callable[[Float32, Sequence[int]], Float32]
"""From logits [T, vocab] and the ids [T] that came of them to one row an id."""
ROWS_AT_ONCE = 64
"""Rows of logits that are widened to float64 together."""


class ReadingContext(Context):
    """A context for one sequence at a time. :meth:`close` frees it."""

    def __init__(self, model: NativeModel, settings: Settings, *, longest: int) -> None:
        self.piece = min(settings.n_ubatch, longest)
        super().__init__(
            model, replace(settings, width=1), width=1, context=longest, outputs=self.piece
        )
        self._batch = Batch(self._api, self.piece)
        if self._api.llama_pooling_type(self._handle) != self._api.LLAMA_POOLING_TYPE_NONE:
            self.close()
            raise UserError(f"{model.path} pools its states (an embedding model): give another")

    def last_state(self, ids: Sequence[int]) -> Float32:
        """State [d] after the final norm at the last of ``ids``."""
        self.forget(0)
        for start, piece in self._pieces(ids):
            self._api.llama_set_embeddings(self._handle, start + len(piece) == len(ids))
            self._fill(piece, start, first_output=len(piece) - 1)
            self.run(self._batch)
        width = int(self._api.llama_model_n_embd_out(self.model.handle))
        pointer = self._api.llama_get_embeddings_ith(self._handle, -1)
        if not pointer:
            raise UserError(f"llama.cpp returned no state: {self.model.library.log.errors()}")
        address = ctypes.addressof(pointer.contents)
        view = np.ctypeslib.as_array((ctypes.c_float * width).from_address(address))
        return np.array(view, dtype=np.float32)

    def of_tokens(self, ids: Sequence[int], first: int, reduce: Reduce) -> Float32:
        """What ``reduce`` makes of the logits before each of ``ids[first:]``, one row an id."""
        self.forget(0)
        self._api.llama_set_embeddings(self._handle, False)
        found: list[Float32] = []
        for start, piece in self._pieces(ids[:-1]):
            # The logits at token t are those of token t + 1.
            output = min(max(0, first - 1 - start), len(piece))
            self._fill(piece, start, first_output=output)
            self.run(self._batch)
            if output < len(piece):
                targets = ids[start + output + 1 : start + len(piece) + 1]
                found.append(reduce(self.outputs(len(targets)), targets))
        return np.concatenate(found)

    def _pieces(self, ids: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
        for start in range(0, len(ids), self.piece):
            yield start, ids[start : start + self.piece]

    def _fill(self, piece: Sequence[int], start: int, *, first_output: int) -> None:
        n = len(piece)
        self._batch.fill(piece, 0)
        self._batch.positions[:n] += start
        self._batch.outputs[:n] = np.arange(n) >= first_output


def final_states(
    model: NativeModel,
    settings: Settings,
    sequences: Sequence[Sequence[int]],
    positions: Sequence[int],
    points: Sequence[HiddenPoint],
) -> Float32:
    """See :meth:`backends.interface.LanguageModel.hidden_states`; h_last is the only point."""
    require_final(points, model.layers)
    check_sequences(sequences, vocab=model.vocab, context=settings.context, positions=positions)
    width = int(model.library.api.llama_model_n_embd_out(model.handle))
    states = np.zeros((len(sequences), len(points), width), dtype=np.float32)
    if not len(sequences) or not len(points):
        return states
    context = ReadingContext(model, settings, longest=max(positions) + 1)
    try:
        for row, (ids, position) in enumerate(zip(sequences, positions, strict=True)):
            # What follows the position cannot reach it: attention is causal.
            states[row] = context.last_state(ids[: position + 1])
    finally:
        context.close()
    if not np.isfinite(states).all():
        raise UserError("llama.cpp returned states that are not finite: a damaged file or adapter?")
    return states


def response_logprobs(
    model: NativeModel,
    settings: Settings,
    sequences: Sequence[Sequence[int]],
    response_starts: Sequence[int],
) -> list[Float32]:
    """See :meth:`backends.interface.LanguageModel.logprobs`."""
    return _by_response(model, settings, sequences, response_starts, chosen_logprobs)


def token_statistics(
    model: NativeModel,
    settings: Settings,
    sequences: Sequence[Sequence[int]],
    response_starts: Sequence[int],
) -> list[TokenStatistics]:
    """See :meth:`backends.interface.LanguageModel.token_statistics`."""
    found = _by_response(model, settings, sequences, response_starts, chosen_scalars)
    return [TokenStatistics(*np.ascontiguousarray(rows.T)) for rows in found]


def _by_response(
    model: NativeModel,
    settings: Settings,
    sequences: Sequence[Sequence[int]],
    response_starts: Sequence[int],
    reduce: Reduce,
) -> list[Float32]:
    check_sequences(
        sequences,
        vocab=model.vocab,
        context=settings.context,
        response_starts=response_starts,
        first_response=1,
    )
    if not len(sequences):
        return []
    context = ReadingContext(model, settings, longest=max(len(ids) for ids in sequences) - 1)
    try:
        return [
            context.of_tokens(ids, first, reduce)
            for ids, first in zip(sequences, response_starts, strict=True)
        ]
    finally:
        context.close()


def require_final(points: Sequence[HiddenPoint], layers: int) -> None:
    """Raise CapabilityError for any point but h_last."""
    final = HiddenPoint(layers, True)
    for point in points:
        if point != final:
            raise CapabilityError(
                f"the llamacpp engine returns the final layer's state after the final norm, "
                f"HiddenPoint(layer={layers}, normed=True), and not HiddenPoint(layer="
                f"{point.layer}, normed={point.normed}); use torch or mlx for other points and "
                f"for pooling over layers"
            )


def chosen_scalars(logits: Float32, ids: Sequence[int]) -> Float32:
    """NLL, entropy and margin [T, 3] of ``ids`` [T] under logits [T, vocab], summed in float64."""
    nll = -chosen_logprobs(logits, ids)
    made = np.empty((len(ids), 3), dtype=np.float32)
    for start in range(0, len(ids), ROWS_AT_ONCE):
        rows = logits[start : start + ROWS_AT_ONCE].astype(np.float64)
        rows -= rows.max(axis=1, keepdims=True)
        powers = np.exp(rows)
        total = powers.sum(axis=1)
        part = slice(start, start + len(rows))
        made[part, 1] = np.log(total) - (powers * rows).sum(axis=1) / total
        made[part, 2] = -np.partition(rows, -2, axis=1)[:, -2]
    made[:, 0] = nll
    return made


def chosen_logprobs(logits: Float32, ids: Sequence[int]) -> Float32:
    """Log-softmax of logits [T, vocab] at ``ids`` [T], summed in float64.

    Raises UserError where that is not a finite number.
    """
    made = np.empty(len(ids), dtype=np.float32)
    for start in range(0, len(ids), ROWS_AT_ONCE):
        rows = logits[start : start + ROWS_AT_ONCE].astype(np.float64)
        rows -= rows.max(axis=1, keepdims=True)
        chosen = rows[np.arange(len(rows)), ids[start : start + ROWS_AT_ONCE]]
        made[start : start + ROWS_AT_ONCE] = chosen - np.log(np.exp(rows).sum(axis=1))
    if not np.isfinite(made).all():
        raise UserError(
            "llama.cpp returned logits that are not finite numbers: the model file or the adapter "
            "is damaged, or its training diverged"
        )
    return made
