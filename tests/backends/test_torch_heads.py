"""Attention heads on torch: what they put out, and factors on them."""

# ruff: noqa: E402 (without torch the module is skipped before it imports any of it)
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from backends.interface import Head, LoraConfig, Prompt
from backends.torch.model import TorchModel, open_model
from models.directory import ModelDirectory
from models.errors import UserError
from tests.backends.test_torch_model import multimodal
from tests.support.devices import DEVICE
from tests.support.lora_models import LORA, batch_of, live_weights, with_lora
from tests.support.tiny_models import ARCHITECTURES
from tests.support.torch_reading import (
    IDS,
    ROUNDING,
    SEQUENCES,
    STARTS,
    edited,
    entering,
    every_head,
    h_last,
    hooks_of,
    layers_of,
    off,
    some_head,
)
from tests.support.training_data import examples

Tiny = Callable[..., ModelDirectory]


@pytest.fixture(params=ARCHITECTURES)
def model(tiny_directory: Tiny, request: pytest.FixtureRequest) -> Iterator[TorchModel]:
    """Every architecture."""
    with open_model(tiny_directory(request.param), device=DEVICE) as opened:
        yield opened


@pytest.fixture
def llama(tiny_directory: Tiny) -> Iterator[TorchModel]:
    with open_model(tiny_directory("llama"), device=DEVICE) as opened:
        yield opened


@pytest.mark.parametrize(
    ("arch", "heads"),
    [
        ("llama", dict.fromkeys(range(3), (6, 16))),
        ("qwen3", dict.fromkeys(range(3), (4, 32))),
        ("qwen3_5", {3: (4, 32)}),
        ("gemma3", dict.fromkeys(range(4), (4, 32))),
        ("gemma4", {0: (4, 16), 1: (4, 32), 2: (4, 16), 3: (4, 32)}),
    ],
)
def test_attention_heads_are_listed(tiny_directory: Tiny, arch: str, heads: Any) -> None:
    with open_model(tiny_directory(arch), device=DEVICE) as model:
        assert model.attention_heads() == heads
        with_lora(model)
        assert model.attention_heads() == heads
        assert model.capabilities.heads and model.capabilities.hidden_states


@pytest.mark.parametrize("last_n", [1, 4, 100])
def test_head_outputs_are_norms_and_means_of_the_last_response_ids(
    model: TorchModel, last_n: int
) -> None:
    found = model.head_outputs(SEQUENCES, STARTS, last_n=last_n)
    assert found.layers == tuple(model.attention_heads())
    lengths = [len(ids) - start for ids, start in zip(SEQUENCES, STARTS, strict=True)]
    assert found.tokens == tuple(min(last_n, length) for length in lengths)
    for layer, norms, means in zip(found.layers, found.norms, found.means, strict=True):
        assert means.shape == (5, *model.attention_heads()[layer])
        for place, ids in enumerate(SEQUENCES):
            last = entering(model, ids, layer)[-found.tokens[place] :]
            norm = np.linalg.norm(last, axis=-1).mean(0)
            assert off(means[place], last.mean(0)) < ROUNDING
            assert off(norms[place], norm) < ROUNDING
            # negative twins: heads off by one; the norm of the mean for the mean of the norms
            assert off(np.roll(norms[place], 1), norm) > 0.01
            if found.tokens[place] > 1:
                assert off(np.linalg.norm(means[place], axis=-1), norm) > 0.01


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.9, -1.0])
def test_tempering_a_head_is_scaling_its_columns(model: TorchModel, factor: float) -> None:
    head, plain = some_head(model), model.logits(IDS)
    with edited(model, head, factor):
        expected = model.logits(IDS)
    with model.tempered({head: factor}):
        found = model.logits(IDS)
    assert off(found, expected) < ROUNDING
    assert off(plain, expected) > 1e-3
    with model.tempered({Head(head.layer, 1): factor}):  # negative twin: the next head
        assert off(model.logits(IDS), expected) > 1e-3
    assert np.array_equal(model.logits(IDS), plain)


