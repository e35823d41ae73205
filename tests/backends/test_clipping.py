"""B17: one clipping option, which does what it says, is recorded, and is the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("mlx.core")

from backends import open_backend
from backends.batching import TrainingExample
from backends.interface import AdamWConfig, LoraConfig
from backends.training import DpoConfig, TrainConfig, TrainResult, train
from models.chat import ChatEncoder
from models.directory import ModelDirectory

Tiny = Callable[..., ModelDirectory]
TEXT = "<<HELLO!!>> My name is Unsloth!"
CONFIG = TrainConfig(
    lora=LoraConfig(8, 16.0), epochs=7, learning_rate=1e-3, micro_batch_size=1, warmup_ratio=0.0
)


def run(engine: str, directory: ModelDirectory, out: Path, clip: float | None) -> TrainResult:
    ids = ChatEncoder(directory).encode_raw(TEXT).ids
    row = TrainingExample("hello", ids, (False, *(True for _ in ids[1:])))
    config = replace(CONFIG, max_grad_norm=clip)
    with open_backend(engine, directory) as model:
        return train(model, [row], [], config, directory=out)


def losses(result: TrainResult) -> np.ndarray:
    return np.array([step.loss for step in result.steps])


def test_seven_steps_clip_alike_on_both_engines_and_say_so(
    tiny_directory: Tiny, tmp_path: Path
) -> None:
    directory = tiny_directory("llama")
    clip = 0.5
    found = {e: run(e, directory, tmp_path / e, clip) for e in ("torch", "mlx")}
    for result in found.values():
        assert len(result.steps) == 7
        assert result.summary["identity"]["config"]["max_grad_norm"] == clip
        # the norms logged are those before clipping, so a person sees that it was at work
        assert min(step.grad_norm for step in result.steps) > clip
    torch_losses, mlx_losses = (losses(found[engine]) for engine in ("torch", "mlx"))
    assert torch_losses[-1] < torch_losses[0] - 0.05
    # seven AdamW steps in float32, as in the other curves
    assert np.abs(torch_losses - mlx_losses).max() < 1e-4
    for engine in ("torch", "mlx"):
        free = losses(run(engine, directory, tmp_path / f"{engine}-free", None))
        assert free[0] == losses(found[engine])[0]
        assert np.abs(free - losses(found[engine])).max() > 5e-4


def test_no_other_setting_clips() -> None:
    names = [
        field.name for config in (TrainConfig, AdamWConfig, DpoConfig) for field in fields(config)
    ]
    assert [name for name in names if "clip" in name or "grad_" in name] == ["max_grad_norm"]
    with pytest.raises(TypeError, match="max_grad_value"):
        TrainConfig(lora=LoraConfig(8, 16.0), max_grad_value=1.0)  # type: ignore[call-arg]
