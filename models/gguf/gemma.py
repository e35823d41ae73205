"""Gemma 3 and Gemma 4 in GGUF: architectures ``gemma3`` and ``gemma4``.

Gemma 3's RMS norms multiply by 1 + weight and are stored with the 1 added; Gemma 4's are plain.
Gemma 4's global layers rotate a quarter of their width ("proportional"): llama.cpp rotates all
of it with frequencies divided by ``rope_freqs``, 1e30 for the pairs that stand still.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from models.geometry import ModelGeometry
from models.gguf.layout import (
    Float32,
    Layout,
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

GEMMA3_PERIOD = 6
"""Every sixth layer is global: fixed in llama.cpp's gemma3 (BACKENDS section 6)."""
STILL = 1e30
"""Divides a frequency so far that the pair is not rotated."""
_SANDWICH = ("post_attention_norm", "post_ffw_norm")
_SCALE = "layer_output_scale"
_PER_LAYER = ("inp_gate", "proj", "post_norm")


def gemma3_layout(config: Mapping[str, Any], model: ModelGeometry, refuse: Refuse) -> Layout:
    """Layout of a Gemma 3's language model."""
    refuse_other_blocks(config, refuse, activation="gelu_pytorch_tanh", key="hidden_activation")
    pattern = all(
        (one.kind == "full") == ((i + 1) % GEMMA3_PERIOD == 0) for i, one in enumerate(model.layers)
    )
    refuse.unless(pattern, "global layers other than every sixth")
    everywhere, local = _ropes(config)
    for settings in (everywhere, local):
        refuse.unless(rope_type(settings) == "default", f"RoPE type {rope_type(settings)!r}")
    head_dim = model.layers[0].head_dim
    scale = float(config.get("query_pre_attn_scalar", head_dim))
    refuse.unless(scale == head_dim, f"query_pre_attn_scalar {scale:g} beside head_dim {head_dim}")
    refuse.unless(not config.get("use_bidirectional_attention"), "bidirectional attention")
    _refuse_caps(config, refuse)

    def metadata(writer: gguf.GGUFWriter) -> None:
        write_common(writer, config, model)
        write_attention(writer, config, head_dim)
        writer.add_feed_forward_length(int(config["intermediate_size"]))
        writer.add_sliding_window(int(config["sliding_window"]))
        writer.add_rope_freq_base(rope_theta(everywhere))
        writer.add_rope_freq_base_swa(rope_theta(local))

    def weight(name: str, values: Float32) -> Float32:
        return values + np.float32(1) if is_norm(name) else values

    tied = bool(config.get("tie_word_embeddings", True))
    return Layout(
        architecture="gemma3",
        geometry=model,
        tied=tied,
        write_metadata=metadata,
        required=required_names(model, *_SANDWICH, tied=tied, qk_norm=True),
        weight=weight,
    )


