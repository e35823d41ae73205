"""Exact resume of a training on mlx (B11)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("mlx.core")

from backends.interface import LoraConfig
from backends.mlx.model import MlxModel, open_model
from backends.training import StepRecord, TrainConfig, TrainResult, train
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.lora_models import LORA, batch_of, with_lora
from tests.support.training_data import examples

Tiny = Callable[..., ModelDirectory]
Arrays = dict[str, NDArray[np.float32]]

CONFIG = TrainConfig(
    lora=LoraConfig(4, 8.0, dropout=0.1),  # dropout on: its masks must resume as well
    learning_rate=5e-3,
    micro_batch_size=2,
    accumulation=2,
    checkpoint_every=2,
)


class Killed(Exception):
    """Stands for SIGKILL."""


def run(directory: ModelDirectory, out: Path, on_step: Any = None) -> TrainResult:
    with open_model(directory) as model:
        return train(model, examples(16), [], CONFIG, directory=out, on_step=on_step)


def test_a_resumed_training_ends_bit_for_bit_the_same(tiny_directory: Tiny, tmp_path: Path) -> None:
    """B11: 4 steps at once against 3, a kill, and the rest from the checkpoint after step 2."""
    tiny = tiny_directory("llama")

    def killer(record: StepRecord) -> None:
        if record.step == 3:
            raise Killed

    whole = run(tiny, tmp_path / "whole")
    with pytest.raises(Killed):
        run(tiny, tmp_path / "cut", killer)
    cut = run(tiny, tmp_path / "cut")
    assert [step.step for step in whole.steps] == [1, 2, 3, 4]
    assert cut.steps == whole.steps
    assert cut.summary == whole.summary
    for name, value in whole.weights.items():
        np.testing.assert_array_equal(cut.weights[name], value)


@pytest.fixture
def stepped(tiny_directory: Tiny) -> Iterator[MlxModel]:
    with with_lora(open_model(tiny_directory("llama"))) as model:
        model.accumulate(batch_of(examples(2)))
        model.apply(1e-2, 1.0)
        yield model


def test_a_state_without_the_moments_does_not_resume_exactly(
    stepped: MlxModel, tiny_directory: Tiny
) -> None:
    """The negative twin of the resume test, and the round trip itself."""
    state = stepped.training_state()

    def next_weights(state: Any) -> Arrays:
        with with_lora(open_model(tiny_directory("llama"))) as model:
            model.load_training_state(state)
            model.accumulate(batch_of(examples(2)))
            model.apply(1e-2, 1.0)
            return model.lora_weights()

    stepped.accumulate(batch_of(examples(2)))
    stepped.apply(1e-2, 1.0)
    expected = stepped.lora_weights()
    right = next_weights(state)
    forgetful = {k: np.zeros_like(v) if k.startswith("exp_avg.") else v for k, v in state.items()}
    wrong = next_weights(forgetful)
    assert all((right[name] == value).all() for name, value in expected.items())
    assert any((wrong[name] != value).any() for name, value in expected.items())


def test_a_state_of_another_lora_is_refused(stepped: MlxModel, tiny_directory: Tiny) -> None:
    with (
        with_lora(open_model(tiny_directory("llama")), replace(LORA, rank=2)) as other,
        pytest.raises(UserError, match="does not fit this LoRA"),
    ):
        other.load_training_state(stepped.training_state())
