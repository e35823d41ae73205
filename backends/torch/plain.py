"""What ``threearc bench`` compares the torch engine with: transformers' own calls, nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from backends.interface import Float32, LanguageModel
from backends.torch.attention import plain_attention
from backends.torch.model import TorchModel
from models.directory import ModelDirectory


class PlainTorch:
    """The same module that the engine holds, driven by ``model.generate`` and its forward."""

    def __init__(self, engine: TorchModel) -> None:
        self._model, self._device = engine.model, engine.device
        self._config = engine.config
        # of its own: the model's config would stop at its stop ids
        self._model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)

    def generate(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[tuple[int, ...]]:
        """Exactly ``max_tokens`` greedy ids a prompt; one batch, padded on the left."""
        width = max(map(len, prompts))
        ids, mask = self._padded(prompts, [width - len(prompt) for prompt in prompts])
        with plain_attention(self._config), torch.inference_mode():
            found = self._model.generate(ids, attention_mask=mask, max_new_tokens=max_tokens)
        return [tuple(row) for row in found[:, width:].tolist()]

    def states_by_row(self, sequences: Sequence[Sequence[int]]) -> Float32:
        """States [n, d] after the final norm at each last id, as found in most papers' code."""
        found = []
        with plain_attention(self._config), torch.no_grad():
            for sequence in sequences:
                ids = torch.tensor([list(sequence)], device=self._device)
                output = self._model(ids, output_hidden_states=True)
                found.append(output.hidden_states[-1][0, -1].float().cpu().numpy())
        return np.stack(found)

    def last_states(self, sequences: Sequence[Sequence[int]]) -> Float32:
        """States [n, d] after the final norm at each sequence's last id; one batch."""
        ids, mask = self._padded(sequences, [0] * len(sequences))
        last = torch.tensor([len(sequence) - 1 for sequence in sequences], device=self._device)
        rows = torch.arange(len(sequences), device=self._device)
        with plain_attention(self._config), torch.inference_mode():
            # without the head, whose logits of every position nobody asked for
            output = self._model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
            states = output.last_hidden_state[rows, last]
        return np.asarray(states.float().cpu().numpy(), dtype=np.float32)

    def _padded(
        self, sequences: Sequence[Sequence[int]], starts: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Ids [b, T], each sequence from its column in ``starts`` on, and their mask [b, T]."""
        width = max(start + len(s) for start, s in zip(starts, sequences, strict=True))
        ids = torch.zeros((len(sequences), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, (start, sequence) in enumerate(zip(starts, sequences, strict=True)):
            ids[row, start : start + len(sequence)] = torch.tensor(list(sequence))
            mask[row, start : start + len(sequence)] = 1
        return ids.to(self._device), mask.to(self._device)


def plain_of(engine: LanguageModel, directory: ModelDirectory) -> PlainTorch:
    """Plain calls on the weights of an open engine, which keeps working beside them."""
    del directory  # the engine's module is transformers' own, unchanged
    if not isinstance(engine, TorchModel):
        raise TypeError(f"not the torch engine: {type(engine).__name__}")
    return PlainTorch(engine)
