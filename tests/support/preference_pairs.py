"""Small random preference pairs, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from backends.interface import Float32, LanguageModel, PreferenceBatch
from backends.preferences import PreferencePair, make_preferences, pair_rows
from tests.support.training_data import example

SHAPES = ((6, 20, 14), (3, 13, 22), (9, 26, 12), (5, 70, 40), (4, 9, 33), (8, 40, 41))
"""(prompt ids, ids of the chosen side, ids of the rejected side)."""


def pair(prompt: int, chosen: int, rejected: int, *, seed: int = 0) -> PreferencePair:
    """One pair of random responses to one random prompt."""
    good, bad = example(prompt, chosen, seed=seed), example(prompt, rejected, seed=seed + 7919)
    name = f"pair-{seed}-{prompt}-{chosen}-{rejected}"
    return PreferencePair(
        name,
        replace(good, item_id=name),
        replace(bad, item_id=name, ids=good.ids[:prompt] + bad.ids[prompt:]),
    )


def pairs(count: int = len(SHAPES), *, seed: int = 0) -> list[PreferencePair]:
    """``count`` pairs of mixed lengths."""
    return [
        pair(*SHAPES[i % len(SHAPES)], seed=seed + 100 * (i // len(SHAPES))) for i in range(count)
    ]


def references(
    model: LanguageModel, given: Sequence[PreferencePair]
) -> dict[str, tuple[float, float]]:
    """Log-probabilities under ``model`` as it stands."""
    found = model.sequence_logprobs(pair_rows(given, normaliser=1.0))
    half = len(given)
    return {p.item_id: (float(found[i]), float(found[half + i])) for i, p in enumerate(given)}


def preference_batch(
    given: Sequence[PreferencePair],
    reference: dict[str, tuple[float, float]],
    *,
    beta: float = 0.1,
    seed: int = 0,
) -> PreferenceBatch:
    """One micro-batch that is a whole optimiser step."""
    return make_preferences(given, reference, beta, normaliser=float(len(given)), seed=seed)


def moved(weights: Mapping[str, Float32], amount: float, seed: int = 1) -> dict[str, Float32]:
    """``weights`` with noise on every factor: another policy of the same shape."""
    rng = np.random.default_rng(seed)
    return {
        name: (w + amount * rng.normal(size=w.shape)).astype(np.float32)
        for name, w in sorted(weights.items())
    }


def lora_gradients(model: LanguageModel) -> dict[str, Float32]:
    """Take the accumulated LoRA gradients by canonical name, in PEFT's layout."""
    trainer = model._training()  # type: ignore[attr-defined]
    if model.capabilities.engine == "torch":
        found = {name: p.grad.cpu().numpy().copy() for name, p in trainer._parameters.items()}
        for parameter in trainer._parameters.values():
            parameter.grad = None
        return found
    from backends.mlx.lora import to_numpy

    found, trainer._gradient = trainer._gradient, None
    return {name: to_numpy(value) for name, value in found.items()}


def gradient_difference(found: Mapping[str, Float32], expected: Mapping[str, Float32]) -> float:
    """Largest norm of a tensor's difference over the largest norm of a tensor."""
    assert found.keys() == expected.keys()
    largest = max(np.linalg.norm(value) for value in expected.values())
    return float(max(np.linalg.norm(found[n] - expected[n]) for n in expected) / largest)
