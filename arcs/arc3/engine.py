"""Open the frozen model on the engine that answers and is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from arcs.arc3.config import GGUF, Arc3Config
from arcs.arc3.edit import Edit, name_of
from arcs.progress import Reporter
from backends import choose_backend, free_memory, open_backend
from backends.adapter_files import load_adapter
from backends.interface import LanguageModel
from backends.memory import ITEM_BYTES, model_size
from models.directory import ModelDirectory
from models.errors import UserError

CONTEXT_STEP = 256
WIDTH = 8
"""Sequences that llama.cpp decodes together."""
F32 = "f32"


@dataclass(frozen=True)
class Engine:
    """Which engine, resolved from the settings."""

    name: str
    """``torch``, ``mlx`` or ``gguf``."""
    dtype: Any
    quant: str
    """Of the GGUF."""
    threads: int | None = None

    def __str__(self) -> str:
        return f"gguf {self.quant}" if self.name == GGUF else f"{self.name} {self.dtype}"


def engine_of(config: Arc3Config) -> Engine:
    """Resolve ``auto``. Raises UserError for an engine that cannot be used."""
    if config.backend == GGUF:
        from backends.llamacpp import require_installed

        require_installed()
        return Engine(GGUF, "float32", config.quant or F32, config.threads)
    return Engine(choose_backend(config.backend), config.dtype, F32)


@contextmanager
def opened(
    engine: Engine,
    directory: ModelDirectory,
    *,
    longest: int,
    reporter: Reporter,
    edit: Edit | None = None,
) -> Iterator[LanguageModel]:
    """The model; ``longest``: ids of the longest prompt with its whole budget."""
    reporter.say(f"opening {name_of(directory, edit)} on {engine}")
    if engine.name == GGUF:
        with _gguf(engine, directory, longest, reporter, edit) as model:
            yield model
        return
    needed = model_size(directory).parameters * ITEM_BYTES[engine.dtype]
    free = free_memory(engine.name)
    if needed > free:
        raise UserError(
            f"{directory.name} needs {needed / 1e9:.1f} GB in {engine.dtype} and {free / 1e9:.1f} "
            "GB are free: choose --dtype bfloat16 or a smaller model"
        )
    with open_backend(engine.name, directory, dtype=engine.dtype) as model:
        if edit is not None:
            model.attach_lora(*load_adapter(edit.path, directory))
        yield model


@contextmanager
def _gguf(
    engine: Engine,
    directory: ModelDirectory,
    longest: int,
    reporter: Reporter,
    edit: Edit | None,
) -> Iterator[LanguageModel]:
    from backends.llamacpp.adapter import convert_adapter
    from backends.llamacpp.exact import exact_gguf
    from backends.llamacpp.model import open_gguf
    from backends.llamacpp.quantise import evaluation_gguf
    from models.store import cache_root

    cache = cache_root() / "gguf"
    cache.mkdir(parents=True, exist_ok=True)
    exact = engine.quant == F32
    path = (
        exact_gguf(directory, cache)
        if exact
        else evaluation_gguf(directory, engine.quant, cache, say=reporter.say)
    )
    context = -(-longest // CONTEXT_STEP) * CONTEXT_STEP
    with TemporaryDirectory(prefix="threearc-adapter-") as folder:
        adapter = None
        if edit is not None:
            adapter = convert_adapter(edit.path, directory, Path(folder) / "adapter.gguf")
        with open_gguf(
            path,
            adapter=adapter,
            context=context,
            width=WIDTH,
            kv_dtype="f32" if exact else "f16",
            threads=engine.threads,
        ) as model:
            yield model
