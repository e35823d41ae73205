"""Every stage of one forward pass, by the names that all engines share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from backends.interface import Float32
from backends.mlx.decoder import Decoder, Tap, tapped


def trace(decoder: Decoder, ids: Sequence[int]) -> dict[str, Float32]:
    """Stages [T, width] in the order of computation; see :meth:`LanguageModel.trace`."""
    kept: dict[str, mx.array] = {}
    with tapped(_taps(decoder, kept)):
        hidden = decoder.hidden(mx.array([list(ids)], mx.int32))
        kept["norm"] = hidden
        kept["logits"] = decoder.logits(hidden)
        mx.eval(kept)
    return {name: np.array(value[0].astype(mx.float32)) for name, value in kept.items()}


def _taps(decoder: Decoder, kept: dict[str, mx.array]) -> list[tuple[Any, Tap]]:
    def incoming(name: str) -> Callable[[mx.array], mx.array]:
        def keep(x: mx.array) -> mx.array:
            kept[name] = x
            return x

        return keep

    def outgoing(name: str) -> Callable[[mx.array], None]:
        return lambda x: kept.update({name: x})

    taps: list[tuple[Any, Tap]] = [(decoder.layers[0], Tap(before=incoming("embedding")))]
    for index, layer in enumerate(decoder.layers):
        stem = f"layers.{index}."
        mixing = Tap(before=incoming(stem + "mixer"), after=outgoing(stem + "o_proj"))
        taps += [
            (layer.input_layernorm, Tap(after=outgoing(stem + "norm"))),
            (_out_projection(layer), mixing),
            (layer.mlp, Tap(after=outgoing(stem + "mlp"))),
            (layer, Tap(after=outgoing(stem + "output"))),
        ]
    return taps


def _out_projection(layer: Any) -> Any:
    """o_proj of attention, or out_proj of a Gated DeltaNet."""
    return layer.self_attn.o_proj if "self_attn" in layer else layer.linear_attn.out_proj
