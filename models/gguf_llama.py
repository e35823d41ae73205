"""Llama-type GGUF files as Hugging Face weights and config: numpy only, no torch.

llama.cpp stores the rows of q_proj and k_proj interleaved for its RoPE; here they are put back
to the order of Hugging Face's half-split RoPE. Everything else is a rename and a dequantisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import UserError
from models.gguf_file import GgufFile

Float32 = NDArray[np.float32]

TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def llama_config(file: GgufFile) -> dict[str, Any]:
    """Rebuild config.json from the metadata of a plain Llama file.

    Raises UserError for keys that are missing, contradict the tensors, or describe a variant
    (mixture of experts, YaRN, partial RoPE, Llama 3 frequency factors) that this import would
    get wrong.
    """
    _refuse_variants(file)
    number = _Numbers(file)
    hidden, heads = number.whole("embedding_length"), number.whole("attention.head_count")
    head_dim = number.whole("attention.key_length", number.whole("rope.dimension_count", 0))
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "num_hidden_layers": min(number.whole("block_count"), len(file.tensors)),
        "intermediate_size": number.whole("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": number.whole("attention.head_count_kv", heads),
        "head_dim": head_dim or hidden // heads,
        "max_position_embeddings": number.whole("context_length"),
        "rms_norm_eps": number.real("attention.layer_norm_rms_epsilon"),
        "rope_parameters": _rope(number),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
        "vocab_size": vocab_size(file),
        "dtype": "float32",
    }
    _check_shapes(file, config)
    return config


def llama_weights(file: GgufFile, config: Mapping[str, Any]) -> Iterator[tuple[str, Float32]]:
    """Yield (Hugging Face name, float32 array) for every tensor, dequantised on the way."""
    names = tensor_names(config["num_hidden_layers"], biases=True)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name in file.tensors:
        part = name.split(".")[-2]
        array = file.data(name)
        yield names[name], unpermute(array, heads[part]) if part in heads else array


def unpermute(rows: Float32, heads: int) -> Float32:
    """Undo llama.cpp's row interleaving (pairs i, i + d/2 stored next to each other) per head.

    ``rows``: [heads * d, ...]; returns the same shape.
    """
    paired = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return np.ascontiguousarray(paired.swapaxes(1, 2)).reshape(rows.shape)


def tensor_names(layers: int, *, biases: bool) -> dict[str, str]:
    """GGUF tensor name -> Hugging Face name, for a Llama of ``layers`` layers."""
    names = dict(TOP)
    for i in range(layers):
        for ours, theirs in BLOCK.items():
            names[f"blk.{i}.{ours}.weight"] = f"model.layers.{i}.{theirs}.weight"
            if biases and "norm" not in ours:
                names[f"blk.{i}.{ours}.bias"] = f"model.layers.{i}.{theirs}.bias"
    return names


class _Numbers:
    """Typed access to the ``llama.*`` metadata."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file

    def whole(self, key: str, default: int | None = None) -> int:
        value = self.file.metadata.get(f"llama.{key}", default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise UserError(
                f"{self.file.path}: llama.{key} should be one whole number, got {value!r};"
                " the file is damaged or not a plain Llama"
            )
        if value < 0 or (value == 0 and default is None) or value >= 2**31:
            raise UserError(f"{self.file.path}: llama.{key} is {value}; the file is damaged")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        value = self.file.metadata.get(f"llama.{key}", default)
        if not isinstance(value, float) or not 0 < value < 1e12:
            raise UserError(
                f"{self.file.path}: llama.{key} should be a positive number, got {value!r}; "
                "the file is damaged or not a plain Llama"
            )
        return float(str(np.float32(value)))  # the shortest decimal of the same float32


def _rope(number: _Numbers) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": number.real("rope.freq_base", 10000.0)}
    scaling = number.file.metadata.get("llama.rope.scaling.type", "none")
    if scaling == "linear":
        rope |= {"rope_type": "linear", "factor": number.real("rope.scaling.factor")}
    elif scaling != "none":
        raise UserError(
            f"{number.file.path}: RoPE scaling {scaling!r} cannot be imported from a GGUF; "
            "use the model's Hugging Face directory"
        )
    return rope


def _refuse_variants(file: GgufFile) -> None:
    reasons = {
        "it is a mixture of experts": file.metadata.get("llama.expert_count", 0) != 0,
        "it uses Llama 3's RoPE frequency factors": "rope_freqs.weight" in file.tensors,
        "it uses a legacy RoPE scale": "llama.rope.scale_linear" in file.metadata,
        "it has sliding-window attention": "llama.attention.sliding_window" in file.metadata,
    }
    for reason, present in reasons.items():
        if present:
            raise UserError(
                f"{file.path}: this Llama variant cannot be imported from a GGUF ({reason});"
                " use the model's Hugging Face directory"
            )


def vocab_size(file: GgufFile) -> int:
    """Rows of the embedding. Raises UserError when there is none."""
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise UserError(f"{file.path}: no token_embd.weight matrix; the file is damaged")
    return embedding.shape[0]


def _check_shapes(file: GgufFile, config: Mapping[str, Any]) -> None:
    """Every expected tensor is there with its shape, and nothing else is."""
    expected = expected_shapes(config)
    missing = sorted(expected.keys() - file.tensors.keys())
    unknown = sorted(file.tensors.keys() - expected.keys())
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has the unexpected {unknown[0]}"
        raise UserError(
            f"{file.path} {what}: it is damaged, or not a plain Llama; "
            "use the model's Hugging Face directory"
        )
    for name, shape in expected.items():
        if file.tensors[name].shape != shape:
            raise UserError(
                f"{file.path}: tensor {name} has shape {file.tensors[name].shape}, its metadata"
                f" imply {shape}; the file is damaged"
            )


def expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """GGUF tensor name -> shape (slowest dimension first) that a Llama config implies."""
    hidden, inner, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    vocab = config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocab, hidden),
        "output_norm.weight": (hidden,),
    }
    if not config["tie_word_embeddings"]:
        shapes["output.weight"] = (vocab, hidden)
    attention = {"attn_q": (q, hidden), "attn_k": (kv, hidden), "attn_v": (kv, hidden),
                 "attn_output": (hidden, q)}  # fmt: skip
    mlp = {"ffn_gate": (inner, hidden), "ffn_up": (inner, hidden), "ffn_down": (hidden, inner)}
    biased = (attention if config["attention_bias"] else {}) | (mlp if config["mlp_bias"] else {})
    for i in range(config["num_hidden_layers"]):
        for part, shape in (attention | mlp).items():
            shapes[f"blk.{i}.{part}.weight"] = shape
        for part, shape in biased.items():
            shapes[f"blk.{i}.{part}.bias"] = shape[:1]
        shapes[f"blk.{i}.attn_norm.weight"] = shapes[f"blk.{i}.ffn_norm.weight"] = (hidden,)
    return shapes
