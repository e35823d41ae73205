"""torch and mlx compute the same: logits, loss, gradients, a training, greedy text.

The tolerances, with their reasons, are in tests/support/tolerances.py; each has a negative twin
here: a real mistake, which must exceed it.
"""

# ruff: noqa: E402 (without either engine the module is skipped before it imports any of it)
from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
mx = pytest.importorskip("mlx.core")

import mlx.optimizers as optim

import backends.mlx.train as mlx_train
from backends import open_backend
from backends.interface import AdamWConfig, LanguageModel, LoraConfig, Prompt
from backends.lora import initial_weights, load_adapter, save_adapter, select_modules
from backends.mlx.device import blas_name
from backends.mlx.lora import to_numpy
from backends.training import StepRecord, TrainConfig, TrainingExample, train
from models.directory import ModelDirectory
from tests.support.lora_models import LORA, batch_of, live_weights, with_lora
from tests.support.tiny_models import ARCHITECTURES
from tests.support.tolerances import tolerance
from tests.support.training_data import LENGTHS, example, examples

Tiny = Callable[..., ModelDirectory]
Arrays = dict[str, NDArray[np.float32]]
IDS = example(5, 100).ids
"""Longer than the tiny models' sliding window (8) and the Gated DeltaNet chunk (64)."""


