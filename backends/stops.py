"""Stops of a training: which rows are at fault, and the last adapter that was good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from backends.adapter_files import weights_sha256
from backends.interface import Float32, LanguageModel, LoraConfig
from backends.objectives import B, Objective, T
from models.errors import UserError
from models.files import canonical_json, write_directory_atomically

LAST_GOOD = "last_good"
"""Directory, in that of the training, with ``weights.safetensors`` and ``last_good.json``."""
ADVICE = "use a lower learning_rate or a smaller max_grad_norm, or dtype float32 instead of float16"
_SHOWN = 8


@dataclass(frozen=True)
class LastGood:
    """The newest LoRA weights under which a loss was finite."""

    step: int
    """After this many optimiser steps; 0: the start weights."""
    weights: Mapping[str, Float32]


class TrainingStopped(UserError):
    """A number stopped being one. The message is one line; ``last_good`` may be None."""

    def __init__(
        self,
        message: str,
        *,
        step: int,
        items: Sequence[str],
        last_good: LastGood | None,
        path: Path | None,
    ) -> None:
        super().__init__(message)
        self.step = step
        self.items = tuple(items)
        """Ids of the rows (or pairs) at fault; empty where no single one is."""
        self.last_good = last_good
        self.path = path
        """Where ``last_good`` was written."""


def items_at_fault(
    model: LanguageModel, objective: Objective[B, T], batch: B, ids: Sequence[str]
) -> tuple[str, ...]:
    """Ids of the items of ``batch`` whose loss is not finite alone, dropout off."""
    return tuple(
        item
        for item, single in zip(ids, objective.items(batch), strict=True)
        if not objective.measure([objective.evaluate(model, single)]).finite
    )


def describe(ids: Sequence[str], fault: Sequence[str], number: int) -> str:
    """Say which items are at fault, or that none is alone."""
    if fault:
        return f"items {_listed(fault)}"
    return f"items {_listed(ids)}: none alone, but all of micro-batch {number} together"


def listed_items(ids: Sequence[str]) -> str:
    """``items a, b, ...``, shortened."""
    return f"items {_listed(ids)}"


def save_last_good(directory: Path, good: LastGood, lora: LoraConfig, reason: str) -> Path:
    """Write ``directory``/last_good: the weights, the step they belong to, and why."""
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(w) for name, w in good.weights.items()})
    about = {
        "step": good.step,
        "lora": asdict(lora),
        "weights_sha256": weights_sha256(good.weights),
        "stopped": reason,
    }

    def fill(folder: Path) -> None:
        (folder / "weights.safetensors").write_bytes(content)
        (folder / "last_good.json").write_text(canonical_json(about) + "\n")

    path = directory / LAST_GOOD
    write_directory_atomically(path, fill)
    return path


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_SHOWN]) + (" ..." if len(ids) > _SHOWN else "")
