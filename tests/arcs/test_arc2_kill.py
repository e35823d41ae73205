"""SIGKILL in every phase of the real command, on a model with a planted head."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.arc2_bench import FLAGS, Bench

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
