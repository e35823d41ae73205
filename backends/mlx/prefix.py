"""Ids that all sequences begin with, read once and continued many times."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from backends.mlx.decoder import Decoder
from backends.mlx.library import caches


class Prefix:
    """Keys, values and recurrent states behind ``ids``; without ids nothing."""

    def __init__(self, decoder: Decoder, ids: Sequence[int]) -> None:
        self._decoder, self._ids = decoder, tuple(ids)
        self._caches: list[Any] = []
        if ids:
            self._caches = list(caches.make_prompt_cache(decoder.network))
            decoder.hidden(mx.array([list(ids)], mx.int32), self._caches)
            mx.eval([cache.state for cache in self._caches])

    def hidden(self, ids: mx.array, *, reuse: bool = False) -> mx.array:
        """Post-norm hidden states [b, T, d] of the ids [b, T] that follow.

        ``reuse``: layers may be left out whose results are known (:class:`Below`); nothing that
        watches single layers must be attached.
        """
        with self._decoder.below.reading((self._ids, str(ids.tolist())) if reuse else None):
            if not self._caches:
                return self._decoder.hidden(ids)
            rows = ids.shape[0]
            return self._decoder.hidden(ids, [_repeated(cache, rows) for cache in self._caches])


def _repeated(cache: Any, rows: int) -> Any:
    """A copy for ``rows`` rows of the cache of one row."""
    made = copy.copy(cache)
    if isinstance(cache, caches.ArraysCache):
        made.cache = [part if part is None else mx.repeat(part, rows, 0) for part in cache.cache]
    else:  # KVCache, RotatingKVCache
        made.keys, made.values = mx.repeat(cache.keys, rows, 0), mx.repeat(cache.values, rows, 0)
    return made
