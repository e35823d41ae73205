"""LoRA supervised fine-tuning, written once over the backend interface.

Order, masks, schedule and start weights are decided here and in the modules beside it; an
engine only computes. Killed anywhere and called again with the same arguments, a training on
CPU ends with the same adapter, log and losses bit for bit.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from backends.adapter_files import weights_sha256
from backends.batching import (
    Cut,
    StepPlan,
    TrainingExample,
    cut_examples,
    examples_sha256,
    padding_share,
    plan_steps,
    steps_per_epoch,
    validation_batches,
)
from backends.checkpoints import Checkpoint, CheckpointStore
from backends.interface import AdamWConfig, Float32, LanguageModel, LoraConfig
from backends.lora import initial_weights, select_modules
from models.errors import UserError
from models.files import canonical_json

__all__ = [
    "EvalRecord",
    "StepRecord",
    "TrainConfig",
    "TrainResult",
    "TrainingExample",
    "learning_rate_at",
    "train",
]


@dataclass(frozen=True)
class TrainConfig:
    """Every setting that changes a number of a training."""

    lora: LoraConfig
    epochs: int = 1
    learning_rate: float = 2e-4
    """Peak, reached at the end of the warm-up."""
    schedule: Literal["cosine"] = "cosine"
    warmup_ratio: float = 0.1
    """Share of all optimiser steps."""
    max_grad_norm: float | None = 1.0
    """Global L2 norm that gradients are clipped to; None: no clipping."""
    micro_batch_size: int = 4
    accumulation: int = 1
    """Micro-batches an optimiser step."""
    max_length: int = 1024
    """Ids of an example that are kept."""
    seed: int = 0
    weight_decay: float = 0.01
    """Decoupled, on the LoRA weights."""
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    gradient_checkpointing: bool = False
    checkpoint_every: int = 50
    """Optimiser steps; one more is written at the end."""
    eval_every: int | None = None
    """Optimiser steps between validation losses; None: only at step 0 and at the end."""

    def __post_init__(self) -> None:
        """Raise UserError for a value no training can have."""
        for name in ("epochs", "micro_batch_size", "accumulation", "checkpoint_every"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.max_length >= 2, "max_length", self.max_length, "at least 2")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _require(0 <= self.warmup_ratio <= 1, "warmup_ratio", self.warmup_ratio, "in [0, 1]")
        clip = self.max_grad_norm
        _require(clip is None or clip > 0, "max_grad_norm", clip, "above 0, or None")
        _require(self.eval_every is None or self.eval_every >= 1, "eval_every", self.eval_every,
                 "at least 1, or None")  # fmt: skip
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        _require(self.schedule == "cosine", "schedule", self.schedule, "cosine")
        _require(self.lora.rank >= 1, "lora.rank", self.lora.rank, "at least 1")
        _require(0 <= self.lora.dropout < 1, "lora.dropout", self.lora.dropout, "in [0, 1)")

    @property
    def adamw(self) -> AdamWConfig:
        """The optimiser's settings."""
        return AdamWConfig(self.beta1, self.beta2, self.eps, self.weight_decay)


@dataclass(frozen=True)
class StepRecord:
    """One optimiser step, as it stands in log.jsonl."""

    step: int
    """From 1."""
    epoch: int
    learning_rate: float
    loss: float
    """Mean negative log-likelihood (nats) over the step's response tokens, before the update."""
    grad_norm: float
    """Global L2 norm before clipping."""
    tokens: int
    """Response tokens in the step."""


@dataclass(frozen=True)
class EvalRecord:
    """Validation loss after ``step`` optimiser steps."""

    step: int
    loss: float
    tokens: int


@dataclass(frozen=True)
class TrainResult:
    """What a training gave. Only ``seconds`` and ``seconds_this_call`` may differ on a repeat."""

    steps: tuple[StepRecord, ...]
    evals: tuple[EvalRecord, ...]
    weights: dict[str, Float32]
    """Final LoRA weights, named as in :meth:`LanguageModel.lora_weights`."""
    modules: tuple[str, ...]
    """Adapted modules."""
    summary: dict[str, Any]
    """Identity, counts, padding share per epoch and weights hash for the manifest (JSON-able)."""
    positions: int
    """Ids run forward and backward, padding not counted: for tokens per second."""
    seconds: float
    """Wall time of training steps over all calls, validation and checkpoints not counted."""
    seconds_this_call: float

    @property
    def tokens_per_second(self) -> float:
        """Real (unpadded) ids trained on per second of step time."""
        return self.positions / self.seconds if self.seconds > 0 else 0.0


