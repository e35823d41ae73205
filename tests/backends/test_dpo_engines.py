"""DPO on each engine: which token is meant (B13), what moves (B14, B15), masks, memory, dtypes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("mlx.core")

from backends import open_backend
from backends.batching import make_batch
from backends.interface import AdamWConfig, Batch, LoraConfig
from backends.lora import initial_weights, select_modules
from backends.preference_loss import preference_terms
from backends.preferences import pair_rows
from models.directory import ModelDirectory
from tests.support.lora_models import LORA, with_lora
from tests.support.preference_pairs import (
    gradient_difference,
    lora_gradients,
    pair,
    pairs,
    preference_batch,
    references,
)
from tests.support.tiny_models import ARCHITECTURES

Tiny = Callable[..., ModelDirectory]
ENGINES = ("torch", "mlx")


def shifted(batch: Batch) -> Batch:
    """The mask one place to the left: the mistake of B13."""
    return replace(batch, loss_mask=np.roll(batch.loss_mask, -1, axis=1))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_log_probability_is_that_of_the_masked_token(tiny_directory: Tiny, engine: str) -> None:
    """B13: ids 10 11 12 13 with mask 0 0 1 0 ask for the probability of 12 after 10 11."""
    with open_backend(engine, tiny_directory("llama")) as model:
        batch = Batch(
            ids=np.array([[10, 11, 12, 13], [10, 11, 14, 0]], np.int32),
            lengths=np.array([4, 3], np.int32),
            loss_mask=np.array([[False, False, True, False], [False, False, True, False]]),
            normaliser=1.0,
        )
        logits = model.logits([10, 11]).astype(np.float64)[-1]
        total = np.log(np.exp(logits - logits.max()).sum()) + logits.max()
        expected = [logits[12] - total, logits[14] - total]
        np.testing.assert_allclose(model.sequence_logprobs(batch), expected, rtol=1e-5)
        wrong = model.sequence_logprobs(shifted(batch))
        assert np.abs(wrong - expected).min() > 1e-2


@pytest.mark.parametrize("engine", ENGINES)
def test_a_row_is_the_sum_of_its_tokens_whatever_its_neighbours(
    tiny_directory: Tiny, engine: str
) -> None:
    """Sums, not means: against log-probabilities by token, row by row."""
    given = pairs(4)
    rows = [p.chosen for p in given] + [p.rejected for p in given]
    starts = [row.response_mask.index(True) for row in rows]
    with with_lora(open_backend(engine, tiny_directory("qwen3_5"))) as model:
        found = model.sequence_logprobs(pair_rows(given, normaliser=1.0))
        by_token = model.logprobs([row.ids for row in rows], starts)
        assert len({len(values) for values in by_token}) > 4
        expected = [values.sum(dtype=np.float64) for values in by_token]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        empty = make_batch([rows[0]], normaliser=1.0)
        empty = replace(empty, loss_mask=np.zeros_like(empty.loss_mask))
        assert model.sequence_logprobs(empty) == [0.0]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_first_step_moves_every_b_and_the_second_loss_differs(
    tiny_directory: Tiny, arch: str, engine: str
) -> None:
    """B14: gradients that are zero while a loss is logged. B15: weights held as constants."""
    given = pairs(3)
    with open_backend(engine, tiny_directory(arch)) as model:
        values = references(model, given)
        linear = model.linear_modules()
        model.attach_lora(LORA, initial_weights(LORA, linear, 0))
        model.configure_optimizer(AdamWConfig())
        batch, losses = preference_batch(given, values), []
        for step in range(3):
            terms = preference_terms(batch, model.accumulate_preferences(batch))
            losses.append(terms.loss_sum / 3)
            assert model.apply(1e-3, 1.0) > 0
            if step == 0:
                after = model.lora_weights()
                for name in select_modules(linear, "all"):
                    assert np.abs(after[f"{name}.lora_B"]).max() > 1e-4, name
        assert losses[0] == pytest.approx(np.log(2), abs=1e-4)
        assert losses[0] > losses[1] + 1e-4 > losses[2] + 2e-4


@pytest.mark.parametrize("engine", ENGINES)
def test_pairs_add_up_to_the_batch_and_sft_still_works_beside(
    tiny_directory: Tiny, engine: str
) -> None:
    """Gradient of four pairs at once against four times one (float32 sums in another order)."""
    given = pairs(4)
    with open_backend(engine, tiny_directory("gemma3")) as model:
        values = references(model, given)
    with with_lora(open_backend(engine, tiny_directory("gemma3"))) as model:
        batch = preference_batch(given, values)
        policy = model.accumulate_preferences(batch)
        whole = lora_gradients(model)
        alone = []
        for one in given:
            single = preference_batch([one], values)
            rows = replace(single.rows, normaliser=4.0)
            alone.append(model.accumulate_preferences(replace(single, rows=rows)))
        assert gradient_difference(lora_gradients(model), whole) < 5e-4
        stacked = np.array(alone)
        np.testing.assert_allclose(np.concatenate(stacked.T), policy, rtol=1e-5)
        model.accumulate(make_batch([given[0].chosen], normaliser=1.0))
        assert gradient_difference(lora_gradients(model), whole) > 1e-2


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mistake", ["swapped", "beta", "reference", "mean", "mask"])
def test_each_mistake_changes_the_gradient(tiny_directory: Tiny, engine: str, mistake: str) -> None:
    """The negative twins of the comparisons: none of them would pass for the right loss."""
    given = pairs(3)
    with open_backend(engine, tiny_directory("llama")) as model:
        values = references(model, given)
    right = preference_batch(given, values)
    order = np.array([3, 4, 5, 0, 1, 2])
    wrong = {
        "swapped": replace(
            right,
            rows=replace(
                right.rows,
                ids=right.rows.ids[order],
                lengths=right.rows.lengths[order],
                loss_mask=right.rows.loss_mask[order],
            ),
            reference=right.reference[order],
        ),
        "beta": replace(right, beta=1.0),
        "reference": replace(right, reference=np.zeros_like(right.reference)),
        "mean": replace(right, reference=right.reference / right.rows.loss_mask.sum(axis=1)),
        "mask": replace(right, rows=shifted(right.rows)),
    }[mistake]
    with with_lora(open_backend(engine, tiny_directory("llama"))) as model:
        model.accumulate_preferences(right)
        expected = lora_gradients(model)
        model.accumulate_preferences(wrong)
        assert gradient_difference(lora_gradients(model), expected) > 1e-2


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("arch", ["llama", "qwen3_5", "gemma4"])
def test_gradient_checkpointing_changes_nothing(
    tiny_directory: Tiny, arch: str, engine: str
) -> None:
    given, found = pairs(2), []
    lora = replace(LORA, dropout=0.3)
    values = {p.item_id: (-50.0, -60.0) for p in given}
    batch = preference_batch(given, values, seed=5)
    for checkpointing in (False, True):
        model = open_backend(engine, tiny_directory(arch))
        with with_lora(model, lora, gradient_checkpointing=checkpointing):
            policy = model.accumulate_preferences(batch)
            found.append((policy, lora_gradients(model)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    for name, gradient in found[0][1].items():
        np.testing.assert_array_equal(found[1][1][name], gradient)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("arch", ["llama", "qwen3_5"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_lowers_the_loss_and_scales_gradients_back(
    tiny_directory: Tiny, engine: str, dtype: Any, arch: str
) -> None:
    """Two pairs a step: few enough for float16 to overflow if gradients are scaled too far up."""
    given, norms = pairs(2), {}
    for kind in ("float32", dtype):
        with open_backend(engine, tiny_directory(arch), dtype=kind) as model:
            values = references(model, given)
            model.attach_lora(LORA, initial_weights(LORA, model.linear_modules(), 0))
            model.configure_optimizer(AdamWConfig())
            batch, losses, steps = preference_batch(given, values), [], []
            for _ in range(4):
                policy = model.accumulate_preferences(batch)
                losses.append(preference_terms(batch, policy).loss_sum / 2)
                steps.append(model.apply(1e-3, None))
            norms[kind] = steps[0]
            assert losses[0] == pytest.approx(np.log(2), abs=2e-2)
            assert losses[-1] < losses[0] - 1e-2
    if arch == "llama":  # a random recurrence in bfloat16 is off by up to a quarter
        assert norms[dtype] == pytest.approx(norms["float32"], rel=0.05)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_array_of_positions_times_vocabulary(
    tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """In chunks of 8 positions the gradient is that of all 300 at once, and no head sees more."""
    import backends.mlx.loss as mlx_loss
    import backends.torch.train as torch_train
    from backends.mlx.decoder import Decoder
    from backends.torch.model import TorchModel

    vocab, given = 4096, [pair(4, 80, 70), pair(6, 90, 81)]
    seen: list[int] = []
    real = {"torch": TorchModel.head, "mlx": Decoder.logits}[engine]

    def watched(self: Any, hidden: Any) -> Any:
        seen.append(hidden.shape[0])
        return real(self, hidden)

    found = []
    for chunk in (8, 10_000):
        monkeypatch.setattr(torch_train, "HEAD_CHUNK_ELEMENTS", chunk * vocab)
        monkeypatch.setattr(mlx_loss, "CHUNK_BYTES", 4 * chunk * vocab)
        with with_lora(open_backend(engine, tiny_directory("gemma4", vocab=vocab))) as model:
            owner = {"torch": TorchModel, "mlx": Decoder}[engine]
            name = {"torch": "head", "mlx": "logits"}[engine]
            seen.clear()
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, watched)
                batch = preference_batch(given, {p.item_id: (-9.0, -8.0) for p in given})
                model.accumulate_preferences(batch)
            assert max(seen) == min(chunk, int(batch.rows.loss_mask.sum()))
            found.append(lora_gradients(model))
    assert gradient_difference(found[0], found[1]) < 1e-4


def test_loras_of_another_scale_are_other_policies(tiny_directory: Tiny) -> None:
    given = pairs(2)
    found = []
    for alpha in (8.0, 16.0):
        with with_lora(open_backend("mlx", tiny_directory("llama")), LoraConfig(4, alpha)) as model:
            found.append(model.sequence_logprobs(pair_rows(given, normaliser=1.0)))
    assert np.abs(found[0] - found[1]).max() > 0.1
