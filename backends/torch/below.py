"""Layers of a torch model left out where their results are known (:class:`Below`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from backends.below import Below


def tensors_below() -> Below[Tensor]:
    """Copies both ways: Gemma 4 scales its layer's output in place."""
    return Below(keep=Tensor.clone, give=Tensor.clone)


@contextmanager
def reused(below: Below[Tensor], layers: nn.ModuleList) -> Iterator[None]:
    """Ask ``below`` before each of ``layers`` is run, while the context lasts."""
    with below.opened() as first:
        wrapped = list(layers) if first else []
        for index, layer in enumerate(wrapped):
            layer.forward = _around(below, index, layer.forward)
        try:
            yield
        finally:
            for layer in wrapped:
                del layer.forward  # the class's own again


def _around(below: Below[Tensor], index: int, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        known = below.instead(index, hidden_states)
        return forward(hidden_states, *args, **kwargs) if known is None else known

    return run
