"""Models with a LoRA, and batches, for tests of either engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from backends.batching import make_batch
from backends.interface import AdamWConfig, Batch, Float32, LanguageModel, LoraConfig
from backends.lora import initial_weights
from backends.training import TrainingExample

LORA = LoraConfig(4, 8.0, targets="all")
M = TypeVar("M", bound=LanguageModel)


def live_weights(model: LanguageModel, lora: LoraConfig = LORA) -> dict[str, Float32]:
    """Start weights, but with a B that is not zero, so that every gradient is alive."""
    weights = initial_weights(lora, model.linear_modules(), 0)
    rng = np.random.default_rng(0)
    for name in weights:
        if name.endswith("lora_B"):
            weights[name] = (0.05 * rng.normal(size=weights[name].shape)).astype(np.float32)
    return weights


def with_lora(model: M, lora: LoraConfig = LORA, **options: Any) -> M:
    """Attach :func:`live_weights` and a default AdamW to ``model``; returns it."""
    model.attach_lora(lora, live_weights(model, lora), **options)
    model.configure_optimizer(AdamWConfig())
    return model


def batch_of(rows: Sequence[TrainingExample], *, seed: int = 0) -> Batch:
    """One micro-batch that is a whole optimiser step."""
    tokens = sum(sum(row.response_mask) for row in rows)
    return make_batch(rows, normaliser=float(tokens), seed=seed)
