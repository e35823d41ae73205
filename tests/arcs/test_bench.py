"""``threearc bench``: through the command on a tiny model; no test looks at how fast it is."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("torch")
pytest.importorskip("mlx.core")

from arcs.bench import by_turns, measure, rates, report, sampling_cost
from backends import open_backend
from backends.interface import Prompt

ROOT = Path(__file__).resolve().parent.parent.parent
PROMPTS, TOKENS = 3, 6
RATES = {"tokens", "ours", "plain", "ratio"}


def _bench(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from arcs.cli import main; main()", "bench", *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def real(tiny_directory) -> dict[str, Any]:
    model = str(tiny_directory("llama").path)
    sizes = ("--prompts", str(PROMPTS), "--max-tokens", str(TOKENS))
    done = _bench("--model", model, "--json", *sizes)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_document_of_all_engines_has_its_keys_and_each_is_documented(real):
    assert set(real) == {
        "schema_version", "model", "model_fingerprint", "dtype", "prompts", "max_tokens",
        "repeats", "engines", "skipped", "made_with",
    }  # fmt: skip
    assert set(real["engines"]) == {"torch", "mlx"}
    keys = set(real)
    for engine, found in real["engines"].items():
        keys |= set(found)
        assert found["described"]["engine"] == engine
        assert found["described"]["dtype"] == real["dtype"] == "float32"
        assert set(found["generation"]) == RATES | {"same_texts"}
        assert set(found["extraction"]) == RATES | {"difference"}
        for work in ("generation", "extraction", "sampling"):
            keys |= set(found[work])
    text = (ROOT / "docs" / "bench.md").read_text()
    assert [key for key in keys if f"`{key}`" not in text] == []


def test_rates_and_ratios_are_positive_and_within_their_range(real):
    for found in real["engines"].values():
        for work in ("generation", "extraction"):
            for name in ("ours", "plain", "ratio"):
                spread = found[work][name]
                assert 0 < spread["low"] <= spread["median"] <= spread["high"]
        assert found["sampling"]["host_share"]["high"] < 1


def test_both_ways_do_the_same_work(real):
    for found in real["engines"].values():
        assert found["generation"]["tokens"] == PROMPTS * TOKENS
        assert found["generation"]["same_texts"] == PROMPTS
        # float32 rounding in another order, as BOUNDS of the consistency suite
        assert found["extraction"]["difference"] < 1e-4


def test_the_report_names_every_engine_and_what_was_not_timed(real):
    out = io.StringIO()
    Console(file=out, width=100).print(report({**real, "skipped": ["x: not installed"]}))
    for text in ("torch", "mlx", "ours / plain", f"{PROMPTS} of {PROMPTS} texts are equal",
                 "not timed: x: not installed"):  # fmt: skip
        assert text in out.getvalue()


@pytest.mark.parametrize("flags", [("--engine", "abacus"), ("--engine", "llamacpp")])
def test_an_unknown_engine_is_one_line(flags):
    done = _bench(*flags)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert flags[1] in line and "mlx, torch, all" in line


def test_a_childs_mistake_is_the_commands_own_and_said_once():
    done = _bench("--model", "no/such/model-directory")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("error:") == 1


# What would make the comparison unfair ------------------------------------------------------


class _Short:
    """A plain way that stops early, and computes other states."""

    def generate(self, prompts, max_tokens):
        return [(1,) * (max_tokens - 1)] * len(prompts)

    def last_states(self, sequences):
        return np.zeros((len(sequences), 1), np.float32)


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
        measure(model, _Short(), prompts, max_tokens=4, n_layers=2, say=lambda _: None)


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


def test_arithmetic_of_rates():
    """By hand: ours 1 and 2 and 4 s, plain 2 s each, for 8 tokens."""
    found = rates([(1.0, 2.0), (2.0, 2.0), (4.0, 2.0)], 8)
    assert found["ours"] == {"median": 4.0, "low": 2.0, "high": 8.0}
    assert found["ratio"] == {"median": 1.0, "low": 0.5, "high": 2.0}
    cost = sampling_cost([(4.0, 3.0), (4.0, 2.0), (4.0, 4.0)], 8)
    assert cost["host_share"] == {"median": 0.25, "low": 0.0, "high": 0.5}
