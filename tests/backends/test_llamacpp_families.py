"""Decoding of every kind of memory in llama.cpp: texts that depend on their prompt alone.

Plain attention (llama), sliding windows (Gemma 3, 4, whose last layers share a cache) and
attention with recurrent states (Qwen3.5). Tiny random models, float32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("torch")
pytest.importorskip("llama_cpp")

from backends.interface import GREEDY, Completion, Prompt, Sampling
from backends.llamacpp.context import DecodeContext, Settings
from backends.llamacpp.library import Library
from backends.llamacpp.memory import decode_memory
from backends.llamacpp.model import LlamaCppModel, open_gguf
from backends.llamacpp.native import NativeModel
from models.directory import ModelDirectory
from models.errors import UserError
from models.gguf.export import export_gguf
from tests.support.llamacpp import torch_logits, torch_model
from tests.support.tiny_models import GEMMA3_OF_LLAMACPP

FAMILIES = {"llama": {}, "qwen3_5": {}, "gemma3": GEMMA3_OF_LLAMACPP, "gemma4": {}}
BUDGET, CONTEXT = 24, 256
SAMPLED = Sampling(temperature=6.0, top_p=0.99, seed=3)
"""Hot: the tiny Gemmas repeat one id otherwise."""
PREFIX = tuple(range(40, 51))
"""Longer than the sliding window of 8."""


@pytest.fixture(scope="module", params=list(FAMILIES))
def directory(
    request: pytest.FixtureRequest, tiny_directory: Callable[..., ModelDirectory]
) -> ModelDirectory:
    return tiny_directory(request.param, **FAMILIES[request.param])


@pytest.fixture(scope="module")
def gguf(directory: ModelDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_gguf(directory, tmp_path_factory.mktemp("gguf") / "tiny.gguf", dtype="f32")


@pytest.fixture(scope="module")
def model(gguf: Path) -> Iterator[LlamaCppModel]:
    with open_gguf(gguf, context=CONTEXT, kv_dtype="f32", threads=1, logprobs=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def prefixed(gguf: Path) -> Iterator[LlamaCppModel]:
    with open_gguf(
        gguf, context=CONTEXT, kv_dtype="f32", threads=1, prefix=PREFIX, logprobs=True
    ) as opened:
        yield opened


def prompts(n: int) -> list[Prompt]:
    """Behind the prefix, but for every fifth; lengths below and above the sliding window."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(n):
        ids = tuple(rng.integers(3, 500, 2 + 5 * (i % 7)).tolist())
        found.append(Prompt(f"item/{i}", ids if i % 5 == 4 else PREFIX + ids))
    return found


Said = tuple[tuple[int, ...], tuple[float, ...] | None]
"""Generated ids, and their log-probabilities: equal numbers, not just equal choices."""


def said(
    model: LlamaCppModel, given: Sequence[Prompt], sampling: Sampling = GREEDY
) -> dict[str, Said]:
    done = model.generate(given, max_tokens=BUDGET, stop_ids=[], sampling=sampling)
    return {one.item_id: (one.ids, one.logprobs) for one in done}


# Order, company, number of busy slots, continuation --------------------------------------------


def test_a_text_depends_on_its_prompt_alone(model: LlamaCppModel) -> None:
    given = prompts(11)
    expected = said(model, given)
    assert len(set(expected.values())) == 11
    assert said(model, [given[(4 * n + 5) % 11] for n in range(11)]) == expected
    for group in (given[2:6], given[9:]):  # four, and two, busy slots
        assert said(model, group) == {one.item_id: expected[one.item_id] for one in group}
    assert said(model, given[7:8]) == {"item/7": expected["item/7"]}


def test_a_sampled_text_depends_on_its_prompt_alone(model: LlamaCppModel) -> None:
    given = prompts(11)
    expected = said(model, given, SAMPLED)
    assert expected != said(model, given)
    assert said(model, given[::-1], SAMPLED) == expected
    assert said(model, given[4:5], SAMPLED) == {"item/4": expected["item/4"]}


