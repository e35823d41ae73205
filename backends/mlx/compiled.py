"""Where MLX's graph compiler is used: on GPUs, for chains of small operations.

A chain of n element-wise operations becomes one kernel instead of n that each read and write
memory. On a CPU the plain operations run: compiling there needs a C++ compiler on the user's
machine and gains little beside the matrix products.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

import mlx.core as mx

from backends.mlx.device import on_cpu

P = ParamSpec("P")
R = TypeVar("R")

_forced: ContextVar[bool | None] = ContextVar("compile", default=None)


@contextmanager
def compiling(wanted: bool) -> Iterator[None]:
    """Compile meanwhile, or do not, whatever the device: for tests and for finding a fault."""
    token = _forced.set(wanted)
    try:
        yield
    finally:
        _forced.reset(token)


def wanted() -> bool:
    """Whether functions are compiled now."""
    forced = _forced.get()
    return not on_cpu() if forced is None else forced


def compiled_on_gpu(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` where :func:`wanted`; otherwise call it as it is.

    It must be pure: arrays come in as arguments and go out as results. What it reads besides
    (a LoRA weight, a step's learning rate) would be baked in as it was at the first call.
    """
    fast = mx.compile(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return (fast if wanted() else function)(*args, **kwargs)

    return call
