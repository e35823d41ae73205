"""Repeated keys and values give what grouped queries give, and the plain way stays plain."""

# ruff: noqa: E402 (without torch the module is skipped before it imports any of it)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from backends.interface import Prompt
from backends.torch import attention
from backends.torch.model import TorchModel, open_model
from backends.torch.plain import PlainTorch
from models.directory import ModelDirectory
from tests.support.devices import DEVICE
from tests.support.lora_models import batch_of, with_lora
from tests.support.tiny_models import ARCHITECTURES
from tests.support.torch_reading import IDS, ROUNDING, SEQUENCES, h_last, off
from tests.support.training_data import examples

Tiny = Callable[..., ModelDirectory]
ENDS = [len(ids) - 1 for ids in SEQUENCES]
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def computed(model: TorchModel) -> dict[str, Any]:
    return {
        "logits": model.logits(IDS),
        "h_last": model.hidden_states(SEQUENCES, ENDS, h_last(model)),
    }


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_repeating_changes_rounding_only(
    tiny_directory: Tiny, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed as on CUDA, on whatever device the tests run."""
    repeats: list[int] = []
    repeat = attention.repeat_kv
    monkeypatch.setattr(
        attention, "repeat_kv", lambda states, n: (repeats.append(n), repeat(states, n))[1]
    )
    with open_model(tiny_directory(arch), device=DEVICE) as model:
        model.config._attn_implementation = attention.PLAIN
        plain = computed(model)
        assert not repeats
        attention.install(model.config, CUDA, torch.float32)
        assert model.describe()["attention"] == attention.NAME
        found = computed(model)
        for what, values in plain.items():
            assert off(found[what], values) < ROUNDING, what
        prompt = [Prompt("a", tuple(IDS))]
        texts = [model.generate(prompt, max_tokens=6, stop_ids=[])[0].ids]
        with attention.plain_attention(model.config):
            texts.append(
                model.generate([Prompt("a", tuple(IDS))], max_tokens=6, stop_ids=[])[0].ids
            )
        assert texts[0] == texts[1]
        with_lora(model)
        batch = batch_of(examples(3))
        loss = model.accumulate(batch).nll_sum
        with attention.plain_attention(model.config):
            assert loss == pytest.approx(
                model.evaluate_loss(batch_of(examples(3))).nll_sum, rel=1e-5
            )
        # Gemma's sliding layers have a mask wherever a row is longer than their window; for those
        # transformers repeats keys and values itself
        assert len(repeats) >= 2 and set(repeats) == {
            model.config.num_attention_heads // model.config.num_key_value_heads
        }


def test_wrong_groups_are_noticed(tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative twin: the right shape, but each query's keys are another group's."""
    monkeypatch.setattr(attention, "repeat_kv", lambda states, n: states.repeat(1, n, 1, 1))
    with open_model(tiny_directory("llama"), device=DEVICE) as model:
        model.config._attn_implementation = attention.PLAIN
        plain = computed(model)
        attention.install(model.config, CUDA, torch.float32)
        assert off(computed(model)["logits"], plain["logits"]) > 0.01


def test_only_float32_on_cuda_needs_it_and_never_in_place_of_another_choice() -> None:
    class Config:
        _attn_implementation = "sdpa"

    for device, dtype, chosen in (
        (CPU, torch.float32, "sdpa"),
        (CUDA, torch.bfloat16, "sdpa"),
        (CUDA, torch.float32, "eager"),
    ):
        config = Config()
        config._attn_implementation = chosen
        attention.install(config, device, dtype)
        assert config._attn_implementation == chosen


def test_the_plain_way_keeps_transformers_own_attention(
    tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_model(tiny_directory("llama"), device=DEVICE) as model:
        model.config._attn_implementation = attention.PLAIN
        attention.install(model.config, CUDA, torch.float32)

        def never(*_: Any, **__: Any) -> None:
            raise AssertionError("the plain way used our attention")

        monkeypatch.setattr(attention, "repeat_kv", never)
        plain = PlainTorch(model)
        plain.states_by_row(SEQUENCES[:1])
        plain.last_states(SEQUENCES[:1])
        plain.generate(SEQUENCES[:1], 2)
        with pytest.raises(AssertionError, match="used our attention"):
            model.logits(IDS)  # and it is back


def test_masks_are_made_as_for_plain_attention(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("llama"), device=DEVICE) as model:
        model.config._attn_implementation = attention.PLAIN
        attention.install(model.config, CUDA, torch.float32)
        assert AttentionInterface()[attention.NAME] is attention.repeated
        assert AttentionMaskInterface()[attention.NAME] is sdpa_mask
