"""LoRA adapters on disk: PEFT's or mlx-lm's files, and one of ours that says what they belong to.

``threearc_adapter.json`` holds the fingerprint of the base model, the hash of the adapter
and whatever the caller wants kept beside it. It travels with an adapter from format to format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from backends.adapters.contents import CONFIG_FILE, Contents, one_line, read_json
from backends.adapters.mlx_format import MLX_WEIGHTS_FILE, read_mlx, write_mlx
from backends.adapters.peft_format import WEIGHTS_FILE, read_peft, write_peft
from backends.interface import Float32, LoraConfig
from models.directory import ModelDirectory
from models.errors import UserError
from models.files import canonical_json, write_directory_atomically
from models.registry import lookup

SIDECAR_FILE = "threearc_adapter.json"

AdapterFormat = Literal["peft", "mlx"]


class Sidecar(BaseModel):
    """``threearc_adapter.json``."""

    model_config = ConfigDict(extra="ignore")

    base_fingerprint: str
    base_name: str
    adapter_sha256: str
    extra: dict[str, Any] = {}
    base_source: str | None = None
    """:attr:`ModelDirectory.source` of the base."""
    proof: dict[str, Any] | None = None
    """What comparing this conversion with its source gave (docs/adapters.md)."""


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter directory, read."""

    path: Path
    format: AdapterFormat
    contents: Contents
    sidecar: Sidecar | None

    @property
    def sha256(self) -> str:
        """sha-256 (hex) of what it computes; the same in every format."""
        return _sha256(self.contents.config, self.contents.weights)


def save_adapter(
    path: Path,
    config: LoraConfig,
    weights: Mapping[str, Float32],
    base: ModelDirectory,
    extra: Mapping[str, Any] | None = None,
) -> str:
    """Write the PEFT adapter directory ``path`` atomically; returns its sha-256.

    ``weights`` are named as in :meth:`LanguageModel.lora_weights`. ``extra`` (JSON-able) is
    kept in the sidecar.
    """

    def fill(folder: Path) -> None:
        write_peft(folder, config, weights, base)
        write_sidecar(folder, make_sidecar(config, weights, base, extra))

    write_directory_atomically(path, fill)
    return _sha256(config, weights)


def write_format(
    folder: Path,
    kind: AdapterFormat,
    config: LoraConfig,
    weights: Mapping[str, Float32],
    base: ModelDirectory,
    linear_modules: Sequence[str],
) -> None:
    """Write one format's own two files into the existing ``folder``.

    ``linear_modules``: canonical names of all the base model's.
    """
    if kind == "peft":
        write_peft(folder, config, weights, base)
    else:
        write_mlx(folder, config, weights, base, linear_modules)


def make_sidecar(
    config: LoraConfig,
    weights: Mapping[str, Float32],
    base: ModelDirectory,
    extra: Mapping[str, Any] | None = None,
    proof: Mapping[str, Any] | None = None,
) -> Sidecar:
    """What ``threearc_adapter.json`` says of an adapter for ``base``."""
    return Sidecar(
        base_fingerprint=base.fingerprint,
        base_name=base.name,
        base_source=base.source,
        adapter_sha256=_sha256(config, weights),
        extra=dict(extra or {}),
        proof=None if proof is None else dict(proof),
    )


def write_sidecar(folder: Path, sidecar: Sidecar) -> None:
    """Write ``threearc_adapter.json`` into the existing ``folder``."""
    content = sidecar.model_dump(exclude_none=True)
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    (folder / SIDECAR_FILE).write_text(text)


def read_adapter(path: Path) -> StoredAdapter:
    """Read an adapter directory of either format, for whatever model it is.

    Raises UserError, one line, when it is none, is damaged, differs from the hash in its
    sidecar, or uses a feature that the engines here do not compute.
    """
    kind = adapter_format(path)
    contents = _READERS[kind](path)
    stored = StoredAdapter(path, kind, contents, _read_sidecar(path))
    if stored.sidecar is not None and stored.sidecar.adapter_sha256 != stored.sha256:
        raise UserError(
            f"adapter {path} is damaged: its weights or their scale differ from its recorded hash"
        )
    return stored


_READERS: dict[AdapterFormat, Callable[[Path], Contents]] = {"peft": read_peft, "mlx": read_mlx}


def adapter_format(path: Path) -> AdapterFormat:
    """``peft`` or ``mlx``, by the files and keys that are there. Raises UserError for neither."""
    try:
        return _format(path)
    except (OSError, ValueError) as error:  # no rights, a name too long or with NUL
        raise UserError(f"cannot read {path}: {one_line(error)}") from None


