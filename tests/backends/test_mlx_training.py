"""Loss, gradients, AdamW and exact resume of the mlx engine."""

# ruff: noqa: E402 (without mlx the module is skipped before it imports any of it)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

mx = pytest.importorskip("mlx.core")

from mlx import nn
from mlx.utils import tree_flatten

import backends.mlx.loss as loss_module
from backends.batching import make_batch
from backends.interface import AdamWConfig, Batch
from backends.lora import initial_weights, select_modules
from backends.mlx import lora as lora_module
from backends.mlx.model import MlxModel, open_model
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.lora_models import LORA, batch_of, with_lora
from tests.support.tiny_models import ARCHITECTURES
from tests.support.tolerances import tolerance
from tests.support.training_data import example, examples

Tiny = Callable[..., ModelDirectory]
Arrays = dict[str, NDArray[np.float32]]


def gradients(model: MlxModel) -> Arrays:
    """Take the accumulated gradient out of the engine."""
    trainer = model._training()
    found, trainer._gradient = trainer._gradient, None
    assert found is not None
    return {name: np.array(value) for name, value in found.items()}


def gradient_of(model: MlxModel, batch: Batch) -> Arrays:
    model.accumulate(batch)
    return gradients(model)


def assert_close(found: Arrays, expected: Arrays, operation: str = "batching") -> None:
    largest = max(np.abs(g).max() for g in expected.values())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        np.testing.assert_allclose(
            found[name], gradient, rtol=0, atol=tolerance(operation) * largest
        )


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_loss_and_gradients_equal_autograd_through_all_logits(
    tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch, arch: str
) -> None:
    """The head's hand-written derivative, in several chunks, against mlx's own."""
    with with_lora(open_model(tiny_directory(arch))) as model:
        batch, decoder = batch_of(examples(4)), model._decoder
        monkeypatch.setattr(loss_module, "CHUNK_BYTES", 4 * 512 * 10)
        terms = model.accumulate(batch)
        ours = gradients(model)
        adapter = model._attached()

        def plain(parameters: Any) -> Any:
            adapter.set_parameters(parameters)
            logits = decoder.logits(decoder.hidden(mx.array(batch.ids)))[:, :-1]
            nll = nn.losses.cross_entropy(logits, mx.array(batch.ids[:, 1:]))
            return (nll * mx.array(batch.loss_mask[:, 1:])).sum() / batch.normaliser

        parameters = adapter.parameters()
        decoder.network.train()
        value, gradient = mx.value_and_grad(plain)(parameters)
        adapter.set_parameters(parameters)
        assert terms.tokens == batch.loss_mask.sum()
        assert terms.nll_sum / terms.tokens == pytest.approx(value.item(), rel=tolerance("loss"))
        assert_close(ours, {name: np.array(g) for name, g in gradient.items()})


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_each_row_gets_the_gradient_it_gets_alone(tiny_directory: Tiny, arch: str) -> None:
    """B16: recurrent layers with wrong gradients for rows after the first."""
    with with_lora(open_model(tiny_directory(arch))) as model:
        row, shorter = example(5, 70), example(3, 9)
        alone = gradient_of(model, make_batch([row], normaliser=1.0))
        twice = gradient_of(model, make_batch([row, row], normaliser=2.0))
        both = gradient_of(model, make_batch([row, shorter], normaliser=1.0))
        short = gradient_of(model, make_batch([shorter], normaliser=1.0))
        assert_close(twice, alone)
        assert_close(both, {name: alone[name] + short[name] for name in alone})
        with pytest.raises(AssertionError):
            assert_close(both, alone)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_loss_ignores_padding_length_and_value(tiny_directory: Tiny, arch: str) -> None:
    """B1: 3 answer ids after a prompt of 6, padded to 32, are 3 targets and not 4."""
    with open_model(tiny_directory(arch)) as model:
        batch = make_batch([example(6, 9)], normaliser=3.0)
        plain = model.evaluate_loss(batch)
        assert plain.tokens == 3
        padding = np.full((1, 23), 511_000, np.int32)  # arbitrary: not even in the vocabulary
        padded = replace(
            batch,
            ids=np.concatenate([batch.ids, padding], axis=1),
            loss_mask=np.concatenate([batch.loss_mask, np.zeros((1, 23), bool)], axis=1),
        )
        terms = model.evaluate_loss(padded)
        assert terms.tokens == 3
        assert terms.nll_sum == pytest.approx(plain.nll_sum, rel=tolerance("loss"))
        shifted = replace(batch, loss_mask=np.roll(batch.loss_mask, -1, axis=1))
        assert abs(model.evaluate_loss(shifted).nll_sum - plain.nll_sum) > 1e-2


