"""``threearc sweep``: the grid, mistakes in it, and what its cells give together."""

from __future__ import annotations

import fcntl
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from arcs import stored_runs
from arcs.cli import main
from arcs.runs import METRICS
from arcs.sweep import executors, plan, running
from arcs.sweep.grid import Cell, cells_of, to_toml
from arcs.sweep.options import Option, arguments, sweepable
from arcs.sweep.results import over_seeds, results, seeds_text
from arcs.sweep.running import Outcome, Task
from tests.support.command_line import call_here
from tests.support.stored_runs import answer, arc1_run, problems


def option(key: str, **more: Any) -> Option:
    given = {"negative": (), "positional": False, "switch": False, "repeats": False, **more}
    return Option(key, (f"--{key.replace('_', '-')}",), **given)


COMMANDS = {
    "arc1": {
        one.key: one
        for one in (
            option("model"), option("backend"), option("seed"), option("rank"),
            option("n_predict"), option("data", repeats=True),
            option("planted", switch=True, negative=("--no-planted",)),
            option("weak", switch=True),
        )
    },
    "eval": {
        one.key: one
        for one in (option("benchmark", positional=True), option("model"), option("seed"))
    },
}  # fmt: skip
GRID = """
[grid]
arc = ["arc1", "eval"]
model = ["owner/Small-1B", "./models/tiny"]
seed = [0, 1]

[grid.arc1]
n-predict = [[256, 512], [1024]]

[options.arc1]
rank = 8
planted = false
data = ["a.jsonl", "b.jsonl"]

[[runs]]
arc = "eval"
name = "by-hand"
benchmark = "small"
model = "x \\" é 😀"
"""


def cells(text: str) -> tuple[Cell, ...]:
    return cells_of(tomllib.loads(text), COMMANDS)


def test_a_grid_is_every_combination_with_a_name_of_its_own() -> None:
    found = cells(GRID)
    assert [one.name for one in found[:4]] == [
        "arc1-Small-1B-seed0-n-predict-256_512",
        "arc1-Small-1B-seed0-n-predict-1024",
        "arc1-Small-1B-seed1-n-predict-256_512",
        "arc1-Small-1B-seed1-n-predict-1024",
    ]
    assert [one.name for one in found[8:]] == [
        "eval-Small-1B-seed0", "eval-Small-1B-seed1", "eval-tiny-seed0", "eval-tiny-seed1",
        "by-hand",
    ]  # fmt: skip
    assert arguments(COMMANDS["arc1"], found[0].settings) == [
        "--rank=8", "--no-planted", "--data=a.jsonl", "--data=b.jsonl", "--model=owner/Small-1B",
        "--seed=0", "--n-predict=256,512",
    ]  # fmt: skip
    assert arguments(COMMANDS["eval"], found[-1].settings) == ["small", '--model=x " é 😀']
    assert cells(to_toml(found)) == found  # the resolved file asks for the same


