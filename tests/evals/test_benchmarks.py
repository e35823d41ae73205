"""Benchmarks beside HumanEval: the small tasks run at every isolation level, and users' files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evals.benchmarks import built_in_prompts, load_benchmark
from evals.humaneval.execution import Execution, Limits, execute, execute_many
from evals.humaneval.extraction import extract
from evals.humaneval.problems import Problem
from evals.humaneval.sandbox import detect_level, levels_here
from models.errors import UserError

SMALL = load_benchmark("small")
HUMANEVAL = load_benchmark("humaneval")
LEVEL = detect_level(allow_weak=True)

TASK = {
    "task_id": "mine/1",
    "prompt": 'import math\n\n\ndef root(n: int) -> int:\n    """The integer root of n."""\n',
    "entry_point": "root",
    "canonical_solution": "    return math.isqrt(n)\n",
    "test": "def check(candidate):\n    assert candidate(17) == 4\n",
    "kind": "arithmetic",
}


def written(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**TASK, **changes}) + "\n")
    return path


@pytest.mark.slow
def test_the_220_small_solutions_pass() -> None:
    jobs = [(p.task_id, p, p.prompt + p.canonical_solution) for p in SMALL.problems]
    results = execute_many(jobs, level=LEVEL, limits=Limits(), workers=2)
    assert {key: done for key, done in results.items() if done.status != "passed"} == {}
    assert len(results) == 220


@pytest.mark.parametrize("found", levels_here(), ids=lambda found: found.name)
def test_the_220_small_solutions_run_at_every_level(found) -> None:  # type: ignore[no-untyped-def]
    """In one process a level, tests included: 220 processes each would take a minute."""
    if found.level is None:
        pytest.skip(found.reason)
    whole = Problem(
        "together", "def count():\n", "count", "",
        "def check(candidate):\n    assert candidate() == 220\n",
    )  # fmt: skip
    program = together(SMALL.problems)
    done = execute(whole, program, level=found.level, limits=Limits())
    assert done == Execution("passed", "")
    spoilt = program.replace(SMALL.problems[-1].canonical_solution, "    return ...\n")
    assert spoilt != program
    assert execute(whole, spoilt, level=found.level, limits=Limits()).status == "wrong"


def together(problems: tuple[Problem, ...]) -> str:
    """A program whose ``count()`` runs the test of each solution and returns how many passed."""
    names = [problem.entry_point for problem in problems]
    assert len(set(names)) == len(names)
    solutions = [p.prompt + p.canonical_solution for p in problems]
    tests = [p.test.replace("check", f"check_{p.entry_point}", 1) for p in problems]
    calls = "".join(f"    check_{name}({name})\n" for name in names)
    return "\n\n".join([*solutions, *tests, f"def count():\n{calls}    return {len(names)}\n"])


def test_wrong_solutions_of_small_tasks_fail() -> None:
    """The reference's value inside a list; every fifth task, and stubs of all in test_items."""
    jobs = [
        (
            p.task_id,
            p,
            f"{p.prompt}{p.canonical_solution}\n\nright = {p.entry_point}\n\n\n"
            f"def {p.entry_point}(*given):\n    return [right(*given)]\n",
        )
        for p in SMALL.problems[::5]
    ]
    results = execute_many(jobs, level=LEVEL, limits=Limits(), workers=2)
    assert {done.status for done in results.values()} == {"wrong"}
    assert len(results) == 44


def test_benchmarks_are_told_apart_by_hash_and_prompts_are_found_by_it() -> None:
    assert (HUMANEVAL.title, SMALL.title) == ("HumanEval", "small tasks")
    assert HUMANEVAL.dataset_sha256 != SMALL.dataset_sha256
    assert built_in_prompts(SMALL.dataset_sha256)["small/0"] == SMALL.problems[0].prompt
    assert "HumanEval/0" in built_in_prompts(HUMANEVAL.dataset_sha256)
    assert built_in_prompts("none of ours") == {}


def test_a_file_of_tasks_is_a_benchmark_of_its_own(tmp_path: Path) -> None:
    mine = load_benchmark(str(written(tmp_path / "mine.jsonl")))
    assert (mine.title, mine.ships, len(mine.problems)) == ("mine.jsonl", False, 1)
    answer = "```python\ndef root(n):\n    return math.isqrt(n)\n```"
    program = extract(answer, mine.problems[0], style="chat", think_open=False).code
    assert program is not None and program.startswith("import math")  # the prompt's own import
    other = load_benchmark(str(written(tmp_path / "other.jsonl", kind="roots")))
    assert other.dataset_sha256 != mine.dataset_sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "Write a function root."}, "prompt is no Python function without its body"),
        ({"entry_point": "square"}, r"prompt does not end with the function square \(entry_point"),
        (
            {"prompt": TASK["prompt"] + "    return 1\n\n\ndef last(n):\n"},
            "prompt does not end with the function root",
        ),
        ({"canonical_solution": "  return 1\n"}, "canonical_solution does not continue prompt"),
        ({"test": "assert root(17) == 4\n"}, r"test is no Python that defines check\(candidate"),
        ({"test": "def check(candidate:\n"}, r"test is no Python that defines check\(candidate"),
    ],
)
def test_a_task_that_cannot_be_evaluated_is_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = written(tmp_path / "mine.jsonl", **changes)
    with pytest.raises(UserError, match=rf"mine\.jsonl: mine/1: {message}") as caught:
        load_benchmark(str(path))
    assert "\n" not in str(caught.value)


def test_an_unknown_benchmark_and_a_missing_file_are_one_line() -> None:
    with pytest.raises(UserError, match="unknown benchmark 'mbpp': choose humaneval, small, or"):
        load_benchmark("mbpp")
    with pytest.raises(UserError, match=r"nowhere\.jsonl: no such file"):
        load_benchmark("nowhere.jsonl")
