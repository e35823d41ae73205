"""LoRA training, beside plain peft with AdamW and plain mlx-lm."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from typing import Any, cast

from arcs.bench.timing import REPEATS, Say, by_turns, rates
from backends.batching import StepPlan, TrainingExample, plan_steps
from backends.interface import AdamWConfig, Batch, LanguageModel, LoraConfig
from backends.lora import initial_weights
from backends.plain import Pass, PlainTraining, Recipe
from models.directory import ModelDirectory

LORA = LoraConfig(rank=16, alpha=32.0)
MICRO_BATCH, ACCUMULATION = 4, 2
LEARNING_RATE, MAX_GRAD_NORM = 2e-4, 1.0


def measure_training(
    engine: str,
    ours: LanguageModel,
    directory: ModelDirectory,
    rows: Sequence[TrainingExample],
    *,
    say: Say,
) -> dict[str, Any]:
    """Rates of one pass over ``rows``, what each way computed, and where our time goes."""
    plans = _plans(rows)
    recipe = Recipe(
        rows=_in_order(rows, plans),
        lora=LORA,
        weights=initial_weights(LORA, ours.linear_modules(), 0),
        adamw=AdamWConfig(),
        learning_rate=LEARNING_RATE,
        max_grad_norm=MAX_GRAD_NORM,
        micro_batch_size=MICRO_BATCH,
        accumulation=ACCUMULATION,
    )
    # the plain way takes the base's weights before ours puts a LoRA over them
    module = importlib.import_module(f"backends.{engine}.plain_train")
    plain = cast("PlainTraining", module.plain_training(ours, directory, recipe))
    ours.attach_lora(LORA, recipe.weights)
    ours.configure_optimizer(recipe.adamw)
    fresh = ours.training_state()

    def reset() -> None:
        plain.reset()
        ours.load_training_state(fresh)

    tokens = sum(len(row.ids) for row in rows)
    say(f"training on {len(rows)} rows, {tokens} tokens, {REPEATS} times each way")
    _run(ours, plans[:1]), plain.run()  # compiled kernels, threads and allocators warm up
    turns, results = by_turns(lambda: _run(ours, plans), plain.run, before=reset)
    mine, theirs = cast("tuple[Pass, Pass]", results)
    say("where the time goes")
    reset()
    return {
        **rates(turns, tokens),
        "work": {"ours": _work(mine), "plain": _work(theirs)},
        "phases": _phases(engine, ours, rows),
    }


def _plans(rows: Sequence[TrainingExample]) -> list[StepPlan[Batch]]:
    return list(
        plan_steps(rows, epochs=1, micro_batch_size=MICRO_BATCH, accumulation=ACCUMULATION, seed=0)
    )


def _in_order(
    rows: Sequence[TrainingExample], plans: Sequence[StepPlan[Batch]]
) -> tuple[TrainingExample, ...]:
    """The rows as the steps take them; within a step as they stand in the data."""
    place = {row.item_id: (at, row) for at, row in enumerate(rows)}
    return tuple(row for plan in plans for _, row in sorted(place[name] for name in plan.item_ids))


def _run(model: LanguageModel, plans: Sequence[StepPlan[Batch]]) -> Pass:
    losses = []
    for plan in plans:
        nll = sum(model.accumulate(batch).nll_sum for batch in plan.batches)
        model.apply(LEARNING_RATE, MAX_GRAD_NORM)
        losses.append(nll / plan.tokens)
    batches = [batch for plan in plans for batch in plan.batches]
    return Pass(
        losses=tuple(losses),
        positions=sum(batch.ids.size for batch in batches),
        tokens=sum(int(batch.lengths.sum()) for batch in batches),
        responses=sum(plan.tokens for plan in plans),
    )


def _work(done: Pass) -> dict[str, Any]:
    """What a pass computed: sizes, padding and losses."""
    return {
        "positions": done.positions,
        "trained_on": done.responses,
        "padding_share": 1.0 - done.tokens / done.positions,
        "first_loss": done.losses[0],
        "last_loss": done.losses[-1],
        "mean_loss": sum(done.losses) / len(done.losses),
    }


def _phases(engine: str, ours: LanguageModel, rows: Sequence[TrainingExample]) -> dict[str, float]:
    """Share of a pass by phase, the phases measured one by one over every micro-batch."""
    module = importlib.import_module(f"backends.{engine}.phases")
    began = time.perf_counter()
    plans = _plans(rows)
    seconds = {"batches": time.perf_counter() - began}
    for plan in plans:
        for batch in plan.batches:
            for name, value in module.phases(ours, batch).items():
                seconds[name] = seconds.get(name, 0.0) + value
        began = time.perf_counter()
        ours.apply(LEARNING_RATE, MAX_GRAD_NORM)
        seconds["optimiser"] = seconds.get("optimiser", 0.0) + time.perf_counter() - began
    total = sum(seconds.values())
    return {name: value / total for name, value in seconds.items()}
