"""Sampled decoding on mlx: the one definition of backends.sampling, whatever the batch."""

# ruff: noqa: E402 (without mlx the module is skipped before it imports any of it)
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

import backends.sampling as definition
from backends.decoding import Ending
from backends.interface import GREEDY, Completion, Prompt, Sampling
from backends.mlx import sampling as engine
from backends.mlx.decoder import Decoder
from backends.mlx.generate import decode
from backends.mlx.model import MlxModel, open_model
from backends.mlx.sampling import Row, next_ids
from backends.sampling import choose_full, gumbel, noise_key, occurred, scale
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.tiny_models import ARCHITECTURES
from tests.support.training_data import LENGTHS, example

Tiny = Callable[..., ModelDirectory]
PROMPTS = [
    Prompt(f"p{number}", example(prompt, total).ids)
    for number, (prompt, total) in enumerate(LENGTHS)
]
HOT = 10.0
"""Temperature at which tiny random models, whose logits reach 48, still differ from greedy."""
SETTINGS = {
    "none": Sampling(temperature=HOT, seed=3),
    "top-k": Sampling(temperature=HOT, top_k=20),
    "top-k beyond the candidates": Sampling(temperature=4 * HOT, top_k=400),
    "top-p": Sampling(temperature=3.0, top_p=0.9),
    "top-p beyond the candidates": Sampling(temperature=100 * HOT, top_p=0.9),
    "min-p": Sampling(temperature=3.0, min_p=0.05),
    "all": Sampling(HOT, 50, 0.9, 0.01, 1.3, 12, seed=5),
    "greedy with a penalty": Sampling(repetition_penalty=1.4),
    "greedy with a window": Sampling(repetition_penalty=1.4, repetition_window=5),
}


def naive(model: MlxModel, prompt: Prompt, count: int, sampling: Sampling) -> list[int]:
    """The definition: a full forward pass a token, all logits on the host, no batch."""
    ids: list[int] = []
    for step in range(count):
        logits = model.logits([*prompt.ids, *ids])[-1]
        scaled = scale(logits, occurred(prompt.ids, ids, sampling), sampling)
        ids.append(choose_full(scaled, noise_key(sampling, prompt), step, sampling)[0])
    return ids


def texts(completions: list[Completion]) -> dict[tuple[str, int], tuple[int, ...]]:
    return {(c.item_id, c.sample): c.ids for c in completions}


def sampled(model: MlxModel, prompts: list[Prompt], sampling: Sampling, count: int = 12) -> Any:
    return texts(model.generate(prompts, max_tokens=count, stop_ids=[], sampling=sampling))


@pytest.fixture
def llama(tiny_directory: Tiny) -> Iterator[MlxModel]:
    with open_model(tiny_directory("llama")) as opened:
        yield opened


@pytest.fixture(scope="module")
def defined(tiny_directory: Tiny) -> Callable[[str], list[tuple[int, ...]]]:
    """``defined(name)``: what the definition gives at 8 ids for each prompt, computed once."""

    @cache
    def texts_of(name: str) -> list[tuple[int, ...]]:
        with open_model(tiny_directory("llama")) as model:
            return [tuple(naive(model, prompt, 8, SETTINGS[name])) for prompt in PROMPTS]

    return texts_of


# Against the definition --------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_batch_gives_what_the_definition_gives(tiny_directory: Tiny, arch: str) -> None:
    with open_model(tiny_directory(arch)) as model:
        for sampling in (SETTINGS["none"], SETTINGS["all"]):
            found = sampled(model, PROMPTS, sampling, 6)
            for prompt in PROMPTS[1:5]:  # 13 to 70 ids
                assert list(found[prompt.item_id, 0]) == naive(model, prompt, 6, sampling)
            assert found != sampled(model, PROMPTS, GREEDY, 6)


