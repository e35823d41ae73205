"""The llama.cpp engine: GGUF files decoded repeatably, quantised, adapted at run time."""

from __future__ import annotations


def require_installed() -> None:
    """Load llama.cpp's library; raises UserError, saying how to install it, when that fails."""
    from backends.llamacpp.library import library

    library()
