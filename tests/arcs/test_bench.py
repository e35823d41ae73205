"""``threearc bench``: through the command on a tiny model; no test looks at how fast it is."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("mlx.core")

from arcs.bench.command import built_in_rows
from arcs.bench.generation import measure_generation, sampling_cost
from arcs.bench.report import report
from arcs.bench.timing import Turn, by_turns, rates
from arcs.bench.training import LORA, _in_order, _plans, measure_training
from backends import open_backend
from backends.interface import Prompt
from models.chat import ChatEncoder
from tests.support.command_line import call_here
from tests.support.printed import printed

ROOT = Path(__file__).resolve().parent.parent.parent
PROMPTS, TOKENS, ROWS = 3, 6, 8
RATES = {"tokens", "ours", "plain", "ratio", "cpu_ratio"}
TIMED = ("generation", "extraction_prompts", "extraction", "extraction_batched", "training")


def _bench(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from arcs.cli import main; main()", "bench", *flags],
        # nothing here is about speed: mlx-lm's training step would be compiled as C++ first
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLX_DISABLE_COMPILE": "1"},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def real(tiny_directory) -> dict[str, Any]:
    # one narrow layer: the built-in rows are long in a vocabulary of 512
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = str(tiny_directory("llama", max_position_embeddings=4096, **shape).path)
    sizes = ("--prompts", str(PROMPTS), "--max-tokens", str(TOKENS), "--rows", str(ROWS))
    done = _bench("--model", model, "--json", *sizes)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_document_of_all_engines_has_its_keys_and_each_is_documented(real):
    assert set(real) == {
        "schema_version", "work", "model", "model_fingerprint", "dtype", "prompts", "max_tokens",
        "rows", "repeats", "engines", "skipped", "made_with",
    }  # fmt: skip
    assert set(real["engines"]) == {"torch", "mlx"}
    keys = set(real)
    for engine, found in real["engines"].items():
        keys |= set(found)
        assert found["described"]["engine"] == engine
        assert found["described"]["dtype"] == real["dtype"] == "float32"
        assert set(found["generation"]) == RATES | {"same_texts"}
        assert set(found["extraction_prompts"]) == RATES | {"difference"}
        assert found["extraction_prompts"]["tokens"] < found["extraction"]["tokens"]
        assert set(found["extraction"]) == RATES | {"difference"}
        assert set(found["extraction_batched"]) == RATES | {"difference"}
        assert set(found["training"]) == RATES | {"work", "phases"}
        for work in (*TIMED, "sampling"):
            keys |= set(found[work])
        keys |= set(found["training"]["phases"]) | set(found["training"]["work"]["ours"])
    text = (ROOT / "docs" / "bench.md").read_text()
    assert [key for key in keys if f"`{key}`" not in text] == []


@pytest.mark.slow
def test_rates_and_ratios_are_positive_and_within_their_range(real):
    for found in real["engines"].values():
        for work in TIMED:
            for name in ("ours", "plain", "ratio", "cpu_ratio"):
                spread = found[work][name]
                assert 0 < spread["low"] <= spread["median"] <= spread["high"]
        assert found["sampling"]["host_share"]["high"] < 1


@pytest.mark.slow
def test_both_ways_do_the_same_work(real):
    for found in real["engines"].values():
        assert found["generation"]["tokens"] == PROMPTS * TOKENS
        assert found["generation"]["same_texts"] == PROMPTS
        # float32 rounding in another order, as BOUNDS of the consistency suite
        assert found["extraction"]["difference"] < 1e-4
        assert found["extraction_prompts"]["difference"] < 1e-4
        assert found["extraction_batched"]["difference"] < 1e-4


def _shown(document) -> str:
    return " ".join(printed(report(document)).split())


@pytest.mark.slow
def test_the_report_names_every_engine_and_what_was_not_timed(real):
    shown = _shown({**real, "skipped": ["x: not installed"]})
    for text in ("torch", "mlx", "ours / plain", "h_last, prompts", "training", "our time goes to",
                 f"{PROMPTS} of {PROMPTS} texts of {TOKENS} tokens are equal", "padding",
                 "not timed: x: not installed"):  # fmt: skip
        assert text in shown
    assert "…" not in shown


@pytest.mark.slow
def test_the_table_fits_80_columns_whatever_the_rates(real):
    """CI once measured a ratio above 10, and the heading was cut."""
    fast, ratio = _spread(123_456.0), {"median": 12.34, "low": 10.25, "high": 12.35}
    document = copy.deepcopy(real)
    for found in document["engines"].values():
        for work in TIMED:
            found[work] |= {"ours": fast, "plain": fast, "ratio": ratio, "cpu_ratio": ratio}
    shown = _shown(document)
    assert "…" not in shown and "123,456" in shown and "10.25-12.35" in shown


def _spread(value: float) -> dict[str, float]:
    return {"median": value, "low": value, "high": value}


@pytest.mark.parametrize("flags", [("--engine", "abacus"), ("--engine", "llamacpp")])
def test_an_unknown_engine_is_one_line(flags):
    done = call_here("bench", *flags)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert flags[1] in line and "mlx, torch, all" in line


def test_a_childs_mistake_is_the_commands_own_and_said_once():
    done = _bench("--model", "no/such/model-directory")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("error:") == 1


# What would make the comparison unfair ------------------------------------------------------


class _Short:
    """A plain way that stops early."""

    def generate(self, prompts, max_tokens):
        return [(1,) * (max_tokens - 1)] * len(prompts)


@pytest.fixture(scope="module")
def stopping(tiny_directory):
    """Prompts, and the ids that a run which is told no stop id goes through."""
    directory = tiny_directory("llama")
    prompts = [Prompt("a", (5, 6, 7)), Prompt("b", (9, 10, 11, 12, 13))]
    return directory, prompts


def test_less_work_on_one_side_is_refused(stopping):
    directory, prompts = stopping
    with (
        open_backend("torch", directory) as model,
        pytest.raises(RuntimeError, match="same work"),
    ):
        measure_generation(model, _Short(), prompts, max_tokens=4, say=lambda _: None)


@pytest.mark.parametrize("engine", ["torch", "mlx"])
def test_the_plain_way_passes_stop_ids(engine, stopping, tmp_path):
    """The model's own files name every id it generates as a stop id; the work stays the same."""
    import importlib
    import shutil
    from dataclasses import replace

    directory, prompts = stopping
    copy = tmp_path / "model"
    shutil.copytree(directory.path, copy)
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(512))}))
    changed = replace(directory, path=copy)
    with open_backend(engine, changed) as model:
        plain = importlib.import_module(f"backends.{engine}.plain").plain_of(model, changed)
        found = plain.generate([prompt.ids for prompt in prompts], 5)
        wanted = [
            c.ids for c in model.generate(prompts, max_tokens=5, stop_ids=())
        ]  # ours, by its own loop
        assert found == wanted
        other = plain.generate([prompt.ids[::-1] for prompt in prompts], 5)
        assert other != wanted  # the prompts matter


