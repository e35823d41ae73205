"""How many threads the CPU's matrix products use, asked of the BLAS that is loaded, and set."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from backends.mlx.device import blas_name

_OPENBLAS = ("openblas_get_num_threads", "openblas_set_num_threads")
"""Of the preloaded library; numpy's own copy has other names."""


def threads() -> int:
    """Threads this process may compute on, and that a product's BLAS can be told to leave free.

    OpenBLAS knows of OPENBLAS_NUM_THREADS, OMP_NUM_THREADS and the processors that it may run on.
    The reference BLAS has one thread a product, whatever there is. 1 with any other BLAS (MKL,
    Accelerate): how it shares threads between callers is its own business.
    """
    openblas = _openblas()
    if openblas is not None:
        return max(1, int(getattr(openblas, _OPENBLAS[0])()))
    if sys.platform == "linux" and blas_name().startswith("reference"):
        allowed = len(os.sched_getaffinity(0))
        asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
        return max(1, min(allowed, int(asked))) if asked.isdigit() else allowed
    return 1


@contextmanager
def limited(share: int) -> Iterator[None]:
    """Give each product ``share`` threads meanwhile; no product may be running at either end."""
    openblas = _openblas()
    if openblas is None:
        yield
        return
    get, put = (getattr(openblas, name) for name in _OPENBLAS)
    before = int(get())
    put(share)
    try:
        yield
    finally:
        put(before)


def _openblas() -> ctypes.CDLL | None:
    process = ctypes.CDLL(None)
    return process if all(hasattr(process, name) for name in _OPENBLAS) else None
