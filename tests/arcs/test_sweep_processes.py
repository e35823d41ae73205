"""Sweeps of real runs in processes of their own: kills, one that fails, Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from arcs.runs import METRICS
from arcs.stored_runs import in_use
from tests.support.command_line import call_here
from tests.support.falsify_bench import made

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
GRID = """
[grid]
arc = "falsify"
seed = [0, 1]

[options]
profile = "quick"
untruncated = true
features = "data/train.npz"
fresh = "data/fresh.npz"
labels = "data/labels.jsonl"

[[runs]]
arc = "falsify"
name = "lost"
features = "data/nowhere.npz"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with features, and a sweep over them whose last cell has none."""
    path = tmp_path_factory.mktemp("sweep")
    made(path / "data", n=60).write()
    (path / "sweep.toml").write_text(GRID)
    # a file of the user's that is named like a module is not imported by cells
    (path / "numpy.py").write_text("raise SystemExit('imported the wrong numpy')")
    return path


def begin(folder: Path, *argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [str(Path(sys.executable).parent / "threearc"), "sweep", *argv],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def environment() -> dict[str, str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, err = process.communicate(timeout=400)
    return process.returncode, err.decode()


@pytest.fixture(scope="module")
def killed(folder: Path) -> tuple[Path, int, str]:
    """The sweep, killed in its first cell (which goes on alone) and continued.

    The cell is stopped until the continued sweep says that it waits, so that it cannot end first.
    """
    process = begin(folder, "sweep.toml", "--out", "killed")
    first = folder / "killed" / "cells" / "falsify-seed0"
    while not (first.is_dir() and in_use(first)):
        assert process.poll() is None
        time.sleep(0.01)
    (cell,) = psutil.Process(process.pid).children()
    cell.suspend()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert in_use(first)
    try:
        again = begin(folder, "--run", "killed")
        assert again.stderr is not None
        said = b""
        while b"still works in it; waiting" not in said:
            line = again.stderr.readline()
            assert line, said
            said += line
    finally:
        cell.resume()
    code, err = ended(again)
    return folder / "killed", code, said.decode() + err


def claims(path: Path) -> list[Any]:
    return [one["claims"] for one in json.loads((path / METRICS).read_text())["cells"]]


def test_a_killed_sweep_goes_on_and_one_lost_cell_takes_no_other(
    folder: Path, killed: tuple[Path, int, str]
) -> None:
    path, code, err = killed
    assert code == 1, err
    assert "cell falsify-seed0: a process of an earlier sitting still works in it; waiting" in err
    attempts = [json.loads(one)["cell"] for one in (path / "cells.jsonl").open()]
    assert attempts.count("falsify-seed0") == 1  # by the sweep that went on
    metrics = json.loads((path / METRICS).read_text())
    assert [one["state"] for one in metrics["cells"]] == ["finished", "finished", "failed"]
    assert metrics["cells"][2]["line"].endswith("nowhere.npz: no such file")
    # a cell is the run that its command makes alone
    flags = ["--features=data/train.npz", "--fresh=data/fresh.npz", "--labels=data/labels.jsonl"]
    alone = call_here("falsify", *flags, "--profile=quick", "--untruncated", "--seed=0",
                      "--out", "alone", cwd=folder)  # fmt: skip
    assert alone.returncode == 0
    wanted = (folder / "alone" / METRICS).read_bytes()
    assert (path / "cells" / "falsify-seed0" / METRICS).read_bytes() == wanted


def test_ray_runs_the_same_cells(folder: Path, killed: tuple[Path, int, str]) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    code, err = ended(
        begin(folder, "sweep.toml", "--out", "by-ray", "--executor", "ray", "--cpus-per-run", "1")
    )
    assert code == 1, err
    assert "cells over Ray, 1 CPUs and 0 GPUs each" in err
    assert (folder / "by-ray" / METRICS).read_bytes() == (killed[0] / METRICS).read_bytes()
