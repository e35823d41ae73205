"""Training examples to micro-batches: order, truncation and padding, the same on every engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from backends.interface import Batch, Float64, PreferenceBatch
from backends.randomness import permutation, seed31
from models.errors import UserError

MAX_FULLY_CUT_SHARE = 0.01
"""More examples than this without a response id left inside max_length stop a run."""


@dataclass(frozen=True)
class TrainingExample:
    """One encoded conversation."""

    item_id: str
    ids: tuple[int, ...]
    response_mask: tuple[bool, ...]
    """True where the id belongs to a response and is trained on; as long as ``ids``."""


@dataclass(frozen=True)
class Cut:
    """What max_length did to a list of examples."""

    examples: tuple[TrainingExample, ...]
    """The examples kept, cut to max_length, in their old order."""
    dropped: tuple[str, ...]
    """Item ids whose response lay wholly behind max_length."""
    partly_cut: int
    """Examples kept that lost some of their response."""


B = TypeVar("B", Batch, PreferenceBatch)


@dataclass(frozen=True)
class StepPlan(Generic[B]):
    """One optimiser step: its micro-batches and the items in them."""

    step: int
    """From 1, over the whole training."""
    epoch: int
    """From 1."""
    batches: tuple[B, ...]
    item_ids: tuple[str, ...]
    """In the order of the micro-batches."""
    tokens: int
    """Response ids in the step: in SFT the normaliser of its loss."""


def cut_examples(
    examples: Sequence[TrainingExample], max_length: int, what: str = "training"
) -> Cut:
    """Cut every example at ``max_length`` ids and drop those left without a response id.

    Raises UserError when there are no examples, one is malformed, an id occurs twice, or more
    than 1 percent would be dropped.
    """
    check_examples(examples, what)
    kept, dropped, partly = [], [], 0
    for example in examples:
        mask = example.response_mask[:max_length]
        if not any(mask):
            dropped.append(example.item_id)
            continue
        partly += sum(mask) < sum(example.response_mask)
        kept.append(TrainingExample(example.item_id, example.ids[:max_length], mask))
    require_few_dropped(dropped, len(examples), f"{what} examples", max_length)
    return Cut(tuple(kept), tuple(dropped), partly)


def require_few_dropped(
    dropped: Sequence[str], count: int, what: str, max_length: int, *, setting: str = "max_length"
) -> None:
    """Raise UserError when more than 1 percent of ``count`` items were cut to nothing.

    ``setting``: what the length is called where the user gives it.
    """
    if len(dropped) > MAX_FULLY_CUT_SHARE * count:
        left = "response" if setting == "max_length" else "response, or no difference,"
        raise UserError(
            f"{len(dropped)} of {count} {what} have no {left} left within {setting} "
            f"{max_length} (first: {dropped[0]}): raise {setting} or shorten the prompts"
        )


def steps_per_epoch(examples: int, per_step: int) -> int:
    """Optimiser steps for one pass; the last, smaller one is kept."""
    return -(-examples // per_step)


def plan_steps(
    examples: Sequence[TrainingExample],
    *,
    epochs: int,
    micro_batch_size: int,
    accumulation: int,
    seed: int,
    start: int = 0,
) -> Iterator[StepPlan[Batch]]:
    """Yield every optimiser step after step ``start``.

    Each epoch has its own order, drawn from (seed, epoch). Within a step, examples are put
    into micro-batches by length: that saves padding and changes neither which examples a
    step sees nor, up to rounding, its gradient.
    """
    per_step = micro_batch_size * accumulation
    for step, epoch, places in step_orders(len(examples), per_step, epochs, seed, start):
        chosen = [examples[i] for i in places]
        yield _plan_step(chosen, step, epoch, micro_batch_size, seed)


def step_orders(
    count: int, per_step: int, epochs: int, seed: int, start: int = 0
) -> Iterator[tuple[int, int, list[int]]]:
    """Yield (step, epoch, places of its items) of every optimiser step after step ``start``."""
    step = 0
    for epoch in range(1, epochs + 1):
        order = permutation(count, "order", seed, epoch)
        for first in range(0, count, per_step):
            step += 1
            if step > start:
                yield step, epoch, [int(place) for place in order[first : first + per_step]]


def dropout_seed(seed: int, step: int, micro_batch: int) -> int:
    """Seed of the dropout masks of a step's micro-batch, counted from 0."""
    return seed31("dropout", seed, step, micro_batch)