def test_names_that_would_be_equal_are_numbered() -> None:
    found = cells('[grid]\narc = "arc1"\nmodel = ["a/tiny", "b/tiny"]')
    assert [one.name for one in found] == ["arc1-tiny", "arc1-tiny-2"]
    # one folder, on a disk that knows no case
    found = cells('[grid]\narc = "arc1"\nmodel = ["a/tiny", "b/Tiny"]')
    assert [one.name for one in found] == ["arc1-tiny", "arc1-Tiny-2"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no cell: give"),
        ("[gird]\n", "gird: unknown; did you mean grid?"),
        ("[grid]\nseed = [0]", "grid: give arc ="),
        ('[grid]\narc = ["arc9"]', "arc9: unknown; did you mean arc1?"),
        ('[grid]\narc = "arc1"\nsede = [0]', "of arc1, sede: unknown; did you mean seed?"),
        ('[grid]\narc = "arc1"\nseed = 3', "is an axis: give a list of values, e.g. seed = [3]"),
        ('[grid]\narc = "arc1"\nseed = []', "seed is an axis"),
        ('[grid]\narc = ["arc1", "eval"]\nrank = [1]', "eval has no option rank; write it under "
         "the arcs that have it, such as [grid.arc1]"),
        ('[grid]\narc = "eval"\n[options]\nrank = 1', "such as [options.arc1]"),
        ('[grid]\narc = "eval"\n[options.arc1]\nrank = 1', "no cell is of arc1"),
        ('[grid]\narc = "eval"\n[grid.arc1]\nrank = [1]', "[grid.arc1]: no cell is of arc1"),
        ('[grid]\narc = "eval"\nout = ["x"]', "out is set by the sweep for each cell"),
        ('[[runs]]\nseed = 1', "runs 1: give arc = one of arc1, eval"),
        ('[[runs]]\narc = "arc1"\nname = "../x"', "name = '../x': letters"),
        ('[[runs]]\narc = "arc1"\nsede = 1', "runs 1: of arc1, sede: unknown; did you mean seed?"),
        ('[grid]\narc = "arc1"\nn-predict = [1]\nn_predict = [2]', "is given twice"),
        ('[grid]\narc = "arc1"\nseed = [1,2,3]\nrank = [%s]' % ("1," * 4000), "more than 10,000"),
        ('runs = 3', "write each as [[runs]]"),
        ('[grid]\narc = "paper"', "grid: arc paper: it prepares its model"),
        ('[[runs]]\narc = "sweep"', "runs 1: arc sweep: a sweep is no cell"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_grid_is_one_line(text: str, words: str) -> None:
    from models.errors import UserError

    with pytest.raises(UserError) as caught:
        cells(text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"planted": "yes"}, "planted = 'yes': give true or false"),
        ({"seed": True}, "seed = true: it takes a text or a number"),
        ({"seed": {"a": 1}}, "it takes a text or a number"),
        ({"data": []}, r"data = \[\]: give at least one, or leave it out"),
    ],
)
def test_a_value_of_a_wrong_kind_is_one_line(settings: Mapping[str, Any], words: str) -> None:
    from models.errors import UserError

    with pytest.raises(UserError, match=words):
        arguments(COMMANDS["arc1"], settings)


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """The one line of ``threearc sweep ARGV``, which ends with status 2 and prints nothing."""
    monkeypatch.chdir(tmp_path)

    def said(*argv: str) -> str:
        with pytest.raises(SystemExit) as end:
            main(["sweep", *argv])
        assert end.value.code == 2
        out, err = capsys.readouterr()
        (line,) = err.splitlines()
        assert out == "" and line.startswith("error: ")
        return str(line)

    return said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[grid]\narc = "arc1"\nmodel = ["Qwen9"]', "cell arc1-Qwen9: unknown model 'Qwen9'"),
        ('[grid]\narc = "arc1"\nmodel = ["./gone"]', "cell arc1-gone: ./gone: no such file"),
        ('[grid]\narc = "arc1"\nseed = ["x"]', "cell arc1-seedx: Invalid value for '--seed'"),
        ('[grid]\narc = "arc1"\nbackend = ["mlx"]\nbase_bits = [4]\nseed = [1]\n[[runs]]\n'
         'arc = "arc1"\nbackend = "torch"\nbase-bits = 4', "cell arc1-torch-base-bits-4: the torch "
         "engine cannot train over a quantised base"),
        ('[grid]\narc = "arc1"\nbackend = ["gguf"]', "cell arc1-gguf: unknown backend 'gguf'"),
        ('[grid]\narc = "arc3"\nseed = [0, 0]', "cells arc3-seed0 and arc3-seed0-2 are the same"),
        ('[grid]\narc = "falsify"', "cell falsify: give a run of Arc 3 (source), adapter"),
        ('[grid]\narc = "arc1"\nconfig = ["mine.toml"]', "mine.toml has out, which the sweep sets"),
    ],
)  # fmt: skip
def test_an_impossible_cell_is_one_line_before_any_work(
    tmp_path: Path, mistake: Callable[..., str], text: str, words: str
) -> None:
    write(tmp_path, text)
    (tmp_path / "mine.toml").write_text('out = "elsewhere"\nseed = 3\n')
    assert words in mistake("sweep.toml", "--out", "made")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["mine.toml", "sweep.toml"]


