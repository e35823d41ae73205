"""The language-model head, whose weight may be quantised (affine or a microscaling format)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

PACKED_BITS = 32
"""Quantised weights are stored in 32-bit words."""


def weight_shape(module: Any) -> tuple[int, int]:
    """(out, in) of a linear layer or an embedding, quantised or not."""
    rows, columns = module.weight.shape
    if "scales" in module:
        columns = columns * PACKED_BITS // module.bits
    return int(rows), int(columns)


def parameter_count(network: Any) -> int:
    """Parameters of a model; of packed layers those that they stand for."""
    count = sum(value.size for _, value in tree_flatten(network.parameters()))
    for module in network.modules():
        if "scales" in module:
            rows, columns = weight_shape(module)
            packed = (module.get(name) for name in ("weight", "scales", "biases"))
            count += rows * columns - sum(value.size for value in packed if value is not None)
    return int(count)


@dataclass(frozen=True, eq=False)
class Head:
    """Products with the head's weight W [vocab, d], which is never unpacked as a whole."""

    module: Any
    """A linear layer, or the embedding where the two are tied."""

    @property
    def shape(self) -> tuple[int, int]:
        """(vocab, d)."""
        return weight_shape(self.module)

    @property
    def quantised(self) -> bool:
        """Whether the weight is stored packed."""
        return "scales" in self.module

    def forward(self, hidden: mx.array) -> mx.array:
        """Hidden states [..., d] -> W h [..., vocab]."""
        product: mx.array = (
            self._packed_product(hidden, transpose=True)
            if self.quantised
            else hidden @ self.module.weight.T
        )
        return product

    def backward(self, values: mx.array, dtype: mx.Dtype) -> mx.array:
        """Values [n, vocab] -> W^T v [n, d], computed in ``dtype``."""
        values = values.astype(dtype)
        product: mx.array = (
            self._packed_product(values, transpose=False)
            if self.quantised
            else values @ self.module.weight
        )
        return product

    def rows(self, ids: mx.array) -> mx.array:
        """Rows [n, d] of W."""
        module = self.module
        if not self.quantised:
            plain: mx.array = module.weight[ids]
            return plain
        biases = module.get("biases")
        rows: mx.array = mx.dequantize(
            module.weight[ids],
            scales=module.scales[ids],
            biases=None if biases is None else biases[ids],
            group_size=module.group_size,
            bits=module.bits,
            mode=module.mode,
        )
        return rows

    def _packed_product(self, values: mx.array, *, transpose: bool) -> mx.array:
        module = self.module
        product: mx.array = mx.quantized_matmul(
            values,
            module.weight,
            scales=module.scales,
            biases=module.get("biases"),
            transpose=transpose,
            group_size=module.group_size,
            bits=module.bits,
            mode=module.mode,
        )
        return product
