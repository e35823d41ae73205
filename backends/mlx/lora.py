"""LoRA layers in an mlx-lm model, under the canonical names and with given weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten

from backends.interface import Float32, LoraConfig
from backends.lora import check_weights
from backends.mlx.decoder import Decoder
from backends.mlx.head import parameter_count, weight_shape
from backends.mlx.library import LoRALinear
from models.errors import UserError

_PARTS = {"lora_A": "lora_a", "lora_B": "lora_b"}
"""Canonical part -> mlx-lm's attribute, which holds the transpose."""


class SeededDropout(nn.Module):  # type: ignore[misc]
    """Dropout whose mask follows from a given key alone.

    ``nn.Dropout`` draws from the global stream: gradient checkpointing runs a layer twice and
    would see two masks.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self._keep = 1.0 - rate
        self._key = mx.random.key(0)

    def reseed(self, key: mx.array) -> None:
        """Set the key of the next masks."""
        self._key = key

    def __call__(self, x: mx.array) -> mx.array:
        """Zero a share of ``x`` and scale up the rest, in training mode only."""
        if self._keep == 1.0 or not self.training:
            return x
        mask = mx.random.bernoulli(self._keep, x.shape, key=self._key)
        return (mask * x) * (1.0 / self._keep)


def linear_modules(decoder: Decoder) -> dict[str, tuple[int, int]]:
    """Canonical name -> (out, in) of every linear layer in the decoder layers."""
    found: dict[str, tuple[int, int]] = {}
    stem = decoder.prefix + "model.layers."
    for path, module in decoder.network.named_modules():
        if path.startswith(stem) and isinstance(module, nn.Linear | nn.QuantizedLinear):
            name = path.removeprefix(decoder.prefix).removesuffix(".linear")
            found[name] = weight_shape(module)
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Adapter:
    """The LoRA layers of a model, by canonical module name."""

    modules: Mapping[str, Any]

    def parameters(self) -> dict[str, mx.array]:
        """Canonical weight name -> mlx array, in mlx's (transposed) layout."""
        return {
            f"{name}.{part}": module[attribute]
            for name, module in self.modules.items()
            for part, attribute in _PARTS.items()
        }

    def set_parameters(self, parameters: Mapping[str, mx.array]) -> None:
        """Put arrays named and laid out as in :meth:`parameters` into the layers."""
        for name, module in self.modules.items():
            for part, attribute in _PARTS.items():
                module[attribute] = parameters[f"{name}.{part}"]

    def weights(self) -> dict[str, Float32]:
        """Canonical weight name -> numpy, A (rank, in) and B (out, rank)."""
        return {name: to_numpy(value) for name, value in self.parameters().items()}

    def trainable_share(self, decoder: Decoder) -> float:
        """Trainable parameters over all parameters of the model."""
        network = decoder.network
        trained = sum(value.size for _, value in tree_flatten(network.trainable_parameters()))
        return float(trained / parameter_count(network))

    def reseed(self, seed: int) -> None:
        """Fix the dropout masks of the next forward pass, one stream a module."""
        keys = mx.random.split(mx.random.key(seed), len(self.modules))
        for module, key in zip(self.modules.values(), keys, strict=True):
            module.dropout.reseed(key)


def to_numpy(value: mx.array) -> Float32:
    """Return the transpose of a float32 matrix as a contiguous numpy array."""
    return np.ascontiguousarray(np.array(value).T)


def from_numpy(value: Float32) -> mx.array:
    """Inverse of :func:`to_numpy`, exactly."""
    return mx.array(np.ascontiguousarray(value.T.astype(np.float32, copy=False)))


def attach(decoder: Decoder, config: LoraConfig, weights: Mapping[str, Float32]) -> Adapter:
    """Freeze the model and put LoRA layers with exactly ``weights`` where they belong.

    LoRA weights stay float32 whatever the base's dtype. Raises UserError when ``weights`` do
    not fit the model.
    """
    names = check_weights(config, weights, linear_modules(decoder))
    network = decoder.network
    network.freeze()
    modules = {name: _adapt(decoder, name, config) for name in names}
    adapter = Adapter(modules)
    adapter.set_parameters({name: from_numpy(weights[name]) for name in adapter.parameters()})
    _check_trainable(decoder, names)
    mx.eval(network.trainable_parameters())
    return adapter


def _adapt(decoder: Decoder, name: str, config: LoraConfig) -> Any:
    parent: Any = decoder.network
    *path, leaf = (decoder.prefix + name).split(".")
    for part in path:
        parent = parent[int(part)] if isinstance(parent, list) else parent[part]
    module = LoRALinear.from_base(parent[leaf], r=config.rank, scale=config.scale)
    module.dropout = SeededDropout(config.dropout)
    parent[leaf] = module
    return module


def _check_trainable(decoder: Decoder, names: Sequence[str]) -> None:
    """Raise when anything but the LoRA weights would be trained, or one of them would not."""
    expected = {f"{decoder.prefix}{name}.{part}" for name in names for part in _PARTS.values()}
    trainable = {path for path, _ in tree_flatten(decoder.network.trainable_parameters())}
    if trainable != expected:
        stray = ", ".join(sorted(trainable ^ expected)[:3])
        raise UserError(f"mlx-lm would train other weights than the LoRA's ({stray})")