def test_turns_alternate_and_who_begins_changes():
    order: list[str] = []
    times, results = by_turns(lambda: order.append("a") or 1, lambda: order.append("b") or 2, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert len(times) == 3 and results == (1, 2)
    order.clear()
    by_turns(lambda: order.append("a"), lambda: order.append("b"), 2, lambda: order.append("-"))
    assert order == ["-", "a", "-", "b", "-", "b", "-", "a"]


def test_what_goes_before_is_not_timed():
    turns, _ = by_turns(lambda: None, lambda: None, 1, before=lambda: time.sleep(0.2))
    assert max(turns[0].ours, turns[0].plain) < 0.1


def test_arithmetic_of_rates():
    """By hand: ours 1 and 2 and 4 s, plain 2 s each, for 8 tokens."""
    turns = [Turn(1.0, 2.0, 1.0, 3.0), Turn(2.0, 2.0, 2.0, 2.0), Turn(4.0, 2.0, 4.0, 2.0)]
    found = rates(turns, 8)
    assert found["cpu_ratio"] == {"median": 1.0, "low": 0.5, "high": 3.0}
    assert found["ours"] == {"median": 4.0, "low": 2.0, "high": 8.0}
    assert found["ratio"] == {"median": 1.0, "low": 0.5, "high": 2.0}
    cost = sampling_cost([Turn(4.0, plain, 0.0, 0.0) for plain in (3.0, 2.0, 4.0)], 8)
    assert cost["host_share"] == {"median": 0.25, "low": 0.0, "high": 0.5}


# Training ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_torch_and_plain_peft_train_alike(real):
    """The same losses: same rows, start, order, masks, normaliser, clipping and AdamW."""
    work = real["engines"]["torch"]["training"]["work"]
    for name in ("first_loss", "last_loss", "mean_loss"):
        # float32 sums in another order
        assert work["ours"][name] == pytest.approx(work["plain"][name], rel=1e-5)
    assert work["ours"]["trained_on"] == work["plain"]["trained_on"]
    assert work["ours"]["positions"] <= work["plain"]["positions"]


@pytest.mark.slow
def test_mlx_lm_trains_on_two_more_ids_a_row(real):
    """The template's line break after the stop id, and the first padding id; else the same."""
    work = real["engines"]["mlx"]["training"]["work"]
    assert work["plain"]["trained_on"] == work["ours"]["trained_on"] + 2 * ROWS
    # another mean over other ids, but of the same texts and the same model
    assert work["ours"]["mean_loss"] == pytest.approx(work["plain"]["mean_loss"], rel=0.05)


@pytest.mark.slow
def test_phases_are_shares_of_the_whole(real):
    for found in real["engines"].values():
        phases = found["training"]["phases"]
        assert sum(phases.values()) == pytest.approx(1.0)
        assert set(phases) == {
            "batches", "decoder_forward", "head_and_loss", "decoder_backward", "optimiser",
        }  # fmt: skip
        assert phases["decoder_forward"] > 0 and phases["decoder_backward"] > 0


def test_the_plain_way_gets_every_row_in_the_order_of_the_steps(tiny_directory):
    rows = built_in_rows(ChatEncoder(tiny_directory("llama")), 20)
    plans = _plans(rows)
    ordered = _in_order(rows, plans)
    assert sorted(row.item_id for row in ordered) == sorted(row.item_id for row in rows)
    at = 0
    for plan in plans:
        step = ordered[at : at + len(plan.item_ids)]
        assert {row.item_id for row in step} == set(plan.item_ids)
        at += len(step)


def test_every_pass_starts_from_the_same_weights(tiny_directory):
    """Two repeats, one loss: a pass that went on from the last one would have a lower loss."""
    directory = tiny_directory("llama")
    rows = built_in_rows(ChatEncoder(directory), 8)
    losses = []
    for repeats in (1, 2):
        with pytest.MonkeyPatch.context() as patch, open_backend("torch", directory) as model:
            from arcs.bench import training

            patch.setattr(
                training, "by_turns", lambda *a, before, n=repeats: by_turns(*a, n, before)
            )
            found = measure_training("torch", model, directory, rows, say=lambda _: None)
            losses.append([found["work"][way]["mean_loss"] for way in ("ours", "plain")])
    assert losses[0] == losses[1]
    assert LORA.rank == 16


def test_only_the_work_asked_for_is_done(tiny_directory):
    model = str(tiny_directory("llama", max_position_embeddings=4096).path)
    flags = ("--model", model, "--engine", "torch", "--rows", "8", "--json")
    done = call_here("bench", "extract", *flags)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["engines"].values()
    assert set(found) == {
        "described", "preloaded_blas", "extraction_prompts", "extraction", "extraction_batched",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "words"), [(("fly",), ("fly", "generate, extract, train, all")),
                         (("train", "--rows", "4000"), ("4000", "rows"))]
)  # fmt: skip
def test_unknown_work_and_too_many_rows_are_one_line(flags, words, tiny_directory):
    model = str(tiny_directory("llama", max_position_embeddings=4096).path)
    done = call_here("bench", *flags, "--model", model, "--engine", "torch")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert all(word in line for word in words)
