"""How a llama-type model in Hugging Face form is written in GGUF.

llama.cpp rotates neighbouring pairs of a head (RoPE "NORM"), Hugging Face the two halves,
so the rows of the q and k projections are stored in another order: see
:func:`interleave_rope_rows`. Names come from the gguf package's own table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.geometry import ModelGeometry
from models.gguf.layout import (
    Float32,
    Layout,
    Pair,
    Refuse,
    required_names,
    rope,
    rope_theta,
    rope_type,
    write_attention,
    write_common,
)

if TYPE_CHECKING:
    import gguf

ARCHITECTURE = "llama"


def llama_layout(config: Mapping[str, Any], model: ModelGeometry, refuse: Refuse) -> Layout:
    """Layout of a Llama-type model (SmolLM2)."""
    settings = rope(config)
    refuse.unless(rope_type(settings) == "default", f"RoPE type {rope_type(settings)!r}")
    activation = config.get("hidden_act", "silu")
    refuse.unless(activation == "silu", f"activation {activation!r}")
    theta = rope_theta(settings)
    head_dim = model.layers[0].head_dim
    queries, keys = model.layers[0].n_heads, model.layers[0].n_kv_heads
    tied = bool(config.get("tie_word_embeddings", False))

    def metadata(writer: gguf.GGUFWriter) -> None:
        write_common(writer, config, model)
        write_attention(writer, config, head_dim)
        writer.add_feed_forward_length(int(config["intermediate_size"]))
        writer.add_rope_dimension_count(head_dim)
        writer.add_rope_freq_base(theta)

    def rows(name: str) -> int | None:
        part = name.rpartition(".layers.")[2].partition(".")[2]
        if part.startswith("self_attn.q_proj"):
            return queries
        return keys if part.startswith("self_attn.k_proj") else None

    def weight(name: str, values: Float32) -> Float32:
        heads = rows(name)
        return values if heads is None else interleave_rope_rows(values, heads)

    def lora(module: str, a: Float32, b: Float32) -> Pair:
        return a, weight(module, b)

    return Layout(
        architecture=ARCHITECTURE,
        geometry=model,
        tied=tied,
        write_metadata=metadata,
        required=required_names(model, tied=tied, qk_norm=False),
        weight=weight,
        lora=lora,
    )


def interleave_rope_rows(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder output rows from Hugging Face's two halves to llama.cpp's pairs.

    ``rows``: (heads * head_dim, ...) weight, bias or LoRA B. Within a head of dimension d,
    new row 2 i is old row i and new row 2 i + 1 is old row i + d / 2.
    """
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))
