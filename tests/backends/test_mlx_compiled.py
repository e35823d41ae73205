"""What is compiled on GPUs computes what it does uncompiled; forced on here, where there is none.

ANCHORS B15: a compiled training step that had captured the LoRA weights trained nothing.
"""

# ruff: noqa: E402 (without mlx the module is skipped before it imports any of it)
from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

from backends.batching import make_batch
from backends.interface import GREEDY, AdamWConfig, Prompt, Sampling
from backends.mlx import compiled
from backends.mlx.model import MlxModel, open_model
from models.directory import ModelDirectory
from tests.support.lora_models import with_lora
from tests.support.tiny_models import ARCHITECTURES
from tests.support.training_data import examples

Tiny = Callable[..., ModelDirectory]
pytestmark = pytest.mark.skipif(
    compiled.on_cpu() and shutil.which("g++") is None, reason="MLX compiles for the CPU with g++"
)

ROUNDING = 2e-6
"""Of float32, relative: fused operations keep intermediate results in registers."""


def train_steps(
    model: MlxModel, steps: int, *, compile_it: bool
) -> tuple[list[float], dict[str, np.ndarray]]:
    losses = []
    rows = examples(6)
    with compiled.compiling(compile_it):
        model.configure_optimizer(AdamWConfig())
        for step in range(steps):
            terms = model.accumulate(make_batch(rows[step % 2 : 4 + step], normaliser=100.0))
            losses.append(terms.nll_sum / terms.tokens)
            model.apply(1e-2 * (1 + step), 1.0)
    return losses, model.training_state()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_three_compiled_steps_equal_plain_ones(tiny_directory: Tiny, arch: str) -> None:
    """Rows, rates and weights change from step to step: none may be baked in."""
    found = {}
    for compile_it in (False, True):
        with open_model(tiny_directory(arch)) as model:
            with_lora(model)
            found[compile_it] = train_steps(model, 3, compile_it=compile_it)
    (plain, state), (fused, others) = found[False], found[True]
    np.testing.assert_allclose(fused, plain, rtol=ROUNDING)
    assert len(set(fused)) == 3
    assert int(others["step"][0]) == 3
    assert state.keys() == others.keys()
    for name, value in state.items():
        scale = float(np.abs(value).max())
        # Adam's first steps divide by |gradient|: rounding of a gradient near 0 is magnified
        np.testing.assert_allclose(others[name], value, rtol=0, atol=1e-4 * max(scale, 1e-12))


def test_every_weight_moves_with_every_compiled_step(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("llama")) as model, compiled.compiling(True):
        with_lora(model)
        model.configure_optimizer(AdamWConfig())
        before = model.lora_weights()
        for _ in range(2):
            model.accumulate(make_batch(examples(4), normaliser=50.0))
            model.apply(1e-2, None)
            after = model.lora_weights()
            assert all((after[name] != before[name]).any() for name in after)
            before = after


def test_a_resumed_optimiser_is_compiled_anew(tiny_directory: Tiny) -> None:
    """The compiled step belongs to one optimiser object; a restored state is another."""
    with open_model(tiny_directory("llama")) as model, compiled.compiling(True):
        with_lora(model)
        model.configure_optimizer(AdamWConfig())

        def step() -> dict[str, np.ndarray]:
            model.accumulate(make_batch(examples(4), normaliser=50.0))
            model.apply(1e-2, 1.0)
            return model.training_state()

        first = step()
        second = step()
        model.load_training_state(first)
        again = step()
        assert int(again["step"][0]) == 2
        for name, value in second.items():
            np.testing.assert_array_equal(again[name], value)


SAMPLINGS = [
    GREEDY,
    Sampling(temperature=0.8, seed=3),
    Sampling(temperature=0.9, top_p=0.8, seed=4),
    Sampling(temperature=0.7, repetition_penalty=1.2, seed=5),
]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "free", "top-p", "penalty"])
def test_compiled_choices_are_the_plain_ones(tiny_directory: Tiny, sampling: Sampling) -> None:
    prompts = [Prompt(f"p{i}", tuple(range(3 + i, 20 + 3 * i))) for i in range(4)]
    with open_model(tiny_directory("llama")) as model:
        plain = model.generate(prompts, max_tokens=12, stop_ids=(), sampling=sampling)
        with compiled.compiling(True):
            fused = model.generate(prompts, max_tokens=12, stop_ids=(), sampling=sampling)
    assert [(c.ids, c.near_ties) for c in fused] == [(c.ids, c.near_ties) for c in plain]


def test_a_cpu_runs_the_plain_operations_and_a_gpu_the_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which of the two is called, by a function that only notices being traced."""
    traced = []

    def double(x: mx.array) -> mx.array:
        traced.append(type(x))
        return x * 2

    wrapped = compiled.compiled_on_gpu(double)
    for on_cpu, calls in ((True, 3), (False, 1)):
        monkeypatch.setattr(compiled, "on_cpu", lambda on_cpu=on_cpu: on_cpu)
        traced.clear()
        for value in (1.0, 2.0, 3.0):
            assert wrapped(mx.array([value])).item() == 2 * value
        assert len(traced) == calls
