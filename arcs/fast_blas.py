"""Arrange the BLAS that a run's engine computes on, before anything is loaded."""

from __future__ import annotations

from arcs.progress import Reporter
from backends import wants_fast_blas
from backends.blas import ADVICE, needed, preloaded, restart_with_fast_blas


def arrange_fast_blas(backend: str, reporter: Reporter) -> None:
    """Start again with a fast BLAS where ``backend`` wants one; say so where none is found."""
    if not wants_fast_blas(backend):
        return
    restart_with_fast_blas()
    if needed() and not preloaded():
        reporter.say(ADVICE)