def learning_rate_at(step: int, total: int, config: TrainConfig) -> float:
    """Learning rate of optimiser step ``step`` (1..total): linear warm-up, then cosine.

    The peak is reached at the last warm-up step (at step 1 without a warm-up), and the cosine
    would reach 0 one step after the last, so that no step is wasted on a rate of 0.
    """
    if not 1 <= step <= total:
        raise ValueError(f"step {step} lies outside 1..{total}")
    warmup = max(1, math.ceil(config.warmup_ratio * total))
    if step <= warmup:
        return config.learning_rate * (step / warmup)
    progress = (step - warmup) / (total - warmup + 1)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))


def train(
    model: LanguageModel,
    examples: Sequence[TrainingExample],
    held_out: Sequence[TrainingExample],
    config: TrainConfig,
    *,
    directory: Path,
    on_step: Callable[[StepRecord], None] | None = None,
) -> TrainResult:
    """Train a fresh LoRA on ``model``, or continue the training that ``directory`` holds.

    ``model`` has no LoRA yet. ``directory`` gets log.jsonl (deterministic), timing.jsonl and
    checkpoints/. ``on_step`` also sees the steps since the last checkpoint again after a
    resume. ``held_out`` may be empty: then there is no validation loss.
    Raises UserError when the data or settings cannot work, the directory holds another
    training, or the loss stops being finite.
    """
    cut = cut_examples(examples, config.max_length)
    held = cut_examples(held_out, config.max_length, "held-out") if held_out else Cut((), (), 0)
    linear = model.linear_modules()
    modules = tuple(select_modules(linear, config.lora.targets))
    identity = _identity(model, cut, held, config)
    directory.mkdir(parents=True, exist_ok=True)
    store = CheckpointStore(directory / "checkpoints", identity)
    weights = initial_weights(config.lora, linear, config.seed)
    model.attach_lora(config.lora, weights, gradient_checkpointing=config.gradient_checkpointing)
    model.configure_optimizer(config.adamw)
    run = _Run(model, config, cut=cut, held=held, log=_Log(directory), store=store)
    run.execute(on_step)
    return run.result(modules, identity)


class _Run:
    """One call of :func:`train` after everything was checked and attached."""

    def __init__(
        self,
        model: LanguageModel,
        config: TrainConfig,
        *,
        cut: Cut,
        held: Cut,
        log: _Log,
        store: CheckpointStore,
    ) -> None:
        self._model, self._cut, self._held = model, cut, held
        self._config, self._log, self._store = config, log, store
        per_step = config.micro_batch_size * config.accumulation
        self._total = config.epochs * steps_per_epoch(len(cut.examples), per_step)
        self._seconds = 0.0

    def execute(self, on_step: Callable[[StepRecord], None] | None) -> None:
        start = self._resume()
        for plan in self._plans(start):
            record = self._step(plan)
            last = plan.step == self._total
            every = self._config.eval_every
            if last:
                self._require_usable(plan)
            if last or (every is not None and plan.step % every == 0):
                self._evaluate(plan.step)
            if last or plan.step % self._config.checkpoint_every == 0:
                self._checkpoint(plan.step)
            if on_step is not None:
                on_step(record)

    def result(self, modules: tuple[str, ...], identity: dict[str, Any]) -> TrainResult:
        steps, evals = self._log.records()
        weights = self._model.lora_weights()
        plans = list(self._plans(0))
        epochs = range(1, self._config.epochs + 1)
        summary = {
            "identity": identity,
            "optimiser_steps": self._total,
            "examples": len(self._cut.examples),
            "examples_dropped": list(self._cut.dropped),
            "examples_partly_cut": self._cut.partly_cut,
            "held_out_examples": len(self._held.examples),
            "held_out_dropped": list(self._held.dropped),
            "held_out_partly_cut": self._held.partly_cut,
            "padding_share": [padding_share([p for p in plans if p.epoch == e]) for e in epochs],
            "response_tokens": sum(plan.tokens for plan in plans),
            "weights_sha256": weights_sha256(weights),
        }
        positions = sum(int(batch.lengths.sum()) for plan in plans for batch in plan.batches)
        return TrainResult(
            steps=steps,
            evals=evals,
            weights=weights,
            modules=modules,
            summary=summary,
            positions=positions,
            seconds=self._log.seconds(),
            seconds_this_call=self._seconds,
        )

    def _plans(self, start: int) -> Iterator[StepPlan]:
        config = self._config
        return plan_steps(
            self._cut.examples,
            epochs=config.epochs,
            micro_batch_size=config.micro_batch_size,
            accumulation=config.accumulation,
            seed=config.seed,
            start=start,
        )

    def _resume(self) -> int:
        """Restore the newest checkpoint, or begin with the validation loss of the base model."""
        checkpoint = self._store.latest()
        if checkpoint is None:
            self._log.cut(0)
            self._evaluate(0)
            return 0
        self._log.cut(checkpoint.log_bytes)
        self._model.load_training_state(checkpoint.state)
        return checkpoint.step

    def _step(self, plan: StepPlan) -> StepRecord:
        started = time.perf_counter()
        nll = 0.0
        for batch in plan.batches:
            nll += self._model.accumulate(batch).nll_sum
        loss = nll / plan.tokens
        self._require_finite(loss, "loss", plan)
        rate = learning_rate_at(plan.step, self._total, self._config)
        norm = self._model.apply(rate, self._config.max_grad_norm)
        self._require_finite(norm, "gradient norm", plan)
        record = StepRecord(plan.step, plan.epoch, rate, loss, norm, plan.tokens)
        seconds = time.perf_counter() - started
        self._seconds += seconds
        self._log.append({"kind": "step", **asdict(record)})
        self._log.time(plan.step, seconds)
        return record

    def _evaluate(self, step: int) -> None:
        if not self._held.examples:
            return
        batches = validation_batches(self._held.examples, self._config.micro_batch_size)
        terms = [self._model.evaluate_loss(batch) for batch in batches]
        tokens = sum(term.tokens for term in terms)
        loss = sum(term.nll_sum for term in terms) / tokens
        if not math.isfinite(loss):
            raise UserError(
                f"the validation loss after step {step} is {loss}: the model computes no numbers "
                "on the held-out examples; use dtype float32 or bfloat16, or a lower learning rate"
            )
        self._log.append({"kind": "eval", **asdict(EvalRecord(step, loss, tokens))})

    def _checkpoint(self, step: int) -> None:
        state = self._model.training_state()
        self._store.save(Checkpoint(step=step, log_bytes=self._log.sync(), state=state))

    def _require_usable(self, plan: StepPlan) -> None:
        """The last update is checked too: no later step would find that it broke the model."""
        terms = self._model.evaluate_loss(plan.batches[0])
        self._require_finite(terms.nll_sum / max(terms.tokens, 1), "loss after the update", plan)

    def _require_finite(self, value: float, what: str, plan: StepPlan) -> None:
        if math.isfinite(value):
            return
        items = ", ".join(plan.item_ids[:8]) + (" ..." if len(plan.item_ids) > 8 else "")
        raise UserError(
            f"the {what} became {value} at step {plan.step} (items {items}): use a lower "
            "learning_rate or a smaller max_grad_norm, or dtype float32 instead of float16"
        )