@pytest.mark.parametrize("wider", [1, 2, 16])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_the_definition(
    llama: MlxModel,
    defined: Callable[[str], list[tuple[int, ...]]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    wider: int,
) -> None:
    expected = defined(name)  # before anything is patched
    whole = [0]

    def counting(*arguments: Any, **options: Any) -> Any:
        whole[0] += 1
        return choose_full(*arguments, **options)

    monkeypatch.setattr(engine, "choose_full", counting)
    # 1: no second, wider look at the candidates; 2 and 16: all of this vocabulary
    monkeypatch.setattr(definition, "WIDER", wider)
    sampling = SETTINGS[name]
    found = sampled(llama, PROMPTS, sampling, 8)
    assert list(found.values()) == expected
    # All logits go to the host only where the candidates do not settle it.
    assert bool(whole[0]) == (wider == 1 and name == "top-p beyond the candidates")
    plain = replace(sampling, repetition_penalty=1.0) if sampling.greedy else GREEDY
    assert found != sampled(llama, PROMPTS, plain, 8)


def rows_of(count: int) -> list[Row]:
    """Row i has i ids, so each is at another step."""
    return [Row(i, Prompt(f"row {i}", (4, 5)), list(range(i))) for i in range(count)]


@pytest.mark.parametrize("vocab", [100, 512, 5000])
@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("rough", [False, True], ids=["fine", "ties"])
def test_the_device_finds_every_contender(
    monkeypatch: pytest.MonkeyPatch, vocab: int, spread: float, rough: bool
) -> None:
    """Without a filter all tokens have noise: flat rows, peaked ones, equal values, -inf."""
    monkeypatch.setattr(engine, "choose_full", None)
    rng = np.random.default_rng([vocab, int(10 * spread), rough])
    logits = (spread * rng.normal(size=(16, vocab))).astype(np.float32)
    if rough:
        logits = np.round(logits, 1)
        logits[:, ::7] = -np.inf
    sampling, rows = Sampling(temperature=0.7, seed=9), rows_of(16)
    found = np.array(next_ids(mx.array(logits), rows, sampling))
    for i, row in enumerate(rows):
        scaled = scale(logits[i], occurred((), (), sampling), sampling)
        key = noise_key(sampling, row.prompt)
        assert tuple(found[:, i]) == choose_full(scaled, key, len(row.ids), sampling)
        if rough:
            assert found[0, i] % 7 != 0


def test_the_devices_uniform_numbers_are_those_of_the_noise() -> None:
    sampling, rows = Sampling(temperature=1.0, seed=2**63 + 1), rows_of(3)
    keys, steps = [noise_key(sampling, row.prompt) for row in rows], [0, 7, 10_000]
    found = np.array(engine._remainders(mx.array(engine.streams_of(keys, steps)), 20_000))
    for row, key, step in zip(found, keys, steps, strict=True):
        noise = gumbel(key, step, np.arange(20_000))
        expected = -np.expm1(-np.exp(-noise))  # 1 - u where noise is -log(-log u)
        np.testing.assert_allclose(row, expected, rtol=1e-6)  # float32 keeps 6e-8
        other = -np.expm1(-np.exp(-gumbel(key, step + 1, np.arange(20_000))))
        assert np.abs(row - other).max() > 0.5


def test_a_row_whose_contenders_are_too_few_sees_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two candidates seldom hold all that is within twice NEAR_TIE: -1, then the definition."""
    logits = np.zeros((64, 3000), np.float32)
    sampling, rows = Sampling(temperature=1.0), rows_of(64)
    whole: list[tuple[int, bool]] = []

    def counting(*arguments: Any, **options: Any) -> tuple[int, bool]:
        whole.append(choose_full(*arguments, **options))
        return whole[-1]

    monkeypatch.setattr(engine, "choose_full", counting)
    monkeypatch.setattr(engine, "CANDIDATES", 1)
    found = np.array(next_ids(mx.array(logits), rows, sampling))
    assert whole  # the bound of the one candidate is its own
    expected = [
        choose_full(logits[i], noise_key(sampling, row.prompt), len(row.ids), sampling)
        for i, row in enumerate(rows)
    ]
    assert [tuple(column) for column in found.T] == expected


# Whatever the batch ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "name"), [*((arch, "none") for arch in ARCHITECTURES), ("llama", "all")]
)
def test_order_width_and_company_change_nothing(tiny_directory: Tiny, arch: str, name: str) -> None:
    with open_model(tiny_directory(arch)) as model:
        sampling = SETTINGS[name]
        whole = sampled(model, PROMPTS, sampling)
        assert sampled(model, PROMPTS[::-1], sampling) == whole
        parts = [sampled(model, PROMPTS[i::3], sampling) for i in range(3)]
        assert {key: text for part in parts for key, text in part.items()} == whole
        for prompt in PROMPTS[:2]:
            assert sampled(model, [prompt], sampling) == {
                (prompt.item_id, 0): whole[prompt.item_id, 0]
            }


def test_rows_that_end_make_room_for_others(llama: MlxModel) -> None:
    """Each row's noise goes by its own step, whenever it entered the batch."""

    def over(ids: tuple[int, ...]) -> bool:
        return len(ids) >= 2 + ids[0] % 9

    sampling = SETTINGS["none"]
    whole = sampled(llama, PROMPTS, sampling)
    for width in (1, 2, 4):
        stopping = Ending(12, frozenset(), over)
        ended = decode(llama._decoder, PROMPTS, stopping, sampling=sampling, width=width)
        assert len({len(c.ids) for c in ended}) > 2
        for completion in ended:
            text = whole[completion.item_id, 0]
            assert completion.ids == text[: 2 + text[0] % 9]


def test_noise_follows_from_seed_item_and_sample(llama: MlxModel) -> None:
    sampling = SETTINGS["none"]
    whole = sampled(llama, PROMPTS, sampling)
    assert sampled(llama, PROMPTS, sampling) == whole
    other = sampled(llama, PROMPTS, replace(sampling, seed=4))
    assert all(other[key] != text for key, text in whole.items())
    renamed = [Prompt(f"{prompt.item_id}'", prompt.ids) for prompt in PROMPTS]
    assert all(text not in whole.values() for text in sampled(llama, renamed, sampling).values())
    second = [Prompt(p.item_id, p.ids, sample=1) for p in PROMPTS]
    drawn = llama.generate(second, max_tokens=12, stop_ids=[], sampling=sampling)
    assert {c.sample for c in drawn} == {1}
    assert all(c.ids != whole[c.item_id, 0] for c in drawn)
    assert sampled(llama, PROMPTS + second, sampling) == whole | texts(drawn)


def test_greedy_text_does_not_depend_on_the_seed(llama: MlxModel) -> None:
    greedy = llama.generate(PROMPTS, max_tokens=12, stop_ids=[])
    assert sampled(llama, PROMPTS, Sampling(seed=8)) == texts(greedy)
    assert texts(greedy) != sampled(llama, PROMPTS, replace(SETTINGS["none"], seed=8))


# Near-ties and errors ----------------------------------------------------------------------


def test_near_ties_of_greedy_choices_are_marked() -> None:
    logits = mx.array([[3.0, 3.0005, 1.0], [3.0, 3.002, 1.0], [2.0, 2.0, 2.0]])
    assert next_ids(logits, rows_of(3), GREEDY).tolist() == [[1, 1, 0], [1, 0, 1]]


def test_near_ties_of_draws_are_marked() -> None:
    """The logits are made so that two scores differ by 0.0005, or by 0.002."""
    sampling, rows = Sampling(temperature=1.0), rows_of(2)
    noise = np.stack(
        [gumbel(noise_key(sampling, r.prompt), len(r.ids), np.arange(4)) for r in rows]
    )
    scores = np.array([[9.0, 9.0005, 0, 0], [9.0, 9.002, 0, 0]])
    logits = mx.array((scores - noise).astype(np.float32))
    assert next_ids(logits, rows, sampling).tolist() == [[1, 1], [1, 0]]
    filtered = replace(sampling, top_k=3)
    assert next_ids(logits, rows, filtered).tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize("sampling", [GREEDY, SETTINGS["none"], SETTINGS["all"]])
def test_near_ties_are_counted_for_each_completion(
    llama: MlxModel, monkeypatch: pytest.MonkeyPatch, sampling: Sampling
) -> None:
    plain = llama.generate(PROMPTS, max_tokens=6, stop_ids=[], sampling=sampling)
    assert all(completion.near_ties is not None for completion in plain)
    original = next_ids

    def marking(logits: Any, rows: list[Row], sampling: Sampling) -> Any:
        chosen = original(logits, rows, sampling)
        return mx.stack([chosen[0], mx.array([row.place % 2 for row in rows], mx.int32)])

    monkeypatch.setattr("backends.mlx.generate.next_ids", marking)
    marked = llama.generate(PROMPTS, max_tokens=6, stop_ids=[], sampling=sampling)
    assert [c.near_ties for c in marked] == [6 * (place % 2) for place in range(len(PROMPTS))]
    assert texts(marked) == texts(plain)


@pytest.mark.parametrize("name", ["none", "all", "greedy with a penalty"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_an_error(
    llama: MlxModel, monkeypatch: pytest.MonkeyPatch, name: str, bad: float
) -> None:
    whole = Decoder.logits
    monkeypatch.setattr(Decoder, "logits", lambda self, hidden: whole(self, hidden) * bad)
    with pytest.raises(UserError, match="item p0: the logits are not finite after 0 new ids"):
        llama.generate(PROMPTS[:1], max_tokens=4, stop_ids=[], sampling=SETTINGS[name])


@pytest.mark.parametrize("window", [None, 3])
def test_the_penalty_is_on_ids_that_occurred(window: int | None) -> None:
    """Rows with different numbers of ids, positive and negative logits, by hand."""
    sampling = Sampling(repetition_penalty=2.0, repetition_window=window)
    rows = [Row(0, Prompt("a", (1, 2, 2, 1, 3)), [0]), Row(1, Prompt("b", (5,)), [])]
    logits = np.array([[4.0, -1.0, 3.0, 2.0, 1.0, 6.0], [4.0, -1.0, 3.0, 2.0, 1.0, -6.0]])
    found = np.array(engine._penalised(mx.array(logits.astype(np.float32)), rows, sampling))
    expected = logits.copy()
    seen = [0, 1, 3] if window else [0, 1, 2, 3]
    expected[0, seen] = [2.0, -2.0, 1.0] if window else [2.0, -2.0, 1.5, 1.0]
    expected[1, 5] = -12.0
    assert (found == expected).all()
    assert (found != logits).any()


@pytest.mark.parametrize("name", ["none", "all", "greedy with a penalty"])
def test_torch_draws_the_same(tiny_directory: Tiny, name: str) -> None:
    pytest.importorskip("torch")
    from backends.torch.model import open_model as open_torch

    # caches differ between architectures, what is done with the logits does not
    for arch in ARCHITECTURES if name == "none" else ("llama",):
        directory, sampling = tiny_directory(arch), SETTINGS[name]
        with open_model(directory) as ours, open_torch(directory) as theirs:
            found = sampled(ours, PROMPTS, sampling)
            expected = theirs.generate(PROMPTS, max_tokens=12, stop_ids=[], sampling=sampling)
            assert found == texts(expected), arch
            assert found != sampled(ours, PROMPTS, replace(sampling, seed=99, temperature=HOT / 2))
