"""A copy of a model directory with only its first decoder layers, for comparing engines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from models.directory import ModelDirectory
from models.errors import UserError

LAYERS_OF = {"llama": 2, "qwen3": 2, "qwen3_5": 4, "gemma3": 6}
"""Layers that hold one full period of the layer pattern. Gemma 4 is missing: its last layers
reuse the keys and values of earlier ones, and cutting changes which."""
_CHUNK = 16 << 20
_TOWERS = ("visual", "vision", "audio")


def reduced_copy(directory: ModelDirectory, layers: int, folder: Path) -> ModelDirectory:
    """Write the first ``layers`` decoder layers and everything outside the layers to ``folder``.

    Weights are copied as bytes, a chunk at a time, so no memory is needed for them. Raises
    UserError for a family that cannot be cut.
    """
    if directory.family not in LAYERS_OF:
        raise UserError(f"no reduced copy of a {directory.family} model can be made")
    for file in directory.path.iterdir():
        if file.is_file() and ".safetensors" not in file.name:
            shutil.copy(file, folder / file.name)
    config = _cut_config(json.loads((directory.path / "config.json").read_text()), layers)
    (folder / "config.json").write_text(json.dumps(config))
    sources = sorted(directory.path.glob("*.safetensors"))
    with (folder / "model.safetensors").open("wb") as target:
        _write([part for source in sources for part in _parts(source, layers)], target)
    return replace(directory, path=folder, gguf=None, gguf_sha256=None)


def _cut_config(config: dict[str, Any], layers: int) -> dict[str, Any]:
    text = config.get("text_config", config)
    text["num_hidden_layers"] = layers
    if isinstance(text.get("layer_types"), list):
        text["layer_types"] = text["layer_types"][:layers]
    return config


def _parts(source: Path, layers: int) -> Iterator[tuple[str, dict[str, Any], Path, int]]:
    """Yield (name, header entry, file, offset of its data) of the tensors to keep."""
    with source.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    for name, entry in header.items():
        if name != "__metadata__" and _kept(name, layers):
            yield name, entry, source, 8 + length + entry["data_offsets"][0]


def _kept(name: str, layers: int) -> bool:
    before, _, after = name.partition(".layers.")
    if not after or any(tower in before for tower in _TOWERS):
        return True
    return int(after.split(".", 1)[0]) < layers


def _write(parts: list[tuple[str, dict[str, Any], Path, int]], target: BinaryIO) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, entry, _, _ in parts:
        size = entry["data_offsets"][1] - entry["data_offsets"][0]
        header[name] = {**entry, "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)  # data begins at a multiple of 8
    target.write(len(raw).to_bytes(8, "little") + raw)
    for _, entry, source, offset in parts:
        with source.open("rb") as stream:
            stream.seek(offset)
            _copy(stream, target, entry["data_offsets"][1] - entry["data_offsets"][0])


def _copy(stream: BinaryIO, target: BinaryIO, size: int) -> None:
    while size:
        chunk = stream.read(min(size, _CHUNK))
        if not chunk:
            raise UserError("a weights file ended early while it was copied: prepare it again")
        target.write(chunk)
        size -= len(chunk)
