"""Batched decoding: prompts enter in groups, padded on the left, and leave as they end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from backends.decoding import Ending
from backends.interface import (
    GREEDY,
    Completion,
    FinishReason,
    Float32,
    OnDone,
    Prompt,
    Sampling,
)
from backends.mlx.decoder import Decoder
from backends.mlx.library import caches
from backends.mlx.sampling import Row, needs_host, next_ids
from models.errors import UserError

DECODE_WIDTH = 16
"""Rows decoded together at most."""
CACHE_BYTES = 4 << 30
"""Keys and values of all rows together; the width is lowered to stay below."""
PREFILL_CHUNK = 2048
"""Prompt ids a row that go through the model at once; bounds the memory of attention."""


def decode(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    stopping: Ending,
    on_done: OnDone | None = None,
    *,
    sampling: Sampling = GREEDY,
    width: int | None = None,
    states: dict[int, Float32] | None = None,
) -> list[Completion]:
    """Decode every prompt, ``width`` at a time at most; returns completions in their order.

    ``states`` gets, by place, the state [d] that a prompt's stop token was chosen from.

    Prompts of similar length enter together, so that little is padded. As rows end, others
    take their places once a quarter of the batch is free. One prompt alone is not padded and
    uses the model's plain caches.
    """
    waiting = sorted(
        (Row(place, prompt) for place, prompt in enumerate(prompts)),
        key=lambda row: (-len(row.prompt.ids), row.place),
    )
    finished: dict[int, Completion] = {}
    if width is None:
        longest = max((len(prompt.ids) for prompt in prompts), default=0)
        width = fitting_width(decoder, longest + stopping.max_tokens)
    batch = _Batch(decoder, sampling, padded=len(waiting) > 1)
    while waiting or batch.rows:
        free = width - len(batch.rows)
        if waiting and (not batch.rows or 4 * free >= width):
            entering = [waiting.pop() for _ in range(min(free, len(waiting)))]
            batch.admit(entering)
        for row, reason, state in batch.step(stopping):
            if states is not None and reason == "stop":
                states[row.place] = np.array(state.astype(mx.float32))
            completion = _completed(row, reason)
            finished[row.place] = completion
            if on_done is not None:
                on_done(completion)
    return [finished[place] for place in range(len(prompts))]


def fitting_width(decoder: Decoder, length: int) -> int:
    """Rows of ``length`` ids whose keys and values fit CACHE_BYTES, between 1 and DECODE_WIDTH."""
    made = caches.make_prompt_cache(decoder.network)
    mx.eval(decoder.hidden(mx.zeros((1, 1), mx.int32), made))
    growing = [cache for cache in made if type(cache) is caches.KVCache]
    row: int = sum(length * cache.nbytes // cache.keys.shape[2] for cache in growing)
    return max(1, min(DECODE_WIDTH, CACHE_BYTES // max(1, row)))


class _Batch:
    """The rows being decoded, their caches, and the newest id of each."""

    def __init__(self, decoder: Decoder, sampling: Sampling, *, padded: bool) -> None:
        self._decoder = decoder
        self._sampling = sampling
        self._make = _padded_caches if padded else _plain_caches
        self.rows: list[Row] = []
        self._caches: list[Any] = []
        self._newest = mx.zeros((2, 0), mx.int32)
        self._states = mx.zeros((0, 0))
        """[b, d], that the newest ids were chosen from"""

    def admit(self, rows: list[Row]) -> None:
        """Run the prompts of ``rows`` through the model and add them to the batch."""
        now = time.perf_counter()
        for row in rows:
            row.started = now
        longest = max(len(row.prompt.ids) for row in rows)
        padding = [longest - len(row.prompt.ids) for row in rows]
        ids = [[0] * pad + list(row.prompt.ids) for pad, row in zip(padding, rows, strict=True)]
        made = self._make(self._decoder.network, padding)
        states = _prefill(self._decoder, mx.array(ids, mx.int32), made)
        first = next_ids(self._decoder.logits(states), rows, self._sampling)
        mx.eval(first)
        if self.rows:
            for cache, other in zip(self._caches, made, strict=True):
                cache.extend(other)
            self._newest = mx.concatenate([self._newest, first], axis=1)
            self._states = mx.concatenate([self._states, states])
        else:
            self._caches, self._newest, self._states = made, first, states
        self.rows = self.rows + rows

    def step(self, stopping: Ending) -> list[tuple[Row, FinishReason, mx.array]]:
        """Give each row its newest id; returns the rows that end with it, and their states [d].

        Where the next ids need nothing from the host they are computed meanwhile: for a row
        that ends, one id in vain.
        """
        newest, states = self._newest, self._states
        more = any(len(row.ids) + 1 < stopping.max_tokens for row in self.rows)
        if more and not needs_host(self._sampling):
            self._advance()
        ended, staying = [], []
        for index, (row, token, near) in enumerate(zip(self.rows, *_host(newest), strict=True)):
            row.take(token, near)
            reason = stopping.reason(row.ids)
            if reason is None:
                staying.append(index)
            else:
                ended.append((row, reason, states[index]))
        if ended:
            self._keep(staying)
        if self.rows and needs_host(self._sampling):
            self._advance()
        return ended

    def _advance(self) -> None:
        """Run the newest ids through the model and choose the next ones."""
        hidden = self._decoder.hidden(self._newest[0][:, None], self._caches)
        self._states = hidden[:, -1, :]
        self._newest = next_ids(self._decoder.logits(self._states), self.rows, self._sampling)
        mx.async_eval(self._newest)  # type: ignore[no-untyped-call]

    def _keep(self, indices: list[int]) -> None:
        self.rows = [self.rows[index] for index in indices]
        if not indices:
            self._caches = []
            return
        kept = mx.array(indices, mx.int32)
        self._newest, self._states = self._newest[:, kept], self._states[kept]
        for cache in self._caches:
            cache.filter(kept)


def _host(chosen: mx.array) -> tuple[list[int], list[int]]:
    """Ids and near-tie marks, once they are computed."""
    ids, near = np.array(chosen).tolist()
    return ids, near


def _prefill(decoder: Decoder, ids: mx.array, cache: list[Any]) -> mx.array:
    """Ingest ids [b, T] in chunks; returns the states [b, d] after the last column."""
    done, length = 0, ids.shape[1]
    while length - done > PREFILL_CHUNK:
        decoder.hidden(ids[:, done : done + PREFILL_CHUNK], cache)
        mx.eval([entry.state for entry in cache])
        done += PREFILL_CHUNK
    return decoder.hidden(ids[:, done:], cache)[:, -1, :]


def _plain_caches(network: Any, _padding: Sequence[int]) -> list[Any]:
    return list(caches.make_prompt_cache(network))


def _padded_caches(network: Any, padding: Sequence[int]) -> list[Any]:
    return [_padded(cache, list(padding)) for cache in caches.make_prompt_cache(network)]


def _padded(cache: Any, padding: list[int]) -> Any:
    """Return the batched form of an empty cache, for rows padded on the left by ``padding``."""
    make: dict[type, Callable[[], Any]] = {
        caches.KVCache: lambda: caches.BatchKVCache(padding),
        caches.RotatingKVCache: lambda: caches.BatchRotatingKVCache(cache.max_size, padding),
        caches.ArraysCache: lambda: caches.ArraysCache(len(cache.cache), padding),
    }
    if type(cache) not in make:
        raise UserError(
            f"the mlx engine cannot batch a model with a {type(cache).__name__}; "
            "use --backend torch"
        )
    return make[type(cache)]()


def _completed(row: Row, reason: FinishReason) -> Completion:
    return Completion(
        item_id=row.prompt.item_id,
        prompt_ids=row.prompt.ids,
        ids=tuple(row.ids),
        finish_reason=reason,
        seconds=time.perf_counter() - row.started,
        sample=row.prompt.sample,
        near_ties=row.near_ties,
    )
