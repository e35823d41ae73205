"""Checks a safetensors file's header against the file, before any loader maps it.

Format: 8 bytes little-endian header length, a JSON object name -> {dtype, shape, data_offsets},
then the data, which the tensors must cover without gap or overlap.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from models.errors import UserError

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
OTHERS = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
WIDTHS = FLOATS | OTHERS
MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class StoredTensor:
    """What the header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]


class _Malformed(Exception):
    pass


def read_header(path: str | Path) -> dict[str, StoredTensor]:
    """Return name -> dtype and shape. Raises UserError for a damaged or unsupported file."""
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = _length(stream.read(8), size)
            header = json.loads(stream.read(length).decode("utf-8"))
        return _check(header, size - 8 - length)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (_Malformed, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged: {_short(error)}; fetch or save the file again"
        ) from error


def _length(raw: bytes, size: int) -> int:
    if len(raw) < 8:
        raise _Malformed(f"only {size} bytes long")
    (length,) = struct.unpack("<Q", raw)
    if length > min(size - 8, MAX_HEADER):
        raise _Malformed("it ends inside its header (truncated?), or is no safetensors file")
    return int(length)


def _check(header: Any, data_size: int) -> dict[str, StoredTensor]:
    if not isinstance(header, dict):
        raise _Malformed("its header is not an object")
    spans: list[tuple[int, int]] = []
    tensors: dict[str, StoredTensor] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        tensors[name], span = _entry(name, entry)
        spans.append(span)
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise _Malformed("its tensors overlap or leave gaps")
        end = stop
    if end != data_size:
        raise _Malformed(f"it holds {data_size} bytes of data, its header says {end} (truncated?)")
    return tensors


def _entry(name: str, entry: Any) -> tuple[StoredTensor, tuple[int, int]]:
    if not isinstance(entry, dict):
        raise _Malformed(f"the entry of {name!r} is not an object")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise _Malformed(f"{name!r} has the unsupported type {dtype!r}")
    shape, span = _naturals(name, entry.get("shape")), _naturals(name, entry.get("data_offsets"))
    if len(span) != 2:
        raise _Malformed(f"the entry of {name!r} is malformed")
    if span[1] - span[0] != prod(shape) * WIDTHS[dtype]:
        raise _Malformed(f"{name!r} has the wrong size for its shape")
    return StoredTensor(dtype, tuple(shape)), (span[0], span[1])


def _naturals(name: str, value: Any) -> list[int]:
    if not isinstance(value, list) or not all(type(n) is int and n >= 0 for n in value):
        raise _Malformed(f"the entry of {name!r} is malformed")
    return value


def _short(error: Exception) -> str:
    text = str(error) if isinstance(error, _Malformed) else "its header is not valid JSON"
    return text.splitlines()[0][:200] if text else type(error).__name__