def test_a_file_of_settings_is_one_cell_s_alone_and_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arcs.cli import config_file
    from models.errors import UserError

    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text("rank = -1\n")
    with pytest.raises(SystemExit):
        main(["--version"])  # registers the commands
    commands = sweepable()
    with pytest.raises(UserError, match=r"cell one: bad.toml: --rank: "):
        plan.check([Cell("one", "arc1", {"config": "bad.toml"})], commands, tmp_path)
    assert config_file.place("rank: x") == "rank: x"  # not put down to bad.toml
    folder = tmp_path / "cells" / "one"
    task = Task("one", "arc1", ("--config=a.toml",), str(folder), "log", ".")
    assert running.command_of(task) == ["arc1", "--config=a.toml", f"--out={folder}"]
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    assert running.command_of(task) == ["arc1", "--config=a.toml", f"--run={folder}"]


# -- cells whose runs are prepared, by the command that would run them ----------------------------

SEEDS = """
[grid]
arc = "arc1"
seed = [0, 1, 2]

[options]
limit = 14
n_predict = [64, 128]
method = "sft"
evaluations = "none"
backend = "torch"
"""
PASSES: Mapping[str, int] = {"arc1-seed0": 12, "arc1-seed1": 6, "arc1-seed2": 9}


class Prepared:
    """Stands for :func:`run_cell`: writes a finished run of prepared answers, or fails."""

    def __init__(self) -> None:
        self.fails: set[str] = set()
        self.interrupted_in: str | None = None
        self.otherwise: dict[str, Any] = {}
        """Settings that the cells run with, and were not checked with."""
        self.asked: list[str] = []

    def __call__(self, task: Task, say: object = None, **_: object) -> Outcome:
        self.asked.append(task.name)
        if task.name == self.interrupted_in:
            raise KeyboardInterrupt
        if task.name in self.fails:
            return Outcome("failed", 2, "its disk was full")
        base = [answer(one, passes=False) for one in problems(14)]
        after = [answer(one, passes=i < PASSES[task.name]) for i, one in enumerate(problems(14))]
        plan_of = json.loads((Path(task.folder).parents[1] / "manifest.json").read_text())
        (checked,) = (one["resolved"] for one in plan_of["config"]["cells"]
                      if one["name"] == task.name)  # fmt: skip
        seed = int(task.name[-1])
        path = arc1_run(Path(task.folder), base, after, config={"seed": seed, "method": "sft"})
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["config"] = {**checked, **self.otherwise}
        (path / "manifest.json").write_text(json.dumps(manifest))
        return Outcome("finished", 0)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Prepared:
    made = Prepared()
    monkeypatch.setattr(executors, "run_cell", made)
    return made


def sweep(tmp_path: Path, *argv: str) -> Any:
    return call_here("sweep", *argv, cwd=tmp_path)


