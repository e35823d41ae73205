"""The settings of a training, and the learning rate of each of its steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from backends.interface import AdamWConfig, LoraConfig
from models.errors import UserError


@dataclass(frozen=True)
class TrainConfig:
    """Every setting that changes a number of a training."""

    lora: LoraConfig
    epochs: int = 1
    learning_rate: float = 2e-4
    """Peak, reached at the end of the warm-up."""
    schedule: Literal["cosine"] = "cosine"
    warmup_ratio: float = 0.1
    """Share of all optimiser steps."""
    max_grad_norm: float | None = 1.0
    """Global L2 norm that gradients are clipped to; None: no clipping."""
    micro_batch_size: int = 4
    accumulation: int = 1
    """Micro-batches an optimiser step."""
    max_length: int = 1024
    """Ids of an example that are kept."""
    seed: int = 0
    weight_decay: float = 0.01
    """Decoupled, on the LoRA weights."""
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    gradient_checkpointing: bool = False
    checkpoint_every: int = 50
    """Optimiser steps; one more is written at the end."""
    eval_every: int | None = None
    """Optimiser steps between validation losses; None: only at step 0 and at the end."""

    def __post_init__(self) -> None:
        """Raise UserError for a value no training can have."""
        for name in ("epochs", "micro_batch_size", "accumulation", "checkpoint_every"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.max_length >= 2, "max_length", self.max_length, "at least 2")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _require(0 <= self.warmup_ratio <= 1, "warmup_ratio", self.warmup_ratio, "in [0, 1]")
        clip = self.max_grad_norm
        _require(clip is None or clip > 0, "max_grad_norm", clip, "above 0, or None")
        _require(self.eval_every is None or self.eval_every >= 1, "eval_every", self.eval_every,
                 "at least 1, or None")  # fmt: skip
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        _require(self.schedule == "cosine", "schedule", self.schedule, "cosine")
        _require(self.lora.rank >= 1, "lora.rank", self.lora.rank, "at least 1")
        _require(0 <= self.lora.dropout < 1, "lora.dropout", self.lora.dropout, "in [0, 1)")

    @property
    def adamw(self) -> AdamWConfig:
        """The optimiser's settings."""
        return AdamWConfig(self.beta1, self.beta2, self.eps, self.weight_decay)


@dataclass(frozen=True)
class DpoConfig:
    """A training on preference pairs: the settings of any training, and DPO's own."""

    train: TrainConfig
    """``micro_batch_size`` counts pairs, each of which is two rows."""
    beta: float = 0.1
    """Weight of the difference to the reference (arXiv 2305.18290)."""

    def __post_init__(self) -> None:
        """Raise UserError for a beta no training can have."""
        _require(0 < self.beta < math.inf, "beta", self.beta, "above 0")


def learning_rate_at(step: int, total: int, config: TrainConfig) -> float:
    """Learning rate of optimiser step ``step`` (1..total): linear warm-up, then cosine.

    The peak is reached at the last warm-up step (at step 1 without a warm-up), and the cosine
    would reach 0 one step after the last, so that no step is wasted on a rate of 0.
    """
    if not 1 <= step <= total:
        raise ValueError(f"step {step} lies outside 1..{total}")
    warmup = max(1, math.ceil(config.warmup_ratio * total))
    if step <= warmup:
        return config.learning_rate * (step / warmup)
    progress = (step - warmup) / (total - warmup + 1)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise UserError(f"{name} is {value}: it must be {allowed}")
