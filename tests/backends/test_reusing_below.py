"""What lies below a scaled layer is computed once, and no number changes by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from backends import open_backend
from backends.interface import Head, HiddenPoint, LanguageModel
from models.directory import ModelDirectory
from tests.support.tiny_models import ARCHITECTURES

Tiny = Callable[..., ModelDirectory]
GENERATOR = np.random.default_rng(6)
SHARED = tuple(int(i) for i in GENERATOR.integers(3, 200, 20))
TEXTS = [
    SHARED[:shared] + tuple(int(i) for i in GENERATOR.integers(3, 200, n))
    for shared, n in ((20, 9), (20, 30), (20, 4))
]
STARTS = [len(text) - 3 for text in TEXTS]
APART = [text[10 + place :] for place, text in enumerate(TEXTS)]
"""Nothing in common."""


@pytest.fixture(params=[(e, a) for e in ("torch", "mlx") for a in ARCHITECTURES], ids="-".join)
def model(tiny_directory: Tiny, request: pytest.FixtureRequest) -> Iterator[LanguageModel]:
    engine, arch = request.param
    pytest.importorskip({"torch": "torch", "mlx": "mlx.core"}[engine])
    with open_backend(engine, tiny_directory(arch), dtype="float32") as m:
        yield m


def ablated(model: LanguageModel, heads: list[Head]) -> list[np.ndarray]:
    """Log-probabilities with each head at 0, of texts with and without a common beginning."""
    made = []
    for head in heads:
        with model.tempered({head: 0.0}):
            made.append(np.concatenate(model.logprobs(TEXTS, STARTS)))
            starts = [len(text) - 3 for text in APART]
            made.append(np.concatenate(model.logprobs(APART, starts)))
    return made


def test_no_bit_of_a_log_probability_changes(model: LanguageModel) -> None:
    layers = sorted(model.attention_heads())
    heads = [Head(layer, head) for layer in layers for head in (0, 1)]
    heads += [heads[0], Head(layers[-1], 0), Head(layers[-1], 1)]  # back, and forth again
    plain, base = ablated(model, heads), model.logprobs(TEXTS, STARTS)
    points = [HiddenPoint(layer, False) for layer in range(layers[-1] + 2)]
    states = model.hidden_states(TEXTS, STARTS, points)
    with model.reusing_below():
        reused = ablated(model, heads)
        with model.tempered({heads[-1]: 0.0}):
            below = model.hidden_states(TEXTS, STARTS, points[: layers[-1] + 1])
        unscaled = model.logprobs(TEXTS, STARTS)
        with model.reusing_below():
            assert all(map(np.array_equal, ablated(model, heads[-1:]), plain[-2:]))
    assert all(map(np.array_equal, reused, plain))
    assert np.array_equal(below, states[:, : layers[-1] + 1])  # every layer is there to be seen
    assert all(map(np.array_equal, unscaled, base))
    assert not np.array_equal(plain[0], plain[-2])
    assert all(map(np.array_equal, ablated(model, heads[-1:]), plain[-2:]))  # and afterwards


@pytest.mark.parametrize("engine", ["torch", "mlx"])
def test_layers_below_are_run_once(tiny_directory: Tiny, engine: str) -> None:
    pytest.importorskip({"torch": "torch", "mlx": "mlx.core"}[engine])
    runs = [0, 0]

    def count(at: int) -> Callable[..., Any]:
        def counting(*_: Any) -> None:
            runs[at] += 1

        return counting

    with open_backend(engine, tiny_directory("llama"), dtype="float32") as model:
        any_model: Any = model
        if engine == "torch":
            for at, layer in enumerate((0, 2)):
                mlp = any_model.backbone.layers[layer].mlp
                mlp.register_forward_hook(count(at))
        else:
            from backends.mlx.decoder import Tap, attach_tap

            for at, layer in enumerate((0, 2)):
                attach_tap(any_model._decoder.layers[layer].mlp, Tap(after=count(at)))
        starts = [len(text) - 3 for text in APART]
        with model.reusing_below():
            for head in range(4):
                with model.tempered({Head(2, head): 0.0}):
                    model.logprobs(APART, starts)
    assert runs[1] == 4 * runs[0] > 0
