"""One engine's answers to all that is compared, as plain arrays."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends.consistency.inputs import LAST_N, LORA, Inputs, live_adapter, settings_of_heads
from backends.interface import (
    GREEDY,
    Completion,
    Float32,
    HiddenPoint,
    LanguageModel,
    Sampling,
)
from backends.lora import select_modules
from backends.training import TrainConfig, train

Opener = Callable[[], AbstractContextManager[LanguageModel]]
"""Opens one engine's model; called again for each adapter, since one model takes one."""
Say = Callable[[str], None]

SAMPLED = Sampling(temperature=0.8, top_k=50, top_p=0.95, repetition_penalty=1.1, seed=7)
TEXTS = {"texts, greedy": GREEDY, "texts, sampled": SAMPLED}


@dataclass
class Measured:
    """What one engine computed."""

    engine: str
    arrays: dict[str, tuple[NDArray[np.float32], ...]] = field(default_factory=dict)
    """Quantity -> arrays, in the same order on every engine."""
    losses: list[float] = field(default_factory=list)
    modules: dict[str, tuple[int, int]] | None = None
    texts: dict[str, list[Completion]] = field(default_factory=dict)
    described: dict[str, object] = field(default_factory=dict)


def measure(engine: str, opener: Opener, inputs: Inputs, *, n_layers: int, say: Say) -> Measured:
    """Run everything on one engine that trains (torch or mlx)."""
    found = Measured(engine)
    with opener() as model:
        found.described = dict(model.describe())
        say(f"{engine}: forward passes and interventions")
        _forward(model, inputs, n_layers, found)
        _tempered(model, inputs, found, "")
        for name, sampling in TEXTS.items():
            say(f"{engine}: {name} ({len(inputs.prompts)} x {inputs.max_tokens} tokens)")
            found.texts[name] = generate(model, inputs, sampling)
    say(f"{engine}: with a LoRA")
    with opener() as model:
        found.modules = {m: model.linear_modules()[m] for m in _selected(model)}
        model.attach_lora(LORA, live_adapter(model.linear_modules()))
        found.arrays["lora, logits"] = _logits(model, inputs.sequences)
        _tempered(model, inputs, found, "with a LoRA, ")
    say(f"{engine}: {inputs.train_steps} training steps")
    with opener() as model, tempfile.TemporaryDirectory(prefix="threearc-consistency-") as folder:
        found.losses = _train(model, inputs, Path(folder))
    return found


def generate(model: LanguageModel, inputs: Inputs, sampling: Sampling) -> list[Completion]:
    """Answers to the inputs' prompts, in their order."""
    return model.generate(
        inputs.prompts,
        max_tokens=inputs.max_tokens,
        stop_ids=inputs.stop_ids,
        sampling=sampling,
    )


def _logits(
    model: LanguageModel, sequences: Sequence[Sequence[int]]
) -> tuple[NDArray[np.float32], ...]:
    return tuple(model.logits(ids) for ids in sequences)


def _forward(model: LanguageModel, inputs: Inputs, n_layers: int, found: Measured) -> None:
    sequences, starts = inputs.sequences, inputs.starts
    ends = [len(ids) - 1 for ids in sequences]
    found.arrays["logits"] = _logits(model, sequences)
    found.arrays["h_last"] = (model.hidden_states(sequences, ends, [HiddenPoint(n_layers, True)]),)
    found.arrays["logprobs"] = tuple(model.logprobs(sequences, starts))
    heads = model.head_outputs(sequences, starts, last_n=LAST_N)
    found.arrays["head norms"] = tuple(heads.norms)
    found.arrays["head means"] = tuple(heads.means)


def _tempered(model: LanguageModel, inputs: Inputs, found: Measured, prefix: str) -> None:
    """Logits of the longest sequence under every setting of heads."""
    for name, scales in settings_of_heads(model.attention_heads()).items():
        with model.tempered(scales):
            key = name.replace("tempered, ", f"tempered, {prefix}", 1)
            found.arrays[key] = _logits(model, inputs.sequences[:1])


def _selected(model: LanguageModel) -> list[str]:
    return select_modules(model.linear_modules(), LORA.targets)


def _train(model: LanguageModel, inputs: Inputs, folder: Path) -> list[float]:
    per_epoch = len(inputs.examples) // 4
    config = TrainConfig(
        lora=LORA,
        epochs=max(1, inputs.train_steps // per_epoch),
        learning_rate=2e-4,  # the recipe's; at 1e-3 Adam makes ten times as much of the noise
        micro_batch_size=4,
        max_length=256,
        checkpoint_every=10_000,
    )
    result = train(model, inputs.examples, [], config, directory=folder)
    return [step.loss for step in result.steps]


def h_last_only(model: LanguageModel, inputs: Inputs, n_layers: int) -> Float32:
    """[n, d] h_last at the last id of every sequence, for engines that give nothing else."""
    ends = [len(ids) - 1 for ids in inputs.sequences]
    return model.hidden_states(inputs.sequences, ends, [HiddenPoint(n_layers, True)])
