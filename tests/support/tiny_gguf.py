"""Tiny GGUF files with a tokenizer, written independently of the code under test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

from tests.support.tiny_models import BOS_ID, CHATML, EOS_ID, PAD_ID


def write_gguf(source: Path, out: Path, *, kind: str = "F32", **extra: Any) -> Path:
    """Write the tiny llama, qwen3 or gemma3 directory ``source`` as a GGUF.

    ``kind``: type of the matrices (F32, F16, Q8_0, ...). ``extra``: metadata added or, with
    None, left out, keys with ``__`` for the dot.
    """
    config = json.loads((source / "config.json").read_text())
    arch = config["model_type"].removesuffix("_text")
    writer = gguf.GGUFWriter(str(out), arch)
    left_out = {key.replace("__", ".") for key, value in extra.items() if value is None}
    for key, value in (_hyperparameters(arch, config) | _tokenizer(source)).items():
        if key not in left_out:
            _add(writer, key, value)
    for key, value in extra.items():
        if value is not None:
            _add(writer, key.replace("__", "."), value)
    for name, array in _tensors(source, arch, config):
        quantised = kind != "F32" and array.ndim == 2
        dtype = gguf.GGMLQuantizationType[kind if quantised else "F32"]
        writer.add_tensor(name, gguf.quants.quantize(array, dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    kinds = {bool: "BOOL", int: "UINT32", float: "FLOAT32", str: "STRING"}
    if isinstance(value, list):
        writer.add_array(key, value)
    else:
        writer.add_key_value(key, value, gguf.GGUFValueType[kinds[type(value)]])


def _hyperparameters(arch: str, config: dict[str, Any]) -> dict[str, Any]:
    rope = config["rope_parameters"]
    values = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "rope.freq_base": float(rope.get("full_attention", rope)["rope_theta"]),
    }
    if arch == "gemma3":
        values["attention.sliding_window"] = config["sliding_window"]
    else:
        values["rope.dimension_count"] = config["head_dim"]
    return {f"{arch}.{key}": value for key, value in values.items()}


def _tokenizer(source: Path) -> dict[str, Any]:
    saved = json.loads((source / "tokenizer.json").read_text())
    tokens = sorted(saved["model"]["vocab"], key=saved["model"]["vocab"].get)
    merges = [" ".join(m) if isinstance(m, list) else m for m in saved["model"]["merges"]]
    prefix = "tokenizer.ggml."
    return {
        f"{prefix}model": "gpt2",
        f"{prefix}pre": "gpt-2",
        f"{prefix}tokens": tokens,
        f"{prefix}token_type": [3 if i <= EOS_ID else 1 for i in range(len(tokens))],
        f"{prefix}merges": merges,
        f"{prefix}bos_token_id": BOS_ID,
        f"{prefix}eos_token_id": EOS_ID,
        f"{prefix}padding_token_id": PAD_ID,
        f"{prefix}add_bos_token": False,
        "tokenizer.chat_template": CHATML,
    }


def _tensors(source: Path, arch: str, config: dict[str, Any]) -> list[tuple[str, np.ndarray]]:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], config["num_hidden_layers"])
    arrays = sorted(load_file(source / "model.safetensors").items())
    return [
        (f"{names.get_name(n.removesuffix('.weight'))}.weight", _as_stored(n, a, arch, config))
        for n, a in arrays
    ]


def _as_stored(name: str, array: np.ndarray, arch: str, config: dict[str, Any]) -> np.ndarray:
    if arch == "llama" and name.endswith("q_proj.weight"):
        return _interleaved(array, config["num_attention_heads"])
    if arch == "llama" and name.endswith("k_proj.weight"):
        return _interleaved(array, config["num_key_value_heads"])
    return array + 1 if arch == "gemma3" and "norm" in name else array


def _interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """Row 2i of a head is its old row i, row 2i + 1 its old row i + d/2."""
    d = rows.shape[0] // heads
    order = [h * d + (j // 2) + (j % 2) * (d // 2) for h in range(heads) for j in range(d)]
    return rows[order]
