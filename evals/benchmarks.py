"""Executable benchmarks: sets of Python tasks in HumanEval's form, run by one harness.

HumanEval, the small tasks that ship with threearc, and any JSONL file of the same records. All
share prompt templates, extraction, sandbox and scoring (:mod:`evals.humaneval`); what differs is
the problems and the name under which their numbers stand.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evals.humaneval.fences import parse
from evals.humaneval.problems import Problem, load_problems
from evals.humaneval.problems import dataset_sha256 as humaneval_sha256
from evals.humaneval.prompts import PromptStyle, template, template_sha256
from evals.items.load import built_in, items_sha256, load
from evals.items.records import SmallTask
from models.errors import UserError

HUMANEVAL, SMALL = "humaneval", "small"
TITLES: Mapping[str, str] = {HUMANEVAL: "HumanEval", SMALL: "small tasks"}
"""Name on the command line -> name in tables and manifests."""


@dataclass(frozen=True)
class Benchmark:
    """Problems, and what identifies them."""

    name: str
    """``humaneval``, ``small``, or the file's path."""
    title: str
    problems: tuple[Problem, ...]
    """In the set's own order; task ids are distinct."""
    dataset_sha256: str

    @property
    def ships(self) -> bool:
        """Whether threearc's own tests have run every reference solution."""
        return self.name in TITLES

    def describe(self, style: PromptStyle) -> dict[str, object]:
        """What a run's manifest says of data set and prompt, apart from the chosen items."""
        return {
            "dataset": self.title,
            "dataset_sha256": self.dataset_sha256,
            "prompt_style": style,
            "prompt_templates": {each: template(each) for each in ("chat", "raw")},
            "prompt_template_sha256": template_sha256(style),
        }


def load_benchmark(name: str) -> Benchmark:
    """Return ``humaneval``, ``small``, or what a JSONL file of SmallTask records holds.

    Raises UserError for an unknown name, and for a file that is not there, is malformed, or holds
    a task that could not be evaluated (the line says which and why).
    """
    if name == HUMANEVAL:
        return Benchmark(name, TITLES[name], load_problems(), humaneval_sha256())
    if name == SMALL:
        return _of_tasks(name, TITLES[name], built_in("small_tasks", SmallTask))
    path = Path(name)
    if path.suffix != ".jsonl":
        raise UserError(
            f"unknown benchmark {name!r}: choose {', '.join(TITLES)}, or a .jsonl file of tasks"
        )
    if not path.is_file():
        raise UserError(f"{path}: no such file; a benchmark is {', '.join(TITLES)} or a JSONL file")
    tasks = load(path, SmallTask)
    for task in tasks:
        fault = _fault(task)
        if fault is not None:
            raise UserError(f"{path}: {task.key}: {fault}")
    return _of_tasks(str(path), path.name, tasks)


def _of_tasks(name: str, title: str, tasks: tuple[SmallTask, ...]) -> Benchmark:
    problems = tuple(
        Problem(
            task_id=task.key,
            prompt=task.prompt,
            entry_point=task.entry_point,
            canonical_solution=task.canonical_solution,
            test=task.test,
        )
        for task in tasks
    )
    return Benchmark(name, title, problems, items_sha256(tasks))


@functools.cache
def built_in_prompts(dataset_sha256: str) -> Mapping[str, str]:
    """Prompts by task id of the shipped benchmark with this hash; empty where none has it."""
    for name in TITLES:
        benchmark = load_benchmark(name)
        if benchmark.dataset_sha256 == dataset_sha256:
            return {problem.task_id: problem.prompt for problem in benchmark.problems}
    return {}


def _fault(task: SmallTask) -> str | None:
    """Why a task cannot be evaluated; None where its form is right. Runs nothing of it."""
    shape = "def f(...) with a docstring and no body is expected"
    body = parse(task.prompt + "    pass\n")
    if body is None:
        return f"prompt is no Python function without its body; {shape}"
    functions = [node.name for node in body.body if isinstance(node, ast.FunctionDef)]
    if not functions or functions[-1] != task.entry_point:
        return f"prompt does not end with the function {task.entry_point} (entry_point); {shape}"
    if parse(task.prompt + task.canonical_solution) is None:
        return "canonical_solution does not continue prompt as Python; give the indented body"
    test = parse(task.test)
    checks = [] if test is None else [n for n in test.body if isinstance(n, ast.FunctionDef)]
    if not any(node.name == "check" for node in checks):
        return "test is no Python that defines check(candidate)"
    return None
