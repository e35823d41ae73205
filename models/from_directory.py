"""Make a prepared copy of a Hugging Face-format directory, sharing its weight files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.config_fixes import with_both_dialects
from models.disk import require_free
from models.errors import CapabilityError, UserError
from models.fingerprint import CONFIG_FILES, TOKENIZER_FILES
from models.geometry import ModelGeometry, geometry, read_config
from models.safetensors_file import FLOATS, StoredTensor, read_header

INDEX = "model.safetensors.index.json"
PACKED = "U32"
"""How mlx-lm stores weights of a few bits."""


def check_directory(path: Path) -> ModelGeometry:
    """Refuse (UserError) a directory that no engine could load, before anything is copied."""
    if not (path / "config.json").is_file() and (path / "adapter_config.json").is_file():
        raise UserError(
            f"{path} is a PEFT adapter, not a model; give its base model as --model and the"
            " adapter as --adapter"
        )
    config = read_config(path)
    shape = geometry(config, where=str(path / "config.json"))
    quantised = "quantization_config" in config or "quantization" in config
    if quantised and not is_packed_for_mlx(config):
        raise UserError(
            f"{path} holds quantised weights in a format that no engine here trains over; use the"
            " model's float16, bfloat16 or float32 directory, or one made by mlx_lm.convert -q"
        )
    check_weights(path, shape, stored_tensors(path))
    return shape


def is_packed_for_mlx(config: Mapping[str, Any]) -> bool:
    """Whether the weights are in mlx-lm's quantised format, which only the MLX engine reads."""
    kind = config.get("quantization")
    return isinstance(kind, Mapping) and {"bits", "group_size"} <= kind.keys()


def require_plain_weights(path: Path, what: str) -> None:
    """Raise CapabilityError where ``what`` needs weights that are no longer in ``path``."""
    if is_packed_for_mlx(read_config(path)):
        raise CapabilityError(
            f"{what} cannot read {path}: its weights are quantised by mlx-lm; use --backend mlx, or"
            " the model's float16, bfloat16 or float32 directory"
        )


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of the model in ``path``, all of them present (else UserError)."""
    if (path / INDEX).is_file():
        names = sorted(set(_weight_map(path / INDEX).values()))
    else:
        names = ["model.safetensors"]
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        other = next(iter([*path.glob("*.bin"), *path.glob("*.pth")]), None)
        hint = f" ({other.name} is not read: save the model as safetensors)" if other else ""
        raise UserError(
            f"{path} lacks {missing[0]}{hint}; the download or copy is incomplete, finish it"
        )
    return [path / name for name in names]


def _weight_map(index: Path) -> dict[str, str]:
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = {str(k): Path(v).name for k, v in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{index} is damaged; fetch or save the model again") from error
    if not names:
        raise UserError(f"{index} lists no weights; fetch or save the model again")
    return names


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Name -> dtype and shape over all weight files of the model in ``path``."""
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(path):
        tensors |= read_header(file)
    if (path / INDEX).is_file():
        absent = sorted(_weight_map(path / INDEX).keys() - tensors.keys())
        if absent:
            raise UserError(f"{path}: the index lists {absent[0]}, which no weight file holds;"
                            " fetch or save the model again")  # fmt: skip
    return tensors


def check_weights(path: Path, shape: ModelGeometry, tensors: dict[str, StoredTensor]) -> None:
    """The embedding and every layer's output projection fit the config, in a float type."""
    embedding = _find(tensors, "embed_tokens.weight", path)
    _require_shape(path, "embed_tokens.weight", embedding, (shape.vocab_size, shape.hidden_size))
    for layer in shape.layers:
        if layer.has_o_proj:
            name = f"layers.{layer.layer}.self_attn.o_proj.weight"
            wanted = (shape.hidden_size, layer.n_heads * layer.head_dim)
        else:
            name = f"layers.{layer.layer}.linear_attn.out_proj.weight"
            wanted = (shape.hidden_size, layer.n_heads * layer.head_dim)
        _require_shape(path, name, _find(tensors, name, path), wanted)
    extra = f"layers.{shape.n_layers}."
    if any(_is_text(name) and f".{extra}" in f".{name}" for name in tensors):
        raise UserError(
            f"{path} holds weights of more layers than the {shape.n_layers} of its config.json;"
            " fetch or save the model again"
        )


def packed_bits(stored: tuple[int, ...], wanted: tuple[int, ...]) -> int | None:
    """Bits of a weight ``wanted`` that is stored in 32-bit words, or None where none fit."""
    if len(stored) != 2 or stored[0] != wanted[0]:
        return None
    bits, rest = divmod(32 * stored[1], wanted[1])
    return bits if not rest and 2 <= bits <= 8 else None


def _is_text(name: str) -> bool:
    towers = ("visual", "vision", "audio", "mtp")
    return not any(part.startswith(towers) for part in name.split("."))


def _find(tensors: dict[str, StoredTensor], suffix: str, path: Path) -> StoredTensor:
    for name in (f"model.{suffix}", f"model.language_model.{suffix}", f"language_model.{suffix}",
                 f"language_model.model.{suffix}", suffix):  # fmt: skip
        if name in tensors:
            return tensors[name]
    raise UserError(
        f"{path} holds no weights for {suffix}, which its config.json implies; fetch or save the"
        " model again"
    )


def _require_shape(path: Path, name: str, tensor: StoredTensor, wanted: tuple[int, ...]) -> None:
    if tensor.dtype == PACKED and packed_bits(tensor.shape, wanted) is not None:
        return
    if tensor.shape != wanted:
        raise UserError(
            f"{path}: {name} has shape {tensor.shape}, config.json implies {wanted};"
            " the two do not belong together"
        )
    if tensor.dtype not in FLOATS:
        raise UserError(
            f"{path}: {name} is stored as {tensor.dtype}; use float16, bfloat16 or float32 weights"
        )


def build_from_directory(source: Path, out: Path) -> None:
    """Fill ``out`` with a copy of ``source`` that all loaders read; ``source`` stays as it is.

    Weight files are hard-linked where the file system allows, else symlinked.
    """
    config: dict[str, Any] = with_both_dialects(read_config(source))
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    for name in (*CONFIG_FILES[1:], *TOKENIZER_FILES, INDEX):
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    for file in weight_files(source):
        share(file, out / file.name)


def share(file: Path, target: Path) -> None:
    """Hard-link ``file`` to ``target``, else symlink it, else copy it."""
    real = file.resolve()
    try:
        os.link(real, target)
    except OSError:
        try:
            target.symlink_to(real)
        except OSError:
            require_free(target.parent, real.stat().st_size, f"a copy of {real}")
            shutil.copyfile(real, target)