def test_tempering_reaches_every_operation(model: TorchModel) -> None:
    head = some_head(model)

    def results() -> list[NDArray[Any]]:
        return [
            model.hidden_states([IDS], [50], h_last(model)),
            model.logprobs([IDS], [10])[0],
        ]

    plain = results()
    with edited(model, head, 0.0):
        expected = results()
    with model.tempered({head: 0.0}):
        found = results()
        entered = model.head_outputs([IDS], [10], last_n=3)
    for one, other, untouched in zip(found, expected, plain, strict=True):
        assert off(one, other) < ROUNDING
        assert off(one, untouched) > 1e-3
    assert entered.norms[-1][0, head.head] == 0
    assert (entered.norms[-1][0, [0, 1, 3]] > 0).all()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_tempering_reaches_prompts_and_generated_ids(tiny_directory: Tiny, arch: str) -> None:
    """Untied embeddings: with tied ones tiny Gemma models repeat one id whatever the heads do."""
    prompt = Prompt("a", IDS[:20])
    with open_model(tiny_directory(arch, tie_word_embeddings=False), device=DEVICE) as model:

        def generated() -> tuple[int, ...]:
            return model.generate([prompt], max_tokens=12, stop_ids=[])[0].ids

        plain = generated()
        with model.tempered(every_head(model, -1.0)):
            ids = list(prompt.ids)
            for _ in range(12):
                ids.append(int(model.logits(ids)[-1].argmax()))
            assert generated() == tuple(ids[20:])
        assert generated() == plain != tuple(ids[20:])


@pytest.mark.parametrize("order", ["before", "after", "inside"])
def test_a_lora_on_o_proj_is_tempered_too(model: TorchModel, order: str) -> None:
    """Attached before the context, or while one lasts: peft moves o_proj into a wrapper."""
    head = some_head(model)
    if order == "before":
        with_lora(model)
    with model.tempered({head: 0.5}):
        if order == "inside":
            with_lora(model)
        elif order == "after":
            model.logits(IDS)
        inside = model.logits(IDS)
    if order == "after":
        with_lora(model)
        with model.tempered({head: 0.5}):
            inside = model.logits(IDS)
    plain = model.logits(IDS)
    with edited(model, head, 0.5):
        assert off(inside, model.logits(IDS)) < ROUNDING
    with edited(model, head, 0.5, adapter=False):  # negative twin: the LoRA's path left out
        assert off(inside, model.logits(IDS)) > 1e-3
    assert off(inside, plain) > 1e-3


def test_contexts_nest_and_are_undone_exactly(model: TorchModel) -> None:
    head, plain, before = some_head(model), model.logits(IDS), hooks_of(model)
    other = Head(head.layer, 0)
    with model.tempered({head: 0.25, other: 0.5}):
        expected = model.logits(IDS)
    with model.tempered({head: 0.5}):
        half = model.logits(IDS)
        with model.tempered({head: 0.5, other: 0.5}):
            assert np.array_equal(model.logits(IDS), expected)  # powers of two: no rounding
        assert np.array_equal(model.logits(IDS), half)
        with model.tempered({head: 2.0}):
            assert hooks_of(model) == before
            assert np.array_equal(model.logits(IDS), plain)
        with pytest.raises(RuntimeError, match="inner"), model.tempered({other: 0.0}):
            raise RuntimeError("inner")
        assert np.array_equal(model.logits(IDS), half)
    assert not np.array_equal(half, expected)
    assert hooks_of(model) == before
    assert np.array_equal(model.logits(IDS), plain)


def test_an_exception_undoes_all_contexts(llama: TorchModel) -> None:
    plain, before = llama.logits(IDS), hooks_of(llama)
    one: AbstractContextManager[None] = llama.tempered({Head(0, 0): 0.0})
    with pytest.raises(UserError, match="is empty"), one, llama.tempered({Head(1, 0): 0.0}):
        llama.hidden_states([[]], [0], h_last(llama))
    assert hooks_of(llama) == before
    assert np.array_equal(llama.logits(IDS), plain)


