"""Safetensors read as float32 numpy arrays, bfloat16 included, one tensor at a time.

The safetensors package reads bfloat16 only into torch, jax or mlx; numpy has no such type.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import UserError
from models.safetensors_file import read_header

_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class StoredMatrix:
    """Where one tensor lies on disk."""

    file: Path
    dtype: str
    """The format's own name: ``F64``, ``F32``, ``F16`` or ``BF16``."""
    shape: tuple[int, ...]
    start: int
    """Bytes from the start of the file."""

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    def read(self) -> NDArray[np.float32]:
        """Return the tensor as float32, a copy; exact for bfloat16 and float16."""
        stored = np.memmap(self.file, _NUMPY[self.dtype], "r", self.start, (self.size,))
        if self.dtype == "BF16":  # the upper half of a float32
            return (stored.astype(np.uint32) << 16).view(np.float32).reshape(self.shape)
        return np.array(stored, dtype=np.float32).reshape(self.shape)


def stored_matrices(directory: Path) -> dict[str, StoredMatrix]:
    """Every tensor of a model directory's ``model*.safetensors``, by name.

    Raises UserError when there are none, when a shard of the index is missing, or when a
    file is damaged or holds a type that is not a float.
    """
    found: dict[str, StoredMatrix] = {}
    for file in _weight_files(directory):
        found.update(_entries(file))
    return found


def _weight_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        files = [directory / name for name in names]
    else:
        files = sorted(directory.glob("model*.safetensors"))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        what = ", ".join(missing) or "model.safetensors"
        raise UserError(f"{directory} has no {what}; prepare the model again")
    return files


def _entries(file: Path) -> Iterator[tuple[str, StoredMatrix]]:
    checked = read_header(file)
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    for name, tensor in checked.items():
        if tensor.dtype not in _NUMPY:
            raise UserError(f"{file}: {name} is stored as {tensor.dtype}, which is not a float")
        start = 8 + length + int(header[name]["data_offsets"][0])
        yield name, StoredMatrix(file, tensor.dtype, tensor.shape, start)
