"""Sampled decoding on torch: by the one definition, whatever the batch, with near-ties counted."""

# ruff: noqa: E402 (without torch the module is skipped before it imports any of it)
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import backends.sampling as definition
import backends.torch.generate as engine
from backends.interface import Prompt, Sampling
from backends.sampling import NoiseKey, choose_full, noise_key, occurred, scale
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
WARM = Sampling(temperature=4.0, top_k=40, top_p=0.9, min_p=0.01, repetition_penalty=1.3, seed=7)
"""Tiny models are far surer than trained ones, hence the temperature."""
SETTINGS = {
    "all": WARM,
    "no filter": Sampling(temperature=4.0, seed=1),
    "top-k": Sampling(temperature=4.0, top_k=5, seed=2),
    "top-k beyond the candidates": Sampling(temperature=4.0, top_k=300, seed=3),
    "top-k of every token": Sampling(temperature=4.0, top_k=9999, seed=3),
    "flat top-p": Sampling(temperature=50.0, top_p=0.95, seed=4),
    "min-p": Sampling(temperature=4.0, min_p=0.05, seed=5),
    "a window": Sampling(temperature=4.0, repetition_penalty=1.5, repetition_window=6, seed=6),
    "greedy with a penalty": Sampling(repetition_penalty=1.5),
    "greedy with a window": Sampling(repetition_penalty=1.5, repetition_window=4),
    "greedy": Sampling(),
}


@pytest.fixture
def llama(tiny_directory: Tiny) -> Iterator[TorchModel]:
    with open_model(tiny_directory("llama", tie_word_embeddings=False), device=DEVICE) as opened:
        yield opened


def by_definition(
    model: TorchModel, prompt: Prompt, count: int, sampling: Sampling
) -> tuple[tuple[int, ...], int]:
    """Ids and near-ties without cache, batch, padding or candidates: a full pass per token."""
    ids: list[int] = []
    near = 0
    for step in range(count):
        logits = model.logits([*prompt.ids, *ids])[-1]
        scaled = scale(logits, occurred(prompt.ids, ids, sampling), sampling)
        token, tie = choose_full(scaled, noise_key(sampling, prompt), step, sampling)
        ids.append(token)
        near += tie
    return tuple(ids), near


def texts(
    model: TorchModel, prompts: Sequence[Prompt], sampling: Sampling, count: int = 12
) -> dict[str, tuple[int, ...]]:
    done = model.generate(prompts, max_tokens=count, stop_ids=[], sampling=sampling)
    return {c.item_id: c.ids for c in done}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_batch_is_sampled_as_the_definition_says(tiny_directory: Tiny, arch: str) -> None:
    with open_model(tiny_directory(arch, tie_word_embeddings=False), device=DEVICE) as model:
        found = texts(model, PROMPTS, WARM)
        for prompt in PROMPTS:
            assert found[prompt.item_id] == by_definition(model, prompt, 12, WARM)[0]
        assert found != texts(model, PROMPTS, replace(WARM, temperature=0.0))


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_as_the_definition_says(llama: TorchModel, setting: str) -> None:
    sampling = SETTINGS[setting]
    found = llama.generate(PROMPTS[:4], max_tokens=16, stop_ids=[], sampling=sampling)
    for prompt, completion in zip(PROMPTS, found, strict=False):
        ids, near = by_definition(llama, prompt, 16, sampling)
        assert completion.ids == ids
        assert completion.near_ties == near
    # negative twin: each setting changes the text, but for the one that is plain greedy
    plain = texts(llama, PROMPTS[:4], Sampling(temperature=sampling.temperature, seed=99), 16)
    assert (plain == {c.item_id: c.ids for c in found}) == (setting == "greedy")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_text_is_the_same_in_any_order_and_batch(
    tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch, arch: str
) -> None:
    with open_model(tiny_directory(arch, tie_word_embeddings=False), device=DEVICE) as model:
        together = texts(model, PROMPTS, WARM)
        assert texts(model, PROMPTS[::-1], WARM) == together
        assert texts(model, [*PROMPTS[3:], *PROMPTS[:2]], WARM).items() <= together.items()
        monkeypatch.setattr(engine, "MAX_ROWS", 3)
        assert texts(model, PROMPTS, WARM) == together
        monkeypatch.setattr(engine, "MAX_ROWS", 1)
        assert texts(model, PROMPTS, WARM) == together


def test_rows_that_leave_do_not_change_the_others(llama: TorchModel) -> None:
    whole = texts(llama, PROMPTS, WARM, 20)
    ended = llama.generate(
        PROMPTS,
        max_tokens=20,
        stop_ids=[],
        stop_when=lambda ids: len(ids) >= 2 + ids[0] % 17,
        sampling=WARM,
    )
    assert len({len(completion.ids) for completion in ended}) > 2
    assert all(c.ids == whole[c.item_id][: len(c.ids)] for c in ended)


