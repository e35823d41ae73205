"""A model directory's weight files written again: some tensors changed, all in a dtype.

Needs memory for one changed tensor, or a chunk of an unchanged one.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from models.disk import require_free
from models.errors import UserError
from models.from_directory import INDEX, weight_files
from models.safetensors_file import FLOATS, WIDTHS, read_header

Array = NDArray[np.float32]
Change = Callable[[Array], Array]
"""A tensor in float32 -> the tensor to store, before it is rounded to its dtype."""

STORED = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
NAMES = {stored: name for name, stored in STORED.items()}
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_CHUNK = 1 << 22
"""Values converted at a time."""


@dataclass(frozen=True)
class _Part:
    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str
    start: int
    """Bytes from the start of ``file``."""
    target: str
    """The dtype to store."""

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * WIDTHS[self.target]


def rewrite_weights(
    source: Path, out: Path, *, dtype: str | None, changes: Mapping[str, Change]
) -> None:
    """Write the weight files of ``source`` to ``out`` under their names.

    ``dtype``: ``float32``, ``bfloat16`` or ``float16`` for every floating-point tensor, None
    to keep each tensor's own. ``changes``: by tensor name. Tensors that keep dtype and value
    are copied as bytes. Raises UserError where the disk has no room, a name in ``changes`` is
    not there, or a value is outside the dtype's range.
    """
    files = weight_files(source)
    parts = {file.name: list(_parts(file, dtype)) for file in files}
    every = [part for listed in parts.values() for part in listed]
    absent = sorted(changes.keys() - {part.name for part in every})
    if absent:
        raise UserError(f"{source} holds no weights named {absent[0]}")
    require_free(out, sum(part.nbytes for part in every), f"the weights in {out.name}")
    for name, listed in parts.items():
        with (out / name).open("wb") as target:
            _write(listed, target, changes)
    if (source / INDEX).is_file():
        index = json.loads((source / INDEX).read_text("utf-8"))
        index["metadata"] = {
            **(index.get("metadata") or {}),
            "total_size": sum(part.nbytes for part in every),
        }
        (out / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True))


def _parts(file: Path, dtype: str | None) -> Iterator[_Part]:
    checked = read_header(file)
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    for name, tensor in checked.items():
        floating = tensor.dtype in FLOATS
        target = STORED[dtype] if dtype is not None and floating else tensor.dtype
        start = 8 + length + int(header[name]["data_offsets"][0])
        yield _Part(name, file, tensor.shape, tensor.dtype, start, target)


def _write(parts: list[_Part], target: BinaryIO, changes: Mapping[str, Change]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for part in parts:
        span = [end, end + part.nbytes]
        header[part.name] = {"dtype": part.target, "shape": part.shape, "data_offsets": span}
        end = span[1]
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)  # data begins at a multiple of 8
    target.write(struct.pack("<Q", len(raw)) + raw)
    for part in parts:
        if part.name in changes:
            values = changes[part.name](_read(part, 0, part.size).reshape(part.shape))
            target.write(_stored(np.ascontiguousarray(values), part))
        elif part.target == part.dtype:
            _copy(part, target)
        else:
            for begin in range(0, part.size, _CHUNK):
                count = min(_CHUNK, part.size - begin)
                target.write(_stored(_read(part, begin, count), part))


def _read(part: _Part, begin: int, count: int) -> Array:
    """Values of a tensor as float32, a copy; exact for bfloat16 and float16."""
    with part.file.open("rb") as stream:
        stream.seek(part.start + begin * WIDTHS[part.dtype])
        raw = np.frombuffer(stream.read(count * WIDTHS[part.dtype]), _NUMPY[part.dtype])
    if part.dtype == "BF16":  # the upper half of a float32
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.astype(np.float32)


def _stored(values: Array, part: _Part) -> bytes:
    """Bytes of ``values`` in the dtype of ``part``, rounded to nearest, ties to even."""
    if part.target == "BF16":
        bits = values.view(np.uint32)
        rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
        # adding could turn a NaN into an infinity
        kept = np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype("<u2")
        lost = np.isfinite(values) & ((kept & 0x7F80) == 0x7F80)
    else:
        with np.errstate(over="ignore"):
            kept = values.astype(_NUMPY[part.target])
        lost = np.isfinite(values) & ~np.isfinite(kept)
    if lost.any():
        raise UserError(
            f"{part.name} has values up to {np.abs(values[lost]).max():.3g}, outside the range of "
            f"{NAMES.get(part.target, part.target)}: choose another dtype"
        )
    return kept.tobytes()


def _copy(part: _Part, target: BinaryIO) -> None:
    with part.file.open("rb") as stream:
        stream.seek(part.start)
        remaining = part.nbytes
        while remaining:
            chunk = stream.read(min(remaining, 1 << 24))
            if not chunk:
                raise UserError(f"{part.file} ended early while it was copied: prepare it again")
            target.write(chunk)
            remaining -= len(chunk)


def copy_other_files(source: Path, out: Path, *, leave: frozenset[str]) -> None:
    """Copy configs and tokenizer files; no weights, and none of the names in ``leave``."""
    for file in source.iterdir():
        if file.is_file() and ".safetensors" not in file.name and file.name not in leave:
            shutil.copyfile(file, out / file.name)