def test_the_token_picked_is_the_one_masked(tiny_directory: Tiny) -> None:
    """B13: ids 10 11 12 13 with mask 0 0 1 0 ask for the probability of 12 after 10 11."""
    with open_model(tiny_directory("llama")) as model:
        batch = Batch(
            ids=np.array([[10, 11, 12, 13]], np.int32),
            lengths=np.array([4], np.int32),
            loss_mask=np.array([[False, False, True, False]]),
            normaliser=1.0,
        )
        logits = model.logits([10, 11]).astype(np.float64)[-1]
        expected = np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[12]
        terms = model.evaluate_loss(batch)
        assert terms.tokens == 1
        assert terms.nll_sum == pytest.approx(expected, rel=tolerance("loss"))


def test_a_batch_without_a_response_has_no_loss_and_no_gradient(tiny_directory: Tiny) -> None:
    with with_lora(open_model(tiny_directory("llama"))) as model:
        batch = make_batch([example(9, 9)], normaliser=1.0)
        assert model.evaluate_loss(batch).tokens == 0
        terms = model.accumulate(batch)
        assert (terms.nll_sum, terms.tokens) == (0.0, 0)
        assert all((gradient == 0).all() for gradient in gradients(model).values())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_b_moves_in_the_first_step_and_the_base_does_not(
    tiny_directory: Tiny, arch: str
) -> None:
    """B11, B14, B18: gradients reach every adapted module and nothing else."""
    with open_model(tiny_directory(arch)) as model:
        linear = model.linear_modules()
        weights = initial_weights(LORA, linear, 0)
        model.attach_lora(LORA, weights)
        assert model.linear_modules() == linear
        for name, value in model.lora_weights().items():
            np.testing.assert_array_equal(value, weights[name])
        model.configure_optimizer(AdamWConfig())
        network = model._decoder.network
        trained = dict(tree_flatten(network.trainable_parameters()))
        assert sum(v.size for v in trained.values()) == sum(a.size for a in weights.values())
        assert model.describe()["trainable_share"] < 0.5
        frozen = {
            name: np.array(value)
            for name, value in tree_flatten(network.parameters())
            if name not in trained
        }
        model.accumulate(batch_of(examples(4)))
        assert model.apply(1e-3, 1.0) > 0
        after = model.lora_weights()
        modules = select_modules(linear, "all")
        assert {name.rpartition(".")[0] for name in after} == set(modules)
        for name in modules:
            assert np.abs(after[f"{name}.lora_B"]).max() > 1e-4, name
        now = dict(tree_flatten(network.parameters()))
        assert all((np.array(now[name]) == value).all() for name, value in frozen.items())


def test_an_attached_lora_changes_the_logits(tiny_directory: Tiny) -> None:
    """B8: an adapter that is there but not computed."""
    ids = example(5, 30).ids
    with open_model(tiny_directory("qwen3_5")) as model:
        base = model.logits(ids)
        model.attach_lora(LORA, initial_weights(LORA, model.linear_modules(), 0))
        np.testing.assert_array_equal(model.logits(ids), base)  # B is zero
    with with_lora(open_model(tiny_directory("qwen3_5"))) as model:
        assert np.abs(model.logits(ids) - base).max() > 0.1


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_gradient_checkpointing_changes_nothing(tiny_directory: Tiny, arch: str) -> None:
    """The same operations run twice, dropout masks included, so equal to the last bit."""
    lora = replace(LORA, dropout=0.3)
    batch = batch_of(examples(3), seed=5)
    found = []
    for checkpointing in (False, True):
        model = open_model(tiny_directory(arch))
        with with_lora(model, lora, gradient_checkpointing=checkpointing):
            terms = model.accumulate(batch)
            found.append((terms.nll_sum, gradients(model)))
    assert found[0][0] == found[1][0]
    for name, gradient in found[0][1].items():
        np.testing.assert_array_equal(found[1][1][name], gradient)


