"""Several batches at once on a CPU, a stream each: MLX works a CPU stream off on one thread.

With one stream all but the matrix products runs on one core (norms, rotations, softmax,
activations: a third of the time). The graphs are built one after the other in the caller's thread
and evaluated by one call: MLX then orders their operations by turns, and the streams work side by
side. (``async_eval`` of each would not do: it returns when all but the last operations are done.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import mlx.core as mx

from backends.memory import available_memory
from backends.mlx.blas_threads import limited, threads
from backends.mlx.decoder import Decoder
from backends.mlx.device import on_cpu
from backends.sequences import PaddedBatch

Lazy = TypeVar("Lazy")
MAX_STREAMS = 4
SCORE_COPIES = 6
"""Arrays of the size of a layer's attention scores that are alive at once: SmolLM2-135M peaked
at 164 MiB beyond its weights for 1,024 ids, 4.6 of them; two such rows, a stream each, at 279."""
MEMORY_SHARE = 0.25
"""Of the free memory, what batches may need together. One alone is read in any case."""

_mine = threading.local()
"""A stream belongs to the Python thread that made it."""


def evaluated(
    decoder: Decoder,
    batches: Iterable[PaddedBatch],
    build: Callable[[PaddedBatch], Lazy],
    *,
    prefix: int,
) -> Iterator[tuple[PaddedBatch, Lazy]]:
    """Every batch with what ``build`` made of it (arrays, lists, dicts), evaluated, in order.

    On a GPU, or with one thread, one after the other. Bit for bit the same in either case.
    ``prefix``: ids before each row that are not computed again.
    """
    workers = min(threads(), MAX_STREAMS) if on_cpu() else 1

    def bytes_of(batch: PaddedBatch) -> int:
        rows, width = batch.ids.shape
        scores: int = rows * decoder.query_heads * width * (prefix + width)
        return 4 * SCORE_COPIES * scores

    for group in _groups(list(batches), workers, bytes_of):
        yield from zip(group, _together(group, build), strict=True)


def _together(group: Sequence[PaddedBatch], build: Callable[[PaddedBatch], Lazy]) -> list[Lazy]:
    if len(group) == 1:
        made = [build(group[0])]
        mx.eval(made)
        return made
    streams, made = _streams(len(group)), []
    with limited(max(1, threads() // len(group))):
        for stream, batch in zip(streams, group, strict=True):
            with mx.stream(stream):
                made.append(build(batch))
        try:
            mx.eval(made)
        finally:
            for stream in streams:  # after an error one may still be at work
                mx.synchronize(stream)
    return made


def _groups(
    batches: Sequence[PaddedBatch], workers: int, bytes_of: Callable[[PaddedBatch], int]
) -> Iterator[list[PaddedBatch]]:
    """Neighbours, at most ``workers``, within what memory allows; they come longest first, so
    that those of one group take about as long."""
    group: list[PaddedBatch] = []
    needed = 0
    free = MEMORY_SHARE * available_memory() if workers > 1 else 0.0
    for batch in batches:
        size = bytes_of(batch)
        if group and (len(group) == workers or needed + size > free):
            yield group
            group, needed = [], 0
        group.append(batch)
        needed += size
    if group:
        yield group


def _streams(count: int) -> list[Any]:
    held: list[Any] = _mine.__dict__.setdefault("streams", [])
    held.extend(mx.new_stream(mx.cpu) for _ in range(count - len(held)))
    return held[:count]
