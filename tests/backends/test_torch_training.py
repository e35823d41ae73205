"""Loss, gradients and LoRA layers of the torch engine, against transformers, peft and autograd."""

# ruff: noqa: E402 (without torch the module is skipped before it imports any of it)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode

import backends.torch.train as engine
from backends.batching import make_batch
from backends.interface import AdamWConfig, Batch, LoraConfig
from backends.lora import initial_weights, save_adapter, select_modules
from backends.torch.attention import plain_attention
from backends.torch.model import TorchModel, open_model
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.devices import DEVICE
from tests.support.tiny_models import ARCHITECTURES
from tests.support.training_data import example, examples

LORA = LoraConfig(4, 8.0, targets="all")
Tiny = Callable[..., ModelDirectory]


def opened(directory: ModelDirectory, lora: LoraConfig = LORA, **options: Any) -> TorchModel:
    """A model with a LoRA whose B is not zero, so that every gradient is alive."""
    model = open_model(directory, device=DEVICE)
    weights = initial_weights(lora, model.linear_modules(), 0)
    rng = np.random.default_rng(0)
    for name in weights:
        if name.endswith("lora_B"):
            weights[name] = (0.05 * rng.normal(size=weights[name].shape)).astype(np.float32)
    model.attach_lora(lora, weights, **options)
    model.configure_optimizer(AdamWConfig())
    return model


def batch_of(rows: list[Any], **options: Any) -> Batch:
    tokens = sum(sum(row.response_mask) for row in rows)
    return make_batch(rows, normaliser=float(tokens), **options)


def gradients(model: TorchModel) -> dict[str, np.ndarray]:
    return {n: p.grad.cpu().numpy().copy() for n, p in model._attached().parameters.items()}


def clear(model: TorchModel) -> None:
    for parameter in model._attached().parameters.values():
        parameter.grad = None


