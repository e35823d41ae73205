"""Attention heads: which exist, and factors on them; the same for every engine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from backends.interface import Float32, Head
from models.errors import UserError

Heads = Mapping[int, tuple[int, int]]
"""Layer -> (heads, head_dim), as :meth:`LanguageModel.attention_heads` returns it."""


def layer_factors(scales: Mapping[Head, float], heads: Heads) -> dict[int, Float32]:
    """Factors [heads] by layer, 1 for heads that are not named; layers of ones are left out.

    Raises UserError for a head that does not exist, listing those that do, and for a factor
    that is not a finite number.
    """
    made: dict[int, Float32] = {}
    for (layer, head), factor in scales.items():
        _require(layer, head, heads)
        if not math.isfinite(factor):
            raise UserError(f"layer {layer} head {head}: a factor is a finite number, not {factor}")
        row = made.setdefault(layer, np.ones(heads[layer][0], dtype=np.float32))
        row[head] = factor
    return {layer: row for layer, row in made.items() if not (row == 1).all()}


def combined(stack: Sequence[Mapping[int, Float32]]) -> dict[int, Float32]:
    """Product of the factors of nested contexts, by layer."""
    made: dict[int, Float32] = {}
    for factors in stack:
        for layer, row in factors.items():
            made[layer] = made[layer] * row if layer in made else row.copy()
    return {layer: row for layer, row in made.items() if not (row == 1).all()}


def lowest(stack: Sequence[Mapping[int, Float32]]) -> int | None:
    """The lowest layer that nested contexts scale; None: none is."""
    return min(combined(stack), default=None)


def column_factors(row: Float32, head_dim: int) -> Float32:
    """Factors [heads * head_dim] on the o_proj input from factors [heads]."""
    return np.repeat(row, head_dim)


def _require(layer: int, head: int, heads: Heads) -> None:
    if layer not in heads:
        raise UserError(f"layer {layer} has no attention heads; layers that have: {_layers(heads)}")
    count = heads[layer][0]
    if not 0 <= head < count:
        raise UserError(f"layer {layer} has heads 0 to {count - 1}, and no head {head}")


def _layers(heads: Heads) -> str:
    """``0-4, 7, 9-11``."""
    ordered = sorted(heads)
    spans: list[list[int]] = []
    for layer in ordered:
        if spans and layer == spans[-1][1] + 1:
            spans[-1][1] = layer
        else:
            spans.append([layer, layer])
    return ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in spans) or "none"
