"""What a plain training for ``threearc bench train`` is given and returns, on either engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from backends.batching import TrainingExample
from backends.interface import AdamWConfig, Float32, LoraConfig


@dataclass(frozen=True)
class Recipe:
    """One pass of LoRA training over the same rows, from the same start."""

    rows: tuple[TrainingExample, ...]
    """In the order in which they are trained on."""
    lora: LoraConfig
    weights: Mapping[str, Float32]
    """Start values, as :meth:`LanguageModel.attach_lora` takes them."""
    adamw: AdamWConfig
    learning_rate: float
    """Constant."""
    max_grad_norm: float
    micro_batch_size: int
    accumulation: int


@dataclass(frozen=True)
class Pass:
    """What one pass computed."""

    losses: tuple[float, ...]
    """Mean NLL (nats) of each report: an optimiser step, with mlx-lm a micro-batch."""
    positions: int
    """Ids run forward and backward, padding included."""
    tokens: int
    """Ids among them that are no padding."""
    responses: int
    """Ids that were trained on."""


class PlainTraining(Protocol):
    """The library's own training, from ``backends.<engine>.plain_train``."""

    def reset(self) -> None:
        """Start weights and a fresh optimiser."""

    def run(self) -> Pass:
        """One pass over the rows."""
