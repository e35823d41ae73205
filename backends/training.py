"""LoRA training, SFT and DPO, written once over the backend interface.

Order, masks, schedule and start weights are decided here and in the modules beside it; an
engine only computes. Killed anywhere and called again with the same arguments, a training on
CPU ends with the same adapter, log and losses bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from backends.adapter_files import weights_sha256
from backends.batching import Cut, TrainingExample, cut_examples
from backends.checkpoints import CheckpointStore
from backends.first_loss import first_loss
from backends.interface import PROCESSES, Float32, LanguageModel, PreferenceBatch
from backends.lora import check_weights, initial_weights, select_modules
from backends.objectives import B, Objective, Preferences, Supervised, T
from backends.preference_loss import PreferenceTerms
from backends.preferences import PreferencePair
from backends.reference import ENGINE_KEYS, Reference, cut_both, require_same
from backends.stops import TrainingStopped
from backends.training_config import DpoConfig, TrainConfig, learning_rate_at
from backends.training_log import EvalRecord, StartRecord, StepRecord
from backends.training_loop import Loop, OnStep, Opening, TrainResult

__all__ = [
    "DpoConfig",
    "EvalRecord",
    "StartRecord",
    "StepRecord",
    "TrainConfig",
    "TrainResult",
    "TrainingExample",
    "TrainingStopped",
    "learning_rate_at",
    "train",
    "train_preferences",
]


def train(
    model: LanguageModel,
    examples: Sequence[TrainingExample],
    held_out: Sequence[TrainingExample],
    config: TrainConfig,
    *,
    directory: Path,
    start: Mapping[str, Float32] | None = None,
    on_step: OnStep | None = None,
) -> TrainResult:
    """Train a LoRA on ``model`` (SFT), or continue the training that ``directory`` holds.

    ``model`` has no LoRA yet; it begins with ``start``, or fresh. ``directory`` gets log.jsonl
    (deterministic), timing.jsonl and checkpoints/. ``on_step`` also sees the steps since the
    last checkpoint again after a resume. ``held_out`` may be empty: then there is no validation
    loss. Raises UserError when the data or settings cannot work or the directory holds another
    training, and TrainingStopped when the loss stops being finite.
    """
    cut = cut_examples(examples, config.max_length)
    held = cut_examples(held_out, config.max_length, "held-out") if held_out else Cut((), (), 0)
    objective = Supervised(cut, held, config)
    return _train(model, objective, config, directory, start, on_step, None)


def train_preferences(
    model: LanguageModel,
    pairs: Sequence[PreferencePair],
    held_out: Sequence[PreferencePair],
    config: DpoConfig,
    *,
    reference: Reference,
    directory: Path,
    start: Mapping[str, Float32] | None = None,
    on_step: OnStep | None = None,
) -> TrainResult:
    """Train a LoRA on preference pairs (DPO), as :func:`train` does on examples.

    ``reference`` comes from :func:`backends.reference.compute_reference` for the same pairs.
    Where the policy begins as the reference, the first loss is held to ln 2. Raises UserError
    as :func:`train`, and when that loss is another or ``reference`` is of something else.
    """
    cut, held = cut_both(pairs, held_out, config)
    require_same(reference, model, cut, held, config)
    objective = Preferences(cut, held, config, reference.values, reference.describe())
    same = reference.model.is_policy(config.train.lora, start)
    dtype = str(model.describe().get("dtype"))
    batches, ids = objective.first()

    def judge(terms: Sequence[PreferenceTerms]) -> StartRecord:
        return first_loss(objective, terms, same, dtype)

    opening = Opening[PreferenceBatch, PreferenceTerms](batches, ids, judge)
    return _train(model, objective, config.train, directory, start, on_step, opening)


def _train(
    model: LanguageModel,
    objective: Objective[B, T],
    config: TrainConfig,
    directory: Path,
    start: Mapping[str, Float32] | None,
    on_step: OnStep | None,
    opening: Opening[B, T] | None,
) -> TrainResult:
    linear = model.linear_modules()
    if start is None:
        modules = select_modules(linear, config.lora.targets)
        weights = initial_weights(config.lora, linear, config.seed)
    else:
        modules = check_weights(config.lora, start, linear)
        weights = dict(start)
    described = model.describe()
    identity = {
        **objective.data(),
        "start_weights": weights_sha256(weights),
        "model": {key: described[key] for key in (*ENGINE_KEYS, PROCESSES) if key in described},
    }
    directory.mkdir(parents=True, exist_ok=True)
    store = CheckpointStore(directory / "checkpoints", identity)
    model.attach_lora(config.lora, weights, gradient_checkpointing=config.gradient_checkpointing)
    model.configure_optimizer(config.adamw)
    loop = Loop(model, objective, config, directory, store)
    loop.execute(opening, on_step)
    return loop.result(tuple(modules), identity)
