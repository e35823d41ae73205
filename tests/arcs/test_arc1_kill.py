"""SIGKILL at random times in every phase of the real command changes nothing in the result.

One reference run goes through uninterrupted. For each phase a second run is killed ten times
at random moments while that phase is at work, continued with ``--run`` each time, and in the
end must hold the same bytes in metrics.json and items.jsonl.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.arc1_bench import Bench
from tests.support.kills import kill_in

pytestmark = pytest.mark.slow

KILLS = 10
FILES_FROM = {
    # what a phase and all later ones write: removed to put a finished run back before it
    "prepare": (),
    "train": ("train", "training.json", "adapter"),
    "export": ("adapter.gguf",),
    "decode base": ("base.completions.jsonl",),
    "decode trained": ("trained.completions.jsonl",),
    "execute": ("executions.jsonl",),
    "compare": ("items.jsonl", "metrics.json"),
}
PHASES = tuple(FILES_FROM)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("kill"))


@pytest.fixture(scope="module")
def reference(bench):
    out = bench.root / "reference"
    done = subprocess.run(
        bench.fresh(out),
        env=bench.environment(bench.root / "cache"),
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (out / "stdout").write_text(done.stdout)
    return out


def rewind(run: Path, phase: str) -> None:
    """Put a finished run back to the moment before ``phase``."""
    for later in PHASES[PHASES.index(phase) :]:
        for name in FILES_FROM[later]:
            path = run / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("phase", PHASES)
def test_ten_kills_in_a_phase_leave_the_same_result(bench, reference, phase, tmp_path):
    timing = json.loads((reference / "timing.json").read_text())
    duration = timing["phases"][phase]["seconds"]
    chance = random.Random(phase)
    # preparing and quantising are killed too, so those two start from an empty cache
    cache = tmp_path / "cache" if phase in ("prepare", "export") else bench.root / "cache"
    env, run = bench.environment(cache), tmp_path / "run"
    if phase == "prepare":
        command = bench.fresh(run)
    else:
        shutil.copytree(reference, run)
        rewind(run, phase)
        command = bench.command("--run", str(run))

    kills = attempts = 0
    while kills < KILLS:
        attempts += 1
        assert attempts <= 4 * KILLS, f"only {kills} kills landed in {attempts} starts"
        if kill_in(phase, command, env, run, chance.uniform(0, duration)):
            kills += 1
        else:
            rewind(run, phase)
        command = bench.command("--run", str(run))

    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("metrics.json", "items.jsonl"):
        assert (run / name).read_bytes() == (reference / name).read_bytes()


def test_json_is_one_document_on_stdout_and_the_same_as_the_file(reference):
    printed = (reference / "stdout").read_text()
    assert json.loads(printed) == json.loads((reference / "metrics.json").read_text())


def test_the_comparison_can_fail(bench, reference, tmp_path):
    """Another seed trains another adapter: the bytes compared above do carry the result."""
    run = tmp_path / "run"
    done = subprocess.run(
        [*bench.fresh(run), "--seed", "1"],
        env=bench.environment(bench.root / "cache"),
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (run / "metrics.json").read_bytes() != (reference / "metrics.json").read_bytes()
