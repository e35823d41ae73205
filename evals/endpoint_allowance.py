"""What one account at one address allows: requests at a time, and requests a minute.

Several models behind it share an allowance; else each would use up the whole of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Allowance:
    """Shared by the threads of all endpoints that are given it."""

    def __init__(self, concurrency: int, requests_per_minute: float | None = None) -> None:
        """``concurrency``: at least 1; ``requests_per_minute``: above 0, None for any number."""
        self.concurrency, self.requests_per_minute = concurrency, requests_per_minute
        self._places = threading.BoundedSemaphore(concurrency)
        self._lock = threading.Lock()
        self._next_start = 0.0

    @contextmanager
    def turn(self, rest: Callable[[float], object]) -> Iterator[None]:
        """A place for one request, held until it ends, from when it may start.

        ``rest`` waits the seconds it is given. A place is had first: turns that wait for places
        would come all at once.
        """
        with self._places:
            if self.requests_per_minute is not None:
                with self._lock:
                    now = time.monotonic()
                    start = max(now, self._next_start)
                    self._next_start = start + 60.0 / self.requests_per_minute
                rest(start - now)
            yield
