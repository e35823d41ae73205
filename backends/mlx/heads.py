"""Attention heads on MLX: which exist, what they put out, and factors on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np

from backends.heads import Heads, column_factors, combined, lowest
from backends.interface import Float32, HeadOutputs
from backends.mlx.decoder import Decoder, Tap, attach_tap, detach_tap, heads_of, tapped
from backends.mlx.device import reading_tokens
from backends.mlx.head import weight_shape
from backends.mlx.hidden import prefix_of
from backends.mlx.prefix import Prefix
from backends.mlx.streams import evaluated
from backends.sequences import PaddedBatch, padded_batches, shared_prefix
from models.errors import UserError


def attention_heads(decoder: Decoder) -> dict[int, tuple[int, int]]:
    """Layer -> (heads, head_dim); Gated DeltaNet layers have no o_proj and are left out."""
    found: dict[int, tuple[int, int]] = {}
    for index, layer in enumerate(decoder.layers):
        if "self_attn" in layer:
            attention = layer.self_attn
            heads = heads_of(attention)
            # head_dim differs by layer in Gemma 4, and is no attribute in Qwen 3.
            found[index] = (heads, _input_width(attention.o_proj) // heads)
    return found


def _input_width(module: Any) -> int:
    linear = module.linear if "linear" in module else module  # a LoRA holds its base there
    return weight_shape(linear)[1]


def head_outputs(
    decoder: Decoder,
    sequences: Sequence[Sequence[int]],
    response_starts: Sequence[int],
    *,
    last_n: int,
) -> HeadOutputs:
    """Norms and mean vectors at the o_proj input; see :meth:`LanguageModel.head_outputs`."""
    if last_n < 1:
        raise UserError(f"last_n is {last_n}: give at least 1 token")
    heads = attention_heads(decoder)
    n = len(sequences)
    starts = [
        max(start, len(ids) - last_n) for ids, start in zip(sequences, response_starts, strict=True)
    ]
    norms = {i: np.zeros((n, count), np.float32) for i, (count, _) in heads.items()}
    means = {i: np.zeros((n, *shape), np.float32) for i, shape in heads.items()}
    shared = shared_prefix(sequences, starts)
    prefix, rest = prefix_of(decoder, sequences, shared)

    def build(batch: PaddedBatch) -> dict[int, tuple[mx.array, mx.array]]:
        begins = [starts[place] - shared for place in batch.places]
        index, weights = _window(begins, batch.lengths.tolist())
        return _reduced(decoder, prefix, heads, mx.array(batch.ids), index, weights)

    batches = padded_batches(rest, max_tokens=reading_tokens(), prefix=shared)
    for batch, kept in evaluated(decoder, batches, build, prefix=shared):
        places = list(batch.places)
        for layer, (norm, mean) in kept.items():
            norms[layer][places], means[layer][places] = np.array(norm), np.array(mean)
    return HeadOutputs(
        layers=tuple(heads),
        norms=tuple(norms.values()),
        means=tuple(means.values()),
        tokens=tuple(len(ids) - start for ids, start in zip(sequences, starts, strict=True)),
    )


def _window(starts: Sequence[int], ends: Sequence[int]) -> tuple[mx.array, mx.array]:
    """Positions [b, k] of each row's tokens, and their weights [b, 1, k], which sum to 1."""
    counts = np.array(ends) - np.array(starts)
    offsets = np.arange(counts.max())[None]
    inside = offsets < counts[:, None]
    index = np.where(inside, np.array(starts)[:, None] + offsets, 0)
    weights = inside / counts[:, None]
    return mx.array(index.astype(np.int32)), mx.array(weights[:, None].astype(np.float32))


def _reduced(
    decoder: Decoder,
    prefix: Prefix,
    heads: Heads,
    ids: mx.array,
    index: mx.array,
    weights: mx.array,
) -> dict[int, tuple[mx.array, mx.array]]:
    """Layer -> mean norms [b, heads] and mean vectors [b, heads, head_dim] of one batch, to be
    evaluated."""
    kept: dict[int, tuple[mx.array, mx.array]] = {}
    taps = [
        (decoder.layers[layer].self_attn.o_proj, _reducing(kept, layer, shape, index, weights))
        for layer, shape in heads.items()
    ]
    with tapped(taps):
        prefix.hidden(ids)
    return kept


def _reducing(
    kept: dict[int, tuple[mx.array, mx.array]],
    layer: int,
    shape: tuple[int, int],
    index: mx.array,
    weights: mx.array,
) -> Tap:
    def keep(x: mx.array) -> mx.array:
        rows, k = index.shape
        picked = x[mx.arange(rows)[:, None], index].astype(mx.float32)
        squares = picked.reshape(rows, k, *shape).square().sum(axis=-1)
        norm = (weights @ mx.sqrt(squares))[:, 0]
        kept[layer] = norm, (weights @ picked).reshape(rows, *shape)
        return x

    return Tap(before=keep)


class Tempering:
    """The factors of the nested contexts that are open, and the taps that apply them."""

    def __init__(self) -> None:
        self._open: list[Mapping[int, Float32]] = []
        self._taps: list[tuple[Any, Tap]] = []

    @contextmanager
    def scaled(self, decoder: Decoder, factors: Mapping[int, Float32]) -> Iterator[None]:
        """Multiply the o_proj input by ``factors`` [heads] of each layer meanwhile."""
        self._open.append(factors)
        try:
            self._install(decoder)
            yield
        finally:
            self._open = [other for other in self._open if other is not factors]
            self._install(decoder)

    @contextmanager
    def lifted(self, decoder: Decoder) -> Iterator[None]:
        """Scale nothing meanwhile, then o_proj as it is by then.

        A LoRA that wrapped a scaled o_proj would have a path of its own that is not scaled.
        """
        self._remove()
        try:
            yield
        finally:
            self._install(decoder)

    def _remove(self) -> None:
        while self._taps:
            detach_tap(*self._taps.pop())

    def _install(self, decoder: Decoder) -> None:
        self._remove()
        decoder.below.scaled_from(lowest(self._open))
        heads = attention_heads(decoder)
        for layer, row in combined(self._open).items():
            module = decoder.layers[layer].self_attn.o_proj
            tap = _scaling(column_factors(row, heads[layer][1]))
            attach_tap(module, tap)
            self._taps.append((module, tap))


def _scaling(columns: Float32) -> Tap:
    factors = mx.array(columns)

    def scale(x: mx.array) -> mx.array:
        # In float32, so that a factor is not itself rounded to a narrower dtype.
        return (x.astype(mx.float32) * factors).astype(x.dtype)

    return Tap(before=scale)