def test_replayed_ids_go_on_as_one_decode_would(model: LlamaCppModel) -> None:
    given = prompts(9)
    whole = model.generate(given, max_tokens=BUDGET, stop_ids=[])
    cut = [replace(p, generated=c.ids[:10]) for p, c in zip(given, whole, strict=True)]
    again = model.generate(cut[::-1], max_tokens=BUDGET, stop_ids=[])
    assert [c.ids for c in again] == [c.ids for c in whole[::-1]]
    assert [c.logprobs for c in again] == [c.logprobs for c in whole[::-1]]


# A prefix that is computed once ----------------------------------------------------------------


def test_a_copied_prefix_is_the_prefix_ingested_in_place(
    gguf: Path, prefixed: LlamaCppModel
) -> None:
    """Bit for bit: what is copied is what the prompt's own stream would hold."""
    given = prompts(9)
    settings = Settings(context=CONTEXT, kv_dtype="f32")
    native = NativeModel(gguf, adapter=None, gpu_layers=0)
    copying = DecodeContext(native, replace(settings, prefix=PREFIX))
    plain = DecodeContext(native, settings)
    try:
        for number, prompt in enumerate(given):
            slot = number % 8
            if prompt.ids[: len(PREFIX)] == PREFIX:
                plain.ingest(slot, PREFIX)
                plain._prompt.fill(prompt.ids[len(PREFIX) :], slot, len(PREFIX))
                plain.run(plain._prompt)
                expected = plain.outputs(1).copy()
            else:
                expected = plain.ingest(slot, prompt.ids).copy()
            assert np.array_equal(copying.ingest(slot, prompt.ids), expected)
    finally:
        copying.close()
        plain.close()
        native.close()


def test_texts_behind_a_prefix_depend_on_their_prompt_alone(prefixed: LlamaCppModel) -> None:
    given = prompts(11)
    expected = said(prefixed, given)
    assert len(set(expected.values())) == 11
    assert said(prefixed, given[::-1]) == expected
    assert said(prefixed, given[6:9]) == {f"item/{n}": expected[f"item/{n}"] for n in (6, 7, 8)}
    cut = [replace(one, generated=expected[one.item_id][0][:9]) for one in given]
    assert said(prefixed, cut) == expected


def test_a_prompt_that_is_the_prefix_or_less_is_read_whole(
    model: LlamaCppModel, prefixed: LlamaCppModel
) -> None:
    given = [Prompt("all", PREFIX), Prompt("part", PREFIX[:4])]
    assert said(prefixed, given) == said(model, given)


def test_the_prefix_is_part_of_the_description_only_where_there_is_one(
    model: LlamaCppModel, prefixed: LlamaCppModel
) -> None:
    assert "shared_prefix" not in model.describe() and "prefix" not in model.describe()
    found = prefixed.describe()
    assert found["shared_prefix"]["length"] == len(PREFIX) and "prefix" not in found
    other = Settings(context=CONTEXT, prefix=(*PREFIX[:-1], 7)).as_dict()
    assert other["shared_prefix"]["sha256"] != found["shared_prefix"]["sha256"]
    with pytest.raises(UserError, match="a shared prefix needs a KV stream a sequence"):
        Settings(context=CONTEXT, prefix=PREFIX, kv_unified=True)


# The unified cache of --fast -------------------------------------------------------------------


def test_a_unified_cache_decodes_the_same_model(gguf: Path, model: LlamaCppModel) -> None:
    """In float32, where rounding decides nothing, the texts are equal: no slot is mixed up."""
    given = prompts(11)
    with open_gguf(gguf, context=CONTEXT, kv_dtype="f32", threads=1, kv_unified=True) as unified:
        assert unified.describe()["kv_unified"]
        found, expected = said(unified, given, SAMPLED), said(model, given, SAMPLED)
        assert {item: ids for item, (ids, _) in found.items()} == {
            item: ids for item, (ids, _) in expected.items()
        }
        # slots fall idle one by one, and are left out of the batch
        ends = {expected[p.item_id][0][: 3 + n] for n, p in enumerate(given)}
        done = unified.generate(
            given, max_tokens=BUDGET, stop_ids=[], stop_when=ends.__contains__, sampling=SAMPLED
        )
    assert {one.ids for one in done} == ends


# Log-probabilities -----------------------------------------------------------------------------