def test_a_factor_of_one_installs_nothing(model: TorchModel) -> None:
    before, plain = hooks_of(model), model.logits(IDS)
    everything = {
        Head(i, h): 1.0 for i, (n, _) in model.attention_heads().items() for h in range(n)
    }
    with model.tempered(everything), model.tempered({}):
        assert hooks_of(model) == before
        assert np.array_equal(model.logits(IDS), plain)


def test_no_heads_is_no_attention(model: TorchModel) -> None:
    heads = model.attention_heads()
    with model.tempered(every_head(model, 0.0)):
        stages = model.trace(IDS)
    for layer in range(layers_of(model)):
        is_zero = not stages[f"layers.{layer}.o_proj"].any()
        assert is_zero == (layer in heads)  # DeltaNet layers are left alone


def test_heads_that_are_not_there_are_refused_at_once(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("qwen3_5"), device=DEVICE) as model:
        with pytest.raises(UserError, match=r"layer 0 has no attention heads; .* have: 3"):
            model.tempered({Head(0, 0): 0.5})
        with pytest.raises(UserError, match="layer 3 has heads 0 to 3, and no head 4"):
            model.tempered({Head(3, 4): 0.5})
    with open_model(tiny_directory("gemma4"), device=DEVICE) as model:
        with pytest.raises(UserError, match=r"layer 4 has no attention heads; .* have: 0-3"):
            model.tempered({Head(4, 0): 0.5})
        with pytest.raises(UserError, match="finite"):
            model.tempered({Head(0, 0): float("nan")})


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_inside_a_context_is_training_the_edited_model(
    model: TorchModel, checkpointing: bool
) -> None:
    """Only o_proj's own lora_A gets another gradient: its columns are scaled, not its input."""
    head, batch = some_head(model), batch_of(examples(3))
    with_lora(model, LORA, gradient_checkpointing=checkpointing)

    def gradients() -> tuple[float, dict[str, Any]]:
        loss = model.accumulate(batch)
        parameters = model._attached().parameters
        made = {name: p.grad.cpu().numpy().copy() for name, p in parameters.items()}
        for p in parameters.values():
            p.grad = None
        return loss.nll_sum, made

    with model.tempered({head: 0.5}):
        loss, found = gradients()
        assert model.evaluate_loss(batch).nll_sum == pytest.approx(loss, rel=1e-6)
    dim = model.attention_heads()[head.layer][1]
    columns = slice(head.head * dim, (head.head + 1) * dim)
    with edited(model, head, 0.5):
        expected_loss, expected = gradients()
    own = f"model.layers.{head.layer}.self_attn.o_proj.lora_A"
    expected[own][:, columns] *= 0.5
    largest = max(np.abs(g).max() for g in expected.values())
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    for name, gradient in expected.items():
        # a factor of 0.5 rounds nothing: measured 0
        assert np.abs(found[name] - gradient).max() < 1e-6 * largest
    assert np.abs(found[own] - expected[own] * 2).max() > 1e-3 * largest


def test_a_multimodal_wrapper_is_read_and_tempered(tmp_path: Path) -> None:
    with open_model(multimodal("gemma4", tmp_path / "m"), device=DEVICE) as model:
        assert model.attention_heads() == {0: (4, 16), 1: (4, 32), 2: (4, 16), 3: (4, 32)}
        states = model.hidden_states([IDS, IDS[:9]], [69, 8], h_last(model))
        logits = model.head(torch.from_numpy(states[0, 0]).to(DEVICE)).cpu().numpy()
        assert off(logits, model.logits(IDS)[-1]) < ROUNDING
        with model.tempered({Head(1, 0): 0.0}):
            assert off(model.logits(IDS)[-1], logits) > 1e-3


def test_a_lora_on_another_module_leaves_o_proj_plain(llama: TorchModel) -> None:
    """Hooks go onto the module that is called, wrapped or not."""
    lora = LoraConfig(4, 8.0)
    weights = {n: w for n, w in live_weights(llama, lora).items() if "q_proj" in n}
    head = some_head(llama)
    with llama.tempered({head: 0.5}):
        llama.attach_lora(lora, weights)
        found = llama.logits(IDS)
    with edited(llama, head, 0.5):
        assert off(found, llama.logits(IDS)) < ROUNDING
