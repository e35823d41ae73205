"""A model directory's safetensors written as a GGUF file.

For our own engine the file has no tokenizer (model ``none``): ids go in, ids come out, decided
once in :mod:`models.chat`. A file that a user takes elsewhere gets one
(:mod:`models.gguf.tokenizer`), or says that it has none and why.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.directory import ModelDirectory
from models.errors import UserError
from models.files import whole_file
from models.from_directory import require_plain_weights
from models.gguf.layout import Layout, canonical, layout_of
from models.gguf.tokenizer import GgufTokenizer
from models.gguf.weights import StoredMatrix, stored_matrices

IDS_ONLY = "none: token ids in, token ids out"
EXPORT_VERSION = 1
"""Part of a cached export's name; raise it when the bytes written here change."""

GgufDtype = Literal["f16", "f32"]


@dataclass(frozen=True)
class _Plan:
    """One tensor to write: its GGUF name, its source, and how it is stored."""

    name: str
    parameter: str
    """Canonical name."""
    source: StoredMatrix
    dtype: type[np.float16] | type[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        """As it is stored: axes of length 1 in the middle (a convolution's) are dropped."""
        first, *rest = self.source.shape
        return (first, *(n for n in rest if n != 1)) if len(rest) > 1 else self.source.shape

    @property
    def nbytes(self) -> int:
        return self.source.size * np.dtype(self.dtype).itemsize


def export_gguf(
    directory: ModelDirectory,
    out: Path,
    *,
    dtype: GgufDtype,
    tokenizer: GgufTokenizer | str = "",
) -> Path:
    """Write ``directory`` to ``out``; matrices as ``dtype``, vectors and convolutions float32.

    ``tokenizer``: what llama.cpp is to tokenise by, or why there is none (a text that then stands
    in the file, under ``threearc.tokenizer``; nothing does where it is empty).

    Needs memory for one tensor only. ``out`` appears whole or not at all. Raises
    CapabilityError for a variant that llama.cpp would compute differently, UserError for a
    tensor that is missing, unknown or outside float16's range, and when the disk has no room.
    """
    require_plain_weights(directory.path, "GGUF export")
    layout = layout_of(directory, doing="GGUF export")
    plans = _plan(directory, layout, dtype)
    with whole_file(out, needs=sum(plan.nbytes for plan in plans)) as temporary:
        _write(temporary, directory, layout, plans, dtype, tokenizer)
    return out


def _plan(directory: ModelDirectory, layout: Layout, dtype: GgufDtype) -> list[_Plan]:
    plans, unknown = [], []
    for stored, source in stored_matrices(directory.path).items():
        parameter = canonical(stored)
        if parameter is None or (layout.tied and parameter == "lm_head.weight"):
            continue
        name = layout.name_of(parameter)
        if name is None:
            unknown.append(parameter)
            continue
        plans.append(_Plan(name, parameter, source, _stored_as(name, source, dtype)))
    _check_complete(directory, layout, plans, unknown)
    return plans


def _stored_as(
    name: str, source: StoredMatrix, dtype: GgufDtype
) -> type[np.float16] | type[np.float32]:
    """float16 for what is multiplied as a matrix; llama.cpp wants all else in float32."""
    matrix = len(source.shape) > 1 and not name.endswith("ssm_conv1d.weight")
    return np.float16 if dtype == "f16" and matrix else np.float32


def _check_complete(
    directory: ModelDirectory, layout: Layout, plans: list[_Plan], unknown: list[str]
) -> None:
    if unknown:
        raise UserError(
            f"{directory.path}: no place in a {layout.architecture} GGUF for "
            f"{', '.join(sorted(unknown)[:5])}{' …' if len(unknown) > 5 else ''}; the model is "
            f"not a plain {directory.family}"
        )
    shapes = {plan.name: plan.source.shape for plan in plans}
    missing = [name for name in layout.required if name not in shapes]
    if missing:
        raise UserError(
            f"{directory.path}: the weights lack {', '.join(missing[:5])}; prepare the model again"
        )
    vocab, hidden = layout.geometry.vocab_size, layout.geometry.hidden_size
    if shapes["token_embd.weight"] != (vocab, hidden):
        raise UserError(
            f"{directory.path}: config.json says {vocab} tokens of width {hidden}, "
            f"the embedding is {shapes['token_embd.weight']}; prepare the model again"
        )


def _write(
    path: Path,
    directory: ModelDirectory,
    layout: Layout,
    plans: list[_Plan],
    dtype: GgufDtype,
    tokenizer: GgufTokenizer | str,
) -> None:
    import gguf

    types = {"f16": gguf.LlamaFileType.MOSTLY_F16, "f32": gguf.LlamaFileType.ALL_F32}
    writer = gguf.GGUFWriter(path, layout.architecture)
    try:
        writer.add_type("model")
        writer.add_name(directory.name)
        writer.add_string("threearc.source.fingerprint", directory.fingerprint)
        layout.write_metadata(writer)
        writer.add_file_type(types[dtype])
        _write_tokenizer(writer, tokenizer)
        for plan in plans:
            writer.add_tensor_info(plan.name, plan.shape, np.dtype(plan.dtype), plan.nbytes)
        for name, values in layout.extra.items():
            writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for plan in plans:
            writer.write_tensor_data(_tensor(plan, layout))
        for values in layout.extra.values():
            writer.write_tensor_data(values)
    finally:
        writer.close()


def _write_tokenizer(writer: Any, tokenizer: GgufTokenizer | str) -> None:
    if isinstance(tokenizer, GgufTokenizer):
        tokenizer.write(writer)
        return
    writer.add_tokenizer_model("none")
    if tokenizer:
        writer.add_string("threearc.tokenizer", f"{IDS_ONLY} ({tokenizer})")


def _tensor(plan: _Plan, layout: Layout) -> NDArray[np.float16] | NDArray[np.float32]:
    values = layout.weight(plan.parameter, plan.source.read())
    if plan.dtype is np.float32:
        return values
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        raise UserError(
            f"{plan.source.file}: {plan.parameter} does not fit float16 (largest "
            f"{np.abs(values).max():.3g}); export with dtype f32"
        )
    return halves
