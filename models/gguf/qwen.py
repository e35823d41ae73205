"""Qwen3 and Qwen3.5 (Gated DeltaNet) in GGUF: architectures ``qwen3`` and ``qwen35``.

llama.cpp rotates halves here as Hugging Face does, so no rows are reordered for RoPE. For
Qwen3.5 it stores its RMS norms with their 1 added (but not the one inside DeltaNet), the decay
as -exp(A_log), and value heads in another order where several share one key head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from models.geometry import ModelGeometry
from models.gguf.layout import (
    Float32,
    Layout,
    Pair,
    Refuse,
    is_norm,
    refuse_other_blocks,
    required_names,
    rope,
    rope_theta,
    rope_type,
    write_attention,
    write_common,
)

if TYPE_CHECKING:
    import gguf

DEFAULT_SECTIONS = (11, 11, 10)
"""Interleaved multimodal RoPE's shares of the rotated width, where a config does not say."""
_DELTA_NET = ("attn_qkv", "attn_gate", "ssm_alpha", "ssm_beta", "ssm_conv1d", "ssm_norm", "ssm_out")


def qwen3_layout(config: Mapping[str, Any], model: ModelGeometry, refuse: Refuse) -> Layout:
    """Layout of a dense Qwen3."""
    refuse_other_blocks(config, refuse, activation="silu")
    settings = rope(config)
    refuse.unless(rope_type(settings) == "default", f"RoPE type {rope_type(settings)!r}")
    refuse.unless(not config.get("use_sliding_window"), "sliding-window layers")
    theta = rope_theta(settings)
    head_dim = model.layers[0].head_dim
    tied = bool(config.get("tie_word_embeddings", False))

    def metadata(writer: gguf.GGUFWriter) -> None:
        write_common(writer, config, model)
        write_attention(writer, config, head_dim)
        writer.add_feed_forward_length(int(config["intermediate_size"]))
        writer.add_rope_dimension_count(head_dim)
        writer.add_rope_freq_base(theta)

    return Layout(
        architecture="qwen3",
        geometry=model,
        tied=tied,
        write_metadata=metadata,
        required=required_names(model, tied=tied, qk_norm=True),
    )


def qwen3_5_layout(config: Mapping[str, Any], model: ModelGeometry, refuse: Refuse) -> Layout:
    """Layout of a dense Qwen3.5's language model."""
    refuse_other_blocks(config, refuse, activation="silu")
    settings = rope(config)
    refuse.unless(rope_type(settings) == "default", f"RoPE type {rope_type(settings)!r}")
    period = next(i for i, layer in enumerate(model.layers) if layer.has_o_proj) + 1
    regular = all(one.has_o_proj == ((i + 1) % period == 0) for i, one in enumerate(model.layers))
    refuse.unless(regular, "full attention at irregular layers")
    full = model.layers[period - 1]
    sections = [*settings.get("mrope_section", DEFAULT_SECTIONS), 0, 0, 0, 0][:4]
    rotated = int(full.head_dim * float(settings.get("partial_rotary_factor", 0.25)))
    theta = rope_theta(settings)
    tied = bool(config.get("tie_word_embeddings", False))
    keys, values = int(config["linear_num_key_heads"]), int(config["linear_num_value_heads"])
    key_dim, value_dim = int(config["linear_key_head_dim"]), int(config["linear_value_head_dim"])

    def metadata(writer: gguf.GGUFWriter) -> None:
        write_common(writer, config, model)
        write_attention(writer, config, full.head_dim)
        writer.add_feed_forward_length(int(config["intermediate_size"]))
        writer.add_rope_dimension_count(rotated)
        writer.add_rope_dimension_sections(sections)
        writer.add_rope_freq_base(theta)
        writer.add_ssm_conv_kernel(int(config["linear_conv_kernel_dim"]))
        writer.add_ssm_state_size(key_dim)
        writer.add_ssm_group_count(keys)
        writer.add_ssm_time_step_rank(values)
        writer.add_ssm_inner_size(value_dim * values)
        writer.add_full_attention_interval(period)

    def tiled(array: Float32, width: int) -> Float32:
        """Rows of value heads, grouped by key head, as llama.cpp repeats key heads: in turns."""
        grouped = array.reshape(keys, values // keys, width, *array.shape[1:])
        return np.ascontiguousarray(grouped.swapaxes(0, 1).reshape(array.shape))

    def value_rows(name: str, array: Float32) -> Float32:
        """Reorder the rows that belong to value heads."""
        if values == keys or ".linear_attn." not in name:
            return array
        if ".in_proj_qkv" in name or ".conv1d" in name:
            shared = 2 * keys * key_dim
            return np.concatenate([array[:shared], tiled(array[shared:], value_dim)])
        if ".in_proj_z" in name:
            return tiled(array, value_dim)
        if any(part in name for part in (".in_proj_a", ".in_proj_b", ".A_log", ".dt_bias")):
            return tiled(array, 1)
        return array

    def value_columns(name: str, array: Float32) -> Float32:
        """Reorder the columns that read value heads."""
        if values == keys or ".linear_attn.out_proj" not in name:
            return array
        return np.ascontiguousarray(tiled(np.ascontiguousarray(array.T), value_dim).T)

    def weight(name: str, array: Float32) -> Float32:
        array = value_columns(name, value_rows(name, array))
        if name.endswith(".A_log"):
            return np.asarray(-np.exp(array), np.float32)
        if name.endswith(".conv1d.weight"):
            return array.reshape(array.shape[0], array.shape[-1])
        if is_norm(name) and not name.endswith(".linear_attn.norm.weight"):
            return array + np.float32(1)
        return array

    def lora(module: str, a: Float32, b: Float32) -> Pair:
        return value_columns(module, a), value_rows(module, b)

    return Layout(
        architecture="qwen35",
        geometry=model,
        tied=tied,
        write_metadata=metadata,
        required=_required(model, tied=tied),
        weight=weight,
        lora=lora,
    )


def _required(model: ModelGeometry, *, tied: bool) -> tuple[str, ...]:
    shared = ("attn_norm", "post_attention_norm", "ffn_gate", "ffn_up", "ffn_down")
    attention = ("attn_q", "attn_k", "attn_v", "attn_output", "attn_q_norm", "attn_k_norm")
    names = []
    for one in model.layers:
        parts = (*shared, *(attention if one.has_o_proj else _DELTA_NET))
        names += [f"blk.{one.layer}.{part}.weight" for part in parts]
        if not one.has_o_proj:
            names += [f"blk.{one.layer}.ssm_a", f"blk.{one.layer}.ssm_dt.bias"]
    head = [] if tied else ["output.weight"]
    return ("token_embd.weight", "output_norm.weight", *head, *names)
