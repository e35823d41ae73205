"""Fenced code blocks of a Markdown answer, as models write them."""

from __future__ import annotations

import ast
import functools
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

_OPENING = re.compile(r"^([ \t]*)(`{3,}|~{3,})[ \t]*([^`\n]*)$")
_PYTHON = frozenset({"", "python", "python3", "py", "py3", "python2", "pycon", "ipython"})
_CLOSERS_TRIED = 12
"""A block whose own text holds fences is tried with this many closing lines at most."""


@dataclass(frozen=True)
class Block:
    """One fenced block, its fence's indentation removed."""

    code: str
    language: str
    closed: bool

    @property
    def is_python(self) -> bool:
        """Whether the fence says Python or nothing."""
        return self.language in _PYTHON


def parse(code: str) -> ast.Module | None:
    """The syntax tree, or None for text that is not Python (or is too deep to parse)."""
    tree = _tree_or_line(code)
    return tree if isinstance(tree, ast.Module) else None


def rejected_line(code: str) -> int | None:
    """The line (from 1) where parsing fails, 1 where it cannot be told; None if it parses."""
    line = _tree_or_line(code)
    return line if isinstance(line, int) else None


def _tree_or_line(code: str) -> ast.Module | int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(code)
        except SyntaxError as error:
            return max(error.lineno or 1, 1)
        except (ValueError, MemoryError, RecursionError):
            return 1


def normalise(text: str) -> str:
    """Line ends as in Unix, so that code from any machine has the same lines."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def fenced_blocks(text: str) -> list[Block]:
    """All blocks in order; only the last can be unclosed.

    A fence line closes a block opened with the same character and at most its length.
    Where the text up to the first such line is not Python, later ones are tried, since a
    docstring may itself show a fenced example; where none gives Python, the first counts.
    """
    return _scan(text)[0]


def outside_fences(text: str) -> str:
    """The lines that belong to no block."""
    return "\n".join(_scan(text)[1])


def _scan(text: str) -> tuple[list[Block], list[str]]:
    lines = normalise(text).split("\n")
    blocks: list[Block] = []
    outside: list[str] = []
    at = 0
    while at < len(lines):
        opening = _OPENING.match(lines[at])
        if opening is None:
            outside.append(lines[at])
            at += 1
        else:
            block, at = _read_block(lines, at, opening)
            blocks.append(block)
    return blocks, outside


def _read_block(lines: list[str], at: int, opening: re.Match[str]) -> tuple[Block, int]:
    """The block opened at line ``at``, and the line to go on from."""
    indent, fence, info = opening.groups()
    language = info.strip().split(" ")[0].strip("{}.").lower()
    body_of = functools.partial(_body, lines, at + 1, indent)
    closers = _closing_lines(lines, at + 1, fence)
    for end in closers[:_CLOSERS_TRIED]:
        if parse(body_of(end)) is not None:
            return Block(body_of(end), language, closed=True), end + 1
    reopened = _reopening_line(lines, at + 1, closers[0] if closers else len(lines))
    if reopened is not None:
        return Block(body_of(reopened), language, closed=True), reopened
    if not closers:
        return Block(body_of(len(lines)), language, closed=False), len(lines)
    return Block(body_of(closers[0]), language, closed=True), closers[0] + 1


def _reopening_line(lines: list[str], start: int, end: int) -> int | None:
    """A fence that names a language cannot close a block: the one before was left open."""
    for number in range(start, end):
        opening = _OPENING.match(lines[number])
        if opening is not None and opening.group(3).strip():
            return number
    return None


def _closing_lines(lines: list[str], start: int, fence: str) -> list[int]:
    closes = _closes(fence)
    return [number for number in range(start, len(lines)) if closes(lines[number])]


def _closes(fence: str) -> Callable[[str], bool]:
    def closing(line: str) -> bool:
        mark = line.strip()
        return len(mark) >= len(fence) and set(mark) == {fence[0]}

    return closing


def _body(lines: list[str], start: int, indent: str, end: int) -> str:
    return "".join(line.removeprefix(indent) + "\n" for line in lines[start:end])