def test_logprobs_are_torchs(model: LlamaCppModel, directory: ModelDirectory) -> None:
    """Nats of the ids that were generated, sampled or not, at temperature 1.

    Bounds as measured for logits (tests/models/test_gguf_families.py): sums in another order
    2e-5 of the range, ggml's float16 GELU table (Gemma) 1e-3; a log-probability is a difference
    of two such numbers.
    """
    torch = torch_model(directory)
    share = 2e-3 if directory.family.startswith("gemma") else 1e-4
    # what was generated earlier need not be what would be chosen now
    given = [*prompts(3), replace(prompts(4)[3], generated=(7, 300, 12))]
    for sampling in (Sampling(), replace(SAMPLED, temperature=2.0, repetition_penalty=1.5)):
        for done in model.generate(given, max_tokens=12, stop_ids=[], sampling=sampling):
            logits = torch_logits(torch, done.prompt_ids + done.ids)[len(done.prompt_ids) - 1 : -1]
            wide = logits.astype(np.float64)
            expected = wide[np.arange(12), done.ids] - np.log(np.exp(wide).sum(axis=1))
            assert done.logprobs is not None and len(done.logprobs) == 12
            assert np.abs(np.array(done.logprobs) - expected).max() < share * np.ptp(logits)
        assert done.ids[:3] == (7, 300, 12)


def test_logprobs_are_kept_only_where_asked_for(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("worked out although nobody asked")

    monkeypatch.setattr("backends.llamacpp.generate.chosen_logprobs", fail)
    with open_gguf(gguf, context=64, kv_dtype="f32", threads=1) as model:
        done: list[Completion] = model.generate(prompts(2), max_tokens=3, stop_ids=[])
    assert {one.logprobs for one in done} == {None}


# Memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        Settings(context=512),
        Settings(context=1000, width=3, kv_dtype="f32"),
        Settings(context=300, prefix=PREFIX),
        Settings(context=512, kv_unified=True),
    ],
    ids=["plain", "f32", "prefix", "unified"],
)
def test_memory_is_what_llama_cpp_allocates(gguf: Path, settings: Settings) -> None:
    """Its own log is the reference: KV exactly, states and buffers as bounds that are not wild."""
    native = NativeModel(gguf, adapter=None, gpu_layers=0)
    log = native.library.log
    context = DecodeContext(native, settings)
    try:
        made = {
            kind: sum(float(size) for (size,) in log.search(rf"{kind} buffer size = +([\d.]+) MiB"))
            for kind in ("KV", "RS", "compute", "output")
        }
    finally:
        context.close()
        native.close()
    needed, mib = decode_memory(gguf, settings), 2**20
    assert needed.weights == gguf.stat().st_size
    assert needed.kv / mib == pytest.approx(made["KV"], abs=0.02)  # printed to 0.01
    assert made["RS"] <= needed.recurrent / mib + 0.01 <= 2 * made["RS"] + 0.02
    buffers = made["compute"] + made["output"]
    assert buffers <= needed.compute / mib + 0.01 < 2 * buffers


def test_what_does_not_fit_is_refused_before_it_is_allocated(
    gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(context=CONTEXT, kv_dtype="f32", threads=1)
    needed = decode_memory(gguf, settings).total

    def pretend(free: int) -> None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: type("F", (), {"available": free}))

    pretend(needed)
    open_gguf(gguf, context=CONTEXT, kv_dtype="f32", threads=1).close()
    pretend(needed - 1)
    with pytest.raises(UserError, match="no memory for 8 sequences of 256 tokens") as caught:
        open_gguf(gguf, context=CONTEXT, kv_dtype="f32", threads=1)
    message = str(caught.value)
    assert re.search(r"lower the width, the context \(n_predict\), or .* quantisation", message)
    assert "\n" not in message
    open_gguf(gguf, context=CONTEXT, width=4, kv_dtype="f32", threads=1).close()
    # a build that could use a GPU, on a machine without one
    monkeypatch.setattr(Library, "supports_gpu", property(lambda _: True))
    with pytest.raises(UserError, match="no memory for 8 sequences"):
        open_gguf(gguf, context=CONTEXT, kv_dtype="f32", threads=1)