def _format(path: Path) -> AdapterFormat:
    if path.suffix == ".gguf" or (path.is_dir() and _only_gguf(path)):
        raise UserError(
            f"{path} is a GGUF adapter, which only llama.cpp reads: give the PEFT or mlx-lm "
            "directory it was made from"
        )
    if not (path / CONFIG_FILE).exists():
        raise UserError(f"{path} is not a LoRA adapter: it has no {CONFIG_FILE}")
    settings = read_json(path / CONFIG_FILE)
    if "peft_type" in settings or (path / WEIGHTS_FILE).exists():
        return "peft"
    mlx_keys = {"fine_tune_type", "lora_parameters"} & settings.keys()
    if mlx_keys or (path / MLX_WEIGHTS_FILE).exists():
        return "mlx"
    raise UserError(
        f"{path} is neither a PEFT nor an mlx-lm adapter: its {CONFIG_FILE} has no peft_type, "
        f"fine_tune_type or lora_parameters, and there is no {WEIGHTS_FILE} or {MLX_WEIGHTS_FILE}"
    )


def load_adapter(path: Path, expect: ModelDirectory) -> tuple[LoraConfig, dict[str, Float32]]:
    """Read an adapter for the model ``expect``; returns its config and float32 weights.

    PEFT and mlx-lm directories are told apart by their files. Adapters without our sidecar
    are read too; their shapes are checked when they are attached. Raises UserError when the
    adapter was made for another model, is damaged, or uses a feature that the engines here do
    not compute.
    """
    stored = read_adapter(path)
    require_base(stored, expect)
    return stored.contents.config, dict(stored.contents.weights)


def require_base(stored: StoredAdapter, expect: ModelDirectory) -> None:
    """Raise UserError where the adapter says that it belongs to another model."""
    path, sidecar, declared = stored.path, stored.sidecar, stored.contents.declared_base
    if sidecar is not None:
        if sidecar.base_fingerprint != expect.fingerprint:
            raise UserError(
                f"adapter {path} was trained on {sidecar.base_name} "
                f"({sidecar.base_fingerprint[:12]}), not on {expect.name} "
                f"({expect.fingerprint[:12]}): choose that model or another adapter"
            )
    elif _names_another_model(declared, expect):
        key = "base_model_name_or_path" if stored.format == "peft" else "model"
        raise UserError(
            f"adapter {path} says that it was made for {declared}, not for {expect.name}: choose "
            f"that model, or correct {key} in its {CONFIG_FILE} if they are the same"
        )


def _names_another_model(declared: str | None, model: ModelDirectory) -> bool:
    """Whether an adapter without sidecar names a base model other than this one.

    Only the last part of a name or path is compared: the rest differs between machines. An
    adapter that names nothing can only be checked by its shapes.
    """
    if not declared:
        return False
    spec = lookup(model.name)
    # plain peft writes the path it was given: the model's own, or that of its prepared form
    known = [model.name, model.source.split("@")[0], str(model.path)]
    known += [spec.hub_id] if spec else []
    last = {Path(name).name.casefold() for name in known if name}
    # a hub id may carry a revision; a path may hold an @ of its own
    said = {Path(name).name.casefold() for name in (declared, declared.partition("@")[0])}
    return not said & last


def adapter_sha256(path: Path) -> str:
    """sha-256 (hex) of what the adapter computes: its weights, rank, alpha and scaling rule."""
    contents = _READERS[adapter_format(path)](path)
    return _sha256(contents.config, contents.weights)


def weights_sha256(weights: Mapping[str, Float32]) -> str:
    """sha-256 (hex) over names, shapes and float32 bytes, independent of the order of keys."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name], dtype="<f4")
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _sha256(config: LoraConfig, weights: Mapping[str, Float32]) -> str:
    scaling = {"rank": config.rank, "alpha": float(config.alpha), "rslora": config.rslora}
    return hashlib.sha256((canonical_json(scaling) + weights_sha256(weights)).encode()).hexdigest()


def _read_sidecar(path: Path) -> Sidecar | None:
    file = path / SIDECAR_FILE
    if not file.exists():
        return None
    try:
        return Sidecar.model_validate_json(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file}: {one_line(error)}") from None


def _only_gguf(path: Path) -> bool:
    return not (path / CONFIG_FILE).exists() and any(path.glob("*.gguf"))
