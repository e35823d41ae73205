"""Weights of a few bits under a LoRA (QLoRA, arXiv 2305.14314), with MLX's affine format.

Each group of weights along a row becomes integers of ``bits`` bits with one scale and one offset.
Only linear layers of the decoder are packed: the embedding and the head decide what the model can
say, and hold most of a small model's error.
"""

from __future__ import annotations

from typing import Any

from mlx import nn
from mlx.utils import tree_flatten

from backends.interface import QUANTISED_BITS
from backends.mlx.decoder import Decoder
from models.errors import UserError

GROUP_SIZES = (64, 32)
"""The first that divides a layer's input width is taken."""


def quantise(decoder: Decoder, bits: int) -> None:
    """Pack the decoder's linear layers. Raises UserError where none can be, or some are."""
    if bits not in QUANTISED_BITS:
        known = " or ".join(map(str, QUANTISED_BITS))
        raise UserError(f"cannot quantise a base to {bits} bits: choose {known}")
    if packed_layers(decoder):
        raise UserError(
            "this model directory is quantised already: leave out the bits to quantise to, or "
            "give its float16, bfloat16 or float32 directory"
        )
    stem = decoder.prefix + "model.layers."

    def choose(path: str, module: Any) -> bool | dict[str, Any]:
        if not (path.startswith(stem) and isinstance(module, nn.Linear)):
            return False
        size = next((size for size in GROUP_SIZES if module.weight.shape[1] % size == 0), None)
        return {"group_size": size, "bits": bits, "mode": "affine"} if size else False

    nn.quantize(decoder.network, class_predicate=choose)
    if not packed_layers(decoder):
        raise UserError(
            f"no layer of this model can be quantised: none has an input width that "
            f"{GROUP_SIZES[-1]} divides"
        )


def packed_layers(decoder: Decoder) -> list[Any]:
    """Linear layers of the decoder that are stored packed, LoRA or none around them."""
    stem = decoder.prefix + "model.layers."
    return [
        module
        for path, module in decoder.network.named_modules()
        if path.startswith(stem) and isinstance(module, nn.QuantizedLinear)
    ]


def describe(decoder: Decoder) -> dict[str, Any]:
    """``{"quantised_base": ...}`` with bits, group sizes and how much of what is packed, or {}."""
    packed = packed_layers(decoder)
    if not packed and not decoder.head.quantised:
        return {}
    stem = decoder.prefix + "model.layers."
    plain = [
        module
        for path, module in decoder.network.named_modules()
        if path.startswith(stem) and isinstance(module, nn.Linear)
    ]
    # the base's alone: what it is does not change when a LoRA is attached
    weights = sum(
        value.nbytes
        for path, value in tree_flatten(decoder.network.parameters())
        if not path.endswith((".lora_a", ".lora_b"))
    )
    return {
        "quantised_base": {
            "bits": sorted({module.bits for module in packed}),
            "group_size": sorted({module.group_size for module in packed}),
            "mode": sorted({module.mode for module in packed}),
            "linear_layers": len(packed),
            "linear_layers_kept": len(plain),
            "head": decoder.head.quantised,
            "weight_bytes": int(weights),
        }
    }
