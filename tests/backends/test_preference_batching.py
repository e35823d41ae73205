"""Pairs to micro-batches, without any engine."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from backends.batching import plan_steps, sum_by_row
from backends.interface import LoraConfig
from backends.preferences import cut_pairs, pair_rows, pairs_sha256, plan_pairs, single_pairs
from backends.training import DpoConfig, TrainConfig
from tests.support.preference_pairs import pairs, preference_batch
from tests.support.training_data import example

CONFIG = DpoConfig(
    TrainConfig(lora=LoraConfig(4, 8.0), epochs=2, micro_batch_size=2, accumulation=2), beta=0.3
)
GIVEN = pairs(11)
VALUES = {pair.item_id: (-1.0 * i, -2.0 * i) for i, pair in enumerate(GIVEN, start=1)}


def test_every_pair_is_seen_once_an_epoch_with_its_own_reference() -> None:
    plans = list(plan_pairs(GIVEN, VALUES, CONFIG))
    assert [plan.step for plan in plans] == [1, 2, 3, 4, 5, 6]
    for epoch in (1, 2):
        seen = Counter(item for p in plans if p.epoch == epoch for item in p.item_ids)
        assert seen == Counter(pair.item_id for pair in GIVEN)
    by_id = {pair.item_id: pair for pair in GIVEN}
    for plan in plans:
        ids = list(plan.item_ids)
        assert plan.tokens == sum(by_id[item].tokens for item in ids)
        for batch in plan.batches:
            assert batch.rows.normaliser == len(plan.item_ids)  # pairs in the step
            assert batch.beta == 0.3
            inside, ids = ids[: batch.pairs], ids[batch.pairs :]
            for place, item in enumerate(inside):
                for row, side in (
                    (place, by_id[item].chosen),
                    (place + batch.pairs, by_id[item].rejected),
                ):
                    length = int(batch.rows.lengths[row])
                    assert tuple(batch.rows.ids[row, :length]) == side.ids
                    assert tuple(batch.rows.loss_mask[row, :length]) == side.response_mask
                assert batch.reference[place] == VALUES[item][0]
                assert batch.reference[place + batch.pairs] == VALUES[item][1]
        assert ids == []


def test_dropout_seeds_differ_and_a_resume_takes_up_the_same_order() -> None:
    plans = list(plan_pairs(GIVEN, VALUES, CONFIG))
    seeds = [batch.rows.seed for plan in plans for batch in plan.batches]
    assert len(set(seeds)) == len(seeds)
    rest = list(plan_pairs(GIVEN, VALUES, CONFIG, start=4))
    assert [p.item_ids for p in rest] == [p.item_ids for p in plans[4:]]
    assert [b.rows.seed for p in rest for b in p.batches] == seeds[
        -sum(len(p.batches) for p in rest) :
    ]


def test_the_order_is_the_one_sft_draws() -> None:
    rows = [example(3, 9, seed=i) for i in range(len(GIVEN))]
    sft = plan_steps(rows, epochs=2, micro_batch_size=2, accumulation=2, seed=CONFIG.train.seed)
    place = {row.item_id: i for i, row in enumerate(rows)}
    expected = [{place[item] for item in plan.item_ids} for plan in sft]
    number = {pair.item_id: i for i, pair in enumerate(GIVEN)}
    found = [{number[i] for i in plan.item_ids} for plan in plan_pairs(GIVEN, VALUES, CONFIG)]
    assert found == expected


def test_within_a_step_the_longest_pairs_come_first() -> None:
    for plan in plan_pairs(GIVEN, VALUES, CONFIG):
        widths = [batch.rows.ids.shape[1] for batch in plan.batches]
        assert widths == sorted(widths, reverse=True)


def test_single_pairs_are_the_batch_without_padding() -> None:
    batch = preference_batch(GIVEN[:4], VALUES)
    singles = single_pairs(batch)
    assert len(singles) == 4
    for pair, single, values in zip(GIVEN, singles, VALUES.values(), strict=False):
        alone = pair_rows([pair], normaliser=4.0)
        np.testing.assert_array_equal(single.rows.ids, alone.ids)
        np.testing.assert_array_equal(single.rows.loss_mask, alone.loss_mask)
        assert tuple(single.reference) == values


def test_sums_by_row_are_sums() -> None:
    rows = pair_rows(GIVEN[:2], normaliser=1.0)
    counts = rows.loss_mask.sum(axis=1)
    assert sum_by_row(rows, np.ones(counts.sum())).tolist() == counts.tolist()
    values = np.arange(counts.sum(), dtype=np.float64)
    assert sum_by_row(rows, values)[0] == pytest.approx(values[: counts[0]].sum())


def test_the_hash_tells_sides_apart() -> None:
    swapped = [type(p)(p.item_id, p.rejected, p.chosen) for p in GIVEN]
    assert pairs_sha256(GIVEN) != pairs_sha256(swapped)
    assert pairs_sha256(GIVEN) == pairs_sha256(pairs(11))
    assert pairs_sha256(cut_pairs(GIVEN, 60).pairs) != pairs_sha256(GIVEN)