def test_noise_by_place_in_the_batch_would_be_noticed(
    llama: TorchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative twin: noise that is not keyed by the item depends on the rows beside it."""
    whole = texts(llama, PROMPTS, WARM)
    others = [prompt for prompt in PROMPTS if prompt.item_id != "p3"]  # the longest, so the first
    assert texts(llama, others, WARM).items() <= whole.items()
    draw, places = engine._drawn, {"next": 0}

    def by_place(sampling: Sampling, prompt: Prompt) -> NoiseKey:
        places["next"] += 1
        return NoiseKey(sampling.seed, str(places["next"]), 0)

    def drawn(*arguments: Any) -> Any:
        places["next"] = 0
        return draw(*arguments)

    monkeypatch.setattr(engine, "noise_key", by_place)
    monkeypatch.setattr(engine, "_drawn", drawn)
    whole = texts(llama, PROMPTS, WARM)
    assert not texts(llama, others, WARM).items() <= whole.items()


def test_seeds_samples_and_items_differ_and_repeat(llama: TorchModel) -> None:
    ids = PROMPTS[0].ids
    prompts = [Prompt("a", ids), Prompt("b", ids), Prompt("a", ids, sample=1)]
    found = llama.generate(prompts, max_tokens=20, stop_ids=[], sampling=WARM)
    assert [(c.item_id, c.sample) for c in found] == [("a", 0), ("b", 0), ("a", 1)]
    other = llama.generate(prompts, max_tokens=20, stop_ids=[], sampling=replace(WARM, seed=8))
    assert len({c.ids for c in [*found, *other]}) == 6
    again = llama.generate(prompts[::-1], max_tokens=20, stop_ids=[], sampling=WARM)
    assert [c.ids for c in again] == [c.ids for c in found[::-1]]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(repetition_penalty=1.2), WARM])
def test_near_ties_are_counted(
    llama: TorchModel, monkeypatch: pytest.MonkeyPatch, sampling: Sampling
) -> None:
    """With a margin large enough that some steps of a short text fall below it, and some do not."""
    margin = 0.5 if sampling.greedy else 0.02
    monkeypatch.setattr(definition, "NEAR_TIE", margin)
    monkeypatch.setattr(engine, "NEAR_TIE", margin)
    found = llama.generate(PROMPTS, max_tokens=20, stop_ids=[], sampling=sampling)
    expected = [by_definition(llama, prompt, 20, sampling)[1] for prompt in PROMPTS]
    assert [c.near_ties for c in found] == expected
    assert 0 < sum(expected) < 20 * len(PROMPTS)


def test_all_logits_go_to_the_host_only_where_the_largest_do_not_settle_it(
    llama: TorchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[int] = []

    def spy(*arguments: Any, **options: Any) -> Any:
        called.append(arguments[2])
        return choose_full(*arguments, **options)

    monkeypatch.setattr(engine, "choose_full", spy)
    for setting, expected in (("all", 0), ("top-k", 0), ("greedy", 0), ("no filter", 4 * 8)):
        called.clear()
        texts(llama, PROMPTS[:4], SETTINGS[setting], 8)
        assert len(called) == expected
    called.clear()
    settled = texts(llama, PROMPTS[:4], SETTINGS["flat top-p"], 8)
    assert not called  # a wider look at the candidates settles it
    monkeypatch.setattr(definition, "WIDER", 1)
    assert texts(llama, PROMPTS[:4], SETTINGS["flat top-p"], 8) == settled
    assert called


@pytest.mark.parametrize("penalty", [1.3, 0.5])
def test_the_penalty_is_that_of_transformers(penalty: float) -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    rows = [engine._Row(i, prompt, [3, 4, 3]) for i, prompt in enumerate(PROMPTS)]
    logits = torch.randn(len(rows), 512, generator=torch.Generator().manual_seed(0))
    process = RepetitionPenaltyLogitsProcessor(penalty)
    expected = torch.cat(
        [
            process(torch.tensor([[*row.prompt.ids, *row.ids]]), values[None])
            for row, values in zip(rows, logits, strict=True)
        ]
    )
    # theirs on the CPU: CUDA would divide by 1.3 as a product with 1 / 1.3
    logits = logits.to(DEVICE)
    found = engine._penalised(logits.clone(), rows, Sampling(repetition_penalty=penalty)).cpu()
    assert torch.equal(found, expected)
    short = Sampling(repetition_penalty=penalty, repetition_window=2)
    assert not torch.equal(engine._penalised(logits.clone(), rows, short).cpu(), expected)
    assert engine._penalised(logits, rows, Sampling()) is logits


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("setting", ["all", "no filter", "greedy"])
def test_logits_that_are_no_numbers_name_the_item(wrong: float, setting: str) -> None:
    rows = [engine._Row(0, PROMPTS[0]), engine._Row(1, PROMPTS[1], [5, 6])]
    logits = torch.zeros(2, 512, device=DEVICE)
    logits[1, 400] = wrong
    with pytest.raises(UserError, match="item p1 after 2 tokens"):
        engine._next_ids(logits, rows, SETTINGS[setting])


def test_half_precision_is_sampled_in_float32(tiny_directory: Tiny) -> None:
    directory = tiny_directory("llama", tie_word_embeddings=False)
    with open_model(directory, dtype="bfloat16", device=DEVICE) as model:
        prompt = PROMPTS[3]
        (found,) = model.generate([prompt], max_tokens=1, stop_ids=[], sampling=WARM)
        assert found.ids == by_definition(model, prompt, 1, WARM)[0]
