"""From a model's answer to the program that is run, with the reason it was chosen."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evals.humaneval.fences import (
    Block,
    fenced_blocks,
    normalise,
    outside_fences,
    parse,
    rejected_line,
)
from evals.humaneval.problems import Problem
from evals.humaneval.prompts import PromptStyle, cut_at_stop_string
from evals.humaneval.thinking import drop_thoughts

Reason = Literal[
    "fenced", "unclosed_fence", "ast_search", "raw_completion", "no_code", "unclosed_think"
]

_STARTS_STATEMENT = re.compile(r"^\s*(?:async\s+def|def|class|from|import|@|[A-Za-z_]\w*\s*[:=])")
_DEFINITIONS_TRIED = 4
"""A looping answer defines the function over and over; the last ones are enough."""
_STARTS_TRIED = 24
"""Lines before the definition at which a span is tried to begin."""
_CUTS_TRIED = 24
"""Times the end of a span is moved up to before the line the parser rejects."""


@dataclass(frozen=True)
class Extraction:
    """The program to run, or None, and where it was found."""

    code: str | None
    """Complete: the prompt's imports and helpers, then the answer's code."""
    reason: Reason


def extract(answer: str, problem: Problem, *, style: PromptStyle, think_open: bool) -> Extraction:
    """The program in ``answer``.

    Thoughts are dropped first (``think_open``: the prompt opened one). The raw style
    continues the prompt up to the first stop string. In the chat style the order is: the
    last complete code block that defines the function, a final block left open that
    defines it, the largest span of lines outside any fence that parses and defines it, the
    last complete block, a block left open. The last block and not the longest, because
    models draft before they decide. Never raises.
    """
    visible = drop_thoughts(answer, think_open=think_open)
    found = _raw(visible.text, problem) if style == "raw" else _chat(visible.text, problem)
    if found is not None:
        return found
    return Extraction(None, "unclosed_think" if visible.unclosed else "no_code")


def _raw(text: str, problem: Problem) -> Extraction | None:
    completion = cut_at_stop_string(normalise(text))
    if not completion.strip():
        return None
    return Extraction(problem.prompt + completion.rstrip() + "\n", "raw_completion")


def _chat(text: str, problem: Problem) -> Extraction | None:
    name = problem.entry_point
    blocks = [block for block in fenced_blocks(text) if block.code.strip()]
    closed = [block for block in blocks if block.closed]
    unclosed = [block for block in blocks if not block.closed]
    return (
        _last([block for block in closed if _defines(block.code, name)], problem)
        or _last([block for block in unclosed if _defines(block.code, name)], problem)
        or _searched(outside_fences(text), problem)
        or _last([block for block in closed if block.is_python] or closed, problem)
        or _last(unclosed, problem)
    )


def _last(blocks: Sequence[Block], problem: Problem) -> Extraction | None:
    if not blocks:
        return None
    reason: Reason = "fenced" if blocks[-1].closed else "unclosed_fence"
    return Extraction(_assemble(blocks[-1].code, problem), reason)


def _defines(code: str, entry_point: str) -> bool:
    """Whether the code gives the name at top level; by its text where it does not parse."""
    tree = parse(textwrap.dedent(code))
    if tree is None:
        pattern = rf"^\s*(?:async\s+)?def\s+{re.escape(entry_point)}\b"
        return re.search(pattern, code, re.MULTILINE) is not None
    return any(entry_point in _names(node) for node in tree.body)


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()


def _assemble(code: str, problem: Problem) -> str:
    """The answer's code after what the prompt already provides.

    A block that holds a function body only continues the prompt. ``from __future__``
    imports move to the top, the one place where Python allows them.
    """
    dedented = textwrap.dedent(code)
    body = textwrap.indent(dedented, "    ")
    if _is_body(code, problem.entry_point) and parse(problem.prompt + body) is not None:
        return problem.prompt + body
    future, rest = _split_future_imports(dedented)
    return future + problem.preamble + rest


def _is_body(code: str, entry_point: str) -> bool:
    if _defines(code, entry_point):
        return False
    first = next((line for line in code.splitlines() if line.strip()), "")
    tree = parse(textwrap.dedent(code))
    returns = tree is not None and any(_returns_outside(node) for node in tree.body)
    return returns or first[:1].isspace()


def _returns_outside(node: ast.AST) -> bool:
    """Whether a ``return`` stands outside every function: the mark of a bare body."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
        return False
    if isinstance(node, ast.Return):
        return True
    return any(_returns_outside(child) for child in ast.iter_child_nodes(node))


def _split_future_imports(code: str) -> tuple[str, str]:
    tree = parse(code)
    if tree is None:
        return "", code
    future = [
        node
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]
    if not future:
        return "", code
    taken = {
        line for node in future for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = code.split("\n")
    rest = [line for number, line in enumerate(lines, start=1) if number not in taken]
    return "".join(ast.unparse(node) + "\n" for node in future), "\n".join(rest)


def _searched(text: str, problem: Problem) -> Extraction | None:
    """The largest span of lines that parses and defines the function, last one on a tie."""
    lines = normalise(text).split("\n")
    pattern = re.compile(rf"^\s*(?:async\s+)?def\s+{re.escape(problem.entry_point)}\s*\(")
    definitions = [at for at, line in enumerate(lines) if pattern.match(line)]
    spans = [
        span
        for at in definitions[-_DEFINITIONS_TRIED:]
        if (span := _largest_span(lines, at, problem.entry_point))
    ]
    if spans:
        best = max(reversed(spans), key=lambda span: span.count("\n"))
        return Extraction(_assemble(best, problem), "ast_search")
    first = next((line for line in lines if line.strip()), "")
    if first[:1].isspace() and parse(problem.prompt + text.rstrip() + "\n") is not None:
        return Extraction(problem.prompt + normalise(text).rstrip() + "\n", "ast_search")
    return None


def _largest_span(lines: list[str], definition: int, entry_point: str) -> str | None:
    """The longest parseable text from some line at or before the definition."""
    starts = [at for at in range(definition) if _STARTS_STATEMENT.match(lines[at])]
    for start in [*starts[-_STARTS_TRIED:], definition]:
        span = _parseable_prefix(lines[start:], definition - start)
        if span is not None and _defines(span, entry_point):
            return span
    return None


def _parseable_prefix(lines: list[str], must_hold: int) -> str | None:
    """The longest prefix that parses, found by cutting before each line that is rejected."""
    margin = len(lines[0]) - len(lines[0].lstrip())
    indent = lines[0][:margin]
    dedented = [line.removeprefix(indent) for line in lines]
    end = len(dedented)
    for _ in range(_CUTS_TRIED):
        code = "\n".join(dedented[:end]) + "\n"
        rejected = rejected_line(code)
        if rejected is None:
            return _up_to_last_definition(code)
        end = min(end - 1, rejected - 1)
        if end <= must_hold:
            return None
    return None


def _up_to_last_definition(code: str) -> str:
    """Without what follows the last function or class: prose can parse by accident."""
    tree = parse(code)
    body = tree.body if tree is not None else []
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    ends = [node.end_lineno or 0 for node in body if isinstance(node, definitions)]
    return "\n".join(code.split("\n")[: max(ends, default=0)]) + "\n"
