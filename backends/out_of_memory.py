"""Failed allocations, as the engines and the systems under them report them, as one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import UserError

_WORDS = (
    "out of memory",  # CUDA and MPS, in torch and MLX
    "can't allocate memory",  # torch's CPU allocator
    "cannot allocate memory",  # the system's own words for ENOMEM
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "unable to allocate",  # MLX on CPUs, numpy
    "bad_alloc",  # C++
    "insufficient memory",  # Metal, when a command buffer fails
    "erroroutofmemory",  # Metal's code for it
    "maximum allowed buffer size",  # Metal, when one buffer is too large
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out: engines raise RuntimeError for it too."""
    if isinstance(error, MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    said = str(error).lower()
    return any(words in said for words in _WORDS)


@contextmanager
def memory_errors(engine: str, doing: str, advice: str) -> Iterator[None]:
    """Raise UserError, one line with what to change, where memory runs out meanwhile."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:160]
        detail = f" ({said})" if said else ""
        message = f"the {engine} engine ran out of memory while {doing}{detail}: {advice}"
        raise UserError(message) from None
