"""Adapters as mlx-lm itself loads them, for proofs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from backends.adapters.contents import one_line
from backends.interface import Float32
from backends.mlx.library import load_adapters
from backends.mlx.model import open_model
from models.directory import ModelDirectory
from models.errors import UserError


def adapter_logits(directory: ModelDirectory, folder: Path, ids: Sequence[int]) -> Float32:
    """Float32 logits [T, vocab] with the adapter in ``folder`` loaded by mlx-lm's own loader."""
    with open_model(directory, dtype="float32") as model:
        try:
            load_adapters(model._decoder.network, str(folder))
        except (ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
            raise UserError(f"mlx-lm cannot load {folder}: {one_line(error)}") from None
        return model.logits(ids)
