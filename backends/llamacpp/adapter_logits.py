"""A LoRA GGUF as llama.cpp applies it, for proofs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from backends.interface import Float32
from backends.llamacpp.exact import exact_gguf
from backends.llamacpp.model import open_gguf
from models.directory import ModelDirectory

ADAPTER_GGUF = "adapter.gguf"


def adapter_logits(directory: ModelDirectory, folder: Path, ids: Sequence[int]) -> Float32:
    """Float32 logits [T, vocab] of the base as an F32 GGUF with ``folder``'s adapter.gguf.

    The base's GGUF (4 bytes a parameter) is written to a temporary folder and removed.
    """
    with (
        tempfile.TemporaryDirectory(prefix="threearc-proof-") as temporary,
        open_gguf(
            exact_gguf(directory, Path(temporary)),
            adapter=folder / ADAPTER_GGUF,
            context=max(2, len(ids)),
            width=1,
            kv_dtype="f32",
            gpu_layers=0,
        ) as model,
    ):
        return model.logits(ids)