def hf_loss(model: TorchModel, batch: Batch) -> Any:
    """transformers' own loss through ``labels``: full logits, mean over response ids."""
    labels = np.where(batch.loss_mask, batch.ids, -100).astype(np.int64)
    mask = np.arange(batch.ids.shape[1]) < batch.lengths[:, None]
    return model.model(
        input_ids=torch.from_numpy(batch.ids.astype(np.int64)).to(DEVICE),
        attention_mask=torch.from_numpy(mask.astype(np.int64)).to(DEVICE),
        labels=torch.from_numpy(labels).to(DEVICE),
        use_cache=False,
    ).loss


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_loss_and_gradients_equal_transformers_own(tiny_directory: Tiny, arch: str) -> None:
    """Float32 sums in another order; relative to the largest gradient (seen: 3e-6)."""
    with opened(tiny_directory(arch)) as model:
        batch = batch_of(examples(4))
        terms = model.accumulate(batch)
        ours = gradients(model)
        clear(model)
        model.model.train()
        loss = hf_loss(model, batch)
        loss.backward()
        theirs = gradients(model)
        assert terms.tokens == batch.loss_mask.sum()
        assert terms.nll_sum / terms.tokens == pytest.approx(loss.item(), rel=1e-5)
        largest = max(np.abs(g).max() for g in theirs.values())
        for name, gradient in theirs.items():
            np.testing.assert_allclose(ours[name], gradient, rtol=0, atol=5e-5 * largest)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_each_row_gets_the_gradient_it_gets_alone(tiny_directory: Tiny, arch: str) -> None:
    """B16: recurrent layers with wrong gradients for rows after the first."""
    with opened(tiny_directory(arch)) as model:
        row, shorter = example(5, 70), example(3, 9)
        model.accumulate(make_batch([row], normaliser=1.0))
        alone = gradients(model)
        clear(model)
        model.accumulate(make_batch([row, row], normaliser=2.0))
        twice = gradients(model)
        clear(model)
        model.accumulate(make_batch([row, shorter], normaliser=1.0))
        both = gradients(model)
        clear(model)
        model.accumulate(make_batch([shorter], normaliser=1.0))
        short = gradients(model)
        largest = max(np.abs(g).max() for g in alone.values())
        for name in alone:
            np.testing.assert_allclose(twice[name], alone[name], rtol=0, atol=5e-5 * largest)
            total = alone[name] + short[name]
            np.testing.assert_allclose(both[name], total, rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_loss_ignores_padding_length_and_value(tiny_directory: Tiny, arch: str) -> None:
    """B1: 3 answer ids after a prompt of 6, padded to 32, are 3 targets and not 4."""
    with opened(tiny_directory(arch)) as model:
        batch = make_batch([example(6, 9)], normaliser=3.0)
        plain = model.evaluate_loss(batch)
        assert plain.tokens == 3
        padding = np.full((1, 23), 7, np.int32)
        padded = replace(
            batch,
            ids=np.concatenate([batch.ids, padding], axis=1),
            loss_mask=np.concatenate([batch.loss_mask, np.zeros((1, 23), bool)], axis=1),
        )
        terms = model.evaluate_loss(padded)
        assert terms.tokens == 3
        # other matrix shapes, so other rounding (seen: 4e-6 of a loss near 50)
        assert terms.nll_sum == pytest.approx(plain.nll_sum, rel=1e-5)
        one_more = padded.loss_mask.copy()
        one_more[0, 9] = True  # the off-by-one of B1: counts a pad id
        assert model.evaluate_loss(replace(padded, loss_mask=one_more)).tokens == 4
        wrong = model.evaluate_loss(replace(padded, loss_mask=one_more)).nll_sum
        assert abs(wrong - plain.nll_sum) > 1e-2


def test_the_token_picked_is_the_one_masked(tiny_directory: Tiny) -> None:
    """B13: ids 10 11 12 13 with mask 0 0 1 0 ask for the probability of 12 after 10 11."""
    with open_model(tiny_directory("llama"), device=DEVICE) as model:
        batch = Batch(
            ids=np.array([[10, 11, 12, 13]], np.int32),
            lengths=np.array([4], np.int32),
            loss_mask=np.array([[False, False, True, False]]),
            normaliser=1.0,
        )
        logits = model.logits([10, 11]).astype(np.float64)[-1]
        expected = np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[12]
        assert model.evaluate_loss(batch).nll_sum == pytest.approx(expected, rel=1e-5)
        assert model.evaluate_loss(batch).tokens == 1


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_b_moves_in_the_first_step_and_the_base_does_not(
    tiny_directory: Tiny, arch: str
) -> None:
    """B11, B14, B18: gradients reach every adapted module and nothing else."""
    with open_model(tiny_directory(arch), device=DEVICE) as model:
        linear = model.linear_modules()
        weights = initial_weights(LORA, linear, 0)
        model.attach_lora(LORA, weights)
        model.configure_optimizer(AdamWConfig())
        frozen = {n: p.clone() for n, p in model.model.named_parameters() if not p.requires_grad}
        trained = sum(p.numel() for p in model.model.parameters() if p.requires_grad)
        assert trained == sum(array.size for array in weights.values())
        assert model.describe()["trainable_share"] < 0.5
        model.accumulate(batch_of(examples(4)))
        assert model.apply(1e-3, 1.0) > 0
        after = model.lora_weights()
        modules = select_modules(linear, "all")
        assert {name.rpartition(".")[0] for name in after} == set(modules)
        for name in modules:
            assert np.abs(after[f"{name}.lora_B"]).max() > 1e-4, name
        named = dict(model.model.named_parameters())
        assert all(torch.equal(named[name], value) for name, value in frozen.items())


def test_adapted_modules_follow_the_architecture(tiny_directory: Tiny) -> None:
    def names(arch: str, targets: str) -> list[str]:
        with open_model(tiny_directory(arch), device=DEVICE) as model:
            return select_modules(model.linear_modules(), targets)

    assert len(names("llama", "attention")) == 3 * 4
    assert len(names("llama", "all")) == 3 * 7
    # three of four layers are Gated DeltaNet: no attention to adapt, an MLP all the same
    assert names("qwen3_5", "attention") == [f"model.layers.3.self_attn.{x}_proj" for x in "qkvo"]
    assert len(names("qwen3_5", "all")) == 4 + 4 * 3
    # the last two of four layers take keys and values from earlier ones
    assert len(names("gemma4", "attention")) == 2 * 4 + 2 * 2


@pytest.mark.parametrize("arch", ["llama", "qwen3_5", "gemma4"])
def test_gradient_checkpointing_changes_nothing(tiny_directory: Tiny, arch: str) -> None:
    """The same float32 operations run twice (with dropout: from the same seed)."""
    lora = replace(LORA, dropout=0.3)
    batch = batch_of(examples(3), seed=5)
    found = []
    for checkpointing in (False, True):
        with opened(tiny_directory(arch), lora, gradient_checkpointing=checkpointing) as model:
            terms = model.accumulate(batch)
            found.append((terms.nll_sum, gradients(model)))
    assert found[0][0] == found[1][0]
    for name, gradient in found[0][1].items():
        np.testing.assert_array_equal(found[1][1][name], gradient)


def test_dropout_follows_the_batch_seed_only(tiny_directory: Tiny) -> None:
    with opened(tiny_directory("llama"), replace(LORA, dropout=0.5)) as model:
        rows = examples(2)
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = model.accumulate(batch_of(rows, seed=3)).nll_sum
        assert torch.equal(torch.get_rng_state(), before)  # the process's stream is not moved
        torch.manual_seed(2)
        assert model.accumulate(batch_of(rows, seed=3)).nll_sum == first
        assert model.accumulate(batch_of(rows, seed=4)).nll_sum != first
        off = model.evaluate_loss(batch_of(rows, seed=3)).nll_sum
        assert model.evaluate_loss(batch_of(rows, seed=4)).nll_sum == off


class _LargestFloat(TorchDispatchMode):
    """Records the largest floating-point tensor that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.largest = max(self.largest, tensor.numel())
        return result


def test_memory_does_not_hold_positions_times_vocabulary(
    tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocab, chunk = 4096, 8
    rows = [example(4, 100, seed=i, vocab=vocab) for i in range(2)]
    monkeypatch.setattr(engine, "HEAD_CHUNK_ELEMENTS", chunk * vocab)
    with opened(tiny_directory("gemma4", vocab=vocab)) as model:
        batch = batch_of(rows)
        with _LargestFloat() as seen:
            chunked = model.accumulate(batch).nll_sum
        weights = max(p.numel() for p in model.model.parameters())
        assert seen.largest <= max(chunk * vocab, weights)
        grads = gradients(model)
        clear(model)
        monkeypatch.setattr(engine, "HEAD_CHUNK_ELEMENTS", 1 << 24)
        with _LargestFloat() as seen:
            whole = model.accumulate(batch).nll_sum
        assert seen.largest >= 192 * vocab > weights  # the measure sees what it looks for
        assert chunked == pytest.approx(whole, rel=1e-6)
        for name, gradient in gradients(model).items():
            scale = np.abs(gradient).max()
            np.testing.assert_allclose(grads[name], gradient, rtol=0, atol=1e-4 * scale)


def test_an_adamw_step_is_the_formula(tiny_directory: Tiny) -> None:
    """Two steps in float64 by hand (arXiv 1711.05101, algorithm 2), clipping included."""
    config = AdamWConfig(weight_decay=0.1)
    with opened(tiny_directory("llama")) as model:
        model.configure_optimizer(config)
        weight = {n: w.astype(np.float64) for n, w in model.lora_weights().items()}
        m = {n: np.zeros_like(w) for n, w in weight.items()}
        v = {n: np.zeros_like(w) for n, w in weight.items()}
        for step in (1, 2):
            model.accumulate(batch_of(examples(3)))
            grad = {n: g.astype(np.float64) for n, g in gradients(model).items()}
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
            # float32 rounding of gradients near eps is amplified to at most some 1e-6 of a step
            np.testing.assert_allclose(found, weight[n], rtol=0, atol=2e-5)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("rslora", [False, True])
def test_plain_peft_loads_the_adapter(
    tiny_directory: Tiny, tmp_path: Path, arch: str, rslora: bool
) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    directory = tiny_directory(arch)
    lora = replace(LORA, rslora=rslora)
    ids = list(example(5, 30).ids)
    with open_model(directory, device=DEVICE) as model:
        base = model.logits(ids)
    with opened(directory, lora) as model, plain_attention(model.config):
        ours = model.logits(ids)
        save_adapter(tmp_path / "adapter", lora, model.lora_weights(), directory)
    plain = AutoModelForCausalLM.from_pretrained(directory.path, dtype=torch.float32)
    loaded = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval().to(DEVICE)
    with torch.no_grad():
        theirs = loaded(input_ids=torch.tensor([ids], device=DEVICE)).logits[0].cpu().numpy()
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(ours - base).max() > 0.1


def test_a_lora_of_another_shape_is_refused(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("llama"), device=DEVICE) as model:
        weights = initial_weights(LORA, model.linear_modules(), 0)
        with pytest.raises(UserError, match="does not fit"):
            model.attach_lora(replace(LORA, rank=3), weights)
    with open_model(tiny_directory("qwen3_5"), device=DEVICE) as model:
        with pytest.raises(UserError, match="does not have"):
            model.attach_lora(LORA, weights)
        with pytest.raises(UserError, match="no LoRA"):
            model.lora_weights()
        with pytest.raises(UserError, match="no optimiser"):
            model.accumulate(batch_of(examples(1)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_trains_with_float32_adapters(tiny_directory: Tiny, dtype: Any) -> None:
    with opened(tiny_directory("llama")) as model:
        exact = model.evaluate_loss(batch_of(examples(3)))
    with open_model(tiny_directory("llama"), dtype=dtype, device=DEVICE) as model:
        model.attach_lora(LORA, initial_weights(LORA, model.linear_modules(), 0))
        model.configure_optimizer(AdamWConfig())
        assert {p.dtype for p in model._attached().parameters.values()} == {torch.float32}
        losses = []
        for _ in range(6):
            losses.append(model.accumulate(batch_of(examples(3))).nll_sum)
            assert np.isfinite(model.apply(1e-2, 1.0))
        assert losses[-1] < 0.9 * losses[0]
        assert losses[0] == pytest.approx(exact.nll_sum, rel=0.2)


def test_float16_gradients_are_scaled_back(tiny_directory: Tiny) -> None:
    norms = {}
    for dtype in ("float32", "float16"):
        with open_model(tiny_directory("llama"), dtype=dtype, device=DEVICE) as model:  # type: ignore[arg-type]
            model.attach_lora(LORA, initial_weights(LORA, model.linear_modules(), 0))
            model.configure_optimizer(AdamWConfig())
            model.accumulate(batch_of(examples(3)))
            norms[dtype] = model.apply(1e-3, None)
    # float16 rounding of a tiny random model; the scale itself is 256
    assert norms["float16"] == pytest.approx(norms["float32"], rel=0.05)
