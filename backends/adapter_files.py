"""LoRA adapters on disk: PEFT's two files, and one of ours that says what they belong to.

``adapter_config.json`` and ``adapter_model.safetensors`` load in plain ``peft``.
``threearc_adapter.json`` holds the fingerprint of the base model, the hash of the adapter
and whatever the caller wants kept beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from backends.interface import Float32, LoraConfig
from models.directory import ModelDirectory
from models.errors import UserError
from models.files import canonical_json, write_directory_atomically
from models.registry import lookup

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
SIDECAR_FILE = "threearc_adapter.json"

_KEY = re.compile(r"base_model\.model\.(.+)\.(lora_[AB])\.weight")
_WRAPPED = ("gemma3", "gemma4")
"""Model types that AutoModelForCausalLM opens with the vision tower, so that the decoder lies
under ``model.language_model`` and not ``model``. Qwen3.5 is opened as text only."""


class PeftConfig(BaseModel):
    """The keys of ``adapter_config.json`` that decide what an adapter computes."""

    model_config = ConfigDict(extra="ignore")

    peft_type: Literal["LORA"]
    r: int
    lora_alpha: float
    lora_dropout: float = 0.0
    use_rslora: bool = False
    base_model_name_or_path: str | None = None


class Sidecar(BaseModel):
    """``threearc_adapter.json``."""

    model_config = ConfigDict(extra="ignore")

    base_fingerprint: str
    base_name: str
    adapter_sha256: str
    extra: dict[str, Any] = {}


_PLAIN_VALUES: dict[str, tuple[Any, ...]] = {
    "use_dora": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "modules_to_save": ([], None),
    "fan_in_fan_out": (False, None),
    "layer_replication": (None,),
    "target_parameters": ([], None),
    "trainable_token_indices": ([], {}, None),
    "use_qalora": (False, None),
}
"""PEFT options that change the arithmetic, with the values under which they do nothing."""


def save_adapter(
    path: Path,
    config: LoraConfig,
    weights: Mapping[str, Float32],
    base: ModelDirectory,
    extra: Mapping[str, Any] | None = None,
) -> str:
    """Write the adapter directory ``path`` atomically; returns its sha-256.

    ``weights`` are named as in :meth:`LanguageModel.lora_weights`. ``extra`` (JSON-able) is
    kept in the sidecar.
    """
    from safetensors.numpy import save_file

    prefix = _disk_prefix(base)
    modules = sorted({name.rpartition(".")[0] for name in weights})
    tensors = {
        f"base_model.model.{_to_disk(name, prefix)}.weight": np.ascontiguousarray(
            array, dtype=np.float32
        )
        for name, array in weights.items()
    }
    sha256 = _sha256(config, weights)
    sidecar = Sidecar(
        base_fingerprint=base.fingerprint,
        base_name=base.name,
        adapter_sha256=sha256,
        extra=dict(extra or {}),
    )
    peft = _peft_json(config, [_to_disk(name, prefix) for name in modules], base)

    def fill(directory: Path) -> None:
        save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})
        (directory / CONFIG_FILE).write_text(json.dumps(peft, indent=2, sort_keys=True) + "\n")
        text = json.dumps(sidecar.model_dump(), indent=2, sort_keys=True) + "\n"
        (directory / SIDECAR_FILE).write_text(text)

    write_directory_atomically(path, fill)
    return sha256


def load_adapter(path: Path, expect: ModelDirectory) -> tuple[LoraConfig, dict[str, Float32]]:
    """Read an adapter for the model ``expect``; returns its config and float32 weights.

    Plain PEFT adapters without our sidecar are read too; their shapes are checked when they
    are attached. Raises UserError when the adapter was made for another model, is damaged, or
    uses a PEFT feature that the engines here do not compute.
    """
    peft = _read_config(path)
    weights = _read_weights(path, peft)
    adapts_mlp = any(".mlp." in name for name in weights)
    config = LoraConfig(
        rank=peft.r,
        alpha=peft.lora_alpha,
        targets="all" if adapts_mlp else "attention",
        dropout=peft.lora_dropout,
        rslora=peft.use_rslora,
    )
    sidecar = _read_sidecar(path)
    if sidecar is not None:
        if sidecar.base_fingerprint != expect.fingerprint:
            raise UserError(
                f"adapter {path} was trained on {sidecar.base_name} "
                f"({sidecar.base_fingerprint[:12]}), not on {expect.name} "
                f"({expect.fingerprint[:12]}): choose that model or another adapter"
            )
        if sidecar.adapter_sha256 != _sha256(config, weights):
            raise UserError(f"adapter {path} is damaged: its weights differ from its recorded hash")
    elif _names_another_model(peft.base_model_name_or_path, expect):
        raise UserError(
            f"adapter {path} says that it was made for {peft.base_model_name_or_path}, not for "
            f"{expect.name}: choose that model, or correct base_model_name_or_path in its "
            f"{CONFIG_FILE} if they are the same"
        )
    return config, weights


def _names_another_model(declared: str | None, model: ModelDirectory) -> bool:
    """Whether a plain PEFT adapter names a base model other than this one.

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
    return Path(declared).name.casefold() not in last


