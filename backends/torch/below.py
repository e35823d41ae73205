"""States below a scaled layer, computed once: heads of one layer are scaled one after the other.

All that a head's factor changes lies behind its layer's attention, so what enters that layer is
the same, to the last bit, as when it was first computed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class Below:
    """What entered the lowest scaled layer, by batch, for as long as that layer is the lowest."""

    def __init__(self, layers: nn.ModuleList, *, possible: bool) -> None:
        self._layers, self._possible = layers, possible
        self._kept: dict[Hashable, Tensor] = {}
        self._layer: int | None = None
        self._on = self._open = False
        self._batch = threading.local()

    @contextmanager
    def reused(self) -> Iterator[None]:
        """Reuse meanwhile; weights must stay as they are."""
        if not self._possible or self._open:
            yield
            return
        self._open = True
        for index, layer in enumerate(self._layers):
            layer.forward = self._around(index, layer.forward)
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.forward  # the class's own again
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
        reuses = self._on and self._layer and self._open
        self._batch.key = batch if reuses else None
        try:
            yield
        finally:
            self._batch.key = None

    def _around(self, index: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            key = getattr(self._batch, "key", None)
            if key is not None and self._layer is not None:
                kept = self._kept.get(key)
                if kept is not None and index < self._layer:
                    # a copy: Gemma 4 scales its layer's output in place
                    return kept.clone() if index == self._layer - 1 else hidden_states
                if kept is None and index == self._layer:
                    self._kept[key] = hidden_states.clone()
            return forward(hidden_states, *args, **kwargs)

        return run
