"""Order, truncation, padding and schedule, without any engine."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.batching import (
    cut_examples,
    make_batch,
    padding_share,
    plan_steps,
    steps_per_epoch,
    validation_batches,
)
from backends.interface import LoraConfig
from backends.training import TrainConfig, TrainingExample, learning_rate_at
from models.errors import UserError
from tests.support.training_data import example, examples

CONFIG = TrainConfig(lora=LoraConfig(4, 8.0))


@given(total=st.integers(1, 400), ratio=st.floats(0, 1))
def test_schedule_rises_then_falls_and_never_wastes_a_step(total: int, ratio: float) -> None:
    config = replace(CONFIG, learning_rate=3e-4, warmup_ratio=ratio)
    rates = [learning_rate_at(step, total, config) for step in range(1, total + 1)]
    warmup = max(1, math.ceil(ratio * total))
    assert max(rates) == rates[warmup - 1] == 3e-4
    assert all(0 < rate <= 3e-4 for rate in rates)
    assert all(a < b for a, b in pairwise(rates[:warmup]))
    assert all(a > b for a, b in pairwise(rates[warmup - 1 :]))


def test_schedule_values() -> None:
    config = replace(CONFIG, learning_rate=1.0, warmup_ratio=0.2)
    rates = [learning_rate_at(step, 10, config) for step in range(1, 11)]
    assert rates[:2] == [0.5, 1.0]
    # 8 steps of cosine after the peak, of which the ninth would be 0
    expected = [0.5 * (1 + math.cos(math.pi * k / 9)) for k in range(1, 9)]
    assert rates[2:] == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="outside"):
        learning_rate_at(11, 10, config)


@given(
    count=st.integers(1, 40),
    micro=st.integers(1, 5),
    accumulation=st.integers(1, 4),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 9),
)
@settings(max_examples=40)
def test_every_example_is_seen_once_an_epoch(
    count: int, micro: int, accumulation: int, epochs: int, seed: int
) -> None:
    plans = list(
        plan_steps(
            examples(count),
            epochs=epochs,
            micro_batch_size=micro,
            accumulation=accumulation,
            seed=seed,
        )
    )
    assert [plan.step for plan in plans] == list(range(1, len(plans) + 1))
    assert len(plans) == epochs * steps_per_epoch(count, micro * accumulation)
    for epoch in range(1, epochs + 1):
        seen = Counter(item for p in plans if p.epoch == epoch for item in p.item_ids)
        assert set(seen.values()) == {1}
        assert len(seen) == count
    for plan in plans:
        assert plan.tokens == sum(int(batch.loss_mask.sum()) for batch in plan.batches)
        assert all(batch.normaliser == plan.tokens for batch in plan.batches)
        assert all(len(batch.ids) <= micro for batch in plan.batches)
    seeds = [batch.seed for plan in plans for batch in plan.batches]
    assert len(set(seeds)) == len(seeds)


def test_order_changes_with_epoch_and_seed_and_resumes_in_the_middle() -> None:
    def orders(seed: int, start: int = 0) -> list[tuple[str, ...]]:
        plans = plan_steps(
            examples(24), epochs=2, micro_batch_size=4, accumulation=1, seed=seed, start=start
        )
        return [plan.item_ids for plan in plans]

    assert orders(0)[:6] != orders(0)[6:]
    assert orders(0) != orders(1)
    assert orders(0) == orders(0)
    assert orders(0, start=4) == orders(0)[4:]


def test_batches_hold_the_examples_and_padding() -> None:
    rows = [example(3, 9), example(6, 20)]
    batch = make_batch(rows, normaliser=2.0)
    assert batch.ids.shape == (2, 20)
    assert batch.ids.dtype == np.int32
    for row, wanted in enumerate(rows):
        n = len(wanted.ids)
        assert tuple(batch.ids[row, :n]) == wanted.ids
        assert tuple(batch.loss_mask[row, :n]) == wanted.response_mask
        assert not batch.loss_mask[row, n:].any()
    assert list(batch.lengths) == [9, 20]


def test_padding_share_counts_real_positions() -> None:
    """B5: a length sort that does not see the lengths wastes most of a batch."""
    shapes = [(4, 12), (4, 402), (4, 82), (4, 1802), (4, 26)]
    rows = [example(prompt, total) for prompt, total in shapes]
    plans = list(plan_steps(rows, epochs=1, micro_batch_size=5, accumulation=1, seed=0))
    assert padding_share([b for p in plans for b in p.batches]) == pytest.approx(
        1 - 2324 / (5 * 1802)
    )
    split = list(plan_steps(rows, epochs=1, micro_batch_size=2, accumulation=3, seed=0))
    assert [list(batch.lengths) for batch in split[0].batches] == [[1802, 402], [82, 26], [12]]


def test_truncation_counts_what_it_cuts() -> None:
    """B2: a prompt longer than the limit leaves nothing to train on."""
    rows = [example(4, 30, seed=i) for i in range(99)]
    rows += [example(20, 30), example(50, 60)]
    cut = cut_examples([*rows], 32)
    assert cut.dropped == ("item-0-50-60",)
    assert cut.partly_cut == 0
    shorter = cut_examples(rows[:100], 25)
    assert shorter.partly_cut == 100
    assert all(len(kept.ids) == 25 and any(kept.response_mask) for kept in shorter.examples)


def test_too_many_cut_examples_stop_the_run() -> None:
    rows = [example(4, 30, seed=i) for i in range(98)] + [example(50, 60), example(51, 60)]
    with pytest.raises(UserError, match=r"2 of 100 training examples .* raise max_length"):
        cut_examples(rows, 32)
    assert not cut_examples(rows, 64).dropped


def test_malformed_examples_are_named() -> None:
    good = example(3, 9)
    bad = {
        "twice": [good, good],
        "no response": [TrainingExample("x", (1, 2), (False, False))],
        "differ in length": [TrainingExample("x", (1, 2), (False,))],
        "begins with its response": [TrainingExample("x", (1, 2), (True, True))],
        "no training examples": [],
    }
    for message, rows in bad.items():
        with pytest.raises(UserError, match=message):
            cut_examples(rows, 32)


def test_validation_covers_everything_longest_first() -> None:
    batches = list(validation_batches(examples(7), 2))
    assert sum(len(batch.ids) for batch in batches) == 7
    assert batches[0].ids.shape[1] == 70


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"micro_batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"warmup_ratio": 1.5},
        {"max_grad_norm": 0.0},
        {"eval_every": 0},
        {"weight_decay": -1.0},
        {"schedule": "linear"},
        {"lora": LoraConfig(0, 1.0)},
        {"lora": LoraConfig(1, 1.0, dropout=1.0)},
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    name = next(iter(change))
    with pytest.raises(UserError, match=name):
        replace(CONFIG, **change)