def test_a_failed_cell_is_shown_and_tried_again_and_the_rest_kept(
    tmp_path: Path, prepared: Prepared
) -> None:
    write(tmp_path, SEEDS)
    prepared.fails = {"arc1-seed1"}
    done = sweep(tmp_path, "sweep.toml", "--out", "s")
    assert done.returncode == 1
    assert "arc1-seed1 failed: its disk was full" in done.stdout
    assert "2 of 3 cells finished; 1 failed and add no claim" in done.stdout
    assert "threearc sweep --run" in done.stderr
    page = (tmp_path / "s" / "report.html").read_text()
    assert "a sweep of 3 runs" in page
    failed = page.index('<p class="failure">arc1-seed1 failed: its disk was full')
    assert page.index("2 of 3 cells finished; 1 failed") < failed < page.index("<article")
    assert stored_runs.summary(tmp_path / "s").state == "finished, 1 failed"
    assert prepared.asked == ["arc1-seed0", "arc1-seed1", "arc1-seed2"]

    plan_now = json.loads(sweep(tmp_path, "--run", "s", "--dry-run", "--json").stdout)
    assert [one["finished"] for one in plan_now["cells"]] == [True, False, True]
    prepared.fails, prepared.asked = set(), []
    done = sweep(tmp_path, "--run", "s", "--json")
    assert done.returncode == 0 and prepared.asked == ["arc1-seed1"]
    metrics = json.loads((tmp_path / "s" / METRICS).read_text())
    assert json.loads(done.stdout) == metrics
    assert (metrics["finished"], metrics["failed"]) == (3, 0)

    (seeds,) = metrics["over_seeds"]  # 12, 6 and 9 of 14 gained
    assert (seeds["seeds"], seeds["n_values"]) == ([0, 1, 2], 3)
    assert seeds["mean"] == pytest.approx(9 / 14)
    assert (seeds["least"], seeds["most"]) == (pytest.approx(6 / 14), pytest.approx(12 / 14))
    found = metrics["multiplicity"]
    assert (found["claims"], found["with_p"], found["without_p"]) == (3, 3, 0)
    raw = {one["cell"]: one["p"] for one in found["holm"]}
    assert raw["arc1-seed1"] == pytest.approx(2 * 0.5**6)  # exact McNemar, 6 gained and none lost
    assert {one["cell"]: one["adjusted"] for one in found["holm"]} == {
        "arc1-seed0": pytest.approx(3 * raw["arc1-seed0"]),  # Holm 1979: the smallest times 3
        "arc1-seed2": pytest.approx(2 * raw["arc1-seed2"]),
        "arc1-seed1": pytest.approx(raw["arc1-seed1"]),
    }
    adjusted = {one["name"]: one["claims"][0]["p_adjusted"] for one in metrics["cells"]}
    assert adjusted == {one["cell"]: one["adjusted"] for one in found["holm"]}
    assert 'class="failure"' not in (tmp_path / "s" / "report.html").read_text()
    again = call_here("report", "s", "--format", "md", cwd=tmp_path).stdout
    assert "| arc1-seed0 " in again and "## Over seeds" in again


def test_a_cell_that_ran_with_other_settings_than_were_checked_has_failed(
    tmp_path: Path, prepared: Prepared
) -> None:
    write(tmp_path, SEEDS.replace("[0, 1, 2]", "[0]"))
    prepared.otherwise = {"rank": 3}
    done = sweep(tmp_path, "sweep.toml", "--out", "s")
    assert done.returncode == 1
    assert "arc1-seed0 failed: it ran with rank = 3, where " in done.stdout


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder, SEEDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executors, "run_cell", Prepared())
        assert sweep(folder, "sweep.toml", "--out", "s").returncode == 0
    return folder / "s"


def test_an_interrupted_sweep_ends_as_one_that_was_not(
    tmp_path: Path, prepared: Prepared, whole: Path
) -> None:
    write(tmp_path, SEEDS)
    prepared.interrupted_in = "arc1-seed2"
    done = sweep(tmp_path, "sweep.toml", "--out", "s")
    assert done.returncode == 130 and "continue with: threearc sweep --run" in done.stderr
    assert not (tmp_path / "s" / METRICS).exists()
    prepared.interrupted_in, prepared.asked = None, []
    assert sweep(tmp_path, "--run", "s").returncode == 0
    assert prepared.asked == ["arc1-seed2"]
    assert (tmp_path / "s" / METRICS).read_bytes() == (whole / METRICS).read_bytes()


def test_the_resolved_file_runs_the_same_again(tmp_path: Path, whole: Path) -> None:
    planned = json.loads(sweep(tmp_path, str(whole / "sweep.toml"), "--dry-run", "--json").stdout)
    manifest = json.loads((whole / "manifest.json").read_text())
    cells = manifest["config"]["cells"]
    assert [one["resolved"] for one in planned["cells"]] == [one["resolved"] for one in cells]
    assert [one["resolved"]["seed"] for one in cells] == [0, 1, 2]
    assert (whole / "given.toml").read_text() == SEEDS


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--run", "s", "sweep.toml"), "leave FILE and --out out"),
        ((), "give a sweep file, or --run"),
        (("gone.toml",), "gone.toml: no such file"),
        (("--run", "other"), "not a sweep; continue it with threearc arc1 --run"),
        (("sweep.toml", "--executor", "slurm"), "give sequence or ray"),
        (("sweep.toml", "--cpus-per-run", "2"), "for --executor ray; leave them out"),
        (("sweep.toml", "--executor", "ray", "--cpus-per-run", "nan"), "--cpus-per-run nan: a num"),
        (("sweep.toml", "--executor", "ray", "--gpus-per-run", "1.5"), "gives whole GPUs alone"),
    ],
)
def test_wrong_flags_are_one_line(
    tmp_path: Path, mistake: Callable[..., str], argv: tuple[str, ...], words: str
) -> None:
    write(tmp_path, SEEDS)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"arc": "arc1", "config": {}}')
    assert words in mistake(*argv)


