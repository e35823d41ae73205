"""Greedy decoding on torch: batches, stops, budgets."""

# ruff: noqa: E402 (without torch the module is skipped before it imports any of it)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import backends.torch.generate as engine
from backends.interface import Completion, Prompt
from backends.torch.model import TorchModel, open_model
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.devices import DEVICE
from tests.support.tiny_models import ARCHITECTURES
from tests.support.training_data import LENGTHS, example

Tiny = Callable[..., ModelDirectory]
PROMPTS = [
    Prompt(f"p{number}", example(prompt, total).ids)
    for number, (prompt, total) in enumerate(LENGTHS)
]


def naive(model: TorchModel, prompt: Prompt, count: int) -> list[int]:
    """Greedy decoding without a cache, a batch or padding: a full forward pass per token."""
    ids = list(prompt.ids)
    for _ in range(count):
        ids.append(int(np.argmax(model.logits(ids)[-1])))
    return ids[len(prompt.ids) :]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_batch_gives_what_each_prompt_gives_alone(tiny_directory: Tiny, arch: str) -> None:
    with open_model(tiny_directory(arch), device=DEVICE) as model:
        together = model.generate(PROMPTS, max_tokens=10, stop_ids=[])
        assert [c.item_id for c in together] == [p.item_id for p in PROMPTS]
        for prompt, completion in zip(PROMPTS, together, strict=True):
            assert list(completion.ids) == naive(model, prompt, 10)
            assert completion.prompt_ids == prompt.ids
            assert completion.finish_reason == "length"
            (alone,) = model.generate([prompt], max_tokens=10, stop_ids=[])
            assert alone.ids == completion.ids


def test_padding_that_is_not_masked_is_noticed(
    tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative twin of the batch test: a mask that hides nothing changes the text."""
    pad = engine._left_pad

    def unmasked(*arguments: Any) -> Any:
        ids, mask = pad(*arguments)
        return ids, torch.ones_like(mask)

    with open_model(tiny_directory("llama"), device=DEVICE) as model:
        right = [c.ids for c in model.generate(PROMPTS, max_tokens=24, stop_ids=[])]
        monkeypatch.setattr(engine, "_left_pad", unmasked)
        assert right != [c.ids for c in model.generate(PROMPTS, max_tokens=24, stop_ids=[])]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_rows_end_where_they_would_end_alone(tiny_directory: Tiny, arch: str) -> None:
    """Lengths follow from each row's own first id, so rows leave the batch at different times.

    Stop ids would not do: tiny Gemma models with tied embeddings repeat one id for ever.
    """

    def over(ids: tuple[int, ...]) -> bool:
        return len(ids) >= 2 + ids[0] % 7

    with open_model(tiny_directory(arch), device=DEVICE) as model:
        free = model.generate(PROMPTS, max_tokens=12, stop_ids=[])
        seen: list[Completion] = []
        ended = model.generate(
            PROMPTS, max_tokens=12, stop_ids=[], stop_when=over, on_done=seen.append
        )
        assert len({len(completion.ids) for completion in ended}) > 2
        for whole, cut in zip(free, ended, strict=True):
            assert cut.ids == whole.ids[: 2 + whole.ids[0] % 7]
            assert cut.finish_reason == "stop"
        assert sorted(c.item_id for c in seen) == sorted(p.item_id for p in PROMPTS)
        assert all(c.seconds > 0 for c in seen)


def test_stop_ids_end_a_row_and_are_kept(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("llama"), device=DEVICE) as model:
        free = model.generate(PROMPTS, max_tokens=24, stop_ids=[])
        stops = {completion.ids[3 * place + 2] for place, completion in enumerate(free)}
        ended = model.generate(PROMPTS, max_tokens=24, stop_ids=sorted(stops))
        for whole, cut in zip(free, ended, strict=True):
            first = min(place for place, token in enumerate(whole.ids) if token in stops)
            assert cut.ids == whole.ids[: first + 1]
            assert cut.finish_reason == "stop"


def test_stop_when_ends_a_row_and_sees_only_its_ids(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("llama"), device=DEVICE) as model:
        free = model.generate(PROMPTS, max_tokens=12, stop_ids=[])
        wanted = free[2].ids[:5]
        ended = model.generate(
            PROMPTS, max_tokens=12, stop_ids=[], stop_when=lambda ids: ids == wanted
        )
        assert ended[2].ids == wanted
        assert [c.finish_reason for c in ended].count("stop") == 1
        assert [c.ids for i, c in enumerate(ended) if i != 2] == [
            c.ids for i, c in enumerate(free) if i != 2
        ]


def test_a_stop_on_the_last_token_of_the_budget_is_a_stop(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("llama"), device=DEVICE) as model:
        (free,) = model.generate(PROMPTS[:1], max_tokens=8, stop_ids=[])
        last = free.ids[-1]
        first = free.ids.index(last)
        (stopped,) = model.generate(PROMPTS[:1], max_tokens=first + 1, stop_ids=[last])
        assert stopped.finish_reason == "stop"
        assert stopped.ids == free.ids[: first + 1]


@pytest.mark.parametrize("budget", [1, 16])
def test_the_budget_reaches_the_engine(tiny_directory: Tiny, budget: int) -> None:
    """B7: a budget that is ignored runs on to thousands of tokens."""
    with open_model(tiny_directory("qwen3"), device=DEVICE) as model:
        completions = model.generate(PROMPTS, max_tokens=budget, stop_ids=[])
        assert {len(c.ids) for c in completions} == {budget}


def test_small_batches_give_the_same_text(
    tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_model(tiny_directory("gemma4"), device=DEVICE) as model:
        wide = model.generate(PROMPTS, max_tokens=16, stop_ids=[])
        monkeypatch.setattr(engine, "CACHE_BYTES", 1)
        sizes = [len(rows) for rows in engine._batches(PROMPTS, 16, 100)]
        assert sizes == [1] * len(PROMPTS)
        narrow = model.generate(PROMPTS, max_tokens=16, stop_ids=[])
        assert [c.ids for c in narrow] == [c.ids for c in wide]


def test_ties_go_to_the_lowest_id() -> None:
    logits = torch.tensor([[0.0, 5.0, 1.0, 5.0], [7.0, 7.0, 7.0, -1.0]], device=DEVICE)
    rows = [engine._Row(0, PROMPTS[0]), engine._Row(1, PROMPTS[1])]
    assert engine._argmax(logits, rows) == [1, 0]


def test_logits_that_are_no_numbers_are_an_error() -> None:
    rows = [engine._Row(0, PROMPTS[0])]
    with pytest.raises(UserError, match="item p0"):
        engine._argmax(torch.tensor([[float("nan"), 1.0]], device=DEVICE), rows)


def test_wrong_requests_get_one_line(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("llama"), device=DEVICE) as model:
        with pytest.raises(UserError, match="prompt of empty is empty"):
            model.generate([Prompt("empty", ())], max_tokens=4, stop_ids=[])
        with pytest.raises(UserError, match="more than the context of 512"):
            model.generate(PROMPTS, max_tokens=512, stop_ids=[])
        with pytest.raises(UserError, match="at least 1"):
            model.generate(PROMPTS, max_tokens=0, stop_ids=[])
        assert model.generate([], max_tokens=4, stop_ids=[]) == []
