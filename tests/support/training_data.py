"""Small random training examples for tests of the training loop and the engines."""

from __future__ import annotations

import numpy as np

from backends.training import TrainingExample

LENGTHS = ((6, 20), (3, 13), (9, 26), (5, 70), (4, 30), (8, 40), (3, 9))
"""(prompt ids, all ids): longer than the tiny models' sliding window and the GDN chunk."""


def example(prompt: int, total: int, *, seed: int = 0, vocab: int = 512) -> TrainingExample:
    """One conversation of ``total`` random ids whose first ``prompt`` ids are not trained on."""
    rng = np.random.default_rng([seed, prompt, total])
    ids = tuple(int(token) for token in rng.integers(3, vocab, total))
    mask = tuple(place >= prompt for place in range(total))
    return TrainingExample(f"item-{seed}-{prompt}-{total}", ids, mask)


def examples(
    count: int = len(LENGTHS), *, seed: int = 0, vocab: int = 512
) -> list[TrainingExample]:
    """``count`` conversations of mixed lengths."""
    shapes = [LENGTHS[i % len(LENGTHS)] for i in range(count)]
    return [
        example(prompt, total, seed=seed + 100 * (i // len(LENGTHS)), vocab=vocab)
        for i, (prompt, total) in enumerate(shapes)
    ]