def gemma4_layout(config: Mapping[str, Any], model: ModelGeometry, refuse: Refuse) -> Layout:
    """Layout of a dense Gemma 4's language model (E2B, E4B)."""
    refuse_other_blocks(config, refuse, activation="gelu_pytorch_tanh", key="hidden_activation")
    refuse.unless(not config.get("enable_moe_block"), "experts")
    bidirectional = config.get("use_bidirectional_attention")
    refuse.unless(bidirectional != "all", "bidirectional attention")
    refuse.unless(not config.get("attention_k_eq_v"), "values that are the keys")
    everywhere, local = _ropes(config)
    refuse.unless(rope_type(local) == "default", f"local RoPE type {rope_type(local)!r}")
    refuse.unless(
        rope_type(everywhere) in ("default", "proportional"),
        f"global RoPE type {rope_type(everywhere)!r}",
    )
    share, factor = everywhere.get("partial_rotary_factor"), everywhere.get("factor")
    partial = rope_type(everywhere) == "proportional" or share in (None, 1.0)
    refuse.unless(partial, f"a rotated share of {share} under the default RoPE")
    refuse.unless(factor in (None, 1.0), f"a RoPE factor of {factor}")
    full = _one_width(model, "full", refuse)
    sliding = _one_width(model, "sliding", refuse)
    shared = int(config.get("num_kv_shared_layers") or 0)
    wide = bool(config.get("use_double_wide_mlp", False))
    narrow = int(config["intermediate_size"])
    per_layer = int(config.get("hidden_size_per_layer_input") or 0)
    cap = config.get("final_logit_softcapping")
    first_shared = model.n_layers - shared
    donors = [one.kind for one in model.layers[max(0, first_shared - 2) : first_shared]]
    refuse.unless(
        not shared or donors == ["sliding", "full"],
        "shared keys and values that do not come from a sliding and a global layer",
    )

    def metadata(writer: gguf.GGUFWriter) -> None:
        write_common(writer, config, model)
        writer.add_head_count_kv([one.n_kv_heads for one in model.layers])
        writer.add_key_length(full)
        writer.add_value_length(full)
        writer.add_key_length_swa(sliding)
        writer.add_value_length_swa(sliding)
        writer.add_feed_forward_length(
            [narrow * (2 if wide and i >= first_shared else 1) for i in range(model.n_layers)]
        )
        writer.add_shared_kv_layers(shared)
        writer.add_embedding_length_per_layer_input(per_layer)
        writer.add_sliding_window(int(config["sliding_window"]))
        writer.add_sliding_window_pattern([one.kind == "sliding" for one in model.layers])
        writer.add_rope_dimension_count(full)
        writer.add_rope_dimension_count_swa(sliding)
        writer.add_rope_freq_base(rope_theta(everywhere))
        writer.add_rope_freq_base_swa(rope_theta(local))
        if cap is not None:
            writer.add_final_logit_softcapping(float(cap))

    tied = bool(config.get("tie_word_embeddings", True))
    names = required_names(
        model, *_SANDWICH, _SCALE, *(_PER_LAYER if per_layer else ()), tied=tied, qk_norm=True
    )
    without_keys = tuple(
        f"blk.{i}.{part}.weight"
        for i in range(first_shared, model.n_layers)
        for part in ("attn_k", "attn_v", "attn_k_norm")
    )
    more = ("per_layer_token_embd", "per_layer_model_proj", "per_layer_proj_norm")
    return Layout(
        architecture="gemma4",
        geometry=model,
        tied=tied,
        write_metadata=metadata,
        required=tuple(name for name in names if name not in without_keys)
        + tuple(f"{name}.weight" for name in (more if per_layer else ())),
        extra={"rope_freqs.weight": _frequency_divisors(full, everywhere)},
    )


def _frequency_divisors(head_dim: int, settings: Mapping[str, Any]) -> Float32:
    """[head_dim / 2] of the global layers' pairs: 1 where rotated, else :data:`STILL`."""
    share = float(settings.get("partial_rotary_factor", 1.0))
    rotated = int(head_dim * share / 2)
    return np.array([1.0] * rotated + [STILL] * (head_dim // 2 - rotated), np.float32)


def _ropes(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """RoPE of global and of sliding layers, in transformers 5's form or the older one."""
    if "full_attention" in (config.get("rope_parameters") or {}):
        return rope(config, "full_attention"), rope(config, "sliding_attention")
    return rope(config), {"rope_theta": config["rope_local_base_freq"]}


def _one_width(model: ModelGeometry, kind: str, refuse: Refuse) -> int:
    widths = {one.head_dim for one in model.layers if one.kind == kind}
    refuse.unless(len(widths) == 1, f"{kind} layers of head_dim {sorted(widths) or 'none'}")
    return widths.pop()


def _refuse_caps(config: Mapping[str, Any], refuse: Refuse) -> None:
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        refuse.unless(config.get(name) is None, f"{name} {config.get(name)}")
