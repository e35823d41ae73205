"""The decode loop on a tiny model: endings, order, budgets, and the mistakes it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.interface import Completion, Prompt
from backends.llamacpp.context import arg_max
from backends.llamacpp.model import LlamaCppModel, open_gguf
from models.directory import ModelDirectory
from models.errors import UserError
from models.gguf.export import export_gguf
from tests.support.llamacpp import torch_logits, torch_model

CONTEXT = 128


@pytest.fixture(scope="module")
def directory(tiny_directory: Callable[..., ModelDirectory]) -> ModelDirectory:
    return tiny_directory("llama", max_position_embeddings=2048)


@pytest.fixture(scope="module")
def gguf(directory: ModelDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return export_gguf(directory, out, dtype="f32")


@pytest.fixture(scope="module")
def model(gguf: Path) -> Iterator[LlamaCppModel]:
    with open_gguf(gguf, context=CONTEXT, kv_dtype="f32", threads=1) as opened:
        yield opened


def _prompts(n: int, seed: int = 0, longest: int = 40) -> list[Prompt]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, n)
    return [
        Prompt(f"item/{i}", tuple(int(x) for x in rng.integers(0, 512, length)))
        for i, length in enumerate(lengths)
    ]


def _generate(model: LlamaCppModel, prompts: list[Prompt], budget: int = 20) -> list[Completion]:
    return model.generate(prompts, max_tokens=budget, stop_ids=[])


def test_the_decode_is_torchs_greedy_decode(
    model: LlamaCppModel, directory: ModelDirectory
) -> None:
    reference = torch_model(directory)
    for completion in _generate(model, _prompts(10), budget=8):
        ids = completion.prompt_ids + completion.ids
        logits = torch_logits(reference, ids)[len(completion.prompt_ids) - 1 : -1]
        best = np.sort(logits, axis=-1)
        assert (best[:, -1] - best[:, -2]).min() > 1e-3, "a tie: choose another seed"
        assert completion.ids == tuple(logits.argmax(-1).tolist())


@pytest.mark.parametrize("budget", [1, 2, 16])
def test_no_output_is_longer_than_the_budget(model: LlamaCppModel, budget: int) -> None:
    done = _generate(model, _prompts(11), budget)
    assert [len(c.ids) for c in done] == [budget] * 11
    assert {c.finish_reason for c in done} == {"length"}


def test_a_stop_id_ends_a_sequence_and_is_kept(model: LlamaCppModel) -> None:
    free = _generate(model, _prompts(12))
    stop = free[3].ids[5]
    for whole, stopped in zip(
        free, model.generate(_prompts(12), max_tokens=20, stop_ids=[stop, 511]), strict=True
    ):
        cut = min([whole.ids.index(s) + 1 for s in (stop, 511) if s in whole.ids], default=20)
        assert stopped.ids == whole.ids[:cut]
        assert stopped.finish_reason == ("stop" if whole.ids[cut - 1] in (stop, 511) else "length")


def test_a_first_token_that_stops_frees_its_slot_at_once(model: LlamaCppModel) -> None:
    prompts = _prompts(30)
    firsts = {c.ids[0] for c in _generate(model, prompts, budget=1)}
    done = model.generate(prompts, max_tokens=20, stop_ids=sorted(firsts))
    assert [c.item_id for c in done] == [p.item_id for p in prompts]
    assert {len(c.ids) for c in done} == {1}
    assert {c.finish_reason for c in done} == {"stop"}


def test_a_stop_on_the_last_token_of_the_budget_is_a_stop(model: LlamaCppModel) -> None:
    prompt = _prompts(1)
    free = _generate(model, prompt)[0].ids
    budget = next(n for n in range(2, 20) if free[n - 1] not in free[: n - 1])
    done = model.generate(prompt, max_tokens=budget, stop_ids=[free[budget - 1]])
    assert (done[0].ids, done[0].finish_reason) == (free[:budget], "stop")


def test_stop_when_sees_every_generated_id_and_ends_the_sequence(model: LlamaCppModel) -> None:
    prompts, seen = _prompts(3), []

    def after_four(ids: tuple[int, ...]) -> bool:
        seen.append(ids)
        return len(ids) == 4

    free = _generate(model, prompts)
    done = model.generate(prompts, max_tokens=20, stop_ids=[], stop_when=after_four)
    assert [c.ids for c in done] == [c.ids[:4] for c in free]
    assert {c.finish_reason for c in done} == {"stop"}
    assert sorted(seen) == sorted(c.ids[:n] for c in free for n in range(1, 5))


def test_on_done_sees_each_completion_once_as_it_ends(model: LlamaCppModel) -> None:
    prompts, seen = _prompts(13), []
    free = {c.item_id: c.ids for c in _generate(model, prompts)}

    def own_length(ids: tuple[int, ...]) -> bool:
        return any(ids == free[f"item/{n}"][: 3 + n] for n in range(13))

    done = model.generate(
        prompts, max_tokens=20, stop_ids=[], stop_when=own_length, on_done=seen.append
    )
    assert [c.item_id for c in done] == [p.item_id for p in prompts]
    assert sorted(seen, key=lambda c: c.item_id) == sorted(done, key=lambda c: c.item_id)
    # item 8 takes the slot of item 0, which is done after 3 tokens, and so on
    assert [c.item_id for c in seen[:8]] == [f"item/{n}" for n in range(8)]
    assert all(c.seconds > 0 for c in seen)


@settings(max_examples=15, deadline=None)
@given(chosen=st.lists(st.integers(0, 19), min_size=1, max_size=20, unique=True))
def test_any_choice_in_any_order_gives_the_same_ids(
    model: LlamaCppModel, chosen: list[int]
) -> None:
    pool = _prompts(20, seed=1)
    alone = {c.item_id: c.ids for p in pool for c in _cached(model, p)}
    for completion in _generate(model, [pool[n] for n in chosen], budget=12):
        assert completion.ids == alone[completion.item_id]


_ALONE: dict[str, list[Completion]] = {}


def _cached(model: LlamaCppModel, prompt: Prompt) -> list[Completion]:
    if prompt.item_id not in _ALONE:
        _ALONE[prompt.item_id] = _generate(model, [prompt], budget=12)
    return _ALONE[prompt.item_id]


def test_prompts_longer_than_a_piece_are_repeatable_and_right(
    gguf: Path, directory: ModelDirectory
) -> None:
    prompts = _prompts(5, seed=4, longest=30)
    prompts += [
        Prompt("long", tuple(int(x) for x in np.random.default_rng(9).integers(0, 512, 700)))
    ]
    with open_gguf(gguf, context=768, kv_dtype="f32", threads=1) as model:
        together = _generate(model, prompts)[-1]
        alone = _generate(model, prompts[-1:])[0]
        ours = model.logits(prompts[-1].ids)
    assert together.ids == alone.ids
    theirs = torch_logits(torch_model(directory), prompts[-1].ids)
    # 5e-4 measured: float32 RoPE angles differ more at far positions; one piece lost costs 1
    assert np.abs(ours - theirs).max() < 3e-3


def test_a_failed_run_leaves_nothing_behind(model: LlamaCppModel) -> None:
    def fail(_: Completion) -> None:
        raise RuntimeError("the caller stopped")

    expected = [c.ids for c in _generate(model, _prompts(9))]
    with pytest.raises(RuntimeError, match="the caller stopped"):
        model.generate(_prompts(9, seed=5), max_tokens=3, stop_ids=[], on_done=fail)
    assert [c.ids for c in _generate(model, _prompts(9))] == expected


def test_prompt_and_budget_may_fill_the_context_but_not_exceed_it(model: LlamaCppModel) -> None:
    ids = tuple(range(1, 101))
    done = model.generate([Prompt("full", ids)], max_tokens=28, stop_ids=[])
    assert len(done[0].ids) == 28
    message = r"full: prompt of 100 tokens \+ n_predict 29 is more than the context of 128; lower"
    with pytest.raises(UserError, match=message):
        model.generate([Prompt("full", ids)], max_tokens=29, stop_ids=[])


@pytest.mark.parametrize(
    ("prompts", "budget", "message"),
    [
        ([Prompt("a", ())], 4, "the prompt of a is empty"),
        ([Prompt("a", (1,)), Prompt("a", (2,))], 4, "item id a occurs more than once"),
        ([Prompt("a", (512,))], 4, r"a has token ids outside 0\.\.511"),
        ([Prompt("a", (-1,))], 4, r"a has token ids outside 0\.\.511"),
        ([Prompt("a", (1,))], 0, "n_predict is 0"),
    ],
)
def test_prompts_that_cannot_be_decoded_are_refused(
    model: LlamaCppModel, prompts: list[Prompt], budget: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        model.generate(prompts, max_tokens=budget, stop_ids=[])


def test_no_prompts_give_no_completions(model: LlamaCppModel) -> None:
    assert _generate(model, []) == []


def test_a_tie_goes_to_the_lowest_id_and_nan_is_an_error() -> None:
    logits = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 1.0]], np.float32)
    assert arg_max(logits).tolist() == [1, 0]
    logits[1, 2] = np.nan
    with pytest.raises(UserError, match="not finite"):
        arg_max(logits)


def test_the_description_names_all_that_makes_the_numbers(model: LlamaCppModel) -> None:
    described = model.describe()
    assert described["engine"] == "llamacpp"
    assert len(described["gguf_sha256"]) == 64
    assert described["adapter_sha256"] is None
    assert described["context"] == CONTEXT <= described["context_per_sequence"]
    assert (described["width"], described["kv_dtype"], described["n_ubatch"]) == (8, "f32", 512)
    assert (described["kv_unified"], described["flash_attention"]) == (False, False)
    assert described["threads"] == 1
    assert described["llama_cpp_python"]
    assert "CPU" in described["system_info"]
    if not described["supports_gpu_offload"]:
        assert (described["offloaded_layers"], described["devices"]) == (0, ["cpu"])


def test_a_damaged_file_is_refused_before_llama_cpp_sees_it(gguf: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(gguf.read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"damaged\.gguf is not a usable GGUF file"):
        open_gguf(damaged, context=64)


def test_llama_cpps_own_reason_is_given_when_it_refuses_a_file(tmp_path: Path) -> None:
    import gguf as gguf_package

    path = tmp_path / "strange.gguf"
    writer = gguf_package.GGUFWriter(path, "llama")
    writer.add_string("general.architecture.note", "no tensors, no shape")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UserError, match=r"llama\.cpp cannot load .*key not found.*") as caught:
        open_gguf(path, context=64)
    assert "\n" not in str(caught.value)


def test_a_kv_cache_beyond_memory_is_refused_with_both_numbers(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = type("Free", (), {"available": 1_000_000})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(UserError, match=r"no memory for 8 sequences of 2048 tokens: .* GB free"):
        open_gguf(gguf, context=2048)


def test_a_context_beyond_the_training_length_is_refused(gguf: Path) -> None:
    with pytest.raises(UserError, match="context of 2049 tokens is more than the 2048"):
        open_gguf(gguf, context=2049)


def test_logits_refuse_what_does_not_fit(model: LlamaCppModel) -> None:
    with pytest.raises(UserError, match="logits of 0 ids"):
        model.logits([])
    with pytest.raises(UserError, match="logits of 129 ids: give 1 to 128"):
        model.logits([1] * 129)


def test_layers_are_taken_off_the_gpu_until_the_rest_fits() -> None:
    from backends.llamacpp.native import offload_attempts

    assert offload_attempts(-1, 32, has_gpu=True) == (-1, 28, 24, 20, 16, 12, 8, 4, 0)
    assert offload_attempts(-1, 2, has_gpu=True) == (-1, 1, 0)
    assert offload_attempts(7, 32, has_gpu=True) == (7,)
    assert offload_attempts(-1, 32, has_gpu=False) == (-1,)
