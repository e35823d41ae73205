"""What tests of reading and tempering on torch share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backends.interface import Head, HiddenPoint
from backends.torch.heads import o_proj
from backends.torch.model import TorchModel
from tests.support.training_data import example

SEQUENCES = [example(5, total).ids for total in (150, 9, 70, 23, 41)]
"""Longer and shorter than the tiny models' sliding window (8) and the DeltaNet chunk (64)."""
STARTS = [130, 5, 7, 22, 1]
IDS = SEQUENCES[2]

ROUNDING = 2e-5
"""Largest difference over largest value, float32: other shapes, so sums in another order.
Measured at most 4.5e-6; the mistakes of the negative twins are 3e-3 and more."""


def off(found: NDArray[Any], expected: NDArray[Any]) -> float:
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def layers_of(model: TorchModel) -> int:
    return len(model.backbone.layers)


def h_last(model: TorchModel) -> list[HiddenPoint]:
    return [HiddenPoint(layers_of(model), True)]


def hooks_of(model: TorchModel) -> int:
    modules = list(model.model.modules())
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


def entering(model: TorchModel, ids: Any, layer: int) -> NDArray[np.float32]:
    """What enters o_proj, [T, heads, head_dim], of one sequence by a hook of the test's own."""
    seen: list[Any] = []
    handle = o_proj(model.backbone, layer).register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0][0].clone())
    )
    model.logits(ids)
    handle.remove()
    (states,) = seen
    return np.asarray(states.reshape(len(ids), *model.attention_heads()[layer]).cpu().numpy())


@contextmanager
def edited(model: TorchModel, head: Head, factor: float, *, adapter: bool = True) -> Iterator[None]:
    """The columns of o_proj (and of lora_A) that read ``head``, multiplied by ``factor``."""
    module = o_proj(model.backbone, head.layer)
    dim = model.attention_heads()[head.layer][1]
    weights = [getattr(module, "base_layer", module).weight]
    if adapter and hasattr(module, "lora_A"):
        weights.append(module.lora_A["default"].weight)
    saved = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            weight[:, head.head * dim : (head.head + 1) * dim] *= factor
    yield
    with torch.no_grad():
        for weight, old in zip(weights, saved, strict=True):
            weight.copy_(old)


def some_head(model: TorchModel) -> Head:
    return Head(max(model.attention_heads()), 2)


def every_head(model: TorchModel, factor: float) -> dict[Head, float]:
    shapes = model.attention_heads().items()
    return {Head(layer, head): factor for layer, (count, _) in shapes for head in range(count)}
