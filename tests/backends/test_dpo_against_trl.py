"""The DPO loss and its gradients on both engines against trl's, to 1e-4."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("mlx.core")
pytest.importorskip("trl")

from backends import open_backend
from backends.interface import AdamWConfig, Float32, LoraConfig
from backends.preference_loss import preference_terms
from backends.preferences import PreferencePair, pair_rows
from models.directory import ModelDirectory
from tests.support.lora_models import LORA, live_weights
from tests.support.preference_pairs import (
    gradient_difference,
    lora_gradients,
    moved,
    pair,
    pairs,
    preference_batch,
    references,
)
from tests.support.tiny_models import ARCHITECTURES
from tests.support.trl_dpo import trl_loss_and_gradients

Tiny = Callable[..., ModelDirectory]
Weights = dict[str, Float32]
TOLERANCE = 1e-4
"""Of the loss, absolute (near ln 2), and of the gradient, relative to the largest tensor's norm:
float32 sums in another order; measured at most 4e-6 and 2e-5 (Gemma 4
on mlx, whose softcap's tanh is less exact: 8e-5)."""


def adapters(directory: ModelDirectory, lora: LoraConfig, amount: float) -> tuple[Weights, Weights]:
    """A policy and another adapter to be its reference, both alive."""
    with open_backend("torch", directory) as model:
        first = live_weights(model, lora)
    return moved(first, amount), first


def ours(
    engine: str,
    directory: ModelDirectory,
    lora: LoraConfig,
    policy: Weights,
    reference: Weights | None,
    given: Sequence[PreferencePair],
    *,
    beta: float = 0.1,
) -> tuple[float, Weights]:
    with open_backend(engine, directory) as model:
        if reference is not None:
            model.attach_lora(lora, reference)
        values = references(model, given)
    with open_backend(engine, directory) as model:
        model.attach_lora(lora, policy)
        model.configure_optimizer(AdamWConfig())
        batch = preference_batch(given, values, beta=beta)
        terms = preference_terms(batch, model.accumulate_preferences(batch))
        return terms.loss_sum / len(given), lora_gradients(model)


@pytest.mark.parametrize("with_adapter", [False, True], ids=["base", "adapter"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_loss_and_gradients_equal_trls(
    tiny_directory: Tiny, tmp_path: Path, arch: str, with_adapter: bool
) -> None:
    """B30 as well: with the SFT adapter as reference, the base is not it."""
    directory, given = tiny_directory(arch), pairs(5)
    policy, other = adapters(directory, LORA, 0.01)
    reference = other if with_adapter else None
    rows = pair_rows(given, normaliser=1.0)
    loss, gradients = trl_loss_and_gradients(
        directory, LORA, policy, reference, rows, 0.1, tmp_path
    )
    assert abs(loss - np.log(2)) > 1e-2  # the policy is not the reference, so both matter
    for engine in ("torch", "mlx"):
        found, slopes = ours(engine, directory, LORA, policy, reference, given)
        assert found == pytest.approx(loss, abs=TOLERANCE)
        assert gradient_difference(slopes, gradients) < TOLERANCE
    wrong = None if with_adapter else other
    found, slopes = ours("torch", directory, LORA, policy, wrong, given)
    assert abs(found - loss) > 10 * TOLERANCE  # the negative twin: the other reference


@pytest.mark.slow
@pytest.mark.parametrize("with_adapter", [False, True], ids=["base", "adapter"])
def test_loss_and_gradients_of_the_real_model_equal_trls(
    smollm_directory: ModelDirectory, tmp_path: Path, with_adapter: bool
) -> None:
    lora = LoraConfig(8, 16.0)
    given = [pair(8, 20, 16), pair(5, 12, 18)]
    policy, other = adapters(smollm_directory, lora, 2e-3)
    reference = other if with_adapter else None
    rows = pair_rows(given, normaliser=1.0)
    loss, gradients = trl_loss_and_gradients(
        smollm_directory, lora, policy, reference, rows, 0.1, tmp_path
    )
    assert abs(loss - np.log(2)) > 1e-2
    for engine in ("torch", "mlx"):
        found, slopes = ours(engine, smollm_directory, lora, policy, reference, given)
        assert found == pytest.approx(loss, abs=TOLERANCE)
        assert gradient_difference(slopes, gradients) < TOLERANCE
