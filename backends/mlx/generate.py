"""Batched greedy decoding: prompts enter in groups, padded on the left, and leave as they end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from backends.decoding import Ending
from backends.interface import Completion, FinishReason, OnDone, Prompt
from backends.mlx.decoder import Decoder
from backends.mlx.library import caches
from models.errors import UserError

DECODE_WIDTH = 16
"""Rows decoded together at most."""
CACHE_BYTES = 4 << 30
"""Keys and values of all rows together; the width is lowered to stay below."""
PREFILL_CHUNK = 2048
"""Prompt ids a row that go through the model at once; bounds the memory of attention."""


@dataclass
class _Row:
    """A prompt on its way to a completion."""

    place: int
    prompt: Prompt
    ids: list[int] = field(default_factory=list)
    started: float = 0.0


def decode(
    decoder: Decoder,
    prompts: Sequence[Prompt],
    stopping: Ending,
    on_done: OnDone | None = None,
    *,
    width: int | None = None,
) -> list[Completion]:
    """Decode every prompt greedily, ``width`` at a time at most; returns them in their order.

    Prompts of similar length enter together, so that little is padded. As rows end, others
    take their places once a quarter of the batch is free. One prompt alone is not padded and
    uses the model's plain caches.
    """
    waiting = sorted(
        (_Row(place, prompt) for place, prompt in enumerate(prompts)),
        key=lambda row: (-len(row.prompt.ids), row.place),
    )
    finished: dict[int, Completion] = {}
    if width is None:
        longest = max((len(prompt.ids) for prompt in prompts), default=0)
        width = fitting_width(decoder, longest + stopping.max_tokens)
    batch = _Batch(decoder, padded=len(waiting) > 1)
    while waiting or batch.rows:
        free = width - len(batch.rows)
        if waiting and (not batch.rows or 4 * free >= width):
            entering = [waiting.pop() for _ in range(min(free, len(waiting)))]
            batch.admit(entering)
        for row, reason in batch.step(stopping):
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

    def __init__(self, decoder: Decoder, *, padded: bool) -> None:
        self._decoder = decoder
        self._make = _padded_caches if padded else _plain_caches
        self.rows: list[_Row] = []
        self._caches: list[Any] = []
        self._newest = mx.zeros((0,), mx.int32)

    def admit(self, rows: list[_Row]) -> None:
        """Run the prompts of ``rows`` through the model and add them to the batch."""
        now = time.perf_counter()
        for row in rows:
            row.started = now
        longest = max(len(row.prompt.ids) for row in rows)
        padding = [longest - len(row.prompt.ids) for row in rows]
        ids = [[0] * pad + list(row.prompt.ids) for pad, row in zip(padding, rows, strict=True)]
        made = self._make(self._decoder.network, padding)
        first = _prefill(self._decoder, mx.array(ids, mx.int32), made)
        if self.rows:
            for cache, other in zip(self._caches, made, strict=True):
                cache.extend(other)
            self._newest = mx.concatenate([self._newest, first])
        else:
            self._caches, self._newest = made, first
        self.rows = self.rows + rows

    def step(self, stopping: Ending) -> list[tuple[_Row, FinishReason]]:
        """Give each row its newest id; returns the rows that end with it.

        The next ids are computed meanwhile: for a row that ends, one id in vain.
        """
        newest = self._newest
        if any(len(row.ids) + 1 < stopping.max_tokens for row in self.rows):
            self._newest = _next_ids(self._decoder, newest[:, None], self._caches)
            mx.async_eval(self._newest)  # type: ignore[no-untyped-call]
        ended, staying = [], []
        tokens: list[int] = np.array(newest).tolist()
        for index, (row, token) in enumerate(zip(self.rows, tokens, strict=True)):
            if token < 0:
                raise UserError(
                    f"item {row.prompt.item_id}: the logits are not finite after {len(row.ids)} "
                    "new ids; use dtype float32 or bfloat16"
                )
            row.ids.append(token)
            reason = stopping.reason(row.ids)
            if reason is None:
                staying.append(index)
            else:
                ended.append((row, reason))
        if ended:
            self._keep(staying)
        return ended

    def _keep(self, indices: list[int]) -> None:
        self.rows = [self.rows[index] for index in indices]
        if not indices:
            self._caches = []
            return
        kept = mx.array(indices, mx.int32)
        self._newest = self._newest[kept]
        for cache in self._caches:
            cache.filter(kept)


def _next_ids(decoder: Decoder, ids: mx.array, cache: list[Any]) -> mx.array:
    """Greedy next id [b] after the last column of ids [b, T]."""
    return greedy(decoder.logits(decoder.hidden(ids, cache)[:, -1, :]))


def greedy(logits: mx.array) -> mx.array:
    """Arg-max [b] of float32 logits [b, vocab], lowest id on a tie; -1 where one is no number."""
    best = mx.argmax(logits, axis=-1).astype(mx.int32)
    return mx.where(mx.isfinite(logits.sum(axis=-1)), best, mx.array(-1, mx.int32))


def _prefill(decoder: Decoder, ids: mx.array, cache: list[Any]) -> mx.array:
    """Ingest ids [b, T] in chunks; returns the first new id of each row."""
    done, length = 0, ids.shape[1]
    while length - done > PREFILL_CHUNK:
        decoder.hidden(ids[:, done : done + PREFILL_CHUNK], cache)
        mx.eval([entry.state for entry in cache])
        done += PREFILL_CHUNK
    first = _next_ids(decoder, ids[:, done:], cache)
    mx.eval(first)
    return first


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


def _completed(row: _Row, reason: FinishReason) -> Completion:
    return Completion(
        item_id=row.prompt.item_id,
        prompt_ids=row.prompt.ids,
        ids=tuple(row.ids),
        finish_reason=reason,
        seconds=time.perf_counter() - row.started,
    )
