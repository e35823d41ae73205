"""PEFT's ``adapter_config.json`` and ``adapter_model.safetensors``, read and written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backends.adapters.contents import (
    CONFIG_FILE,
    LARGEST_RANK,
    Contents,
    canonical_name,
    make_config,
    module_of,
    read_json,
    read_tensors,
    to_float32,
)
from backends.interface import Float32, LoraConfig
from models.directory import ModelDirectory
from models.errors import UserError
from models.geometry import read_config

WEIGHTS_FILE = "adapter_model.safetensors"

_KEY = re.compile(r"base_model\.model\.(.+)\.(lora_[AB])\.weight")
_WRAPPED = ("gemma3", "gemma4")
"""Model types that AutoModelForCausalLM opens with the vision tower, so that the decoder lies
under ``model.language_model`` and not ``model``. Qwen3.5 is opened as text only."""


class PeftConfig(BaseModel):
    """The keys of ``adapter_config.json`` that decide what an adapter computes."""

    model_config = ConfigDict(extra="ignore")

    peft_type: Literal["LORA"]
    r: int = Field(ge=1, le=LARGEST_RANK)
    lora_alpha: float = Field(allow_inf_nan=False)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    use_rslora: bool = False
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    base_model_name_or_path: str | None = None


_PLAIN_VALUES: dict[str, tuple[Any, ...]] = {
    "use_dora": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "modules_to_save": ([], None),
    "fan_in_fan_out": (False, None),
    "layer_replication": (None,),
    "target_parameters": ([], None),
    "trainable_token_indices": ([], {}, None),
    "use_qalora": (False, None),
    "use_bdlora": (None, False),
    "alora_invocation_tokens": (None, []),
    "arrow_config": (None,),
    "kasa_config": (None,),
    "monteclora_config": (None,),
    "velora_config": (None,),
}
"""PEFT options that change the arithmetic, with the values under which they do nothing."""


def read_peft(path: Path) -> Contents:
    """Read a PEFT LoRA directory.

    ``rank_pattern`` is undone by padding with zeros to the largest rank, which is exact;
    ``alpha_pattern`` by multiplying B by the ratio of the two scales, exact where that is a
    power of two and rounded to float32 elsewhere. Raises UserError when a file is damaged or
    uses a feature that the engines here do not compute.
    """
    peft = _settings(path)
    file = path / WEIGHTS_FILE
    found: dict[str, tuple[str, Float32]] = {}
    for key, tensor in read_tensors(file).items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise UserError(
                f"{file} holds {key}: only LoRA on linear layers is supported (no embeddings, "
                "no saved modules)"
            )
        name = f"{canonical_name(match[1])}.{match[2]}"
        if name in found:
            raise UserError(f"{file} holds {name} twice, under two spellings")
        array = to_float32(tensor, f"{file}: {key}")
        rank = _matching(peft.rank_pattern, match[1], peft.r)
        if array.shape[match[2] == "lora_B"] != rank:
            raise UserError(f"{file}: {key} is {array.shape}, expected rank {rank}")
        found[name] = (match[1], array)
    return _unfolded(peft, found)


def _unfolded(peft: PeftConfig, found: Mapping[str, tuple[str, Float32]]) -> Contents:
    """One rank and one alpha for all modules."""
    modules = {raw for raw, _ in found.values()}
    ranks = {raw: int(_matching(peft.rank_pattern, raw, peft.r)) for raw in modules}
    alphas = {raw: float(_matching(peft.alpha_pattern, raw, peft.lora_alpha)) for raw in modules}
    base = peft.base_model_name_or_path
    rank = max(ranks.values())
    if len(set(ranks.values())) == len(set(alphas.values())) == 1:
        weights = {name: array for name, (_, array) in found.items()}
        return Contents(_config(peft, weights, rank, min(alphas.values())), weights, base)
    scales = {raw: LoraConfig(ranks[raw], alphas[raw], rslora=peft.use_rslora).scale
              for raw in modules}  # fmt: skip
    common = _most_frequent(scales)
    weights = {}
    for name, (raw, array) in found.items():
        is_b = name.endswith("lora_B")
        padded = _padded(array, rank, along=1 if is_b else 0)
        factor = scales[raw] / common if is_b else 1.0
        weights[name] = padded if factor == 1.0 else padded * np.float32(factor)
    notes = []
    if len(set(ranks.values())) > 1:
        notes.append(f"ranks {_span(ranks)} padded with zeros to {rank}: exact")
    folded = [raw for raw in modules if scales[raw] != common]
    if folded:
        notes.append(
            f"the scales of {len(folded)} of {len(modules)} modules (scales {_span(scales)}) "
            f"folded into lora_B, so that one scale, {common:g}, holds for all"
        )
    alpha = common * (float(np.sqrt(rank)) if peft.use_rslora else rank)
    return Contents(_config(peft, weights, rank, alpha), weights, base, tuple(notes))


def _most_frequent(scales: Mapping[str, float]) -> float:
    """The scale that most modules have, so that the fewest factors change; never 0."""
    values = sorted(scale for scale in scales.values() if scale)
    return max(values, key=values.count, default=1.0)


def _config(
    peft: PeftConfig, weights: Mapping[str, Float32], rank: int, alpha: float
) -> LoraConfig:
    return make_config(
        weights, rank=rank, alpha=alpha, dropout=peft.lora_dropout, rslora=peft.use_rslora
    )


def _padded(array: Float32, rank: int, *, along: int) -> Float32:
    missing = rank - array.shape[along]
    if not missing:
        return array
    return np.pad(array, [(0, missing if axis == along else 0) for axis in (0, 1)])


def _span(values: Mapping[str, float]) -> str:
    distinct = sorted(set(values.values()))
    joined = " and " if len(distinct) < 3 else " to "
    return joined.join(f"{value:g}" for value in (distinct[0], distinct[-1]))


def _matching(pattern: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """PEFT's rule: the first key that, as a regular expression, matches the name's end."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def _settings(path: Path) -> PeftConfig:
    file = path / CONFIG_FILE
    content = read_json(file)
    for key, plain in _PLAIN_VALUES.items():
        if key in content and content[key] not in plain:
            raise UserError(
                f"adapter {path} uses {key}={json.dumps(content[key])[:80]}, which is not "
                "supported: merge it into its base model with peft and use that instead"
            )
    start = content.get("init_lora_weights", True)
    if isinstance(start, str) and re.match("pissa|olora|corda|loftq|lora_ga", start):
        raise UserError(
            f"adapter {path} was started with {start}, which changes the base weights: convert it "
            "to plain LoRA (peft's path_initial_model_for_weight_conversion) first"
        )
    try:
        peft = PeftConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{file}: {where}: {first['msg']}") from None
    _check_patterns(peft, file)
    return peft


