"""What ``threearc bench`` compares the MLX engine with: mlx-lm's own calls, nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from backends.interface import Float32, LanguageModel
from backends.mlx.library import load_model, open_file_limit_kept
from backends.mlx.model import MlxModel
from models.config_fixes import mlx_overrides
from models.directory import ModelDirectory

with open_file_limit_kept():
    from mlx_lm.generate import BatchGenerator as _BatchGenerator

BatchGenerator: Any = _BatchGenerator
"""What ``mlx_lm.batch_generate`` drives; used directly, since that one stops at stop ids."""


class PlainMlx:
    """The model as mlx-lm makes it, without the engine's faster operations for CPUs."""

    def __init__(self, network: Any) -> None:
        self._network = network
        wrapped = "language_model" in network
        self._backbone = (network.language_model if wrapped else network).model

    def generate(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[tuple[int, ...]]:
        """Exactly ``max_tokens`` greedy ids a prompt; batched with mlx-lm's own defaults."""
        generator = BatchGenerator(self._network, max_tokens=max_tokens)
        places = generator.insert([list(prompt) for prompt in prompts])
        found: dict[int, list[int]] = {place: [] for place in places}
        while responses := generator.next_generated():
            for response in responses:
                found[response.uid].append(int(response.token))
        generator.close()
        return [tuple(found[place]) for place in places]

    def states_by_row(self, sequences: Sequence[Sequence[int]]) -> Float32:
        """States [n, d] after the final norm at each last id, one sequence after the other.

        mlx-lm's models return logits only, so that the obvious loop calls the decoder: no head.
        """
        found = []
        for sequence in sequences:
            states = self._backbone(mx.array([list(sequence)]))
            found.append(np.array(states[0, -1].astype(mx.float32)))
        return np.stack(found)

    def last_states(self, sequences: Sequence[Sequence[int]]) -> Float32:
        """States [n, d] after the final norm at each sequence's last id; one batch."""
        lengths = [len(sequence) for sequence in sequences]
        ids = np.zeros((len(sequences), max(lengths)), dtype=np.int32)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = sequence
        # padding on the right needs no mask: causal layers never look there
        states = self._backbone(mx.array(ids))
        last = mx.array([length - 1 for length in lengths])
        return np.array(states[mx.arange(len(sequences)), last].astype(mx.float32))


def plain_of(engine: LanguageModel, directory: ModelDirectory) -> PlainMlx:
    """mlx-lm's model on the weights of an open engine, which keeps working beside it."""
    if not isinstance(engine, MlxModel):
        raise TypeError(f"not the mlx engine: {type(engine).__name__}")
    config = json.loads((directory.path / "config.json").read_text())
    # lazy: its own weights are never read, so that the model is in memory once
    network, _ = load_model(directory.path, lazy=True, model_config=mlx_overrides(config))
    network.update(engine._decoder.network.parameters())
    return PlainMlx(network.eval())
