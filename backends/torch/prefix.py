"""Ids that all sequences begin with, read once and continued many times."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache

if TYPE_CHECKING:
    from backends.torch.model import TorchModel


class Prefix:
    """Keys, values and recurrent states behind ``ids``; without ids nothing."""

    def __init__(self, model: TorchModel, ids: Sequence[int]) -> None:
        self.length = len(ids)
        self._model, self._ids = model, tuple(ids)
        if ids:
            self._cache = DynamicCache(config=model.config)
            model.hidden_cached(torch.tensor([list(ids)], device=model.device), self._cache)

    def hidden(self, ids: Tensor, *, reuse: bool = False) -> Tensor:
        """Post-norm hidden states [b, T, hidden] of the ids [b, T] that follow.

        ``reuse``: layers may be left out whose results are known (:class:`Below`); nothing that
        watches single layers must be attached.
        """
        with self._model.below.reading((self._ids, str(ids.tolist())) if reuse else None):
            if not self.length:
                return self._model.hidden(ids)
            cache = copy.deepcopy(self._cache)
            cache.reorder_cache(torch.zeros(len(ids), dtype=torch.long, device=ids.device))
            return self._model.hidden_cached(ids, cache)
