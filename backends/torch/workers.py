"""Several batches at once on a CPU, each on a share of the threads.

One batch on all threads leaves them waiting for each other after every operation, and small
operations (norms, rotations, activations) do not divide well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
MAX_WORKERS = 4
"""Each holds its batch's states and, for log-probabilities, a chunk of logits (some 256 MiB)."""


def for_each(batches: Iterable[T], work: Callable[[T], None], device: torch.device) -> None:
    """``work(batch)`` for every batch, without gradients; raises the first error.

    On a GPU, or with one thread, one after the other in this thread. Hooks on modules are called
    by every thread: what they keep belongs into a :class:`threading.local`.
    """
    with torch.inference_mode():
        held, threads = list(batches), torch.get_num_threads()
        workers = min(threads, len(held), MAX_WORKERS) if device.type == "cpu" else 1
        if workers < 2:
            for batch in held:
                work(batch)
            return
        share = threads // workers

        def alone(batch: T) -> None:
            with torch.inference_mode():  # a mode of the thread
                work(batch)

        try:
            _at_once(held, alone, workers, share)
        finally:
            torch.set_num_threads(threads)


def _at_once(batches: list[T], work: Callable[[T], None], workers: int, share: int) -> None:
    """Run ``work`` on every batch in ``workers`` threads of ``share`` intra-op threads each."""
    with ThreadPoolExecutor(workers, "reader", torch.set_num_threads, (share,)) as pool:
        futures = [pool.submit(work, batch) for batch in batches]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
