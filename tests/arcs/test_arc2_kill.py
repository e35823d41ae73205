"""SIGKILL in every phase of the real command, a model with a planted head, and the real model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from models.directory import ModelDirectory
from tests.support.arc2_bench import FLAGS, Bench
from tests.support.planted_heads import plant

pytestmark = pytest.mark.slow

PHASES = ("baseline", "heads", "ablations", "attribution", "sweep top-0.5", "sweep random-1-0",
          "conclude")  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("arc2-kill"))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from arcs.cli import main; main()", "arc2", *arguments]


def fresh(bench: Bench, out: Path) -> list[str]:
    flags = {**FLAGS, "model": str(bench.root / "planted"), "scales": "1,0.5,0", "out": str(out)}
    given = [part for k, v in flags.items() for part in (f"--{k.replace('_', '-')}", str(v))]
    return command(*given)


def environment(bench: Bench) -> dict[str, str]:
    return {**os.environ, "THREEARC_CACHE": str(bench.cache)}


def finish(given: list[str], bench: Bench) -> None:
    done = subprocess.run(
        given, env=environment(bench), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def begun(run: Path, phase: str) -> bool:
    try:
        return phase in json.loads((run / "timing.json").read_text())["phases"]
    except (OSError, ValueError):
        return False


@pytest.mark.timeout(900)
def test_a_kill_in_each_phase_of_one_run_changes_no_byte(bench: Bench) -> None:
    whole, killed = bench.root / "whole", bench.root / "killed"
    finish(fresh(bench, whole), bench)
    given, landed = fresh(bench, killed), 0
    for phase in PHASES:
        with subprocess.Popen(
            given, env=environment(bench), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:  # fmt: skip
            while not begun(killed, phase) and process.poll() is None:
                time.sleep(0.005)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                landed += 1
        given = command("--run", str(killed))
    assert landed >= len(PHASES) - 1  # the last phase may be over before the kill lands
    finish(given, bench)
    assert (killed / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    for path in whole.glob("*.jsonl"):
        assert (killed / path.name).read_bytes() == path.read_bytes()


@pytest.mark.timeout(900)
def test_a_head_planted_in_the_real_model_is_supported(
    smollm_directory: ModelDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SmolLM2-135M with a head of its last layer rewritten; that layer is attributed."""
    from arcs import provenance
    from arcs.arc2.config import resolve
    from arcs.arc2.pipeline import run_arc2
    from arcs.progress import Reporter
    from arcs.runs import RunDirectory

    cache = tmp_path / "cache"
    plant(smollm_directory, tmp_path / "planted", cache, head=4, strength=2.0)
    monkeypatch.setenv("THREEARC_CACHE", str(cache))
    flags: dict[str, Any] = {
        "profile": "quick", "backend": "torch", "model": str(tmp_path / "planted"),
        "layers": (29,), "labels": "meter", "limit": 33, "n_predict": 4, "sweep_limit": 4,
        "axis_items": 24, "top_k": 1, "scales": (1.0, 0.5, 0.0), "permutations": 200,
    }  # fmt: skip
    config = resolve(flags)
    first = provenance.first_manifest("arc2", config.model_dump(mode="json"), [])
    with RunDirectory.create(tmp_path / "run", first) as directory:
        metrics = run_arc2(config, directory, Reporter(quiet=True))
    top = metrics["rankings"]["causal"]["heads"][0]
    assert (top["layer"], top["head"]) == (29, 4) and top["p_corrected"] < 0.05
    assert metrics["claim"]["verdict"] == "SUPPORTED", metrics["claim"]
    shutil.rmtree(cache)
