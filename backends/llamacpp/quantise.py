"""The GGUF file an evaluation runs on: the original, or an export quantised by llama.cpp."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from backends.llamacpp.library import library
from models.directory import ModelDirectory
from models.errors import UserError
from models.files import whole_file
from models.gguf.export import EXPORT_VERSION, export_gguf
from models.gguf.inspect import check_gguf

Kind = Literal["f16", "q8_0", "q5_k_m", "q4_k_m"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_FILE_TYPES = {"f16": 1, "q8_0": 7, "q5_k_m": 17, "q4_k_m": 15}
"""llama.cpp's enum llama_ftype."""

Say = Callable[[str], None]


def quantise(src: Path, out: Path, kind: Kind) -> Path:
    """Write ``src`` (a GGUF with float weights) to ``out`` in another type.

    ``out`` appears whole or not at all. K-quants need rows of a multiple of 256; llama.cpp
    stores other matrices in the next larger plain type (Q5_0, Q8_0). Raises UserError for
    an unknown kind, a damaged or already quantised source, or a full disk.
    """
    if kind not in _FILE_TYPES:
        raise UserError(f"unknown quantisation {kind!r}; give one of {', '.join(KINDS)}")
    check_gguf(src)
    native = library()
    parameters = native.api.llama_model_quantize_default_params()
    parameters.ftype = _FILE_TYPES[kind]
    parameters.nthread = 0  # all cores; each block is quantised on its own, so the result is equal
    with whole_file(out, needs=src.stat().st_size) as temporary:
        native.log.clear()
        code = native.api.llama_model_quantize(
            str(src).encode(), str(temporary).encode(), ctypes.byref(parameters)
        )
        if code:
            raise UserError(f"llama.cpp cannot write {src} as {kind}: {native.log.errors()}")
    return out


def check_quantisation(quantisation: str) -> None:
    """Raise UserError unless :func:`evaluation_gguf` knows it."""
    if quantisation != "original" and quantisation not in _FILE_TYPES:
        raise UserError(f"unknown quantisation {quantisation!r}; give original, {', '.join(KINDS)}")


def evaluation_gguf(
    directory: ModelDirectory, quantisation: str, cache: Path, say: Say | None = None
) -> Path:
    """Return the GGUF file to evaluate ``directory`` with.

    ``quantisation``: ``original`` for the file the directory was made from, else one of
    :data:`KINDS`, exported in float16 and quantised from that. Results are kept in
    ``cache`` under the model's fingerprint and the versions that made them. ``say`` hears
    about each step that takes time.
    """
    if quantisation == "original":
        return _original(directory)
    check_quantisation(quantisation)
    kind: Kind = quantisation  # type: ignore[assignment]  # membership was checked above
    tell = say or (lambda _: None)
    exported = cache / f"{directory.fingerprint[:24]}-export{EXPORT_VERSION}-f16.gguf"
    if kind == "f16":
        return _export(directory, exported, tell)
    version = library().version
    out = exported.with_name(f"{exported.stem.removesuffix('-f16')}-{kind}-{version}.gguf")
    if not out.is_file():
        source = _export(directory, exported, tell)
        tell(f"quantising {directory.name} to {kind}")
        quantise(source, out, kind)
    return out


def _original(directory: ModelDirectory) -> Path:
    if directory.gguf is None:
        raise UserError(
            f"{directory.name} was not made from a GGUF file; choose {', '.join(KINDS)}"
        )
    if not directory.gguf.is_file():
        raise UserError(f"{directory.gguf} is gone; prepare {directory.name} again")
    return directory.gguf


def _export(directory: ModelDirectory, out: Path, tell: Say) -> Path:
    if not out.is_file():
        tell(f"writing {directory.name} as GGUF")
        export_gguf(directory, out, dtype="f16")
    return out
