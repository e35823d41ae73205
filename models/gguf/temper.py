"""A copy of a GGUF in which attention heads are scaled: pure editing, no engine.

A head's output enters o_proj as its own ``head_dim`` columns of ``attn_output.weight`` (not
permuted), so scaling these columns scales the head. Where blocks do not straddle heads, a
quantised block is scaled through its float16 scales and nothing is quantised again; elsewhere
the tensor is stored as float32. Which of the two depends on the tensor's type and on
``head_dim``, never on a factor: every point of a sweep, 1.0 included, has the same storage.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from models.errors import CapabilityError, UserError
from models.files import whole_file
from models.gguf.inspect import check_gguf
from models.gguf.layout import ARCHITECTURES
from models.gguf.retype import write_retyped
from models.gguf_file import GgufFile, TensorInfo

H = TypeVar("H", bound=tuple[int, int])
"""(layer, head); a type variable because the key of a Mapping is invariant."""
Heads = Mapping[int, tuple[int, int]]
"""Layer -> (heads, head_dim)."""
Form = Literal["kept", "f32"]
Float32 = NDArray[np.float32]

BLOCK_SCALES: dict[str, tuple[int, ...]] = {
    "Q4_0": (0,),
    "Q5_0": (0,),
    "Q8_0": (0,),
    "Q4_1": (0, 2),
    "Q5_1": (0, 2),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
}
"""Byte offsets of the float16 scales in a block; every weight of it is linear in them together
(ggml's ggml-common.h: d, and m or dmin)."""
FLOATS = {"F32": np.float32, "F16": np.float16}


@dataclass(frozen=True)
class TemperedTensor:
    """What became of one ``attn_output.weight``."""

    name: str
    before: str
    """Type in the source, e.g. ``Q4_K``."""
    after: str
    """Type in the copy: ``before``, or ``F32``."""
    rounding: float
    """Largest |copy - factor * source| in a block, relative to the block's largest |factor *
    source|; 0 where exact in float32. A block is one of the type's own, for floats one head's
    part of a row. Not by single weight: the smallest weights of a block are rounded anyway."""


@dataclass(frozen=True)
class TemperReport:
    """A tempered copy and how exact it is."""

    path: Path
    tensors: tuple[TemperedTensor, ...]
    """By layer; only layers that the copy was asked to bring into form."""

    @property
    def rounding(self) -> float:
        """Largest relative rounding of all tensors."""
        return max((tensor.rounding for tensor in self.tensors), default=0.0)

    @property
    def retyped(self) -> tuple[str, ...]:
        """Names of the tensors that are stored as float32 and were not before."""
        return tuple(tensor.name for tensor in self.tensors if tensor.before != tensor.after)

    def as_dict(self) -> dict[str, Any]:
        """For the manifest (JSON-able)."""
        return {"rounding": self.rounding, "tensors": [asdict(tensor) for tensor in self.tensors]}


@dataclass(frozen=True)
class _Edit:
    """One tensor to bring into its storage form."""

    info: TensorInfo
    kind: str
    block: int
    block_bytes: int
    span: int
    """Neighbouring weights of a row over which rounding is measured."""
    factors: Float32
    """[heads * head_dim] on the columns."""
    retype: bool


def temper_gguf(
    source: Path,
    out: Path,
    scales: Mapping[H, float],
    *,
    form: Form = "kept",
    layers: Collection[int] = (),
) -> TemperReport:
    """Copy ``source`` to ``out`` with the o_proj columns of heads multiplied.

    ``scales``: (layer, head) -> factor. ``form``: ``kept`` keeps a tensor's type where its
    blocks lie within heads and makes it float32 elsewhere; ``f32`` makes it float32 always.
    ``layers``: layers to bring into the form beside those named in ``scales``; give all layers
    of a sweep at each of its points. Without anything to change the copy is byte-identical.
    ``out`` appears whole or not at all. A LoRA's o_proj must be scaled as well
    (:func:`backends.llamacpp.adapter.convert_adapter`).

    Raises CapabilityError for an unknown architecture, UserError for a head or
    layer that is not there (listing those that are), a factor that is not finite or that the
    stored type cannot hold, a damaged file, and a full disk.
    """
    if form not in get_args(Form):
        raise UserError(f"unknown form {form!r}; give one of {', '.join(get_args(Form))}")
    file = check_gguf(source)
    if out.resolve() == source.resolve():
        raise UserError(f"the tempered copy would replace {source}: give another name")
    edits = _edits(file, scales, form, layers)
    retyped = {edit.info.name: edit for edit in edits if edit.retype}
    grown = sum(4 * math.prod(edit.info.shape) for edit in retyped.values())
    with whole_file(out, needs=source.stat().st_size + grown) as temporary:
        if retyped:
            write_retyped(file, temporary, retyped, lambda name: _retyped(file, retyped[name]))
        else:
            shutil.copyfile(source, temporary)
        tensors = [
            TemperedTensor(edit.info.name, edit.kind, "F32", 0.0)
            if edit.retype
            else _scale_in_place(check_gguf(temporary), edit)
            for edit in edits
        ]
    return TemperReport(out, tuple(tensors))


def gguf_heads(file: GgufFile) -> dict[int, tuple[int, int]]:
    """Layer -> (heads, head_dim) of a file, Gated DeltaNet layers left out.

    Raises CapabilityError for another architecture and for one part of a split file, UserError
    for a file whose head count does not fit its weights.
    """
    if file.architecture not in ARCHITECTURES:
        raise CapabilityError(
            f"{file.path.name}: where the heads of a {file.architecture} lie is not known "
            f"(known: {', '.join(ARCHITECTURES)})"
        )
    if int(file.metadata.get("split.count", 0)) > 1:
        raise CapabilityError(f"{file.path} is one part of several: merge them (llama-gguf-split)")
    count = file.metadata.get(f"{file.architecture}.attention.head_count")
    found: dict[int, tuple[int, int]] = {}
    for layer in range(int(file.metadata.get(f"{file.architecture}.block_count", 0))):
        info = file.tensors.get(_name(layer))
        if info is None:
            continue
        heads = count[layer] if isinstance(count, list) and layer < len(count) else count
        if not isinstance(heads, int) or heads < 1 or info.shape[-1] % heads:
            raise UserError(
                f"{file.path}: {heads} heads do not divide {info.name} of shape {info.shape}; "
                "the file is damaged, fetch or convert it again"
            )
        found[layer] = (heads, info.shape[-1] // heads)
    return found


def _name(layer: int) -> str:
    return f"blk.{layer}.attn_output.weight"


def _edits(
    file: GgufFile, scales: Mapping[H, float], form: Form, layers: Collection[int]
) -> list[_Edit]:
    heads = gguf_heads(file)
    rows = _factors(scales, heads)
    for layer in layers:
        _require_layer(layer, heads)
        rows.setdefault(layer, np.ones(heads[layer][0], dtype=np.float32))
    return [_edit(file, layer, rows[layer], heads[layer][1], form) for layer in sorted(rows)]


def _edit(file: GgufFile, layer: int, row: Float32, head_dim: int, form: Form) -> _Edit:
    import gguf

    info = file.tensors[_name(layer)]
    kind = gguf.GGMLQuantizationType(info.type_id)
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    fits = kind.name in FLOATS or (kind.name in BLOCK_SCALES and head_dim % block == 0)
    retype = kind.name != "F32" and (form == "f32" or not fits)
    span = head_dim if kind.name in FLOATS else block
    return _Edit(info, kind.name, block, block_bytes, span, np.repeat(row, head_dim), retype)


def _factors(scales: Mapping[H, float], heads: Heads) -> dict[int, Float32]:
    """Factors [heads] of every layer that is named, by layer."""
    rows: dict[int, Float32] = {}
    for (layer, head), factor in scales.items():
        _require_layer(layer, heads)
        count = heads[layer][0]
        if not 0 <= head < count:
            raise UserError(f"layer {layer} has heads 0 to {count - 1}, and no head {head}")
        if not abs(factor) <= float(np.finfo(np.float32).max):  # false for NaN as well
            raise UserError(
                f"layer {layer} head {head}: a factor is a finite float32 number, not {factor}"
            )
        rows.setdefault(layer, np.ones(count, dtype=np.float32))[head] = factor
    return rows


def _require_layer(layer: int, heads: Heads) -> None:
    if layer not in heads:
        known = ", ".join(str(n) for n in sorted(heads)) or "none"
        raise UserError(f"layer {layer} has no attention heads; layers that have: {known}")


def _retyped(file: GgufFile, edit: _Edit) -> Float32:
    with np.errstate(over="ignore"):
        scaled: Float32 = file.data(edit.info.name) * edit.factors
    _require_finite(scaled, edit.info.name)
    return scaled


def _scale_in_place(file: GgufFile, edit: _Edit) -> TemperedTensor:
    """Multiply the columns in ``file``, whose tensor has the source's type; measure it."""
    name = edit.info.name
    place = file.tensors[name]
    if (edit.factors == 1).all():
        return TemperedTensor(name, edit.kind, edit.kind, 0.0)
    # Taken first: float32 data is a view of the very bytes that are about to change.
    wanted = file.data(name) * edit.factors
    raw = np.memmap(file.path, np.uint8, "r+", place.start, (place.n_bytes,))
    blocks = raw.reshape(place.shape[0], -1, edit.block_bytes)
    by_block = edit.factors[:: edit.block]
    if edit.kind in FLOATS:
        _multiply(blocks.view(FLOATS[edit.kind])[..., 0], by_block, name)
    else:
        for at in BLOCK_SCALES[edit.kind]:
            _multiply(blocks[..., at : at + 2].view(np.float16)[..., 0], by_block, name)
    raw.flush()
    rounding = _rounding(wanted, file.data(name), edit.span)
    return TemperedTensor(name, edit.kind, edit.kind, rounding)


def _multiply(values: NDArray[Any], factors: Float32, name: str) -> None:
    """Multiply in float32 and round once to the type of ``values`` [rows, n], in place."""
    changed = np.flatnonzero(factors != 1)
    with np.errstate(over="ignore"):
        scaled = (values[:, changed].astype(np.float32) * factors[changed]).astype(values.dtype)
    _require_finite(scaled, name)
    values[:, changed] = scaled


def _require_finite(scaled: NDArray[Any], name: str) -> None:
    if not np.isfinite(scaled).all():
        raise UserError(
            f"{name}: a factor is so large that {scaled.dtype} cannot hold the result; make it "
            "smaller, or use the form f32"
        )


def _rounding(wanted: Float32, found: Float32, span: int) -> float:
    """See :attr:`TemperedTensor.rounding`."""
    size = np.abs(wanted).reshape(-1, span).max(axis=1)
    error = np.abs(found - wanted).reshape(-1, span).max(axis=1)
    return float(np.divide(error, size, out=np.zeros_like(error), where=size > 0).max())
