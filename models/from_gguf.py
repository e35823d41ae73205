"""Build a Hugging Face-format directory from a GGUF file."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.config_fixes import with_both_dialects
from models.errors import UserError
from models.gguf_file import GgufFile, read_gguf
from models.gguf_llama import llama_config, llama_weights, vocab_size
from models.gguf_tokenizer import token_ids, write_tokenizer

SHARD_BYTES = 2 * 10**9
"""Size at which a new weights file is begun: bounds the memory of the conversion."""

VIA_TRANSFORMERS = frozenset({"qwen3", "gemma3"})
"""Architectures dequantised by transformers, tested against llama.cpp's tensor layout."""


def check_gguf_model(path: Path) -> GgufFile:
    """Read a GGUF's header and refuse what cannot be imported (UserError)."""
    file = read_gguf(path)
    kind = file.metadata.get("general.type", "model")
    if kind != "model":
        raise UserError(f"{path} holds no model (general.type is {kind!r}); give a model's GGUF")
    if file.metadata.get("split.count", 1) not in (0, 1):
        raise UserError(f"{path} is one part of a split GGUF; merge it with llama-gguf-split first")
    if file.architecture != "llama" and file.architecture not in VIA_TRANSFORMERS:
        raise UserError(
            f"{path}: a GGUF of architecture {file.architecture!r} cannot be dequantised here"
            f" (possible: llama, {', '.join(sorted(VIA_TRANSFORMERS))}); use the model's Hugging"
            " Face directory or hub id"
        )
    return file


def float32_bytes(file: GgufFile) -> int:
    """Bytes of all tensors as float32."""
    return 4 * sum(int(np.prod(t.shape)) for t in file.tensors.values())


def build_from_gguf(file: GgufFile, out: Path) -> None:
    """Write config, float32 safetensors, tokenizer and template of ``file`` into ``out``.

    Raises UserError for a damaged or unsupported file, or when torch is needed and missing.
    """
    if file.architecture == "llama":
        config = llama_config(file) | token_ids(file)
        write_weights(llama_weights(file, config), out)
    else:
        config = _through_transformers(file, out)
    text = json.dumps(with_both_dialects(config), indent=2, sort_keys=True)
    (out / "config.json").write_text(text)
    write_tokenizer(file, out)


def write_weights(tensors: Iterator[tuple[str, NDArray[np.float32]]], out: Path) -> None:
    """Write tensors to one or several safetensors files, holding one file's worth in memory."""
    shards: list[list[str]] = []
    held: dict[str, NDArray[np.float32]] = {}
    for name, array in tensors:
        if held and sum(a.nbytes for a in held.values()) + array.nbytes > SHARD_BYTES:
            shards.append(_save_shard(held, out, len(shards)))
            held = {}
        held[name] = array
    shards.append(_save_shard(held, out, len(shards)))
    _name_shards(shards, out)


def _save_shard(held: dict[str, NDArray[np.float32]], out: Path, number: int) -> list[str]:
    from safetensors.numpy import save_file

    save_file(held, out / f"part-{number}.safetensors", metadata={"format": "pt"})
    return list(held)


def _name_shards(shards: list[list[str]], out: Path) -> None:
    """Give the files Hugging Face's names, and an index when there are several."""
    if len(shards) == 1:
        (out / "part-0.safetensors").rename(out / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        (out / f"part-{i}.safetensors").rename(out / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True))


def _through_transformers(file: GgufFile, out: Path) -> dict[str, Any]:
    """Dequantise with transformers (needs torch); returns the saved config."""
    try:
        # transformers does the work on torch, which is looked for here and not used by name
        importlib.import_module("torch")
        from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig
    except ImportError as error:
        raise UserError(
            f"{file.path}: importing a {file.architecture} GGUF needs torch and transformers;"
            " pip install 'threearc[torch]'"
        ) from error
    where = {"pretrained_model_name_or_path": str(file.path.parent), "gguf_file": file.path.name}
    try:
        config = AutoConfig.from_pretrained(**where)
        _complete(file, config)
        model = AutoModelForCausalLM.from_pretrained(
            **where,
            config=config,
            dtype="float32",
            quantization_config=GgufConfig(dequantize=True),
        )
        model.save_pretrained(out, max_shard_size=SHARD_BYTES)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{file.path}: transformers cannot import this {file.architecture} GGUF ({reason});"
            " use the model's Hugging Face directory"
        ) from error
    saved: dict[str, Any] = json.loads((out / "config.json").read_text())
    for leftover in ("quantization_config", "_name_or_path"):
        saved.pop(leftover, None)
    return saved


def _complete(file: GgufFile, config: Any) -> None:
    """Set what transformers 5.24 guesses instead of reading it, or refuse (UserError)."""
    prefix = file.architecture
    if file.metadata.get(f"{prefix}.rope.scaling.type", "none") != "none":
        raise UserError("transformers ignores its RoPE scaling")
    head_dim = file.metadata.get(f"{prefix}.attention.key_length")
    if isinstance(head_dim, int) and head_dim > 0:
        config.head_dim = head_dim
    config.vocab_size = vocab_size(file)
    if prefix == "gemma3":
        _complete_gemma3(file, config)


def _complete_gemma3(file: GgufFile, config: Any) -> None:
    """Attention scale and RoPE base as llama.cpp takes them (its gemma3 graph)."""
    largest = config.num_hidden_layers == 62  # the 27B model scales by hidden / heads
    config.query_pre_attn_scalar = (
        config.hidden_size // config.num_attention_heads if largest else config.head_dim
    )
    theta = file.metadata.get("gemma3.rope.freq_base")
    if isinstance(theta, float):
        config.rope_parameters["full_attention"]["rope_theta"] = theta
