"""``threearc eval FILE.jsonl``: the real command on a tiny model and a user's own tasks."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("llama_cpp")

from arcs.arc1 import pipeline as arc1_pipeline
from arcs.arc1.config import resolve
from arcs.evaluate import command, pipeline
from arcs.progress import Reporter
from arcs.runs import RunDirectory
from models.errors import UserError
from tests.support.command_line import call_here
from tests.support.eval_bench import Bench


def task(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "task_id": f"mine/{number}",
        "prompt": f'def add_{number}(n: int) -> int:\n    """Return n plus {number}."""\n',
        "entry_point": f"add_{number}",
        "canonical_solution": f"    return n + {number}\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {number + 1}\n",
        "kind": "arithmetic",
        **changes,
    }


def written(path: Path, tasks: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in tasks))
    return path


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    patch = pytest.MonkeyPatch()
    patch.setenv("THREEARC_CACHE", "")  # Bench sets it; the patch puts back what was there
    made = Bench(tmp_path_factory.mktemp("tasks"))
    patch.undo()
    return made


@pytest.fixture
def flags(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("THREEARC_CACHE", str(bench.cache))
    return {
        "model": str(bench.model), "quantisations": ("q8_0",), "n_predict": (4, 8), "threads": 1,
        "benchmark": str(written(bench.root / "mine.jsonl", [task(n) for n in range(3)])),
    }  # fmt: skip


def test_an_interrupted_run_on_a_file_is_continued_by_the_command_it_names(
    bench: Bench,
    flags: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "_judge", interrupt)
        with pytest.raises(SystemExit) as ended:
            command.start(flags, out=tmp_path / "a run", run=None, as_json=False)
    assert ended.value.code == 130
    said = capsys.readouterr().err
    assert "of 3 problems of mine.jsonl to 8 tokens" in said
    named = shlex.split(said.split("continue with: ")[1].splitlines()[0])
    assert named[0] == "threearc" and named[1] == "eval"
    done = call_here(*named[1:], "--json", THREEARC_CACHE=str(bench.cache))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["n_items"] == 3 and found["config"]["benchmark"] == flags["benchmark"]
    assert found["made_with"]["evaluation"]["dataset"] == "mine.jsonl"

    with pytest.raises(UserError, match=r"the benchmark is .*mine\.jsonl in this run, not small"):
        command.start({"benchmark": "small"}, out=None, run=tmp_path / "a run", as_json=False)
    written(bench.root / "mine.jsonl", [task(n, kind="sums") for n in range(3)])
    with pytest.raises(UserError, match=r"evaluation\.dataset_sha256 was .* start a new run"):
        command.start({}, out=None, run=tmp_path / "a run", as_json=False)


def test_a_task_whose_own_solution_fails_stops_the_run_before_it_begins(
    bench: Bench, flags: dict[str, Any], tmp_path: Path
) -> None:
    """Whatever a model answers to it would be counted as wrong."""
    tasks = [task(0), task(1, canonical_solution="    return n\n"), task(2)]
    written(Path(flags["benchmark"]), tasks)
    expected = r"mine\.jsonl: the reference solution of mine/1 \(failed: assert candidate\(1\) == 2"
    with pytest.raises(UserError, match=expected):
        command.start(flags, out=tmp_path / "eval", run=None, as_json=False)
    assert not (tmp_path / "eval").exists()
    config = resolve(
        {"model": flags["model"], "benchmark": flags["benchmark"], "adapter": bench.root / "edit"}
    )
    manifest = arc1_pipeline.first_manifest(config, [])
    with RunDirectory.create(tmp_path / "arc1", manifest) as run:
        with pytest.raises(UserError, match=expected):
            arc1_pipeline.prepare_run(config, run, Reporter())
        written(Path(flags["benchmark"]), [task(0), task(2)])
        prepared = arc1_pipeline.prepare_run(config, run, Reporter())
    assert [item.problem.task_id for item in prepared.items] == ["mine/0", "mine/2"]
