"""An adapter directory converted to a LoRA GGUF that llama.cpp applies at run time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backends.adapter_files import load_adapter
from backends.adapters.contents import listed, require_whole
from backends.heads import column_factors, layer_factors
from backends.interface import Float32, Head, LoraConfig
from models.directory import ModelDirectory
from models.errors import UserError
from models.files import whole_file
from models.gguf.llama import (
    ARCHITECTURE,
    LlamaShape,
    interleave_rope_rows,
    llama_shape,
    rope_heads,
    tensor_namer,
)

_LAYER = re.compile(r"model\.layers\.(?P<layer>\d+)\.(?P<part>\w+\.\w+)")


@dataclass(frozen=True)
class _Pair:
    """The two factors of one module: W x + scale B A x."""

    module: str
    a: Float32
    """(rank, in_features)"""
    b: Float32
    """(out_features, rank)"""


def convert_adapter(
    peft_dir: Path,
    directory: ModelDirectory,
    out: Path,
    *,
    scales: Mapping[Head, float] | None = None,
) -> Path:
    """Write the adapter in ``peft_dir`` for ``directory`` (family ``llama``) to ``out``.

    The adapter may be PEFT's or mlx-lm's. Factors stay float32. Modules are matched by name;
    shapes are only checked, because a square factor would pass transposed. ``scales``: the
    heads that
    :func:`models.gguf.temper.temper_gguf` scales in the model's file; the columns of o_proj's
    lora_a that read them are multiplied alike, because the input of o_proj is what is scaled.

    Raises CapabilityError for another family, UserError for tensors that have no place in
    the model, for an incomplete or damaged adapter or one of another model, for a LoRA
    variant that :func:`backends.adapter_files.load_adapter` does not read, and for a head
    that is not there.
    """
    shape = llama_shape(directory, doing="adapter conversion to GGUF")
    config, weights = load_adapter(peft_dir, directory)
    if not config.scale:
        raise UserError(
            f"{peft_dir}: lora_alpha is 0, so the adapter changes nothing; train it again"
        )
    pairs = _pairs(peft_dir, weights)
    _check_places(peft_dir, pairs, shape)
    _check_shapes(peft_dir, pairs, shape, directory.name)
    pairs = _tempered(pairs, scales or {}, shape)
    with whole_file(out, needs=4 * sum(p.a.size + p.b.size for p in pairs)) as temporary:
        _write(temporary, config, pairs, shape)
    return out


def _pairs(peft_dir: Path, weights: dict[str, Float32]) -> list[_Pair]:
    modules = require_whole(peft_dir, weights)
    return [_Pair(m, weights[f"{m}.lora_A"], weights[f"{m}.lora_B"]) for m in modules]


def _check_places(peft_dir: Path, pairs: list[_Pair], shape: LlamaShape) -> None:
    """Refuse modules that the model does not have, or that llama.cpp would not adapt."""
    sizes = _linear_sizes(shape)
    matches = {pair.module: _LAYER.fullmatch(pair.module) for pair in pairs}
    unmapped = [
        module
        for module, match in matches.items()
        if match is None or match["part"] not in sizes or int(match["layer"]) >= shape.layers
    ]
    if unmapped:
        raise UserError(
            f"{peft_dir}: {len(unmapped)} adapted modules have no place in the model "
            f"({listed(unmapped)}); is the adapter for another model?"
        )


def _check_shapes(peft_dir: Path, pairs: list[_Pair], shape: LlamaShape, model: str) -> None:
    sizes = _linear_sizes(shape)
    for pair in pairs:
        expected = sizes[pair.module.split(".", 3)[3]]
        found = (pair.b.shape[0], pair.a.shape[1])
        if found != expected:
            raise UserError(
                f"{peft_dir} is an adapter for another model: {pair.module} is "
                f"{found[0]} x {found[1]} there and {expected[0]} x {expected[1]} in {model}"
            )


def _tempered(pairs: list[_Pair], scales: Mapping[Head, float], shape: LlamaShape) -> list[_Pair]:
    """Scale the columns of A that read a head's output."""
    heads = dict.fromkeys(range(shape.layers), (shape.heads, shape.head_dim))
    columns = {
        f"model.layers.{layer}.self_attn.o_proj": column_factors(row, shape.head_dim)
        for layer, row in layer_factors(scales, heads).items()
    }
    return [replace(p, a=p.a * columns[p.module]) if p.module in columns else p for p in pairs]


def _linear_sizes(shape: LlamaShape) -> dict[str, tuple[int, int]]:
    """(out_features, in_features) of a decoder layer's linear modules."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return {
        "self_attn.q_proj": (queries, shape.hidden),
        "self_attn.k_proj": (keys, shape.hidden),
        "self_attn.v_proj": (keys, shape.hidden),
        "self_attn.o_proj": (shape.hidden, queries),
        "mlp.gate_proj": (shape.feed_forward, shape.hidden),
        "mlp.up_proj": (shape.feed_forward, shape.hidden),
        "mlp.down_proj": (shape.hidden, shape.feed_forward),
    }


def _write(path: Path, config: LoraConfig, pairs: list[_Pair], shape: LlamaShape) -> None:
    import gguf

    name_of = tensor_namer(shape.layers)
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    try:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        # llama.cpp scales by alpha / rank; for rsLoRA this alpha makes that alpha / sqrt(rank).
        writer.add_float32("adapter.lora.alpha", config.scale * config.rank)
        for pair in pairs:
            name = name_of(f"{pair.module}.weight")
            writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(pair.a))
            writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(_stored_b(pair, shape)))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _stored_b(pair: _Pair, shape: LlamaShape) -> Float32:
    """B, its rows in llama.cpp's order where the base's rows are."""
    heads = rope_heads(pair.module, shape)
    return pair.b if heads is None else interleave_rope_rows(pair.b, heads)
