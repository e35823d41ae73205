"""A model directory's safetensors written as a GGUF file for our own engine.

The file has no tokenizer (model ``none``): ids go in, ids come out, decided once in
:mod:`models.chat`. Files that users take elsewhere need real tokenizer metadata.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from models.directory import ModelDirectory
from models.errors import UserError
from models.files import whole_file
from models.from_directory import require_plain_weights
from models.gguf.llama import (
    ARCHITECTURE,
    LlamaShape,
    interleave_rope_rows,
    llama_shape,
    rope_heads,
    tensor_namer,
)
from models.gguf.weights import StoredMatrix, stored_matrices

if TYPE_CHECKING:
    import gguf

EXPORT_VERSION = 1
"""Part of a cached export's name; raise it when the bytes written here change."""

LAYER_PARTS = (
    *("attn_q", "attn_k", "attn_v", "attn_output", "attn_norm"),
    *("ffn_gate", "ffn_up", "ffn_down", "ffn_norm"),
)
"""What every layer has, in the GGUF's names."""

GgufDtype = Literal["f16", "f32"]


@dataclass(frozen=True)
class _Plan:
    """One tensor to write: its GGUF name, its source, and how it is stored."""

    name: str
    module: str
    source: StoredMatrix
    dtype: type[np.float16] | type[np.float32]

    @property
    def nbytes(self) -> int:
        return self.source.size * np.dtype(self.dtype).itemsize


def export_gguf(directory: ModelDirectory, out: Path, *, dtype: GgufDtype) -> Path:
    """Write ``directory`` (family ``llama``) to ``out``; matrices as ``dtype``, vectors float32.

    Needs memory for one tensor only. ``out`` appears whole or not at all. Raises
    CapabilityError for another family, UserError for a tensor that is missing, unknown or
    outside float16's range, and when the disk has no room.
    """
    require_plain_weights(directory.path, "GGUF export")
    shape = llama_shape(directory, doing="GGUF export")
    plans = _plan(directory, shape, dtype)
    with whole_file(out, needs=sum(plan.nbytes for plan in plans)) as temporary:
        _write(temporary, directory, shape, plans, dtype)
    return out


def _plan(directory: ModelDirectory, shape: LlamaShape, dtype: GgufDtype) -> list[_Plan]:
    name_of = tensor_namer(shape.layers)
    plans, unknown = [], []
    for parameter, source in stored_matrices(directory.path).items():
        if parameter.endswith("rotary_emb.inv_freq") or (
            shape.tied and parameter == "lm_head.weight"
        ):
            continue
        name = name_of(parameter)
        if name is None:
            unknown.append(parameter)
            continue
        matrix = np.float16 if dtype == "f16" and len(source.shape) > 1 else np.float32
        plans.append(_Plan(name, parameter.rpartition(".")[0], source, matrix))
    _check_complete(directory, shape, plans, unknown)
    return plans


def _check_complete(
    directory: ModelDirectory, shape: LlamaShape, plans: list[_Plan], unknown: list[str]
) -> None:
    if unknown:
        raise UserError(
            f"{directory.path}: no place in a llama GGUF for {', '.join(sorted(unknown)[:5])}"
            f"{' …' if len(unknown) > 5 else ''}; the model is not a plain llama"
        )
    shapes = {plan.name: plan.source.shape for plan in plans}
    missing = [name for name in _required(shape) if name not in shapes]
    if missing:
        raise UserError(
            f"{directory.path}: the weights lack {', '.join(missing[:5])}; prepare the model again"
        )
    if shapes["token_embd.weight"] != (shape.vocab, shape.hidden):
        raise UserError(
            f"{directory.path}: config.json says {shape.vocab} tokens of width {shape.hidden}, "
            f"the embedding is {shapes['token_embd.weight']}; prepare the model again"
        )


def _required(shape: LlamaShape) -> list[str]:
    attention = ("attn_q", "attn_k", "attn_v", "attn_output", "attn_norm")
    feed_forward = ("ffn_gate", "ffn_up", "ffn_down", "ffn_norm")
    names = [
        f"blk.{n}.{part}.weight"
        for n in range(shape.layers)
        for part in (*attention, *feed_forward)
    ]
    head = [] if shape.tied else ["output.weight"]
    return ["token_embd.weight", "output_norm.weight", *head, *names]


def _write(
    path: Path,
    directory: ModelDirectory,
    shape: LlamaShape,
    plans: list[_Plan],
    dtype: GgufDtype,
) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    try:
        _write_metadata(writer, directory, shape, dtype)
        for plan in plans:
            writer.add_tensor_info(plan.name, plan.source.shape, np.dtype(plan.dtype), plan.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for plan in plans:
            writer.write_tensor_data(_tensor(plan, shape))
    finally:
        writer.close()


def _write_metadata(
    writer: gguf.GGUFWriter, directory: ModelDirectory, shape: LlamaShape, dtype: GgufDtype
) -> None:
    import gguf

    types = {"f16": gguf.LlamaFileType.MOSTLY_F16, "f32": gguf.LlamaFileType.ALL_F32}
    writer.add_type("model")
    writer.add_name(directory.name)
    writer.add_string("threearc.source.fingerprint", directory.fingerprint)
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.rms_eps)
    writer.add_vocab_size(shape.vocab)
    writer.add_file_type(types[dtype])
    writer.add_tokenizer_model("none")


def _tensor(plan: _Plan, shape: LlamaShape) -> NDArray[np.float16] | NDArray[np.float32]:
    values = plan.source.read()
    heads = rope_heads(plan.module, shape)
    if heads is not None:
        values = interleave_rope_rows(values, heads)
    if plan.dtype is np.float32:
        return values
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        raise UserError(
            f"{plan.source.file}: {plan.module} does not fit float16 (largest "
            f"{np.abs(values).max():.3g}); export with dtype f32"
        )
    return halves
