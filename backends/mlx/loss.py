"""Negative log-likelihood of response ids: the head on those positions only, in chunks.

Memory holds one chunk of logits, never vocabulary x sequence.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from backends.mlx.compiled import compiled_on_gpu
from backends.mlx.cpu import exp
from backends.mlx.decoder import Decoder

CHUNK_BYTES = 32 << 20
"""Float32 logits held at once."""
SUM_WIDTH = 256
"""Terms added in one go."""


def response_nll(
    decoder: Decoder, hidden: mx.array, targets: mx.array, *, gradient: bool
) -> mx.array:
    """Float32 NLL [n] of ``targets`` [n] from hidden states [n, d].

    With ``gradient`` the derivative by ``hidden`` is computed in the same pass, when a chunk's
    logits are at hand: for logits z = W h it is W^T softmax(z) - W[target]. So they are neither
    kept for the backward pass nor computed twice. Without, each chunk is evaluated before the
    next is built: MLX allocates what it has queued. (Evaluating inside a differentiated function
    instead keeps every intermediate of the decoder, gradient checkpointing or not.)
    """
    if targets.size == 0:
        return mx.zeros((0,), mx.float32)
    if not gradient:
        return _forward(decoder, hidden, targets, gradient=False)[0]

    def compute(states: mx.array) -> tuple[mx.array, mx.array]:
        return _forward(decoder, states, targets, gradient=True)

    fused: Any = mx.custom_function(compute)

    @fused.vjp  # type: ignore[untyped-decorator]
    def fused_vjp(
        states: mx.array, cotangents: tuple[mx.array, mx.array], outputs: tuple[mx.array, mx.array]
    ) -> mx.array:
        return (cotangents[0][:, None] * outputs[1]).astype(states.dtype)

    nll: mx.array = fused(hidden)[0]
    return nll


def response_scalars(decoder: Decoder, hidden: mx.array, targets: mx.array) -> mx.array:
    """Float32 NLL, entropy and margin [n, 3] of ``targets`` [n] from hidden states [n, d]."""
    rows = max(1, CHUNK_BYTES // (4 * decoder.head.shape[0]))
    made: list[mx.array] = []
    for start in range(0, hidden.shape[0], rows):
        logits = decoder.logits(hidden[start : start + rows])
        index = targets[start : start + rows, None]
        nll, _, powers, total = _terms(logits, index)
        # with p = e^(z - max) / total: -sum p log p = log total - sum p (z - max)
        centred = logits - logits.max(axis=-1, keepdims=True)
        entropy = (mx.log(total) - sum_last(powers * centred) / total)[:, 0]
        two = mx.topk(logits, 2, axis=-1)
        margin = two.max(axis=-1) - two.min(axis=-1)
        made.append(mx.stack([nll, entropy, margin], axis=1))
        mx.eval(made[-1])
    return mx.concatenate(made) if made else mx.zeros((0, 3))


def _forward(
    decoder: Decoder, hidden: mx.array, targets: mx.array, *, gradient: bool
) -> tuple[mx.array, mx.array]:
    rows = max(1, CHUNK_BYTES // (4 * decoder.head.shape[0]))
    losses: list[mx.array] = []
    slopes: list[mx.array] = []
    for start in range(0, hidden.shape[0], rows):
        states = hidden[start : start + rows]
        if losses and gradient:
            # one chunk after the other, as far as MLX's queue allows
            states = mx.depends(states, [slopes[-1], losses[-1]])
        loss, slope = _chunk(decoder, states, targets[start : start + rows], gradient=gradient)
        if not gradient:
            mx.eval(loss)
        losses.append(loss)
        slopes.append(slope)
    return mx.concatenate(losses), mx.concatenate(slopes)


def _chunk(
    decoder: Decoder, hidden: mx.array, targets: mx.array, *, gradient: bool
) -> tuple[mx.array, mx.array]:
    """NLL [n] and, with ``gradient``, its float32 derivative [n, d] by ``hidden``."""
    cap = decoder.softcap
    logits = decoder.logits(hidden)
    loss, chosen, powers, total = _terms(logits, targets[:, None])
    if not gradient:
        return loss, loss
    rows = decoder.head.rows(targets).astype(mx.float32)
    if cap is not None:  # d/dz cap * tanh(z / cap) = 1 - tanh(z / cap)^2
        powers = powers * (1.0 - mx.square(logits / cap))
        rows = rows * (1.0 - mx.square(chosen / cap))
    mean = decoder.head.backward(powers / total, decoder.dtype)
    return loss, mean.astype(mx.float32) - rows


@compiled_on_gpu
def _terms(logits: mx.array, index: mx.array) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """NLL [n], chosen logit [n, 1], e^(logit - largest) [n, vocab] and their sum [n, 1]."""
    largest = logits.max(axis=-1, keepdims=True)
    powers = exp(logits - largest)
    total = sum_last(powers)
    chosen = mx.take_along_axis(logits, index, axis=-1)
    return (mx.log(total) + largest - chosen)[:, 0], chosen, powers, total


def sum_last(x: mx.array) -> mx.array:
    """Sum over the last axis, which is kept, in two levels.

    mlx's CPU sums are sequential float32: over 49,152 terms that is off by 2.4e-4.
    """
    pad = -x.shape[-1] % SUM_WIDTH
    if pad:
        x = mx.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, pad)])
    partial = x.reshape(*x.shape[:-1], -1, SUM_WIDTH).sum(-1)
    return partial.sum(-1, keepdims=True)