class _Log:
    """log.jsonl, which a repeat reproduces byte for byte, and timing.jsonl, which it does not."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "log.jsonl"
        self._timing = directory / "timing.jsonl"

    def cut(self, length: int) -> None:
        """Drop what lies behind ``length`` bytes: steps that will be redone, or a torn line."""
        self._path.touch()
        if self._path.stat().st_size < length:
            raise UserError(
                f"{self._path} is shorter than its checkpoint says: it was changed; train in a "
                "new directory"
            )
        with self._path.open("r+b") as stream:
            stream.truncate(length)

    def append(self, record: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(canonical_json(record) + "\n")

    def time(self, step: int, seconds: float) -> None:
        with self._timing.open("a", encoding="utf-8") as stream:
            stream.write(canonical_json({"step": step, "seconds": seconds}) + "\n")

    def sync(self) -> int:
        """Flush the log to disk; returns its length in bytes."""
        self._path.touch()
        with self._path.open("rb") as stream:
            os.fsync(stream.fileno())
        return self._path.stat().st_size

    def seconds(self) -> float:
        """Step time, counting each step once (its last run); torn lines are skipped."""
        seconds: dict[int, float] = {}
        if not self._timing.exists():
            return 0.0
        for line in self._timing.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # a kill tore this line; times are for people, not for results
            seconds[record["step"]] = record["seconds"]
        return sum(seconds.values())

    def records(self) -> tuple[tuple[StepRecord, ...], tuple[EvalRecord, ...]]:
        steps, evals = [], []
        for line in self._path.read_text().splitlines():
            record = json.loads(line)
            if record.pop("kind") == "step":
                steps.append(StepRecord(**record))
            else:
                evals.append(EvalRecord(**record))
        return tuple(steps), tuple(evals)


def _identity(model: LanguageModel, cut: Cut, held: Cut, config: TrainConfig) -> dict[str, Any]:
    described = model.describe()
    keys = ("engine", "device", "dtype", "model_fingerprint", "quantised_base")
    return {
        "config": asdict(config),
        "training_data": examples_sha256(cut.examples),
        "held_out_data": examples_sha256(held.examples),
        "model": {key: described[key] for key in keys if key in described},
    }


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise UserError(f"{name} is {value}: it must be {allowed}")
