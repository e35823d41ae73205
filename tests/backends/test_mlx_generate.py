"""Greedy decoding on mlx: batches, stops, budgets."""

# ruff: noqa: E402 (without mlx the module is skipped before it imports any of it)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

import backends.mlx.generate as engine
from backends.decoding import Ending
from backends.interface import Completion, Prompt
from backends.mlx.model import MlxModel, open_model
from backends.mlx.sampling import greedy
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.tiny_models import ARCHITECTURES
from tests.support.training_data import LENGTHS, example

Tiny = Callable[..., ModelDirectory]
PROMPTS = [
    Prompt(f"p{number}", example(prompt, total).ids)
    for number, (prompt, total) in enumerate(LENGTHS)
]


def naive(model: MlxModel, prompt: Prompt, count: int) -> list[int]:
    """Greedy decoding without a cache, a batch or padding: a full forward pass per token."""
    ids = list(prompt.ids)
    for _ in range(count):
        ids.append(int(np.argmax(model.logits(ids)[-1])))
    return ids[len(prompt.ids) :]


def texts(completions: list[Completion]) -> list[tuple[int, ...]]:
    return [completion.ids for completion in completions]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_batch_gives_what_each_prompt_gives_alone(tiny_directory: Tiny, arch: str) -> None:
    with open_model(tiny_directory(arch)) as model:
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
    """The negative twin of the batch test: caches that do not know of the padding."""
    with open_model(tiny_directory("llama")) as model:
        right = texts(model.generate(PROMPTS, max_tokens=16, stop_ids=[]))
        padded = engine._padded_caches
        monkeypatch.setattr(
            engine, "_padded_caches", lambda network, padding: padded(network, [0] * len(padding))
        )
        assert right != texts(model.generate(PROMPTS, max_tokens=16, stop_ids=[]))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("width", [2, 4])
def test_rows_that_end_make_room_for_others(tiny_directory: Tiny, arch: str, width: int) -> None:
    """Lengths follow from each row's own first id, so rows leave at different times.

    The rows behind them enter a batch whose caches are in use, beyond the sliding window too.
    """

    def over(ids: tuple[int, ...]) -> bool:
        return len(ids) >= 2 + 3 * (ids[0] % 7)

    with open_model(tiny_directory(arch)) as model:
        free = model.generate(PROMPTS, max_tokens=24, stop_ids=[])
        seen: list[Completion] = []
        stopping = Ending(24, frozenset(), over)
        ended = engine.decode(model._decoder, PROMPTS, stopping, seen.append, width=width)
        assert len({len(completion.ids) for completion in ended}) > 2
        for whole, cut in zip(free, ended, strict=True):
            assert cut.ids == whole.ids[: 2 + 3 * (whole.ids[0] % 7)]
            assert cut.finish_reason == "stop"
        assert sorted(c.item_id for c in seen) == sorted(p.item_id for p in PROMPTS)
        assert all(c.seconds > 0 for c in seen)


def test_stop_ids_end_a_row_and_are_kept(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("llama")) as model:
        free = model.generate(PROMPTS, max_tokens=24, stop_ids=[])
        stops = {completion.ids[3 * place + 2] for place, completion in enumerate(free)}
        ended = model.generate(PROMPTS, max_tokens=24, stop_ids=sorted(stops))
        for whole, cut in zip(free, ended, strict=True):
            first = min(place for place, token in enumerate(whole.ids) if token in stops)
            assert cut.ids == whole.ids[: first + 1]
            assert cut.finish_reason == "stop"


def test_a_stop_on_the_last_token_of_the_budget_is_a_stop(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("llama")) as model:
        (free,) = model.generate(PROMPTS[:1], max_tokens=8, stop_ids=[])
        last = free.ids[-1]
        first = free.ids.index(last)
        (stopped,) = model.generate(PROMPTS[:1], max_tokens=first + 1, stop_ids=[last])
        assert stopped.finish_reason == "stop"
        assert stopped.ids == free.ids[: first + 1]


@pytest.mark.parametrize("budget", [1, 16])
def test_the_budget_reaches_the_engine(tiny_directory: Tiny, budget: int) -> None:
    """B7: a budget that is ignored runs on to thousands of tokens."""
    with open_model(tiny_directory("qwen3")) as model:
        completions = model.generate(PROMPTS, max_tokens=budget, stop_ids=[])
        assert {len(c.ids) for c in completions} == {budget}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_prompt_in_chunks_gives_the_same_text(
    tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch, arch: str
) -> None:
    with open_model(tiny_directory(arch)) as model:
        whole = model.generate(PROMPTS, max_tokens=8, stop_ids=[])
        monkeypatch.setattr(engine, "PREFILL_CHUNK", 16)
        assert texts(model.generate(PROMPTS, max_tokens=8, stop_ids=[])) == texts(whole)


def test_the_width_follows_from_the_size_of_the_caches(
    tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_model(tiny_directory("llama")) as model:
        # 3 layers, keys and values of 2 heads of 16 float32 numbers
        row = 3 * 2 * 2 * 16 * 4 * 100
        monkeypatch.setattr(engine, "CACHE_BYTES", 3 * row)
        assert engine.fitting_width(model._decoder, 100) == 3
        assert engine.fitting_width(model._decoder, 10) == engine.DECODE_WIDTH
        assert engine.fitting_width(model._decoder, 10_000) == 1


def test_ties_go_to_the_lowest_id() -> None:
    logits = mx.array([[0.0, 5.0, 1.0, 5.0], [7.0, 7.0, 7.0, -1.0]])
    assert greedy(logits).tolist() == [1, 0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_an_error(
    tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    assert greedy(mx.array([[bad, 1.0], [0.0, 1.0]])).tolist() == [-1, 1]
    broken: Callable[[Any, Any], Any] = lambda _, hidden: hidden * bad  # noqa: E731
    with open_model(tiny_directory("llama")) as model:
        monkeypatch.setattr(type(model._decoder), "logits", broken)
        with pytest.raises(UserError, match="item p0: the logits are not finite"):
            model.generate(PROMPTS[:1], max_tokens=4, stop_ids=[])


def test_wrong_requests_get_one_line(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("llama")) as model:
        with pytest.raises(UserError, match="prompt of empty is empty"):
            model.generate([Prompt("empty", ())], max_tokens=4, stop_ids=[])
        with pytest.raises(UserError, match="more than the context of 512"):
            model.generate(PROMPTS, max_tokens=512, stop_ids=[])
        with pytest.raises(UserError, match="at least 1"):
            model.generate(PROMPTS, max_tokens=0, stop_ids=[])
        assert model.generate([], max_tokens=4, stop_ids=[]) == []