# -- parts ----------------------------------------------------------------------------------------


def test_claims_without_a_p_are_counted_apart(tmp_path: Path) -> None:
    """A run of nothing but claims that rest on intervals, and one that failed."""
    from arcs.runs import MANIFEST

    folder = tmp_path / "one"
    folder.mkdir()
    (folder / MANIFEST).write_text('{"arc": "measure", "config": {}}')
    claim = {"statement": "a moves", "verdict": "SUPPORTED", "delta": 0.2, "reasons": ["x"]}
    artifact = {"statement": "b moves", "verdict": "INVALID", "delta": 0.3, "p_value": 4.9e-6}
    (folder / METRICS).write_text(json.dumps({"claims": {"a": claim, "b": artifact}}))
    grid = (Cell("one", "measure", {}), Cell("two", "measure", {"seed": 1}))
    found = results(
        grid, {"one": {}, "two": {"seed": 1}},
        {"one": Outcome("finished", 0), "two": Outcome("failed", -9, "killed by SIGKILL")},
        tmp_path, 0.05,
    )  # fmt: skip
    numbers = found["multiplicity"]
    # a p of 4.9e-6 is no evidence where the instrument failed
    counts = [numbers[key] for key in ("claims", "invalid", "with_p", "without_p")]
    assert counts == [2, 1, 0, 1]
    assert numbers["cells_without_result"] == 1 and numbers["holm"] == []
    assert found["cells"][1]["claims"] == [] and found["cells"][1]["line"] == "killed by SIGKILL"
    seeds, _ = found["over_seeds"]
    assert (seeds["without_result"], seeds["mean"], seeds["n_values"]) == (1, 0.2, 1)


def test_a_mean_over_seeds_is_of_valid_claims_with_a_number() -> None:
    def row(name: str, verdict: str, value: float | None) -> dict[str, Any]:
        claim = {"about": "", "statement": "a moves", "verdict": verdict, "value": value,
                 "unit": "points"}  # fmt: skip
        return {"name": name, "state": "finished", "seed": int(name), "claims": [claim]}

    rows = [row("0", "SUPPORTED", 0.2), row("1", "INVALID", 0.9), row("2", "INCONCLUSIVE", None)]
    (found,) = over_seeds(rows, dict.fromkeys("012", "alike"))
    assert (found["mean"], found["most"], found["n_values"]) == (0.2, 0.2, 1)
    assert found["invalid"] == 1 and seeds_text(found) == "1 of 3, 1 INVALID"


def test_the_p_of_a_part_is_no_p_of_a_conjunction(tmp_path: Path) -> None:
    """Beyond all baselines: the p stored is that of the smallest difference, not the largest p."""
    from arcs.runs import MANIFEST

    (tmp_path / "one").mkdir()
    (tmp_path / "one" / MANIFEST).write_text('{"arc": "arc3", "config": {}}')
    estimate = {"value": 0.1, "interval": None, "n": 100, "p_value": 1e-6}
    claim = {"statement": "s", "verdict": "SUPPORTED", "estimate": estimate}
    stored = {
        name: {**claim, "statement": name} for name in ("transfer", "beyond_baselines", "gate")
    }
    (tmp_path / "one" / METRICS).write_text(json.dumps({"claims": stored}))
    found = results((Cell("one", "arc3", {}),), {"one": {}}, {"one": Outcome("finished", 0)},
                    tmp_path, 0.05)  # fmt: skip
    assert [one["about"] for one in found["multiplicity"]["holm"]] == ["transfer"]
    assert found["multiplicity"]["without_p"] == 2
    parts = {one["about"]: one["p_of_a_part"] for one in found["cells"][0]["claims"]}
    assert parts == {"transfer": None, "beyond_baselines": 1e-6, "gate": 1e-6}