def validation_batches(
    examples: Sequence[TrainingExample], micro_batch_size: int
) -> Iterator[Batch]:
    """Yield all examples by length, longest first (so memory runs out at once or not at all)."""
    ordered = sorted(examples, key=lambda example: -len(example.ids))
    for first in range(0, len(ordered), micro_batch_size):
        yield make_batch(ordered[first : first + micro_batch_size], normaliser=1.0)


def make_batch(examples: Sequence[TrainingExample], *, normaliser: float, seed: int = 0) -> Batch:
    """Right-pad examples to the longest with id 0, whose value no engine looks at."""
    lengths = np.array([len(example.ids) for example in examples], np.int32)
    ids = np.zeros((len(examples), int(lengths.max())), np.int32)
    mask = np.zeros(ids.shape, np.bool_)
    for row, example in enumerate(examples):
        ids[row, : lengths[row]] = example.ids
        mask[row, : lengths[row]] = example.response_mask
    return Batch(ids=ids, lengths=lengths, loss_mask=mask, normaliser=normaliser, seed=seed)


def sum_by_row(batch: Batch, values: Float64) -> Float64:
    """Sum one value a response id (in the order of ``loss_mask``'s True places) by row, [b]."""
    rows = batch.loss_mask.nonzero()[0]
    return np.bincount(rows, weights=values, minlength=len(batch.lengths)).astype(np.float64)


def single_rows(batch: Batch) -> list[Batch]:
    """Each row of ``batch`` as a batch of its own, without padding."""
    return [
        replace(
            batch,
            ids=batch.ids[row : row + 1, :length],
            lengths=batch.lengths[row : row + 1],
            loss_mask=batch.loss_mask[row : row + 1, :length],
        )
        for row, length in enumerate(batch.lengths)
    ]


def padding_share(batches: Sequence[Batch]) -> float:
    """Share of the positions computed that hold padding."""
    computed = sum(batch.ids.size for batch in batches)
    return 1.0 - sum(int(batch.lengths.sum()) for batch in batches) / computed


def examples_sha256(examples: Sequence[TrainingExample]) -> str:
    """sha-256 (hex) over item ids, token ids and masks, in order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{example.item_id!r} {len(example.ids)}\n".encode())
        digest.update(np.asarray(example.ids, "<i4").tobytes())
        digest.update(np.asarray(example.response_mask, np.bool_).tobytes())
    return digest.hexdigest()


def _plan_step(
    chosen: Sequence[TrainingExample], step: int, epoch: int, micro_batch_size: int, seed: int
) -> StepPlan[Batch]:
    ordered = sorted(chosen, key=lambda example: -len(example.ids))
    tokens = sum(sum(example.response_mask) for example in ordered)
    batches = tuple(
        make_batch(
            ordered[first : first + micro_batch_size],
            normaliser=float(tokens),
            seed=dropout_seed(seed, step, first // micro_batch_size),
        )
        for first in range(0, len(ordered), micro_batch_size)
    )
    return StepPlan(step, epoch, batches, tuple(e.item_id for e in ordered), tokens)


def check_examples(examples: Sequence[TrainingExample], what: str) -> None:
    """Raise UserError when there are no examples, an id occurs twice, or one is malformed."""
    if not examples:
        raise UserError(f"there are no {what} examples")
    seen: set[str] = set()
    for example in examples:
        if example.item_id in seen:
            raise UserError(f"{what} example {example.item_id} occurs twice")
        seen.add(example.item_id)
        if len(example.ids) != len(example.response_mask):
            raise UserError(f"{what} example {example.item_id}: mask and ids differ in length")
        if not any(example.response_mask):
            raise UserError(f"{what} example {example.item_id} has no response to train on")
        if example.response_mask[0]:
            raise UserError(
                f"{what} example {example.item_id} begins with its response: the first id has "
                "nothing to be predicted from, so put a prompt or a start token before it"
            )