def _check_patterns(peft: PeftConfig, file: Path) -> None:
    for name in ("rank_pattern", "alpha_pattern"):
        for key, value in (getattr(peft, name) or {}).items():
            fits = 1 <= value <= LARGEST_RANK if name == "rank_pattern" else np.isfinite(value)
            if not fits:
                raise UserError(f"{file}: {name}: {key} is {value}, which cannot be")
            try:
                re.compile(key)
            except (re.error, RecursionError, OverflowError):
                raise UserError(
                    f"{file}: {name}: {key!r} is no regular expression; correct it"
                ) from None


# -- writing ------------------------------------------------------------------------------


def write_peft(
    folder: Path,
    config: LoraConfig,
    weights: Mapping[str, Float32],
    base: ModelDirectory,
) -> None:
    """Write PEFT's two files into ``folder``, loadable in plain ``peft``."""
    from safetensors.numpy import save_file

    prefix = _disk_prefix(base)
    modules = sorted({module_of(name) for name in weights})
    tensors = {
        f"base_model.model.{_to_disk(name, prefix)}.weight": np.ascontiguousarray(
            array, dtype=np.float32
        )
        for name, array in weights.items()
    }
    peft = _peft_json(config, [_to_disk(name, prefix) for name in modules], base)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / CONFIG_FILE).write_text(json.dumps(peft, indent=2, sort_keys=True) + "\n")


def _peft_json(config: LoraConfig, modules: Sequence[str], base: ModelDirectory) -> dict[str, Any]:
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
        "target_modules": list(modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _disk_prefix(base: ModelDirectory) -> str:
    config = read_config(base.path)
    wrapped = "text_config" in config and config.get("model_type") in _WRAPPED
    return "model.language_model." if wrapped else "model."


def _to_disk(name: str, prefix: str) -> str:
    return prefix + name.removeprefix("model.")
