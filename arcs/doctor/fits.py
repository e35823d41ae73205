"""Which of the registry's models fit into this machine's memory, for inference and LoRA training.

Sizes come from a model's files where it is prepared, else from the shapes below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from backends.interface import Dtype, LoraConfig
from backends.memory import ITEM_BYTES, ModelSize, estimate_training, model_size
from backends.training import TrainConfig
from models.cache import cache_root
from models.directory import ModelDirectory
from models.errors import UserError
from models.registry import MODELS, ModelSpec
from models.store import read_record

DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")
TRAINING = TrainConfig(lora=LoraConfig(rank=16, alpha=32.0), micro_batch_size=4, max_length=1024)
"""What the training estimates are for; attention projections adapted."""
ROWS, TOKENS = 8, 2048
"""Sequences decoded together, and their length, in the inference estimates."""


@dataclass(frozen=True)
class Shape:
    """Widths of a model that is not on disk, from its published configuration."""

    hidden: int
    intermediate: int
    vocab: int
    heads: int
    kv_heads: int
    linear_heads: int = 0
    """Heads of a Gated DeltaNet layer, key and value alike."""
    linear_head_dim: int = 128


SHAPES = {
    "SmolLM2-135M-Instruct": Shape(576, 1536, 49_152, 9, 3),
    "SmolLM2-1.7B-Instruct": Shape(2048, 8192, 49_152, 32, 32),
    "Qwen3-0.6B": Shape(1024, 3072, 151_936, 16, 8),
    "Qwen3-1.7B": Shape(2048, 6144, 151_936, 16, 8),
    "Qwen3.5-0.8B": Shape(1024, 3584, 248_320, 8, 2, linear_heads=16),
    "Gemma-4-E2B": Shape(1536, 12_288, 262_144, 8, 1),
    "Gemma-3-270M": Shape(640, 2048, 262_144, 4, 1),
}
"""From the models' published configs, unverified here as the registry's counts are. Gemma 4's
MLP is taken as double-wide and its heads as the wide ones in every layer: an upper bound."""


def describe_fits(free: int, where: str) -> dict[str, Any]:
    """Bytes that each registry model needs, against ``free`` bytes on ``where``."""
    prepared = _prepared_directories()
    return {
        "where": where,
        "free": free,
        "assumptions": {
            "inference": f"{ROWS} sequences of {TOKENS} tokens",
            "training": f"LoRA rank {TRAINING.lora.rank} on attention, "
            f"{TRAINING.micro_batch_size} x {TRAINING.max_length} tokens",
        },
        "models": [_row(spec, prepared.get(spec.name), free) for spec in MODELS],
    }


def _row(spec: ModelSpec, directory: ModelDirectory | None, free: int) -> dict[str, Any]:
    size, basis = _size(spec, directory)
    return {
        "name": spec.name,
        "parameters": size.parameters,
        "basis": basis,
        "inference": {dtype: inference(size, dtype, free) for dtype in DTYPES},
        "training": {dtype: _training(size, dtype, free) for dtype in DTYPES},
    }


def inference(size: ModelSize, dtype: Dtype, free: int) -> dict[str, Any]:
    """Bytes to answer with, and whether ``free`` bytes hold them."""
    estimate = estimate_training(size, TRAINING, dtype=dtype)
    values = sum(out for name, (out, _) in size.linear_modules.items() if _is_kept(name))
    # one float32 row of logits a sequence, twice: penalised and as computed
    logits = 2 * 4 * ROWS * size.vocab
    cache = ITEM_BYTES[dtype] * ROWS * TOKENS * values
    needed = estimate.weights + estimate.runtime + cache + logits
    return {"bytes": needed, "fits": needed <= free}


def _is_kept(name: str) -> bool:
    return name.endswith(("self_attn.k_proj", "self_attn.v_proj"))


def _training(size: ModelSize, dtype: Dtype, free: int) -> dict[str, Any]:
    """Bytes as configured and with gradient checkpointing, and which of them fits."""
    plain = estimate_training(size, TRAINING, dtype=dtype).total
    checkpointed = replace(TRAINING, gradient_checkpointing=True)
    least = estimate_training(size, checkpointed, dtype=dtype).total
    fits = "yes" if plain <= free else "gradient_checkpointing" if least <= free else "no"
    return {"bytes": plain, "bytes_with_gradient_checkpointing": least, "fits": fits}


def _size(spec: ModelSpec, directory: ModelDirectory | None) -> tuple[ModelSize, str]:
    if directory is not None:
        try:
            return model_size(directory), "prepared files"
        except (UserError, OSError, KeyError, ValueError):
            pass  # a damaged directory is found and said when the model is opened
    return nominal_size(spec, SHAPES[spec.name]), "published sizes"


def nominal_size(spec: ModelSpec, shape: Shape) -> ModelSize:
    """Sizes of a registry model from its nominal parameter count and published widths."""
    modules: dict[str, tuple[int, int]] = {}
    for layer in range(spec.n_layers):
        mixer = _attention if layer in spec.o_proj_layers else _deltanet
        parts = {**mixer(shape, spec.head_dims[-1]), **_mlp(shape)}
        modules |= {f"model.layers.{layer}.{name}": sizes for name, sizes in parts.items()}
    return ModelSize(
        parameters=spec.parameters,
        hidden=shape.hidden,
        intermediate=shape.intermediate,
        vocab=shape.vocab,
        linear_modules=modules,
        heads=shape.heads,
    )


def _attention(shape: Shape, head_dim: int) -> Mapping[str, tuple[int, int]]:
    queries, keys = shape.heads * head_dim, shape.kv_heads * head_dim
    # Qwen3.5's q_proj makes the output gate as well
    doubled = 2 if shape.linear_heads else 1
    return {
        "self_attn.q_proj": (doubled * queries, shape.hidden),
        "self_attn.k_proj": (keys, shape.hidden),
        "self_attn.v_proj": (keys, shape.hidden),
        "self_attn.o_proj": (shape.hidden, queries),
    }


def _deltanet(shape: Shape, head_dim: int) -> Mapping[str, tuple[int, int]]:
    del head_dim  # of the attention layers
    width = shape.linear_heads * shape.linear_head_dim
    return {
        "linear_attn.in_proj_qkv": (3 * width, shape.hidden),
        "linear_attn.in_proj_z": (width, shape.hidden),
        "linear_attn.out_proj": (shape.hidden, width),
    }


def _mlp(shape: Shape) -> Mapping[str, tuple[int, int]]:
    wide, narrow = (shape.intermediate, shape.hidden), (shape.hidden, shape.intermediate)
    return {"mlp.gate_proj": wide, "mlp.up_proj": wide, "mlp.down_proj": narrow}


def _prepared_directories() -> dict[str, ModelDirectory]:
    folders = sorted((cache_root() / "prepared").glob("[!.]*"))
    records = ((folder, read_record(folder)) for folder in folders)
    keys = ("name", "family", "fingerprint", "source")
    return {
        record["name"]: ModelDirectory(path=folder, **{key: record[key] for key in keys})
        for folder, record in records
        if record is not None
    }
