"""A strict reader of GGUF headers: every length is checked against the file before it is used.

``gguf.GGUFReader`` trusts the file: a flipped bit in a length makes it loop, return empty arrays
or raise whatever numpy raises, and llama.cpp may abort the process. Files are therefore parsed
here first (it is also some ten times faster on large vocabularies); the block formats
themselves are left to ``gguf.quants``. Format: ggml's docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import UserError

MAGIC = b"GGUF"
SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
STRING, ARRAY = 8, 9
MAX_DIMS = 4
MAX_DEPTH = 4


class Malformed(Exception):
    """The bytes are not a valid GGUF; the message says where."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor's place in the file."""

    name: str
    shape: tuple[int, ...]
    """Slowest dimension first, as numpy and torch count (the file stores the reverse)."""
    type_id: int
    """``gguf.GGMLQuantizationType`` value."""
    start: int
    """Absolute byte offset."""
    n_bytes: int


@dataclass(frozen=True)
class GgufFile:
    """A GGUF whose header has been checked, and whose tensors lie inside the file."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]

    @property
    def architecture(self) -> str:
        """``general.architecture``, e.g. ``llama``; empty when the file does not say."""
        return str(self.metadata.get("general.architecture", ""))

    def data(self, name: str) -> NDArray[np.float32]:
        """Dequantise tensor ``name`` to float32 in its logical shape.

        Raises UserError when its type cannot be dequantised or its values are not finite.
        """
        import gguf

        info = self.tensors[name]
        kind = gguf.GGMLQuantizationType(info.type_id)
        raw = np.memmap(self.path, np.uint8, "r", info.start, (info.n_bytes,))
        rows = raw.reshape(*info.shape[:-1], -1) if info.n_bytes else raw
        try:
            with np.errstate(all="ignore"):  # damage shows as NaN, checked below
                values = gguf.quants.dequantize(_typed(rows, kind.name), kind)
        except (NotImplementedError, ValueError) as error:
            raise UserError(
                f"{self.path}: tensor {name} is stored as {kind.name}, which cannot be"
                " dequantised here; use a q8_0, q4_k_m, f16 or similar file"
            ) from error
        array = np.ascontiguousarray(values, dtype=np.float32).reshape(info.shape)
        if not np.isfinite(array).all():
            raise UserError(f"{self.path}: tensor {name} holds infinities or NaN; the file is"
                            " damaged, fetch it again")  # fmt: skip
        return array


def _typed(rows: NDArray[np.uint8], kind: str) -> NDArray[Any]:
    return (
        rows.view(np.float32 if kind == "F32" else np.float16) if kind in ("F32", "F16") else rows
    )


def read_gguf(path: str | Path) -> GgufFile:
    """Parse and check a GGUF file's header. Raises UserError for anything but a sound file."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            if size < 24:
                raise Malformed(f"only {size} bytes long")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as view:
                return _Parser(path, view).parse()
    except Malformed as error:
        raise UserError(
            f"{path} is not a usable GGUF file: {error}; fetch or convert it again"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


class _Parser:
    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self.path, self.view, self.size, self.at = path, view, len(view), 0

    def parse(self) -> GgufFile:
        if self.take(4) != MAGIC:
            raise Malformed("it does not start with the letters GGUF")
        version = self.scalar("<I")
        if version not in (2, 3):
            raise Malformed(f"version {version} (2 and 3 are supported)")
        n_tensors, n_keys = self.count(24), self.count(13)
        metadata: dict[str, Any] = {}
        for _ in range(n_keys):
            key = self.string()
            metadata[key] = self.value(self.scalar("<I"))
        infos = [self.tensor() for _ in range(n_tensors)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment % 8:
            raise Malformed(f"alignment {alignment!r}")
        start = -(-self.at // alignment) * alignment
        tensors = {info[0]: self.place(start, *info) for info in infos}
        if len(tensors) != n_tensors:
            raise Malformed("two tensors have the same name")
        return GgufFile(self.path, metadata, tensors)

    def take(self, n: int) -> bytes:
        if n > self.size - self.at:
            raise Malformed(f"it ends inside the header, at byte {self.size} (truncated?)")
        self.at += n
        return self.view[self.at - n : self.at]

    def scalar(self, code: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def count(self, min_bytes_each: int) -> int:
        """A number of items that the rest of the file could hold."""
        n: int = self.scalar("<Q")
        if n * min_bytes_each > self.size - self.at:
            raise Malformed(f"it announces {n} entries at byte {self.at}, more than it can hold")
        return n

    def string(self) -> str:
        try:
            return self.take(self.count(1)).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed(f"text that is not UTF-8 before byte {self.at}") from error

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == STRING:
            return self.string()
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind != ARRAY or depth >= MAX_DEPTH:
            raise Malformed(f"unknown value type {kind} at byte {self.at}")
        inner = self.scalar("<I")
        if inner not in SCALARS:
            n = self.count(8)
            return [self.value(inner, depth + 1) for _ in range(n)]
        code = SCALARS[inner]
        width = struct.calcsize(code)
        n = self.count(width)
        return list(struct.unpack(f"<{n}{code[1]}", self.take(n * width)))

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.string()
        n_dims = self.scalar("<I")
        if not 1 <= n_dims <= MAX_DIMS:
            raise Malformed(f"tensor {name!r} has {n_dims} dimensions")
        shape = tuple(self.scalar("<Q") for _ in range(n_dims))[::-1]
        return name, shape, self.scalar("<I"), self.scalar("<Q")

    def place(
        self, data_start: int, name: str, shape: tuple[int, ...], type_id: int, offset: int
    ) -> TensorInfo:
        import gguf

        sizes = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
        if type_id not in sizes:
            raise Malformed(f"tensor {name!r} has unknown type {type_id}")
        block, block_bytes = sizes[type_id]
        elements = int(np.prod([int(n) for n in shape], dtype=object))
        if elements <= 0 or shape[-1] % block:
            raise Malformed(f"tensor {name!r} has the impossible shape {shape}")
        n_bytes = elements // block * block_bytes
        start = data_start + offset
        if start + n_bytes > self.size:
            raise Malformed(
                f"tensor {name!r} would end at byte {start + n_bytes} of {self.size} (truncated?)"
            )
        return TensorInfo(name, shape, type_id, start, n_bytes)