def largest_difference(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_logits_are_equal(tiny_directory: Tiny, arch: str) -> None:
    directory = tiny_directory(arch)
    with open_backend("torch", directory) as one, open_backend("mlx", directory) as other:
        ours, theirs = one.logits(IDS), other.logits(IDS)
        assert ours.dtype == theirs.dtype == np.float32
        assert largest_difference(ours, theirs) < tolerance("logits")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_norm_that_is_off_by_one_percent_is_noticed(tiny_directory: Tiny, arch: str) -> None:
    """The negative twin: one norm of one layer."""
    directory = tiny_directory(arch)
    with open_backend("torch", directory) as one, open_backend("mlx", directory) as other:
        norm = other._decoder.backbone.layers[1].post_attention_layernorm  # type: ignore[attr-defined]
        norm.weight = norm.weight * 1.01
        assert largest_difference(one.logits(IDS), other.logits(IDS)) > 3 * tolerance("logits")


def test_a_rope_that_mlx_would_read_wrongly_is_noticed(tiny_directory: Tiny) -> None:
    """B's worst case: transformers 5 saves a config that mlx-lm loads silently wrong."""
    directory = tiny_directory("llama")
    with open_backend("torch", directory) as one, open_backend("mlx", directory) as other:
        for layer in other._decoder.backbone.layers:  # type: ignore[attr-defined]
            layer.self_attn.rope.base = 10_000.0
        assert largest_difference(one.logits(IDS), other.logits(IDS)) > 1.0


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("targets", ["attention", "all"])
def test_both_engines_adapt_the_same_modules(tiny_directory: Tiny, arch: str, targets: Any) -> None:
    """B18: fewer modules adapted on mlx, with no warning."""
    lora = LoraConfig(4, 8.0, targets=targets)
    directory, found = tiny_directory(arch), []
    for name in ("torch", "mlx"):
        with open_backend(name, directory) as model:
            linear = model.linear_modules()
            model.attach_lora(lora, initial_weights(lora, linear, 0))
            found.append((linear, {k: v.shape for k, v in model.lora_weights().items()}))
            adapted = {key.rpartition(".")[0] for key in model.lora_weights()}
            assert adapted == set(select_modules(linear, targets))
    assert found[0] == found[1]


def gradients(model: LanguageModel) -> Arrays:
    """Accumulated LoRA gradients by canonical name, in PEFT's layout."""
    trainer = model._training()  # type: ignore[attr-defined]
    if model.capabilities.engine == "torch":
        return {name: p.grad.cpu().numpy() for name, p in trainer._parameters.items()}
    return {name: to_numpy(value) for name, value in trainer._gradient.items()}


def relative_difference(found: Arrays, expected: Arrays) -> float:
    """Largest norm of a difference over the largest norm of a gradient."""
    assert found.keys() == expected.keys()
    largest = max(np.linalg.norm(value) for value in expected.values())
    return float(max(np.linalg.norm(found[n] - expected[n]) for n in expected) / largest)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_loss_and_lora_gradients_are_equal(tiny_directory: Tiny, arch: str) -> None:
    directory, batch = tiny_directory(arch), batch_of(examples(4))
    losses, found = [], []
    for name in ("torch", "mlx"):
        with with_lora(open_backend(name, directory)) as model:
            terms = model.accumulate(batch)
            assert terms.tokens == batch.loss_mask.sum()
            losses.append(terms.nll_sum / terms.tokens)
            found.append(gradients(model))
    assert losses[1] == pytest.approx(losses[0], rel=tolerance("loss"))
    assert relative_difference(found[1], found[0]) < tolerance("gradient")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_one_pad_token_in_the_loss_is_noticed(tiny_directory: Tiny, arch: str) -> None:
    """The negative twin (B1): mlx-lm's own loss counts one id too many in each row."""
    directory, batch = tiny_directory(arch), batch_of(examples(4))
    mask = batch.loss_mask.copy()
    for row, length in enumerate(batch.lengths):
        if length < mask.shape[1]:
            mask[row, length] = True
    wrong = replace(batch, loss_mask=mask, lengths=np.minimum(batch.lengths + 1, mask.shape[1]))
    with with_lora(open_backend("torch", directory)) as one:
        right = one.accumulate(batch).nll_sum / batch.normaliser
        expected = gradients(one)
        with with_lora(open_backend("mlx", directory)) as other:
            found = other.accumulate(wrong).nll_sum / batch.normaliser
            assert abs(found / right - 1) > 10 * tolerance("loss")
            assert relative_difference(gradients(other), expected) > 10 * tolerance("gradient")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_greedy_text_is_equal(tiny_directory: Tiny, arch: str) -> None:
    prompts = [
        Prompt(f"p{number}", example(prompt, total).ids)
        for number, (prompt, total) in enumerate(LENGTHS)
    ]
    directory, found = tiny_directory(arch), []
    for name in ("torch", "mlx"):
        with with_lora(open_backend(name, directory)) as model:
            completions = model.generate(prompts, max_tokens=12, stop_ids=[7, 8, 9])
            found.append([(c.item_id, c.ids, c.finish_reason) for c in completions])
    assert found[0] == found[1]


# Adapter files ------------------------------------------------------------------------------


def test_a_square_factor_keeps_its_orientation(tmp_path: Path, tiny_directory: Tiny) -> None:
    """B12: with rank = hidden = 8 a transposed factor has the right shape and loads silently."""
    import peft
    from transformers import AutoModelForCausalLM

    shape = {"hidden_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 4}
    directory = tiny_directory("llama", **shape, intermediate_size=16)
    lora, rng = LoraConfig(8, 8.0), np.random.default_rng(0)
    with open_backend("mlx", directory) as model:
        linear = model.linear_modules()
        assert {linear[name] for name in select_modules(linear, "attention")} == {(8, 8)}
        weights = initial_weights(lora, linear, 0)
        weights = {
            n: (0.3 * rng.normal(size=v.shape)).astype(np.float32) for n, v in weights.items()
        }
        base = model.logits(IDS)
        model.attach_lora(lora, weights)
        adapted = model.logits(IDS)
        save_adapter(tmp_path / "adapter", lora, model.lora_weights(), directory)

    config, loaded = load_adapter(tmp_path / "adapter", directory)
    for name, value in weights.items():
        np.testing.assert_array_equal(loaded[name], value)
    plain = AutoModelForCausalLM.from_pretrained(directory.path, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor([list(IDS)])).logits[0].numpy()
    assert largest_difference(adapted, expected) < tolerance("logits")
    assert largest_difference(adapted, base) > 0.1

    transposed = {n: np.ascontiguousarray(v.T) for n, v in loaded.items()}
    with open_backend("mlx", directory) as model:
        model.attach_lora(config, transposed)
        assert largest_difference(model.logits(IDS), expected) > 0.1


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_means_the_same_on_both(
    tiny_directory: Tiny, tmp_path: Path, arch: str, rslora: bool
) -> None:
    directory, lora = tiny_directory(arch), replace(LORA, rslora=rslora)
    with with_lora(open_backend("torch", directory), lora) as model:
        save_adapter(tmp_path / "adapter", lora, model.lora_weights(), directory)
        expected = model.logits(IDS)
    config, weights = load_adapter(tmp_path / "adapter", directory)
    assert config.scale == lora.scale
    with open_backend("mlx", directory) as model:
        base = model.logits(IDS)
        model.attach_lora(config, weights)
        # an adapter with scale 4 (rsLoRA) enlarges the activations and their rounding
        assert largest_difference(model.logits(IDS), expected) < 2 * tolerance("logits")
        assert largest_difference(base, expected) > 0.1


# The real model -----------------------------------------------------------------------------

QUESTIONS = (
    ("What is the capital of France?", "Paris, of course."),
    ("Name a colour.", "Blue."),
    ("2+2?", "Four."),
    ("Say hello.", "Hello there, friend!"),
    ("What do cows drink?", "Water."),
    ("Who wrote Hamlet?", "William Shakespeare."),
    ("Largest planet?", "Jupiter."),
    ("Opposite of hot?", "Cold."),
)
CURVE = TrainConfig(
    lora=LoraConfig(8, 16.0),
    epochs=5,
    learning_rate=2e-4,
    warmup_ratio=0.1,
    micro_batch_size=2,
)


def conversations(directory: ModelDirectory) -> list[TrainingExample]:
    """Short question and answer pairs without a template: few ids, so that 20 steps are quick."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory.path / "tokenizer.json"))
    made = []
    for question, answer in QUESTIONS:
        asked = tokenizer.encode(f"Q: {question}\nA:", add_special_tokens=False).ids
        told = tokenizer.encode(f" {answer}\n", add_special_tokens=False).ids
        mask = (False,) * len(asked) + (True,) * len(told)
        made.append(TrainingExample(question, tuple(asked + told), mask))
    return made


def curve(
    engine: str, directory: ModelDirectory, out: Path, config: TrainConfig = CURVE
) -> NDArray[np.float64]:
    """Loss of each of the 20 steps of the shared training loop."""
    with open_backend(engine, directory) as model:
        result = train(model, conversations(directory), [], config, directory=out)
    return np.array([step.loss for step in result.steps])


@pytest.fixture(scope="module")
def torch_curve(
    smollm_directory: ModelDirectory, tmp_path_factory: pytest.TempPathFactory
) -> NDArray[np.float64]:
    return curve("torch", smollm_directory, tmp_path_factory.mktemp("torch-curve"))


@pytest.mark.slow
def test_twenty_steps_of_the_real_model_give_one_loss_curve(
    smollm_directory: ModelDirectory, torch_curve: NDArray[np.float64], tmp_path: Path
) -> None:
    ours = curve("mlx", smollm_directory, tmp_path)
    assert len(ours) == 20
    assert ours[-4:].mean() < 0.8 * ours[:4].mean()  # it learns, so the steps matter
    slow = sys.platform == "linux" and blas_name().startswith("reference")
    device = "cpu, reference BLAS" if slow else "cpu"
    assert largest_difference(ours, torch_curve) < tolerance("loss_curve", device=device)


@pytest.mark.parametrize("mistake", ["seed", "bias correction"])
def test_a_wrong_training_leaves_the_curve(
    smollm_directory: ModelDirectory,
    torch_curve: NDArray[np.float64],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mistake: str,
) -> None:
    """The negative twin: another start and order, or AdamW as mlx has it by default."""
    config = CURVE
    if mistake == "seed":
        config = replace(CURVE, seed=1)
    else:
        monkeypatch.setattr(mlx_train, "_adamw", uncorrected)
    ended: list[StepRecord] = []

    class Enough(Exception):
        pass

    def stop_after_six(record: StepRecord) -> None:
        ended.append(record)
        if len(ended) == 6:
            raise Enough

    with open_backend("mlx", smollm_directory) as model, pytest.raises(Enough):
        train(
            model,
            conversations(smollm_directory),
            [],
            config,
            directory=tmp_path,
            on_step=stop_after_six,
        )
    losses = np.array([record.loss for record in ended])
    assert largest_difference(losses, torch_curve[:6]) > 10 * tolerance("loss_curve")


def uncorrected(config: AdamWConfig) -> Any:
    betas = [config.beta1, config.beta2]
    return optim.AdamW(0.0, betas=betas, eps=config.eps, weight_decay=config.weight_decay)


def test_greedy_text_of_the_real_model_is_equal(smollm_directory: ModelDirectory) -> None:
    prompts = [Prompt(e.item_id, e.ids) for e in conversations(smollm_directory)[:4]]
    found, tokens = [], 16
    for name in ("torch", "mlx"):
        with open_backend(name, smollm_directory) as model:
            completions = model.generate(prompts, max_tokens=tokens, stop_ids=[0, 2])
            found.append([completion.ids for completion in completions])
    assert found[0] == found[1]
    assert len(set(found[0])) == len(prompts)


def test_logits_of_the_real_model_are_equal(smollm_directory: ModelDirectory) -> None:
    ids = [token for e in conversations(smollm_directory) for token in e.ids]
    with open_backend("torch", smollm_directory) as one:
        expected = one.logits(ids)
    with open_backend("mlx", smollm_directory) as other:
        assert largest_difference(other.logits(ids), expected) < tolerance("logits")
        weights = live_weights(other)
        other.attach_lora(LORA, weights)
        assert largest_difference(other.logits(ids), expected) > 0.1
