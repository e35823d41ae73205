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
from models.gguf.layout import Layout, canonical, layout_of
from models.gguf.weights import stored_matrices

_LINEAR = re.compile(r"(model\.layers\.\d+\..+)\.weight")


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
    """Write the adapter in ``peft_dir`` for ``directory`` to ``out``.

    The adapter may be PEFT's or mlx-lm's. Factors stay float32. Modules are matched by name;
    shapes are only checked, because a square factor would pass transposed. ``scales``: the
    heads that
    :func:`models.gguf.temper.temper_gguf` scales in the model's file; the columns of o_proj's
    lora_a that read them are multiplied alike, because the input of o_proj is what is scaled.

    Raises CapabilityError for a variant that llama.cpp would compute differently, UserError
    for tensors that have no place in the model, for an incomplete or damaged adapter or one of
    another model, for a LoRA variant that :func:`backends.adapter_files.load_adapter` does not
    read, and for a head that is not there.
    """
    layout = layout_of(directory, doing="adapter conversion to GGUF")
    config, pairs = _read(peft_dir, directory, layout)
    pairs = _tempered(pairs, scales or {}, layout)
    with whole_file(out, needs=4 * sum(p.a.size + p.b.size for p in pairs)) as temporary:
        _write(temporary, config, pairs, layout)
    return out


def require_convertible(peft_dir: Path, directory: ModelDirectory) -> None:
    """Raise what :func:`convert_adapter` would of the adapter itself; writes nothing."""
    _read(peft_dir, directory, layout_of(directory, doing="adapter conversion to GGUF"))


def _read(
    peft_dir: Path, directory: ModelDirectory, layout: Layout
) -> tuple[LoraConfig, list[_Pair]]:
    config, weights = load_adapter(peft_dir, directory)
    if not config.scale:
        raise UserError(
            f"{peft_dir}: lora_alpha is 0, so the adapter changes nothing; train it again"
        )
    pairs = _pairs(peft_dir, weights)
    _check_places(peft_dir, pairs, directory, layout)
    return config, pairs


def _pairs(peft_dir: Path, weights: dict[str, Float32]) -> list[_Pair]:
    modules = require_whole(peft_dir, weights)
    return [_Pair(m, weights[f"{m}.lora_A"], weights[f"{m}.lora_B"]) for m in modules]


def _check_places(
    peft_dir: Path, pairs: list[_Pair], directory: ModelDirectory, layout: Layout
) -> None:
    """Refuse modules that the model does not have, of other sizes, or without a GGUF name."""
    sizes = _linear_sizes(directory)
    unmapped = [
        pair.module
        for pair in pairs
        if pair.module not in sizes or layout.name_of(f"{pair.module}.weight") is None
    ]
    if unmapped:
        raise UserError(
            f"{peft_dir}: {len(unmapped)} adapted modules have no place in the model "
            f"({listed(unmapped)}); is the adapter for another model?"
        )
    for pair in pairs:
        expected = sizes[pair.module]
        found = (pair.b.shape[0], pair.a.shape[1])
        if found != expected:
            raise UserError(
                f"{peft_dir} is an adapter for another model: {pair.module} is "
                f"{found[0]} x {found[1]} there and {expected[0]} x {expected[1]} in "
                f"{directory.name}"
            )


def _tempered(pairs: list[_Pair], scales: Mapping[Head, float], layout: Layout) -> list[_Pair]:
    """Scale the columns of A that read a head's output."""
    heads = layout.heads
    columns = {
        f"model.layers.{layer}.self_attn.o_proj": column_factors(row, heads[layer][1])
        for layer, row in layer_factors(scales, heads).items()
    }
    return [replace(p, a=p.a * columns[p.module]) if p.module in columns else p for p in pairs]


def _linear_sizes(directory: ModelDirectory) -> dict[str, tuple[int, int]]:
    """(out_features, in_features) of the decoder layers' linear modules, by canonical name."""
    sizes = {}
    for stored, source in stored_matrices(directory.path).items():
        match = _LINEAR.fullmatch(canonical(stored) or "")
        if match and len(source.shape) == 2:
            sizes[match[1]] = (source.shape[0], source.shape[1])
    return sizes


def _write(path: Path, config: LoraConfig, pairs: list[_Pair], layout: Layout) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, layout.architecture)
    try:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        # llama.cpp scales by alpha / rank; for rsLoRA this alpha makes that alpha / sqrt(rank).
        writer.add_float32("adapter.lora.alpha", config.scale * config.rank)
        for pair in pairs:
            name = layout.name_of(f"{pair.module}.weight")
            a, b = layout.lora(pair.module, pair.a, pair.b)
            writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a))
            writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
