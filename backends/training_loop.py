"""The loop of every training: steps, validation, checkpoints, resume, stops."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from backends.adapter_files import weights_sha256
from backends.batching import StepPlan, padding_share
from backends.checkpoints import Checkpoint, CheckpointStore
from backends.interface import Float32, LanguageModel
from backends.objectives import B, Objective, T
from backends.stops import (
    ADVICE,
    LAST_GOOD,
    LastGood,
    TrainingStopped,
    describe,
    items_at_fault,
    listed_items,
    save_last_good,
)
from backends.training_config import TrainConfig, learning_rate_at
from backends.training_log import EvalRecord, Measures, StartRecord, StepRecord, TrainingLog

OnStep = Callable[[StepRecord], None]


@dataclass(frozen=True)
class Opening(Generic[B, T]):
    """What is measured before any update, and judged."""

    batches: Sequence[B]
    ids: Sequence[str]
    judge: Callable[[Sequence[T]], StartRecord]


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
    start: StartRecord | None = None
    """DPO's first loss."""

    @property
    def tokens_per_second(self) -> float:
        """Real (unpadded) ids trained on per second of step time."""
        return self.positions / self.seconds if self.seconds > 0 else 0.0


class Loop(Generic[B, T]):
    """One call of a training after everything was checked and attached."""

    def __init__(
        self,
        model: LanguageModel,
        objective: Objective[B, T],
        config: TrainConfig,
        directory: Path,
        store: CheckpointStore,
    ) -> None:
        self._model, self._config = model, config
        self._objective: Objective[B, T] = objective
        self._directory, self._log, self._store = directory, TrainingLog(directory), store
        self._total = objective.steps
        self._seconds = 0.0
        self._good: LastGood | None = None

    def execute(self, opening: Opening[B, T] | None, on_step: OnStep | None) -> None:
        """Do all steps that are left. Raises TrainingStopped at a number that is none."""
        start = self._resume(opening)
        for plan in self._objective.plans(start):
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
        # of an earlier call that stopped (on a GPU a repeat may not)
        shutil.rmtree(self._directory / LAST_GOOD, ignore_errors=True)

    def result(self, modules: tuple[str, ...], identity: dict[str, Any]) -> TrainResult:
        """Put together what all calls gave."""
        records = self._log.records()
        weights = self._model.lora_weights()
        plans = list(self._objective.plans())
        rows = {plan.step: [self._objective.rows(b) for b in plan.batches] for plan in plans}
        shares = [
            padding_share([row for plan in plans if plan.epoch == e for row in rows[plan.step]])
            for e in range(1, self._config.epochs + 1)
        ]
        summary = {
            "identity": identity,
            "optimiser_steps": self._total,
            **self._objective.counts(),
            "padding_share": shares,
            "response_tokens": sum(plan.tokens for plan in plans),
            "weights_sha256": weights_sha256(weights),
        }
        return TrainResult(
            steps=records.steps,
            evals=records.evals,
            weights=weights,
            modules=modules,
            summary=summary,
            positions=sum(int(row.lengths.sum()) for step in rows.values() for row in step),
            seconds=self._log.seconds(),
            seconds_this_call=self._seconds,
            start=records.start,
        )

    def _resume(self, opening: Opening[B, T] | None) -> int:
        """Restore the newest checkpoint, or begin with the losses before any step."""
        checkpoint = self._store.latest()
        if checkpoint is None:
            self._log.cut(0)
            if opening is not None:
                terms = self._evaluated(opening.batches, opening.ids, "first loss", 0)
                self._good = LastGood(0, self._model.lora_weights())
                self._log.append(opening.judge(terms))
            self._evaluate(0)
            return 0
        self._log.cut(checkpoint.log_bytes)
        self._good = self._good_before(checkpoint)
        self._model.load_training_state(checkpoint.state)
        return checkpoint.step

    def _good_before(self, checkpoint: Checkpoint) -> LastGood:
        """The newest weights on disk that a finite loss is known of: those of the checkpoint
        before, or the start weights, since a step followed them."""
        before = self._store.previous()
        if before is None:
            return LastGood(0, self._model.lora_weights())
        prefix = "weight."
        weights = {
            name.removeprefix(prefix): value
            for name, value in before.state.items()
            if name.startswith(prefix)
        }
        return LastGood(before.step, weights)

    def _step(self, plan: StepPlan[B]) -> StepRecord:
        started = time.perf_counter()
        terms: list[T] = []
        found = self._objective.accumulate(self._model, plan.batches)
        for batch, term in zip(plan.batches, found, strict=True):
            terms.append(term)
            measured = self._objective.measure(terms[-1:])
            if not measured.finite:
                self._stop_at(batch, len(terms), "loss", measured, plan.step, plan.item_ids)
        measures = self._objective.measure(terms)
        self._good = LastGood(plan.step - 1, self._model.lora_weights())
        rate = learning_rate_at(plan.step, self._total, self._config)
        norm = self._model.apply(rate, self._config.max_grad_norm)
        if not math.isfinite(norm):
            where = listed_items(plan.item_ids)
            self._stop(f"the gradient norm became {norm} at step {plan.step} ({where})", plan.step)
        record = StepRecord(
            step=plan.step,
            epoch=plan.epoch,
            learning_rate=rate,
            loss=measures.loss,
            grad_norm=norm,
            tokens=measures.tokens,
            preferences=measures.preferences,
        )
        seconds = time.perf_counter() - started
        self._seconds += seconds
        self._log.append(record)
        self._log.time(plan.step, seconds)
        return record

    def _evaluate(self, step: int) -> None:
        ids = self._objective.validation_ids()
        terms = self._evaluated(self._objective.validation(), ids, "validation loss", step)
        if terms:
            self._good = LastGood(step, self._model.lora_weights())
            found = self._objective.measure(terms)
            self._log.append(EvalRecord(step, found.loss, found.tokens, found.preferences))

    def _evaluated(self, batches: Iterable[B], ids: Sequence[str], what: str, step: int) -> list[T]:
        """What each micro-batch gives, dropout off; stop at one that gives no number."""
        terms: list[T] = []
        for batch in batches:
            terms.append(self._objective.evaluate(self._model, batch))
            measured = self._objective.measure(terms[-1:])
            if not measured.finite:
                self._stop_at(batch, len(terms), what, measured, step, ids)
        return terms

    def _checkpoint(self, step: int) -> None:
        state = self._model.training_state()
        self._store.save(Checkpoint(step=step, log_bytes=self._log.sync(), state=state))

    def _require_usable(self, plan: StepPlan[B]) -> None:
        """The last update is checked too: no later step would find that it broke the model."""
        self._evaluated(plan.batches[:1], plan.item_ids, "loss after the update", plan.step)

    def _stop_at(
        self,
        batch: B,
        number: int,
        what: str,
        measured: Measures,
        step: int,
        ids: Sequence[str],
    ) -> None:
        """Stop at micro-batch ``number`` (from 1) of those that hold ``ids``; name its items.

        The weights as they stand are good where another item's loss is finite: then the data
        are at fault.
        """
        first = (number - 1) * self._config.micro_batch_size
        inside = ids[first : first + len(self._objective.items(batch))]
        fault = items_at_fault(self._model, self._objective, batch, inside)
        if number > 1 or 0 < len(fault) < len(inside):
            updates = step - 1 if what == "loss" else step
            self._good = LastGood(updates, self._model.lora_weights())
        value = measured.loss if not math.isfinite(measured.loss) else "one of infinite rewards"
        where = describe(inside, fault, number)
        self._stop(f"the {what} became {value} at step {step} ({where})", step, fault)

    def _stop(self, message: str, step: int, items: Sequence[str] = ()) -> None:
        path = None
        if self._good is not None:
            path = save_last_good(self._directory, self._good, self._config.lora, message)
            message += f"; the last good adapter, after step {self._good.step}, is in {path}"
        raise TrainingStopped(
            f"{message}: {ADVICE}", step=step, items=items, last_good=self._good, path=path
        )