def test_dropout_from_the_global_stream_would_break_checkpointing(
    tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative twin: mlx's own dropout draws other masks when a layer is run again."""

    class Global(nn.Dropout):  # type: ignore[misc]
        def reseed(self, key: Any) -> None:
            mx.random.seed(5)

    monkeypatch.setattr(lora_module, "SeededDropout", Global)
    found = []
    for checkpointing in (False, True):
        model = open_model(tiny_directory("llama"))
        lora = replace(LORA, dropout=0.3)
        with with_lora(model, lora, gradient_checkpointing=checkpointing):
            found.append(gradient_of(model, batch_of(examples(3))))
    assert any((found[0][name] != found[1][name]).any() for name in found[0])


def test_dropout_follows_the_batch_seed_only(tiny_directory: Tiny) -> None:
    with with_lora(open_model(tiny_directory("llama")), replace(LORA, dropout=0.5)) as model:
        rows = examples(2)
        mx.random.seed(1)
        first = model.accumulate(batch_of(rows, seed=3)).nll_sum
        mx.random.seed(2)
        assert model.accumulate(batch_of(rows, seed=3)).nll_sum == first
        assert model.accumulate(batch_of(rows, seed=4)).nll_sum != first
        off = model.evaluate_loss(batch_of(rows, seed=3)).nll_sum
        assert model.evaluate_loss(batch_of(rows, seed=4)).nll_sum == off
        assert off != first


def test_an_adamw_step_is_the_formula(tiny_directory: Tiny) -> None:
    """Two steps in float64 by hand (arXiv 1711.05101, algorithm 2), clipping included."""
    config = AdamWConfig(weight_decay=0.1)
    with with_lora(open_model(tiny_directory("llama"))) as model:
        model.configure_optimizer(config)
        weight = {n: w.astype(np.float64) for n, w in model.lora_weights().items()}
        m = {n: np.zeros_like(w) for n, w in weight.items()}
        v = {n: np.zeros_like(w) for n, w in weight.items()}
        batch = batch_of(examples(3))
        for step in (1, 2):
            grad = {n: g.astype(np.float64).T for n, g in gradient_of(model, batch).items()}
            model.accumulate(batch)
            norm = np.sqrt(sum((g**2).sum() for g in grad.values()))
            clip = min(1.0, 0.5 / norm)
            assert model.apply(1e-2, 0.5) == pytest.approx(norm, rel=1e-5)
            assert clip < 1  # so that clipping is tested
            for n, g in grad.items():
                m[n] = config.beta1 * m[n] + (1 - config.beta1) * g * clip
                v[n] = config.beta2 * v[n] + (1 - config.beta2) * (g * clip) ** 2
                m_hat, v_hat = m[n] / (1 - config.beta1**step), v[n] / (1 - config.beta2**step)
                weight[n] -= 1e-2 * (m_hat / (np.sqrt(v_hat) + config.eps) + 0.1 * weight[n])
        for n, found in model.lora_weights().items():
            # float32 rounding of gradients near eps is amplified to at most some 1e-3 of a step
            np.testing.assert_allclose(found, weight[n], rtol=0, atol=2e-5)


def test_accumulation_adds_up_and_apply_clears(tiny_directory: Tiny) -> None:
    with with_lora(open_model(tiny_directory("llama"))) as model:
        rows = examples(4)
        tokens = float(sum(sum(row.response_mask) for row in rows))
        whole = gradient_of(model, make_batch(rows, normaliser=tokens))
        for half in (rows[:2], rows[2:]):
            model.accumulate(make_batch(half, normaliser=tokens))
        assert_close(gradients(model), whole)
        with pytest.raises(UserError, match="without a gradient"):
            model.apply(1e-3, 1.0)


def test_losses_move_and_do_not_depend_on_fused_kernels(tiny_directory: Tiny) -> None:
    """B15: a compiled step that holds the LoRA weights as constants repeats its first loss."""

    def curve() -> list[float]:
        with with_lora(open_model(tiny_directory("qwen3_5"))) as model:
            losses = []
            for _ in range(3):
                losses.append(model.accumulate(batch_of(examples(3))).nll_sum)
                model.apply(1e-2, 1.0)
            return losses

    fused = curve()
    assert fused[0] > fused[1] > fused[2]
    mx.disable_compile()
    try:
        plain = curve()
    finally:
        mx.enable_compile()
    np.testing.assert_allclose(fused, plain, rtol=tolerance("loss"))


def test_a_lora_of_another_shape_is_refused(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("llama")) as model:
        weights = initial_weights(LORA, model.linear_modules(), 0)
        with pytest.raises(UserError, match="does not fit"):
            model.attach_lora(replace(LORA, rank=3), weights)
    with open_model(tiny_directory("qwen3_5")) as model:
        with pytest.raises(UserError, match="does not have"):
            model.attach_lora(LORA, weights)
        with pytest.raises(UserError, match="no LoRA"):
            model.lora_weights()
        with pytest.raises(UserError, match="no optimiser"):
            model.accumulate(batch_of(examples(1)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_trains_with_float32_adapters(tiny_directory: Tiny, dtype: Any) -> None:
    with open_model(tiny_directory("llama")) as model:
        exact = model.evaluate_loss(batch_of(examples(3)))
    with open_model(tiny_directory("llama"), dtype=dtype) as model:
        model.attach_lora(LORA, initial_weights(LORA, model.linear_modules(), 0))
        model.configure_optimizer(AdamWConfig())
        assert {v.dtype for v in model._attached().parameters().values()} == {mx.float32}
        losses = []
        for _ in range(6):
            losses.append(model.accumulate(batch_of(examples(3))).nll_sum)
            assert np.isfinite(model.apply(1e-2, 1.0))
        assert losses[-1] < 0.9 * losses[0]
        assert losses[0] == pytest.approx(exact.nll_sum, rel=0.2)


def test_float16_gradients_are_scaled_back(tiny_directory: Tiny) -> None:
    norms = {}
    for dtype in ("float32", "float16"):
        with open_model(tiny_directory("llama"), dtype=dtype) as model:  # type: ignore[arg-type]
            model.attach_lora(LORA, initial_weights(LORA, model.linear_modules(), 0))
            model.configure_optimizer(AdamWConfig())
            model.accumulate(batch_of(examples(3)))
            norms[dtype] = model.apply(1e-3, None)
    # float16 rounding of a tiny random model; the scale itself is 256
    assert norms["float16"] == pytest.approx(norms["float32"], rel=0.05)
