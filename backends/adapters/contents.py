"""What every adapter format holds once it is read, and the checks they share."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.interface import Float32, LoraConfig
from models.errors import UserError

CONFIG_FILE = "adapter_config.json"
"""PEFT and mlx-lm give their settings the same name."""
LARGEST_RANK = 1 << 16

_DECODER = re.compile(
    r"(?:model\.language_model\.|language_model\.model\.|model\.)(layers\.\d+\..+)"
)


@dataclass(frozen=True)
class Contents:
    """An adapter in this program's terms, whatever it was stored as."""

    config: LoraConfig
    weights: Mapping[str, Float32]
    """``<canonical module>.lora_A`` (rank, in) and ``.lora_B`` (out, rank)."""
    declared_base: str | None
    """The base model's name or path, as the file's own settings state it."""
    notes: tuple[str, ...] = ()
    """What was changed while reading, in words: nothing that changes what is computed."""


def canonical_name(name: str) -> str:
    """Module path in any wrapper -> the text model's, ``model.layers.3.self_attn.q_proj``.

    A path that is not in a decoder layer is returned as it is, and fits no model later on.
    """
    match = _DECODER.fullmatch(name)
    return name if match is None else f"model.{match[1]}"


def module_of(weight: str) -> str:
    """``<module>.lora_A`` -> ``<module>``."""
    return weight.rpartition(".")[0]


def targets_of(weights: Mapping[str, Float32]) -> str:
    """The closest of :class:`LoraConfig`'s two names for what is adapted."""
    return "all" if any(".mlp." in name for name in weights) else "attention"


def make_config(
    weights: Mapping[str, Float32], *, rank: int, alpha: float, dropout: float, rslora: bool
) -> LoraConfig:
    """A LoraConfig whose ``targets`` follow from the weights."""
    return LoraConfig(
        rank=rank,
        alpha=alpha,
        targets="all" if targets_of(weights) == "all" else "attention",
        dropout=dropout,
        rslora=rslora,
    )


def read_json(file: Path) -> dict[str, Any]:
    """Parse a JSON object. Raises UserError, one line, when it is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {file}: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"cannot read {file}: expected a JSON object")
    return content


def read_tensors(file: Path) -> dict[str, Mapping[str, Any]]:
    """Raw tensors of a safetensors file: name -> dtype, shape, data.

    Raises UserError when the file is missing, damaged or empty.
    """
    from safetensors import SafetensorError, deserialize

    try:
        tensors: dict[str, Any] = dict(deserialize(file.read_bytes()))  # type: ignore[no-untyped-call]
    except FileNotFoundError:
        pickled = next(iter(sorted(file.parent.glob("adapter*.bin"))), None)
        hint = f" ({pickled.name} is not read: save it again with peft)" if pickled else ""
        raise UserError(f"adapter {file.parent} has no {file.name}{hint}") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {file}: {one_line(error)}") from None
    if not tensors:
        raise UserError(f"{file} holds no weights")
    return tensors


def to_float32(tensor: Mapping[str, Any], where: str) -> Float32:
    """Widen a stored matrix; bfloat16, which numpy lacks, is the upper half of a float32.

    Raises UserError for another number of dimensions, or integers.
    """
    dtype, data, shape = tensor["dtype"], tensor["data"], tensor["shape"]
    if len(shape) != 2:
        raise UserError(
            f"{where} has {len(shape)} dimensions: only LoRA on linear layers is supported"
        )
    if dtype == "BF16":
        upper = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return upper.view(np.float32).reshape(shape)
    plain = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
    if dtype not in plain:
        raise UserError(f"{where} is stored as {dtype}: only floating point is supported")
    with np.errstate(over="ignore"):  # infinite then, and said by require_whole
        return np.frombuffer(data, plain[dtype]).astype(np.float32).reshape(shape)


def require_whole(path: Path, weights: Mapping[str, Float32]) -> list[str]:
    """Return the adapted modules; refuse half pairs and numbers that are not finite."""
    modules = sorted({module_of(name) for name in weights})
    alone = [m for m in modules if not {f"{m}.lora_A", f"{m}.lora_B"} <= weights.keys()]
    if alone:
        raise UserError(
            f"{path}: {listed(alone)} lack one of the two factors; train the adapter again"
        )
    broken = [name for name, values in weights.items() if not np.isfinite(values).all()]
    if broken:
        raise UserError(
            f"{path}: {listed(broken)} hold numbers that are not finite; train it again"
        )
    return modules


def check_rank(rank: Any, where: str) -> int:
    """A whole number from 1 to LARGEST_RANK, else UserError."""
    if type(rank) is not int or not 1 <= rank <= LARGEST_RANK:
        raise UserError(f"{where}: the rank is {rank!r:.40}: expected a whole number above 0")
    return rank


def check_number(value: Any, where: str) -> float:
    """A finite number, else UserError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where} is {value!r:.40}: expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UserError(f"{where} is {value!s:.40}: expected a finite number")
    return number


def listed(names: list[str]) -> str:
    """The first eight names, and how many more there are."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def one_line(error: BaseException) -> str:
    """An error's text without line breaks, at most 200 characters."""
    return " ".join(str(error).split())[:200]
