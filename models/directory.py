"""The one form in which every loader sees a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelDirectory:
    """A prepared model: a Hugging Face-format directory that all engines read identically.

    Made by :func:`models.store.prepare`; never written to afterwards.
    """

    path: Path
    """Directory with config.json (keys for both loader dialects), safetensors, tokenizer."""
    name: str
    """Registry name, or the last path component for a user's own model."""
    family: str
    """``llama``, ``qwen3``, ``qwen3_5``, ``gemma3`` or ``gemma4``: the text model's type."""
    fingerprint: str
    """sha-256 (hex) over config, weights, tokenizer and chat template."""
    source: str
    """Where it came from: ``embedded``, a hub id with the resolved commit, or a path."""
    gguf: Path | None = None
    """The GGUF file the directory was made from, where there is one."""
    gguf_sha256: str | None = None
