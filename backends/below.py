"""States below a scaled layer, computed once: heads of one layer are scaled one after the other.

All that a head's factor changes lies behind its layer's attention, so what enters that layer is
the same, to the last bit, as when it was first computed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

State = TypeVar("State")
"""An engine's array."""


class Below(Generic[State]):
    """What entered the lowest scaled layer, by batch, for as long as that layer is the lowest.

    ``keep`` makes of a state what may be held while the pass goes on, ``give`` of what is held
    what a layer may return. Batches may be read by several threads at once.
    """

    def __init__(self, keep: Callable[[State], State], give: Callable[[State], State]) -> None:
        self._keep, self._give = keep, give
        self._kept: dict[Hashable, State] = {}
        self._layer: int | None = None
        self._on = self._open = False
        self._batch = threading.local()

    @contextmanager
    def opened(self) -> Iterator[bool]:
        """Reuse meanwhile, where :meth:`instead` is asked; False inside another such context.

        Weights must stay as they are.
        """
        if self._open:
            yield False
            return
        self._open = True
        try:
            yield True
        finally:
            self._open = False
            self._kept.clear()

    def scaled_from(self, layer: int | None) -> None:
        """From now on ``layer`` is the lowest that is scaled; None: nothing is."""
        self._on = layer is not None
        if layer is not None and layer != self._layer:
            self._kept.clear()
            self._layer = layer

    @contextmanager
    def reading(self, batch: Hashable | None) -> Iterator[None]:
        """A forward pass of ``batch`` in this thread; None: all layers must be run."""
        reuses = self._open and self._on and self._layer
        self._batch.key = batch if reuses else None
        try:
            yield
        finally:
            self._batch.key = None

    def instead(self, index: int, x: State) -> State | None:
        """What layer ``index`` returns for ``x`` without being run; None: it must be."""
        key = getattr(self._batch, "key", None)
        if key is None or self._layer is None:
            return None
        kept = self._kept.get(key)
        if kept is not None and index < self._layer:
            return self._give(kept) if index == self._layer - 1 else x
        if kept is None and index == self._layer:
            self._kept[key] = self._keep(x)
        return None