def adapter_sha256(path: Path) -> str:
    """sha-256 (hex) of what the adapter computes: its weights, rank, alpha and scaling rule."""
    peft = _read_config(path)
    config = LoraConfig(rank=peft.r, alpha=peft.lora_alpha, rslora=peft.use_rslora)
    return _sha256(config, _read_weights(path, peft))


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


def _peft_json(config: LoraConfig, modules: list[str], base: ModelDirectory) -> dict[str, Any]:
    alpha = int(config.alpha) if float(config.alpha).is_integer() else config.alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.source,
        "r": config.rank,
        "lora_alpha": alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rslora,
        # full paths: short names would also match the vision and audio towers of Gemma 4
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _disk_prefix(base: ModelDirectory) -> str:
    config = json.loads((base.path / "config.json").read_text())
    wrapped = "text_config" in config and config.get("model_type") in _WRAPPED
    return "model.language_model." if wrapped else "model."


def _to_disk(name: str, prefix: str) -> str:
    return prefix + name.removeprefix("model.")


def _from_disk(name: str) -> str:
    for prefix in ("model.language_model.", "language_model.model."):
        if name.startswith(prefix):
            return "model." + name.removeprefix(prefix)
    return name


def _read_config(path: Path) -> PeftConfig:
    file = path / CONFIG_FILE
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is not a LoRA adapter: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file}: {_one_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"cannot read {file}: expected a JSON object")
    for key, plain in _PLAIN_VALUES.items():
        if key in content and content[key] not in plain:
            raise UserError(
                f"adapter {path} uses {key}={json.dumps(content[key])}, which is not supported: "
                "merge it into its base model and use that instead"
            )
    start = content.get("init_lora_weights", True)
    if isinstance(start, str) and re.match("pissa|olora|corda|loftq", start):
        raise UserError(
            f"adapter {path} was started with {start}, which changes the base weights: convert it "
            "to plain LoRA (peft's path_initial_model_for_weight_conversion) first"
        )
    try:
        return PeftConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{file}: {where}: {first['msg']}") from None


def _read_weights(path: Path, peft: PeftConfig) -> dict[str, Float32]:
    from safetensors import SafetensorError, deserialize

    file = path / WEIGHTS_FILE
    try:
        tensors: dict[str, Any] = dict(deserialize(file.read_bytes()))  # type: ignore[no-untyped-call]
    except FileNotFoundError:
        raise UserError(f"adapter {path} has no {WEIGHTS_FILE}") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {file}: {_one_line(error)}") from None
    weights = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise UserError(
                f"{file} holds {key}: only LoRA on linear layers is supported (no embeddings, "
                "no saved modules)"
            )
        name = f"{_from_disk(match[1])}.{match[2]}"
        if name in weights:
            raise UserError(f"{file} holds {name} twice, under two spellings")
        weights[name] = _float32(tensor, f"{file}: {key}")
        if weights[name].ndim != 2 or weights[name].shape[match[2] == "lora_B"] != peft.r:
            raise UserError(f"{file}: {key} is {weights[name].shape}, expected rank {peft.r}")
    if not weights:
        raise UserError(f"{file} holds no weights")
    return weights


def _float32(tensor: Mapping[str, Any], where: str) -> Float32:
    """Widen a stored tensor; bfloat16, which numpy lacks, is the upper half of a float32."""
    dtype, data, shape = tensor["dtype"], tensor["data"], tensor["shape"]
    if dtype == "BF16":
        upper = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return upper.view(np.float32).reshape(shape)
    plain = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
    if dtype not in plain:
        raise UserError(f"{where} is stored as {dtype}: only floating point is supported")
    return np.frombuffer(data, plain[dtype]).astype(np.float32).reshape(shape)


def _read_sidecar(path: Path) -> Sidecar | None:
    file = path / SIDECAR_FILE
    if not file.exists():
        return None
    try:
        return Sidecar.model_validate_json(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file}: {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
