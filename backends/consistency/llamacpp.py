"""llama.cpp's answers with F32 weights and an F32 cache, for llama-type models."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from backends.consistency.inputs import LORA, Inputs, live_adapter, settings_of_heads
from backends.consistency.measure import (
    TEXTS,
    Measured,
    Say,
    generate,
    h_last_only,
)
from backends.interface import Head, LanguageModel
from backends.lora import save_adapter
from models.directory import ModelDirectory
from models.errors import CapabilityError
from models.gguf.layout import layout_of


def why_not(directory: ModelDirectory) -> str | None:
    """Why llama.cpp cannot be compared on this model; None where it can."""
    if importlib.util.find_spec("llama_cpp") is None:
        return 'llama-cpp-python is not installed: pip install "threearc[llama]"'
    try:
        layout_of(directory, doing="F32 GGUF export")
    except CapabilityError as error:
        return str(error)
    return None


def measure_llamacpp(
    directory: ModelDirectory,
    inputs: Inputs,
    *,
    n_layers: int,
    reference: Mapping[str, Measured],
    say: Say,
) -> Measured:
    """Logits, h_last, adapter and tempered copies; ``reference`` has an engine's modules.

    Every tempered row is a copy of the file, written, opened and removed in turn.
    """
    found = Measured("llamacpp")
    with tempfile.TemporaryDirectory(prefix="threearc-consistency-") as name:
        folder = Path(name)
        say("llamacpp: writing an F32 GGUF")
        with _opened(directory, folder, inputs) as model:
            found.described = dict(model.describe())
            heads = model.attention_heads()
            found.arrays["logits"] = tuple(model.logits(ids) for ids in inputs.sequences)
            found.arrays["h_last"] = (h_last_only(model, inputs, n_layers),)
            found.arrays["logprobs"] = tuple(model.logprobs(inputs.sequences, inputs.starts))
            for kind, sampling in TEXTS.items():
                say(f"llamacpp: {kind} ({len(inputs.prompts)} x {inputs.max_tokens} tokens)")
                found.texts[kind] = generate(model, inputs, sampling)
        say("llamacpp: with a LoRA, and tempered copies")
        adapter = _peft(directory, reference, folder)
        settings: dict[str, Mapping[Head, float]] = {"lora, logits": {}}
        settings |= settings_of_heads(heads)
        for key, scales in settings.items():
            _tempered(directory, folder, key, scales, adapter, inputs, found)
    return found


def _tempered(
    directory: ModelDirectory,
    folder: Path,
    key: str,
    scales: Mapping[Head, float],
    peft: Path | None,
    inputs: Inputs,
    found: Measured,
) -> None:
    """Logits of one setting of heads, without and with the adapter."""
    if scales:
        with _opened(directory, folder, inputs, scales=scales) as model:
            found.arrays[key] = tuple(model.logits(ids) for ids in inputs.sequences[:1])
    if peft is not None:
        name = key.replace("tempered, ", "tempered, with a LoRA, ", 1)
        sequences = inputs.sequences[:1] if scales else inputs.sequences
        with _opened(directory, folder, inputs, scales=scales, peft_dir=peft) as model:
            found.arrays[name] = tuple(model.logits(ids) for ids in sequences)


def _peft(
    directory: ModelDirectory, reference: Mapping[str, Measured], folder: Path
) -> Path | None:
    """Save the adapter every engine gets; None where no engine named its modules."""
    modules = next((m.modules for m in reference.values() if m.modules is not None), None)
    if modules is None:
        return None
    save_adapter(folder / "peft", LORA, live_adapter(modules), directory, {})
    return folder / "peft"


def _opened(
    directory: ModelDirectory, folder: Path, inputs: Inputs, **more: Any
) -> AbstractContextManager[LanguageModel]:
    """Open in float32 throughout; the export is made once in ``folder``."""
    from backends.llamacpp.exact import open_exact

    longest = max(len(prompt.ids) for prompt in inputs.prompts) + inputs.max_tokens
    context = max(longest, *(len(ids) for ids in inputs.sequences)) + 1
    return open_exact(directory, folder, context=context, width=8, **more)
