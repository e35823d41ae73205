"""Correction recovery (PAPER.md 3.6): a failed first answer, what a test saw, a second try.

The first answers are scripted and the same for every model, so that conditions are compared on the
same failures; the paper's were each model's own. The second try runs in the sandbox. Some tests
look at what a call did to its argument, so their left sides are evaluated where the answer's code
runs; expected values stay outside, as everywhere.
"""

from __future__ import annotations

import ast

from evals.humaneval.problems import Problem
from evals.items.records import RecoveryItem
from models.chat import Message

FEEDBACK = (
    "That is not right yet. I ran it against this test:\n\n{test}\n\n{observed}\n\n"
    "Correct the function `{name}` and give all of it in one Python code block."
)
"""Neutral: the same words for every failure."""
_EVALUATE = "_evaluated_where_it_lives"
_PROGRAM = """
{code}


def {name}(_expression):
    return eval(compile(_expression, "<test>", "eval"), globals())
"""


def conversation(item: RecoveryItem) -> list[Message]:
    """Task, failed answer, feedback."""
    return [
        Message("user", item.prompt),
        Message("assistant", item.first_answer),
        Message("user", feedback(item)),
    ]


def feedback(item: RecoveryItem) -> str:
    """What the model is told."""
    raised = item.observed.partition(":")[0].isidentifier() and ": " in item.observed
    saw = f"It raised {item.observed}" if raised else f"The left side came out as {item.observed}."
    return FEEDBACK.format(test=item.failing_test, observed=saw, name=item.entry_point)


def as_asked(item: RecoveryItem) -> Problem:
    """The task in the form in which code is looked for in an answer."""
    tree = ast.parse(item.reference)
    function = next(
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == item.entry_point
    )
    return Problem(
        task_id=item.id,
        prompt=f"def {item.entry_point}({ast.unparse(function.args)}):\n",
        entry_point=item.entry_point,
        canonical_solution="",
        test="",
    )


def as_run(item: RecoveryItem) -> Problem:
    """The task in the form in which it is run: its entry point evaluates left sides of tests."""
    lines = ["def check(candidate):"]
    for test in item.tests:
        compared = _comparison(item, test)
        left = repr(ast.unparse(compared.left))
        operator, right = compared.ops[0], ast.unparse(compared.comparators[0])
        symbol = "is" if isinstance(operator, ast.Is) else "=="
        lines.append(f"    assert candidate({left}) {symbol} {right}")
    return Problem(
        task_id=item.id,
        prompt=f"def {_EVALUATE}(_expression):\n",
        entry_point=_EVALUATE,
        canonical_solution="",
        test="\n".join(lines) + "\n",
    )


def program(code: str) -> str:
    """The answer's code, with what evaluates a test's left side behind it."""
    return _PROGRAM.format(code=code, name=_EVALUATE)


def _comparison(item: RecoveryItem, test: str) -> ast.Compare:
    """Raises ValueError where a test is no single ``==`` or ``is``."""
    node = ast.parse(test).body[0]
    compared = node.test if isinstance(node, ast.Assert) else None
    if (
        not isinstance(compared, ast.Compare)
        or len(compared.ops) != 1
        or not isinstance(compared.ops[0], ast.Eq | ast.Is)
    ):
        raise ValueError(f"{item.id}: not a test of one comparison: {test}")
    return compared
