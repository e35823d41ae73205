"""How much of a decode is llama.cpp's own work, and how much is the host's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from backends.llamacpp.model import LlamaCppModel

_TIMED = ("llama_decode", "llama_get_logits")
"""A GPU works on after llama_decode returns, and llama_get_logits waits for it."""


@dataclass
class CallTimes:
    """Sums over the calls of one block."""

    seconds: float = 0.0
    """Inside llama.cpp."""
    cpu_seconds: float = 0.0
    """The calling thread's processor time there."""
    decodes: int = 0
    """``llama_decode`` calls."""
    tokens: int = 0
    """Read by those calls: prompts' and generated ones, and those of idle slots."""


class _TimedApi:
    """llama.cpp's functions; those that compute are timed, the others are the library's own."""

    def __init__(self, api: Any, times: CallTimes) -> None:
        self._api = api
        for name in _TIMED:
            setattr(self, name, _timed(getattr(api, name), times))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)


def _timed(call: Callable[..., Any], times: CallTimes) -> Callable[..., Any]:
    def timed(handle: Any, *batch: Any) -> Any:
        began, cpu = time.perf_counter(), time.thread_time()
        result = call(handle, *batch)
        times.seconds += time.perf_counter() - began
        times.cpu_seconds += time.thread_time() - cpu
        for one in batch:
            times.decodes += 1
            times.tokens += int(one.n_tokens)
        return result

    return timed


@contextmanager
def call_times(engine: LlamaCppModel) -> Iterator[CallTimes]:
    """Time and count what ``engine`` lets llama.cpp decode in this block."""
    context = engine._context
    times, kept = CallTimes(), context._api
    context._api = _TimedApi(kept, times)
    try:
        yield times
    finally:
        context._api = kept
