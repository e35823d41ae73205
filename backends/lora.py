"""LoRA adapters outside any engine: which modules, which start values, and the PEFT files.

Module names are canonical, ``model.layers.3.self_attn.q_proj``, whatever the engine or the
wrapper (Gemma 4's ``model.language_model.layers...``) calls them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from backends.adapter_files import adapter_sha256, load_adapter, save_adapter, weights_sha256
from backends.interface import Float32, LoraConfig
from backends.randomness import uniform
from models.errors import UserError

__all__ = [
    "adapter_sha256",
    "check_weights",
    "initial_weights",
    "load_adapter",
    "save_adapter",
    "select_modules",
    "weights_sha256",
]

_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_TARGETS = {"attention": _ATTENTION, "all": _ATTENTION + _MLP}
_NAME = re.compile(r"model\.layers\.(\d+)\.(.+)")


def select_modules(linear_modules: Mapping[str, tuple[int, int]], targets: str) -> list[str]:
    """Return the modules that ``targets`` adapts, by layer, then q, k, v, o, gate, up, down.

    ``attention`` takes q, k, v and o of every layer that has them: in Qwen3.5 the
    full-attention layers only, since Gated DeltaNet layers have none of these names. ``all``
    adds the MLP of every layer. Raises UserError when the name is unknown or nothing matches.
    """
    if targets not in _TARGETS:
        raise UserError(f"unknown LoRA targets {targets!r}: choose attention or all")
    wanted = {suffix: position for position, suffix in enumerate(_TARGETS[targets])}
    found: list[tuple[int, int, str]] = []
    for name in linear_modules:
        match = _NAME.fullmatch(name)
        if match and match[2] in wanted:
            found.append((int(match[1]), wanted[match[2]], name))
    if not found:
        raise UserError(
            f"LoRA targets {targets!r} match none of the model's {len(linear_modules)} linear "
            "layers: this architecture is not supported for training"
        )
    return [name for _, _, name in sorted(found)]


def initial_weights(
    config: LoraConfig, linear_modules: Mapping[str, tuple[int, int]], seed: int
) -> dict[str, Float32]:
    """Draw A uniform in +-1/sqrt(in) and set B to zero (the start that peft and mlx-lm use).

    Each A comes from its own stream keyed by (seed, module name), so both engines start from
    the same numbers and adding a module changes no other. Returns ``<module>.lora_A``
    (rank, in) and ``<module>.lora_B`` (out, rank), float32.
    """
    weights: dict[str, Float32] = {}
    for name in select_modules(linear_modules, config.targets):
        out_features, in_features = linear_modules[name]
        bound = 1.0 / np.sqrt(in_features)
        draw = uniform(config.rank * in_features, "lora_A", seed, name)
        scaled = ((2.0 * draw - 1.0) * bound).astype(np.float32)
        weights[f"{name}.lora_A"] = scaled.reshape(config.rank, in_features)
        weights[f"{name}.lora_B"] = np.zeros((out_features, config.rank), np.float32)
    return weights


def check_weights(
    config: LoraConfig,
    weights: Mapping[str, Float32],
    linear_modules: Mapping[str, tuple[int, int]],
) -> list[str]:
    """Return the modules that ``weights`` adapts, in canonical order, after checking every shape.

    Raises UserError when a module is not in the model, has only one of A and B, or a shape
    differs: the adapter belongs to another model.
    """
    modules = sorted({_module(key) for key in weights}, key=_order)
    if not modules:
        raise UserError("the LoRA has no weights")
    for name in modules:
        if name not in linear_modules:
            raise UserError(f"the LoRA adapts {name}, which this model does not have")
        out_features, in_features = linear_modules[name]
        expected = {"lora_A": (config.rank, in_features), "lora_B": (out_features, config.rank)}
        for part, shape in expected.items():
            found = weights[f"{name}.{part}"].shape if f"{name}.{part}" in weights else "nothing"
            if found != shape:
                raise UserError(
                    f"the LoRA does not fit this model: {name}.{part} is {found}, expected {shape}"
                )
    return modules


def _module(key: str) -> str:
    name, _, part = key.rpartition(".")
    if part not in ("lora_A", "lora_B"):
        raise UserError(f"unexpected LoRA weight name {key!r}: it must end in .lora_A or .lora_B")
    return name


def _order(name: str) -> tuple[int, Sequence[int | str]]:
    """Layer, then position in q, k, v, o, gate, up, down; other names after these."""
    match = _NAME.fullmatch(name)
    if match is None:
        return (1 << 30, (0, name))
    known = _TARGETS["all"]
    rank = known.index(match[2]) if match[2] in known else len(known)
    return (int(match[1]), (rank, name))
