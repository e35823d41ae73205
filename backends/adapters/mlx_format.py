"""mlx-lm's adapter directory: ``adapter_config.json`` and ``adapters.safetensors``.

mlx-lm stores A transposed as ``lora_a`` (in, rank) and B as ``lora_b`` (rank, out), and a
factor ``scale`` where PEFT has alpha over rank. What it cannot express (alpha, rsLoRA) is kept
under a key of our own, ``threearc``, which mlx-lm ignores.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.adapters.contents import (
    CONFIG_FILE,
    Contents,
    canonical_name,
    check_number,
    check_rank,
    make_config,
    module_of,
    read_json,
    read_tensors,
    to_float32,
)
from backends.interface import Float32, LoraConfig
from models.directory import ModelDirectory
from models.errors import UserError
from models.geometry import read_config, text_config

MLX_WEIGHTS_FILE = "adapters.safetensors"
OURS = "threearc"

_KEY = re.compile(r"(.+)\.(lora_[ab])")
_PARTS = {"lora_a": "lora_A", "lora_b": "lora_B"}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_WRAPPED_FAMILY = "qwen3_5"
"""mlx-lm has one class for Qwen3.5, with the text model under ``language_model``, also where
the directory is text only."""


def read_mlx(path: Path) -> Contents:
    """Read an mlx-lm LoRA directory; the tensors present decide which modules are adapted.

    Raises UserError when a file is damaged, and for DoRA, full fine-tunes and adapted
    embeddings or experts.
    """
    file = path / CONFIG_FILE
    settings = read_json(file)
    _refuse_other_kinds(path, settings.get("fine_tune_type", "lora"))
    lora = settings.get("lora_parameters")
    if not isinstance(lora, dict):
        raise UserError(f"{file} has no lora_parameters: it was not written by mlx-lm's LoRA")
    rank = check_rank(lora.get("rank"), f"{file}: lora_parameters.rank")
    scale = check_number(lora.get("scale"), f"{file}: lora_parameters.scale")
    dropout = check_number(lora.get("dropout", 0.0), f"{file}: lora_parameters.dropout")
    if not 0 <= dropout < 1:
        raise UserError(f"{file}: lora_parameters.dropout is {dropout:g}: expected 0 to 1")
    weights = _weights(path / MLX_WEIGHTS_FILE, rank)
    alpha, rslora = _kept(settings.get(OURS), rank, scale, file)
    config = make_config(weights, rank=rank, alpha=alpha, dropout=dropout, rslora=rslora)
    base = settings.get("model")
    return Contents(config, weights, base if isinstance(base, str) else None)


def _refuse_other_kinds(path: Path, kind: Any) -> None:
    if kind == "lora":
        return
    if kind in ("dora", "full"):
        raise UserError(
            f"adapter {path} is mlx-lm's fine_tune_type {kind}, not LoRA: make it a model with "
            "mlx_lm.fuse and use that"
        )
    raise UserError(f"adapter {path} has the unknown fine_tune_type {kind!r:.40}: expected lora")


def _weights(file: Path, rank: int) -> dict[str, Float32]:
    weights: dict[str, Float32] = {}
    for key, tensor in read_tensors(file).items():
        match = _KEY.fullmatch(key)
        if match is None or match[1].endswith("embed_tokens"):
            raise UserError(
                f"{file} holds {key}: only LoRA on linear layers is supported (no embeddings, "
                "no DoRA)"
            )
        name = f"{canonical_name(match[1])}.{_PARTS[match[2]]}"
        if name in weights:
            raise UserError(f"{file} holds {name} twice, under two spellings")
        array = to_float32(tensor, f"{file}: {key}")
        if array.shape[match[2] == "lora_a"] != rank:
            raise UserError(f"{file}: {key} is {array.shape}, expected rank {rank}")
        weights[name] = np.ascontiguousarray(array.T)
    return weights


def _kept(ours: Any, rank: int, scale: float, file: Path) -> tuple[float, bool]:
    """(alpha, rslora): ours where they still give mlx-lm's scale, else alpha = scale * rank."""
    if isinstance(ours, dict) and "alpha" in ours:
        alpha = check_number(ours["alpha"], f"{file}: {OURS}.alpha")
        rslora = ours.get("rslora") is True
        if LoraConfig(rank, alpha, rslora=rslora).scale == scale:
            return alpha, rslora
    return _alpha_for(scale, rank), False


def _alpha_for(scale: float, rank: int) -> float:
    """An alpha with alpha / rank == scale to the last bit where one exists, else one bit off."""
    alpha = scale * rank
    near = (alpha, math.nextafter(alpha, math.inf), math.nextafter(alpha, -math.inf))
    return next((value for value in near if value / rank == scale), alpha)


# -- writing ------------------------------------------------------------------------------


def write_mlx(
    folder: Path,
    config: LoraConfig,
    weights: Mapping[str, Float32],
    base: ModelDirectory,
    linear_modules: Sequence[str],
) -> None:
    """Write mlx-lm's two files into ``folder``, for ``mlx_lm.load(..., adapter_path=folder)``.

    ``linear_modules``: canonical names of all the model's, to tell whether short keys do.
    """
    from safetensors.numpy import save_file

    prefix = _mlx_prefix(base)
    modules = sorted({module_of(name) for name in weights})
    tensors = {}
    for name, array in weights.items():
        module, _, part = name.rpartition(".")
        transposed = np.ascontiguousarray(array.T, dtype=np.float32)
        tensors[f"{prefix}{module}.{part.lower()}"] = transposed
    layers = int(text_config(read_config(base.path))["num_hidden_layers"])
    num_layers, keys = _placement(modules, layers, prefix, linear_modules)
    settings = {
        "fine_tune_type": "lora",
        "model": base.source,
        "num_layers": num_layers,
        "lora_parameters": {
            "rank": config.rank,
            "scale": config.scale,
            "dropout": config.dropout,
            "keys": keys,
        },
        OURS: {"alpha": float(config.alpha), "rslora": config.rslora},
    }
    save_file(tensors, folder / MLX_WEIGHTS_FILE, metadata={"format": "mlx"})
    (folder / CONFIG_FILE).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def _placement(
    modules: Sequence[str], layers: int, prefix: str, linear_modules: Sequence[str]
) -> tuple[int, list[str]]:
    """(num_layers, keys) by which mlx-lm adapts exactly ``modules``.

    mlx-lm takes names within a layer for the last ``num_layers`` layers, or full paths for the
    whole model. Names within a layer, which older versions and other readers understand as
    well, are used where they mean the same.
    """
    parts = [match for match in map(_LAYER.fullmatch, modules) if match]
    first = min((int(match[1]) for match in parts), default=0)
    short = sorted({match[2] for match in parts})
    meant = {
        name
        for name in linear_modules
        if (match := _LAYER.fullmatch(name)) and int(match[1]) >= first and match[2] in short
    }
    if meant == set(modules):
        return layers - first, short
    return layers - first, [prefix + name for name in modules]


def _mlx_prefix(base: ModelDirectory) -> str:
    """What stands before ``model.layers`` in mlx-lm's module tree."""
    wrapped = base.family == _WRAPPED_FAMILY or "text_config" in read_config(base.path)
    return "language_model." if wrapped else ""
