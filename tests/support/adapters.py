"""Adapters with an effect, for models of every layout, and edits of their files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from backends.interface import Float32, LoraConfig
from backends.lora import save_adapter
from backends.memory import model_size
from models.config_fixes import with_both_dialects
from models.directory import ModelDirectory
from tests.support.tiny_models import ARCHITECTURES, write_tokenizer

LAYOUTS = (*ARCHITECTURES, "gemma4 multimodal", "qwen3_5 multimodal")
Tiny = Callable[..., ModelDirectory]

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
DELTA_NET = ("in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj")


def layout_directory(layout: str, tiny: Tiny, folder: Path) -> ModelDirectory:
    """A prepared tiny model; a multimodal one with its tokenizer, as the hub has them."""
    from tests.backends.test_torch_model import multimodal

    arch, _, kind = layout.partition(" ")
    if not kind:
        return tiny(arch)
    made = multimodal(arch, folder / "model")
    write_tokenizer(made.path)
    config = json.loads((made.path / "config.json").read_text())
    if arch == "qwen3_5":  # saved with a head of its own, which the text part does not say
        config["text_config"]["tie_word_embeddings"] = False
    (made.path / "config.json").write_text(json.dumps(with_both_dialects(config)))
    return replace(made, source=str(made.path))


def live_adapter(
    base: ModelDirectory,
    config: LoraConfig,
    *,
    kinds: tuple[str, ...] = (*ATTENTION, *MLP, *DELTA_NET),
    layers: tuple[int, ...] | None = None,
    size: float = 0.1,
) -> dict[str, Float32]:
    """Random A and B for the modules named ``kinds`` in ``layers`` (all)."""
    rng = np.random.default_rng(3)
    weights: dict[str, Float32] = {}
    for name, (out, into) in sorted(model_size(base).linear_modules.items()):
        layer = int(name.split(".")[2])
        if name.rpartition(".")[2] in kinds and (layers is None or layer in layers):
            weights[f"{name}.lora_A"] = _draw(rng, (config.rank, into), 1 / np.sqrt(into))
            weights[f"{name}.lora_B"] = _draw(rng, (out, config.rank), size)
    assert weights
    return weights


def _draw(rng: np.random.Generator, shape: tuple[int, int], size: float) -> Float32:
    return (size * rng.normal(size=shape)).astype(np.float32)


def saved(
    path: Path, base: ModelDirectory, config: LoraConfig, weights: dict[str, Float32]
) -> Path:
    """Write a PEFT adapter of ours to ``path`` and return it."""
    save_adapter(path, config, weights, base, {"steps": 12})
    return path


def edit_json(file: Path, **changes: object) -> None:
    """Set keys of a JSON object; a value of ``...`` removes the key."""
    content = json.loads(file.read_text()) | changes
    kept = {key: value for key, value in content.items() if value is not ...}
    file.write_text(json.dumps(kept))


def edit_tensors(file: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Load, change and save a safetensors file."""
    tensors = load_file(file)
    change(tensors)
    save_file({name: np.ascontiguousarray(t) for name, t in tensors.items()}, file)


def silent(_: str) -> None:
    """Say nothing."""