def test_a_cell_that_is_still_at_work_is_waited_for(tmp_path: Path) -> None:
    said = []
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def say(line: str) -> None:
            said.append(line)
            fcntl.flock(lock, fcntl.LOCK_UN)  # it ends once it is waited for

        running._wait_until_free(tmp_path, "one", say)
    assert len(said) == 1 and "waiting for it" in said[0]


@pytest.mark.parametrize(
    ("code", "said", "line"),
    [
        (2, "reading\nerror: --model x: unknown\n", "--model x: unknown"),
        (-9, "error: earlier\nstep 3\n", "killed by SIGKILL"),
        (1, "Traceback\nZeroDivisionError: x\n", "exit status 1 (ZeroDivisionError: x)"),
        (0, "", "it ended without a result"),
    ],
)
def test_a_failure_is_one_line(code: int, said: str, line: str) -> None:
    assert running.why(code, said) == line


def test_only_commands_that_begin_runs_are_swept() -> None:
    from models.errors import UserError

    with pytest.raises(SystemExit):
        main(["--version"])  # registers the commands
    commands = sweepable()
    assert {"arc1", "arc2", "arc3", "eval", "measure", "falsify"} <= commands.keys()
    assert not {"sweep", "paper", "report"} & commands.keys()
    with pytest.raises(UserError, match="cell one: --paper-tables reads no settings"):
        plan.check([Cell("one", "arc2", {"paper_tables": True})], commands, Path("nowhere"))


class Cluster:
    """Stands for ray: machines with so much of each resource."""

    def __init__(self, *machines: Mapping[str, float]) -> None:
        self.machines = machines

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": one} for one in self.machines] + [
            {"Alive": False, "Resources": {"CPU": 1000.0, "GPU": 1000.0}}
        ]

    def cluster_resources(self) -> dict[str, float]:
        return {"GPU": sum(one.get("GPU", 0.0) for one in self.machines)}


def test_a_run_over_ray_takes_one_machine_and_a_gpu_a_process_unless_told() -> None:
    from models.errors import UserError

    cluster = Cluster({"CPU": 8.0, "GPU": 4.0}, {"CPU": 16.0})
    given = executors.Resources
    with pytest.raises(UserError, match="machines have 8 to 16 CPUs; say with --cpus-per-run"):
        executors._needs(cluster, given(), 2)
    # a head that runs nothing is no machine to share
    equal = Cluster({"CPU": 8.0, "GPU": 4.0}, {"CPU": 8.0}, {"CPU": 0.0}, {})
    assert executors._needs(equal, given(), 2) == (8.0, 2.0)
    with pytest.raises(UserError, match="machines have no CPUs"):
        executors._needs(Cluster({}), given(), 1)
    assert executors._needs(Cluster({"CPU": 2.0}), given(), 1) == (2.0, 0.0)
    assert executors._needs(cluster, given(cpus=1.0, gpus=0.5), 2) == (1.0, 0.5)
    executors._require_room(cluster, "one", 8.0, 4.0)
    with pytest.raises(UserError, match="cell one: no machine of the Ray cluster has 16 CPUs and "
                       "1 GPUs; lower"):  # fmt: skip
        executors._require_room(cluster, "one", 16.0, 1.0)  # Ray would wait for ever


def test_a_machine_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    gone = tmp_path / "elsewhere"
    task = Task("one", "arc1", (), str(gone / "cells/one"), str(gone / "logs/one.log"), "/")
    outcome = executors.run_on_node(task)
    assert outcome.state == "failed" and outcome.line is not None
    assert f"does not see {gone}: over Ray the sweep must be in a folder" in outcome.line
    assert not gone.exists()
