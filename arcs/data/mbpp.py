"""MBPP's tasks (Austin et al. 2021) in HumanEval's form.

A prompt is the function's signature with the task's text as docstring, and its first test as the
one example, as in threearc's own small tasks. The reference solution is written again by
``ast.unparse``, so comments and layout are not kept. What the task defines beside the function
follows it, so that no helper of the solution is shown.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from arcs.data.lines import Problem, parse_object, read_bytes, split_lines
from evals.items.records import SmallTask, Text

AUTHOR = "MBPP (Austin et al. 2021, Google Research)"
LICENCE = "CC BY 4.0"
_FUNCTION = ast.FunctionDef


class MbppTask(BaseModel):
    """One line of mbpp.jsonl, or of the sanitized file."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    task_id: int
    text: Text
    code: Text
    test_list: tuple[Text, ...] = Field(min_length=1)
    test_setup_code: str = ""
    test_imports: tuple[str, ...] = ()
    challenge_test_list: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _sanitized(cls, value: Any) -> Any:
        """The sanitized file calls the text ``prompt``."""
        if isinstance(value, Mapping) and "text" not in value and "prompt" in value:
            return {**value, "text": value["prompt"]}
        return value

    @property
    def tests(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.test_list, *(one for one in self.challenge_test_list if one.strip()))


@dataclass(frozen=True)
class Converted:
    """MBPP's tasks as records, and those that cannot be."""

    tasks: tuple[SmallTask, ...]
    problems: tuple[Problem, ...]
    rows: int


class Unclear(Exception):
    """Why a task cannot be converted, in half a sentence."""


def convert_file(path: Path) -> Converted:
    """Read a file of MBPP. Raises UserError where it cannot be read."""
    tasks: dict[str, SmallTask] = {}
    problems, rows = [], 0
    for number, line in enumerate(split_lines(path, read_bytes(path)), start=1):
        if not line.strip():
            continue
        rows += 1
        made = _convert_line(line)
        if isinstance(made, str):
            problems.append(Problem(str(path), number, made))
        elif made.id in tasks:
            problems.append(Problem(str(path), number, f"{made.id} occurs twice"))
        else:
            tasks[made.id] = made
    if not rows:
        problems.append(Problem(str(path), 0, "holds no tasks; one JSON object a line is expected"))
    return Converted(tuple(tasks.values()), tuple(problems), rows)


def _convert_line(line: str) -> SmallTask | str:
    value = parse_object(line)
    if isinstance(value, str):
        return value
    try:
        task = MbppTask.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    try:
        return convert(task)
    except Unclear as why:
        return f"task {task.task_id}: {why}"


def convert(task: MbppTask) -> SmallTask:
    """One task as a record. Raises :class:`Unclear`."""
    module = _parsed(task.code, "code")
    tests = [_parsed(test, "a test") for test in task.tests]
    setup = [
        _parsed(text, "the test's set-up") for text in (*task.test_imports, task.test_setup_code)
    ]
    function = _function(module, tests)
    _require_known_names(module, function, tests, setup)
    imports, others = _other_statements(module, function)
    prompt = ast.unparse(_module([*imports, _shown(function, task)]))
    body = _body_after(prompt, function, others)
    entry = function.name
    test = "\n".join(
        [
            *(ast.unparse(one) for part in setup for one in part.body),
            "def check(candidate):",
            *(_indented(ast.unparse(_Renamed(entry).visit(part))) for part in tests),
            "",
        ]
    )
    return SmallTask(
        task_id=f"mbpp/{task.task_id}",
        prompt=prompt + "\n",
        entry_point=entry,
        canonical_solution=body,
        test=test,
        kind="mbpp",
    )


def _parsed(text: str, what: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise Unclear(f"{what} is not Python ({reason})") from None


def _function(module: ast.Module, tests: Sequence[ast.Module]) -> _FUNCTION:
    """The one top-level function that every test calls."""
    defined = [node for node in module.body if isinstance(node, _FUNCTION | ast.AsyncFunctionDef)]
    called = [
        {node.func.id for node in ast.walk(test)
         if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        for test in tests
    ]  # fmt: skip
    names = sorted({node.name for node in defined}.intersection(*called))
    if len(names) != 1:
        which = f"its tests all call {' and '.join(names)}" if names else (
            "no function that it defines is called by all of its tests"
        )  # fmt: skip
        raise Unclear(f"no single clear function: {which}")
    nodes = [node for node in defined if node.name == names[0]]
    if len(nodes) > 1:
        raise Unclear(f"{names[0]} is defined {len(nodes)} times")
    if not isinstance(nodes[0], _FUNCTION):
        raise Unclear(f"{names[0]} is a coroutine")
    return nodes[0]


def _require_known_names(
    module: ast.Module,
    function: _FUNCTION,
    tests: Sequence[ast.Module],
    setup: Sequence[ast.Module],
) -> None:
    """Tests run apart from the answer: they may use its function and nothing else of it."""
    own = set(_bound(module.body)) - {function.name}
    given = {name for part in (*setup, *tests) for name in _bound(part.body)}
    nodes = (node for part in (*setup, *tests) for node in ast.walk(part))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    borrowed = sorted((used & own) - given - set(dir(builtins)))
    if borrowed:
        raise Unclear(f"its tests use {', '.join(borrowed)}, which only the solution defines")


def _bound(body: Sequence[ast.stmt]) -> Iterator[str]:
    """Names that statements define at their own level."""
    for node in body:
        if isinstance(node, _FUNCTION | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((one.asname or one.name).partition(".")[0] for one in node.names)
        else:
            yield from (
                one.id
                for one in ast.walk(node)
                if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
            )


def _other_statements(
    module: ast.Module, function: _FUNCTION
) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """Imports, which are shown, and all else that is not the function."""
    imports = [node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
    others = [node for node in module.body if node is not function and node not in imports]
    return list(imports), others


def _shown(function: _FUNCTION, task: MbppTask) -> _FUNCTION:
    """The signature with the task as docstring."""
    lines = [*task.text.strip().splitlines(), "", *task.test_list[0].strip().splitlines()]
    text = "\n".join(f"    {line.rstrip()}".rstrip() for line in lines).strip() + "\n    "
    shown = ast.parse(ast.unparse(function)).body[0]
    assert isinstance(shown, _FUNCTION)
    shown.body = [ast.Expr(ast.Constant(text))]
    return shown


def _body_after(prompt: str, function: _FUNCTION, others: Sequence[ast.stmt]) -> str:
    """What follows the prompt: the function's body, then what else the solution defines."""
    body = list(function.body)
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:] or [ast.Pass()]  # its own docstring: the prompt has one
    text = _indented(ast.unparse(_module(body))) + "\n"
    if others:
        text += "\n\n" + ast.unparse(_module(list(others))) + "\n"
    ast.parse(prompt + "\n" + text)  # what is put together here is Python
    return text


def _module(body: list[Any]) -> ast.Module:
    return ast.fix_missing_locations(ast.Module(body=body, type_ignores=[]))


def _indented(text: str) -> str:
    """Four spaces deeper, but for the inner lines of strings, which ast.unparse never breaks."""
    return "\n".join(f"    {line}" if line.strip() else line for line in text.split("\n"))


class _Renamed(ast.NodeTransformer):
    """A test that calls ``candidate`` where it called the function."""

    def __init__(self, name: str) -> None:
        self.name = name

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """Rename one use."""
        if node.id != self.name:
            return node
        return ast.copy_location(ast.Name("candidate", node.ctx), node)
