"""``threearc bench eval``: through the command on a tiny model; no test looks at how fast it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_cpp")
pytest.importorskip("torch")
pytest.importorskip("mlx.core")

from arcs.arc1 import evaluation, problems
from arcs.bench import evaluation as bench_evaluation
from arcs.bench.evaluation import Bench, Budgets, beside_raw, budgets_to, decoded, evaluated
from arcs.bench.evaluation_report import report
from arcs.bench.timing import by_turns
from arcs.bench.worker import LibraryProcess
from backends.interface import Prompt
from backends.llamacpp.call_times import call_times
from backends.llamacpp.model import LlamaCppModel, open_gguf
from backends.llamacpp.plain import CreateCompletion, RawDecode, open_unified
from backends.llamacpp.quantise import evaluation_gguf
from evals.benchmarks import load_benchmark
from models.chat import ChatEncoder
from models.errors import UserError
from tests.support.command_line import call_here
from tests.support.printed import printed

HUMANEVAL = load_benchmark("humaneval")

ROOT = Path(__file__).resolve().parent.parent.parent
PROMPTS, TOKENS = 3, 8
COMPARISONS = {"raw", "create_completion", "unified", "budgets", "transformers", "mlx_lm"}
RATES = {"tokens", "ours", "plain", "ratio", "cpu_ratio", "same_texts"}
MORE = {
    "raw": {"work"},
    "budgets": {"n_predict", "same_answers"},
    "transformers": {"described"},
    "mlx_lm": {"described"},
}
WITH_TARGET = {"raw": 0.95, "create_completion": 1.0, "unified": 0.9, "budgets": 1 / 1.05}


def _bench(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from arcs.cli import main; main()", "bench", *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def real(tiny_directory) -> dict[str, Any]:
    model = str(tiny_directory("llama", max_position_embeddings=4096).path)
    sizes = ("--prompts", str(PROMPTS), "--max-tokens", str(TOKENS), "--threads", "1")
    done = call_here("bench", "eval", "--model", model, "--json", *sizes)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_document_has_its_keys_and_each_is_documented(real):
    assert set(real) == {
        "schema_version", "work", "model", "model_fingerprint", "quantisation", "prompts",
        "prompt_tokens", "prompts_sha256", "max_tokens", "threads", "repeats", "described",
        "comparisons", "host", "skipped", "made_with",
    }  # fmt: skip
    assert set(real["comparisons"]) == COMPARISONS
    assert set(real["host"]) == {"share", "cpu_share", "microseconds_per_token", "target", "met"}
    keys = set(real) | COMPARISONS | set(real["host"])
    for name, row in real["comparisons"].items():
        extra = {"target", "met"} if name in WITH_TARGET else set()
        assert set(row) == RATES | MORE.get(name, set()) | extra
        keys |= set(row)
    keys |= set(real["comparisons"]["raw"]["work"]["ours"])
    text = (ROOT / "docs" / "bench.md").read_text()
    assert [key for key in keys if f"`{key}`" not in text] == []


@pytest.mark.slow
def test_what_was_opened_is_what_was_asked_for(real):
    assert real["described"]["file_type"] == "Q8_0" and real["described"]["threads"] == 1
    assert not real["described"]["kv_unified"]
    found = real["comparisons"]
    for name, engine in (("transformers", "torch"), ("mlx_lm", "mlx")):
        assert found[name]["described"]["engine"] == engine
        assert found[name]["described"]["dtype"] in ("float32", "bfloat16")


@pytest.mark.slow
def test_targets_are_judged_by_the_median(real):
    for name, target in WITH_TARGET.items():
        row = real["comparisons"][name]
        assert row["target"] == target
        assert row["met"] == (row["ratio"]["median"] >= target)
    assert real["host"]["met"] == (real["host"]["share"]["median"] < 0.05)


@pytest.mark.slow
def test_both_ways_do_the_same_work(real):
    found = real["comparisons"]
    assert all(row["tokens"] == PROMPTS * TOKENS for row in found.values())
    assert found["raw"]["same_texts"] == PROMPTS
    assert found["budgets"]["same_texts"] == found["budgets"]["same_answers"] == PROMPTS
    assert found["budgets"]["n_predict"] == [1, 2, 4, 8]
    # three prompts alone, then the seven steps behind their first ids, eight slots each
    work = {"decodes": PROMPTS + 7, "tokens_read": real["prompt_tokens"] + 7 * 8}
    assert found["raw"]["work"] == {"ours": work, "plain": work}


@pytest.mark.slow
def test_the_table_fits_80_columns_and_says_what_met_its_target(real):
    wide, ratio = {"median": 123_456.7}, {"median": 12.34, "low": 10.25, "high": 12.35}
    rows = {
        name: row | {"ours": wide, "plain": wide, "ratio": ratio, "cpu_ratio": ratio, "met": False}
        for name, row in real["comparisons"].items()
    }
    for document in (real, {**real, "comparisons": rows, "skipped": ["x: not installed"]}):
        shown = " ".join(printed(report(document)).split())
        for text in ("raw llama_decode", "create_completion", "transformers", "mlx-lm",
                     "unified KV", "largest n_predict", "Host work", "n_predict 1, 2, 4, 8",
                     f"raw llama_decode {PROMPTS}"):  # fmt: skip
            assert text in shown
    assert "123,457 123,457 12.34 10.25-12.35 12.34" in shown and "0.95 no" in shown
    assert "not timed: x: not installed" in shown


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("eval", "--engine", "abacus"), ("abacus", "mlx, torch, all, none")),
        (("eval", "--prompts", "165"), ("165", "164")),
        (("eval", "--rows", "8"), ("--rows", "bench eval")),
        (("eval", "--quant", "q3_k"), ("q3_k", "q8_0")),
        (("train", "--quant", "q8_0"), ("--quant", "bench train")),
        (("generate", "--prompts", "21"), ("21", "20")),
    ],
)
def test_what_cannot_be_timed_is_one_line(flags, words):
    done = call_here("bench", *flags)
    assert done.returncode == 2 and done.stdout == ""
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error:") and all(word in line for word in words)
    assert "Traceback" not in done.stderr


# The ways themselves -------------------------------------------------------------------------

IDS = [tuple(range(5 + n, 30 + 3 * n)) for n in range(11)]
"""More prompts than slots, not a multiple of the width, all of another length."""


@pytest.fixture(scope="module")
def directory(tiny_directory):
    return tiny_directory("llama", max_position_embeddings=4096)


@pytest.fixture(scope="module")
def encoder(directory) -> ChatEncoder:
    encoder = ChatEncoder(directory)
    encoder.stop_ids = ()
    return encoder


@pytest.fixture(scope="module")
def model(directory, tmp_path_factory):
    gguf = evaluation_gguf(directory, "f16", tmp_path_factory.mktemp("gguf"))
    with open_gguf(gguf, context=1024, threads=1) as opened:
        yield opened


def _ours(model: LlamaCppModel, max_tokens: int) -> list[tuple[int, ...]]:
    prompts = [Prompt(str(n), ids) for n, ids in enumerate(IDS)]
    return [c.ids for c in model.generate(prompts, max_tokens=max_tokens, stop_ids=())]


def test_a_bare_loop_reads_the_same_tokens_and_writes_the_same_texts(model):
    raw = RawDecode(model)
    with call_times(model) as ours:
        expected = _ours(model, 12)
    assert raw.generate(IDS, 12) == expected
    assert len(set(expected)) > 5
    assert (raw.decodes, raw.tokens) == (ours.decodes, ours.tokens)
    assert ours.decodes == 11 + 2 * 11
    assert raw.generate(IDS[:1], 3) == [expected[0][:3]]  # counts are of the last run
    assert (raw.decodes, raw.tokens) == (3, len(IDS[0]) + 16)
    raw.close()


def test_other_work_is_refused(model, monkeypatch, encoder):
    monkeypatch.setattr(bench_evaluation, "REPEATS", 1)
    items = [problems.encode(encoder, p, "chat") for p in problems.choose(HUMANEVAL, 2)]
    bench = Bench(model, encoder, items, 3, lambda _: None)
    found, host = beside_raw(bench)
    assert found["same_texts"] == 2 and 0 < host["share"]["low"] < 1

    class Lazy(RawDecode):
        def generate(self, prompts, max_tokens):
            texts = super().generate(prompts, max_tokens)
            self.decodes -= 1
            return texts

    monkeypatch.setattr(bench_evaluation, "RawDecode", Lazy)
    with pytest.raises(RuntimeError, match="same work"):
        beside_raw(bench)


def test_create_completion_writes_every_id_whatever_it_is(model, encoder):
    """Greedy as ours (float16 weights, other shapes: most texts), and never ends early."""
    calls: list[int] = []

    def piece(token: int) -> str:
        calls.append(token)
        return "é"  # half of one at the budget would let the bindings go on behind it

    plain = CreateCompletion(model, piece)
    found, expected = plain.generate(IDS, 12), _ours(model, 12)
    assert [len(ids) for ids in found] == [12] * len(IDS)
    assert sum(a == b for a, b in zip(found, expected, strict=True)) >= len(IDS) // 2
    assert len(calls) == len({token for ids in found for token in ids})  # each text made once
    plain.close()


def test_create_completion_passes_stop_ids(smollm_directory, encoder):
    """The embedded file names its end-of-text tokens; a chat answer has far fewer than 60 ids."""
    from backends.llamacpp.quantise import evaluation_gguf as gguf_of
    from models.chat import Message

    real = ChatEncoder(smollm_directory)
    asked = real.encode_prompt([Message("user", "Answer with one word: what is 1 + 1?")]).ids
    path = gguf_of(smollm_directory, "original", Path("unused"))
    with open_gguf(path, context=256, threads=1) as opened:
        plain = CreateCompletion(opened, lambda token: real.decode((token,)))
        (ids,) = plain.generate([asked], 60)
        plain.close()
    assert len(ids) == 60 and set(ids[:-1]) & set(real.stop_ids)


def test_the_unified_way_is_unified_and_the_same_otherwise(model):
    with open_unified(model) as unified:
        described, other = unified.describe(), model.describe()
    assert described.pop("kv_unified") and not other.pop("kv_unified")
    for name in ("context_per_sequence",):  # the whole cache is every sequence's
        assert described.pop(name) >= other.pop(name)
    assert described == other


def test_time_inside_llama_cpp_is_measured_inside(model, monkeypatch):
    """What the host does is not in it, and the engine is as before afterwards."""
    api = model._context._api
    with call_times(model) as times:
        began = time.perf_counter()
        first = _ours(model, 3)
        total = time.perf_counter() - began
    assert 0 < times.seconds < total and times.cpu_seconds > 0
    assert model._context._api is api
    kept = api.llama_memory_seq_rm  # called by the host's code, and not timed

    def slow(*arguments):
        time.sleep(0.02)
        return kept(*arguments)

    monkeypatch.setattr(api, "llama_memory_seq_rm", slow)
    with call_times(model) as again:
        began = time.perf_counter()
        assert _ours(model, 3) == first
        total = time.perf_counter() - began
    assert total - again.seconds > 11 * 0.02  # at least one for each prompt


# Several n_predict ---------------------------------------------------------------------------


def test_budgets_are_halves_of_the_largest():
    assert budgets_to(128).n_predict == (16, 32, 64, 128)
    assert budgets_to(6).n_predict == (1, 3, 6) and budgets_to(1).n_predict == (1,)


def test_several_budgets_are_one_decode_and_the_same_texts(model, encoder):
    items = [problems.encode(encoder, p, "chat") for p in problems.choose(HUMANEVAL, 2)]
    bench = Bench(model, encoder, items, 8, lambda _: None)
    with call_times(model) as several:
        ids, texts = evaluated(bench, budgets_to(8))
    with call_times(model) as alone:
        same_ids, largest = evaluated(bench, Budgets((8,)))
    assert several.decodes == alone.decodes and several.tokens == alone.tokens
    assert ids == same_ids == decoded(model, items, 8)
    assert texts[8] == largest[8] and set(texts) == {1, 2, 4, 8}
    for n in (1, 2, 4):
        assert texts[n] == [encoder.decode(one[:n]) for one in ids]


def test_an_evaluation_that_decodes_each_budget_would_be_seen(model, encoder, monkeypatch):
    """What makes the comparison able to fail: the real path is what is timed."""
    items = [problems.encode(encoder, p, "chat") for p in problems.choose(HUMANEVAL, 1)]
    bench = Bench(model, encoder, items, 4, lambda _: None)
    kept = evaluation.decode

    def each(model, encoder, items, config, *rest):
        for n in config.n_predict[:-1]:
            decoded(model, items, n)
        return kept(model, encoder, items, config, *rest)

    with call_times(model) as once:
        evaluated(bench, budgets_to(4))
    monkeypatch.setattr(evaluation, "decode", each)
    with call_times(model) as often:
        evaluated(bench, budgets_to(4))
    assert often.decodes > once.decodes


# Another process -----------------------------------------------------------------------------


def test_the_other_processs_time_counts():
    ticks = iter(range(100))
    turns, _ = by_turns(
        lambda: None, lambda: None, 2, processors=(lambda: 0.0, lambda: float(next(ticks)))
    )
    assert [turn.plain_cpu for turn in turns] == [1.0, 1.0]
    assert [turn.ours_cpu for turn in turns] == [0.0, 0.0]


def test_a_library_in_another_process(directory):
    """transformers' own texts and CPU time; and one line where the process cannot work."""
    with LibraryProcess("torch", str(directory.path), 1) as library:
        before = library.cpu_seconds()
        texts = library.generate(IDS[:2], 5)
        assert [len(text) for text in texts] == [5, 5] and texts[0] != texts[1]
        assert library.cpu_seconds() > before > 0
        library._process.kill()
        with pytest.raises(UserError, match="torch ended"):
            library.generate(IDS[:1], 2)
    with pytest.raises(UserError, match="no/such/model"):
        LibraryProcess("torch", "no/such/model", 1)
