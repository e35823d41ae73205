"""A GGUF copied with some tensors stored as float32; every other byte of it is kept.

The metadata is copied as bytes, never decoded and written again. Format: ggml's docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from models.gguf_file import ARRAY, SCALARS, STRING, GgufFile, TensorInfo

F32_TYPE = 0
"""GGML's number for float32."""
HEADER = 24
"""Magic, version, number of tensors, number of keys."""


def write_retyped(
    file: GgufFile,
    out: Path,
    names: Collection[str],
    values: Callable[[str], NDArray[np.float32]],
) -> None:
    """Write ``file`` to ``out`` with the tensors ``names`` replaced by ``values(name)``.

    Shapes stay, as does the order of tensors in the header and in the data; only offsets
    move. ``values`` is asked for one tensor at a time.
    """
    alignment = int(file.metadata.get("general.alignment", 32))
    infos = [
        replace(info, type_id=F32_TYPE, n_bytes=4 * math.prod(info.shape))
        if info.name in names
        else info
        for info in file.tensors.values()
    ]
    placed = sorted(infos, key=lambda info: info.start)
    offsets: dict[str, int] = {}
    end = 0
    for info in placed:
        offsets[info.name] = end
        end = _aligned(end + info.n_bytes, alignment)
    with (
        file.path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as source,
        out.open("wb") as target,
    ):
        target.write(source[: metadata_end(source)])
        for info in infos:
            target.write(_encoded(info, offsets[info.name]))
        _pad(target, alignment)
        for info in placed:
            if info.name in names:
                target.write(np.ascontiguousarray(values(info.name), dtype="<f4").data)
            else:
                target.write(source[info.start : info.start + info.n_bytes])
            _pad(target, alignment)


def metadata_end(view: mmap.mmap | bytes) -> int:
    """Byte at which the tensor list of a GGUF begins that :func:`read_gguf` has checked."""
    keys = _number(view, 16, "<Q")
    at = HEADER
    for _ in range(keys):
        at = _after(view, at, STRING)
        at = _after(view, at + 4, _number(view, at, "<I"))
    return at


def _after(view: mmap.mmap | bytes, at: int, kind: int) -> int:
    """Byte behind a metadata value of type ``kind`` that begins at ``at``."""
    if kind == STRING:
        return at + 8 + _number(view, at, "<Q")
    if kind != ARRAY:
        return at + struct.calcsize(SCALARS[kind])
    inner, count = _number(view, at, "<I"), _number(view, at + 4, "<Q")
    at += 12
    if inner in SCALARS:
        return at + count * struct.calcsize(SCALARS[inner])
    for _ in range(count):
        at = _after(view, at, inner)
    return at


def _number(view: mmap.mmap | bytes, at: int, code: str) -> int:
    value: int = struct.unpack_from(code, view, at)[0]
    return value


def _encoded(info: TensorInfo, offset: int) -> bytes:
    name, shape = info.name.encode(), info.shape[::-1]
    return b"".join(
        (
            struct.pack("<Q", len(name)) + name,
            struct.pack(f"<I{len(shape)}Q", len(shape), *shape),
            struct.pack("<IQ", info.type_id, offset),
        )
    )


def _aligned(n: int, alignment: int) -> int:
    return -(-n // alignment) * alignment


def _pad(target: BinaryIO, alignment: int) -> None:
    target.write(bytes(-target.tell() % alignment))
