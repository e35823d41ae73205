"""Sampled decoding in llama.cpp: the definition on its logits, the same text in any company."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.decoding import check_prompts
from backends.interface import GREEDY, Completion, Prompt, Sampling
from backends.llamacpp.context import arg_max
from backends.llamacpp.generate import _Sequence, next_ids
from backends.llamacpp.model import LlamaCppModel, open_gguf
from backends.sampling import NEAR_TIE, choose_full, noise_key, occurred, scale
from backends.scripted import ScriptedModel
from models.directory import ModelDirectory
from models.errors import UserError
from models.gguf.export import export_gguf

BUDGET = 12
FILTERED = Sampling(
    temperature=0.8, top_k=40, top_p=0.95, min_p=0.01, repetition_penalty=1.2, seed=7
)
SAMPLINGS = {
    "unfiltered": Sampling(temperature=1.0, seed=7),
    "top_k": Sampling(temperature=0.7, top_k=20, seed=7),
    "top_p beyond the candidates": Sampling(temperature=2.0, top_p=0.999, seed=7),
    "all": FILTERED,
    "window": replace(FILTERED, repetition_window=5, repetition_penalty=2.0),
    "penalised greedy": Sampling(repetition_penalty=1.3),
    "greedy": GREEDY,
}


@pytest.fixture(scope="module")
def gguf(
    tiny_directory: Callable[..., ModelDirectory], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    directory = tiny_directory("llama", max_position_embeddings=2048)
    return export_gguf(directory, tmp_path_factory.mktemp("gguf") / "tiny.gguf", dtype="f32")


@pytest.fixture(scope="module")
def model(gguf: Path) -> Iterator[LlamaCppModel]:
    with open_gguf(gguf, context=128, kv_dtype="f32", threads=1) as opened:
        yield opened


def _prompts(n: int) -> list[Prompt]:
    """Ten items, then their second samples, and so on."""
    rng = np.random.default_rng(0)
    ids = [tuple(int(x) for x in rng.integers(0, 512, length)) for length in range(3, 33, 3)]
    return [Prompt(f"item/{i % 10}", ids[i % 10], i // 10) for i in range(n)]


def _generate(
    model: LlamaCppModel, prompts: list[Prompt], sampling: Sampling
) -> dict[tuple[str, int], Completion]:
    done = model.generate(prompts, max_tokens=BUDGET, stop_ids=[], sampling=sampling)
    assert [(c.item_id, c.sample) for c in done] == [(p.item_id, p.sample) for p in prompts]
    return {(c.item_id, c.sample): c for c in done}


def _texts(found: dict[tuple[str, int], Completion]) -> dict[tuple[str, int], tuple[int, ...]]:
    return {key: completion.ids for key, completion in found.items()}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_every_token_is_the_definition_on_the_models_logits(
    model: LlamaCppModel, name: str
) -> None:
    sampling, checked = SAMPLINGS[name], 0
    for prompt in _prompts(10)[::3]:
        done = _generate(model, [prompt], sampling)[prompt.item_id, 0]
        key, counted = noise_key(sampling, prompt), 0
        rows = model.logits(done.prompt_ids + done.ids)[len(prompt.ids) - 1 :]
        for step, token in enumerate(done.ids):
            seen = occurred(prompt.ids, done.ids[:step], sampling)
            expected, near = choose_full(scale(rows[step], seen, sampling), key, step, sampling)
            # read in one batch the logits differ by rounding
            assert token == expected or near
            counted, checked = counted + near, checked + 1
        assert done.near_ties is not None
        assert abs(done.near_ties - counted) <= 1
    assert checked == 4 * BUDGET


@settings(max_examples=12, deadline=None)
@given(chosen=st.lists(st.integers(0, 19), min_size=1, max_size=20, unique=True))
def test_any_choice_in_any_order_gives_the_same_samples(
    model: LlamaCppModel, chosen: list[int]
) -> None:
    pool = _prompts(20)
    if not _ALONE:
        for prompt in pool:
            _ALONE.update(_texts(_generate(model, [prompt], FILTERED)))
    for key, ids in _texts(_generate(model, [pool[n] for n in chosen], FILTERED)).items():
        assert ids == _ALONE[key]


_ALONE: dict[tuple[str, int], tuple[int, ...]] = {}


@pytest.mark.parametrize("width", [1, 3])
def test_the_number_of_slots_does_not_matter(gguf: Path, model: LlamaCppModel, width: int) -> None:
    expected = _texts(_generate(model, _prompts(13), FILTERED))
    with open_gguf(gguf, context=128, width=width, kv_dtype="f32", threads=1) as other:
        found = _generate(other, _prompts(13), FILTERED)
    # another width is another shape of the products: equal but for near-ties, and there are none
    assert sum(c.near_ties or 0 for c in found.values()) == 0
    assert _texts(found) == expected


def test_seeds_samples_and_items_differ(model: LlamaCppModel) -> None:
    texts = _texts(_generate(model, _prompts(20), FILTERED))
    assert len(set(texts.values())) == 20
    other = _texts(_generate(model, _prompts(20), replace(FILTERED, seed=8)))
    assert all(texts[key] != other[key] for key in texts)
    assert _texts(_generate(model, _prompts(20), FILTERED)) == texts
    # the same ids under another item's name draw other noise
    renamed = [replace(p, item_id=f"other/{n}") for n, p in enumerate(_prompts(5))]
    assert not set(_texts(_generate(model, renamed, FILTERED)).values()) & set(texts.values())


def test_greedy_draws_nothing_and_is_the_arg_max(model: LlamaCppModel) -> None:
    prompts = _prompts(10)
    plain = model.generate(prompts, max_tokens=BUDGET, stop_ids=[])
    seeded = _generate(model, prompts, Sampling(seed=99))
    assert [c.ids for c in plain] == list(_texts(seeded).values())
    for done in plain[:3]:
        rows = model.logits(done.prompt_ids + done.ids)[len(done.prompt_ids) - 1 : -1]
        assert done.ids == tuple(arg_max(rows).tolist())
    # a penalty that changes nothing takes the long way to the same ids
    none = Sampling(repetition_penalty=1.0 + 1e-7, repetition_window=1)
    assert list(_texts(_generate(model, prompts, none)).values()) == [c.ids for c in plain]


def test_a_temperature_near_0_is_greedy(model: LlamaCppModel) -> None:
    cold = _generate(model, _prompts(10), Sampling(temperature=1e-6))
    assert _texts(cold) == _texts(_generate(model, _prompts(10), GREEDY))
    assert _texts(cold) != _texts(_generate(model, _prompts(10), Sampling(temperature=1.0)))


def test_the_penalty_keeps_ids_from_coming_back(model: LlamaCppModel) -> None:
    def repeats(sampling: Sampling) -> int:
        done = model.generate(_prompts(10), max_tokens=40, stop_ids=[], sampling=sampling)
        return sum(len(c.ids) - len(set(c.ids)) for c in done)

    free, penalised = repeats(GREEDY), repeats(Sampling(repetition_penalty=5.0))
    windowed = repeats(Sampling(repetition_penalty=5.0, repetition_window=2))
    assert penalised < windowed < free


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(repetition_penalty=1.5)])
def test_near_ties_are_counted(sampling: Sampling) -> None:
    logits = np.zeros((3, 50), np.float32)
    logits[0, [4, 9]] = [2.0, 2.0 - 0.5 * NEAR_TIE]
    logits[1, [4, 9]] = [2.0, 2.0 - 3 * NEAR_TIE]
    logits[2, [4, 9]] = [2.0, 2.0]
    sequences = [_Sequence(n, Prompt(f"i{n}", (0,)), 0.0) for n in range(3)]
    before = logits.copy()
    choice = next_ids(logits, sequences, sampling)
    assert np.array_equal(logits, before)  # log-probabilities are read from them afterwards
    assert choice.ids.tolist() == [4, 4, 4]
    assert choice.near_tie.tolist() == [True, False, True]


def test_a_completion_counts_its_near_ties(
    model: LlamaCppModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {c.near_ties for c in _generate(model, _prompts(3), GREEDY).values()} == {0}
    # all logits within a wider margin: every step is near
    for module in ("backends.llamacpp.generate", "backends.sampling"):
        monkeypatch.setattr(f"{module}.NEAR_TIE", 1e3)
    for sampling in (GREEDY, FILTERED):
        counts = {c.near_ties for c in _generate(model, _prompts(3), sampling).values()}
        assert counts == {BUDGET}


@pytest.mark.parametrize("sampling", [GREEDY, FILTERED, Sampling(temperature=1.0)])
def test_logits_that_are_not_finite_are_an_error(sampling: Sampling) -> None:
    logits = np.zeros((2, 50), np.float32)
    logits[1, 3] = np.nan
    sequences = [_Sequence(n, Prompt(f"i{n}", (0,)), 0.0) for n in range(2)]
    with pytest.raises(UserError, match="not finite"):
        next_ids(logits, sequences, sampling)


def test_samples_of_an_item_need_numbers_of_their_own() -> None:
    def check(*prompts: Prompt) -> None:
        check_prompts(prompts, max_tokens=1, context=8, vocab=10)

    check(Prompt("a", (1,)), Prompt("a", (1,), 1), Prompt("b", (1,)))
    with pytest.raises(UserError, match="item id a occurs more than once as sample 1; give"):
        check(Prompt("a", (1,)), Prompt("a", (1,), 1), Prompt("a", (2,), 1))


def test_the_scripted_model_answers_every_sample_alike() -> None:
    prompts = [Prompt("a", (1,)), Prompt("a", (1,), 3)]
    scripted = ScriptedModel({"a": [5, 6]})
    done = scripted.generate(prompts, max_tokens=4, stop_ids=[6], sampling=FILTERED)
    assert [(c.sample, c.ids, c.near_ties) for c in done] == [(0, (5, 6), None), (3, (5, 6), None)]
