"""States below a scaled layer, computed once: heads of one layer are scaled one after the other.

All that a head's factor changes lies behind its layer's attention, so what enters that layer is
the same, to the last bit, as when it was first computed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

import mlx.core as mx


class Below:
    """What entered the lowest scaled layer, by batch, for as long as that layer is the lowest."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, mx.array] = {}
        self._layer: int | None = None
        self._on = self._open = False
        self._key: Hashable = None

    @contextmanager
    def opened(self) -> Iterator[bool]:
        """Reuse meanwhile, where :meth:`instead` is asked; False inside another such context."""
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
        """A forward pass of ``batch``; None: all layers must be run."""
        if self._open and self._on and self._layer:
            self._key = batch
        try:
            yield
        finally:
            self._key = None

    def instead(self, index: int) -> Callable[[mx.array], mx.array | None]:
        """What layer ``index`` returns without being run; None: it must be."""

        def find(x: mx.array) -> mx.array | None:
            if self._key is None or self._layer is None:
                return None
            kept = self._kept.get(self._key)
            if kept is not None and index < self._layer:
                return kept if index == self._layer - 1 else x
            if kept is None and index == self._layer:
                mx.eval(x)
                self._kept[self._key] = x
            return None

        return find
