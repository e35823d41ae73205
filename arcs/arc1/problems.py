"""Which problems of a benchmark a run evaluates, and their prompts as token ids."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from arcs.progress import Reporter
from backends.interface import Prompt
from evals.benchmarks import Benchmark
from evals.humaneval.execution import Limits, execute_many
from evals.humaneval.problems import Problem
from evals.humaneval.prompts import PromptStyle, chat_instruction, raw_prompt
from evals.humaneval.sandbox import IsolationLevel
from models.chat import ChatEncoder, EncodedPrompt, Message
from models.errors import UserError

CONTEXT_STEP = 256


@dataclass(frozen=True)
class Item:
    """One problem with its encoded prompt, once for each sample that is drawn of it."""

    problem: Problem
    prompt: Prompt
    think_open: bool
    prompt_sha: str

    @property
    def key(self) -> str:
        """What the answer is called where answers are joined, see :func:`answer_key`."""
        return answer_key(self.problem.task_id, self.prompt.sample)


def answer_key(item_id: str, sample: int) -> str:
    """Name of one answer: the item's id, and from the second sample on its number."""
    return f"{item_id}#{sample}" if sample else item_id


def choose(benchmark: Benchmark, limit: int | None) -> tuple[Problem, ...]:
    """All problems of a benchmark, or ``limit`` of them.

    The choice is ordered by a hash of the task id: free of any seed, not biased to the easy
    beginning of the set, and a smaller limit is a subset of a larger one. The result keeps the
    set's own order.
    """
    problems = benchmark.problems
    if limit is None or limit >= len(problems):
        return problems
    ranked = sorted(problems, key=lambda p: hashlib.sha256(p.task_id.encode()).hexdigest())
    chosen = {problem.task_id for problem in ranked[:limit]}
    return tuple(problem for problem in problems if problem.task_id in chosen)


def encode(encoder: ChatEncoder, problem: Problem, style: PromptStyle) -> Item:
    """Encode one problem's prompt, once, for every engine and arm."""
    encoded = _encode(encoder, problem, style)
    ids_text = ",".join(map(str, encoded.ids))
    return Item(
        problem=problem,
        prompt=Prompt(problem.task_id, encoded.ids),
        think_open=encoded.think_open,
        prompt_sha=hashlib.sha256(ids_text.encode()).hexdigest(),
    )


def _encode(encoder: ChatEncoder, problem: Problem, style: PromptStyle) -> EncodedPrompt:
    if style == "raw":
        return encoder.encode_raw(raw_prompt(problem))
    return encoder.encode_prompt([Message("user", chat_instruction(problem))])


def context_for(
    encoder: ChatEncoder, benchmark: Benchmark, style: PromptStyle, largest: int
) -> int:
    """Context per sequence: the longest prompt of the *whole* set plus the largest n_predict.

    Taken over all its problems so that ``--limit`` changes nothing, and rounded up to a
    multiple of 256.
    """
    longest = max(len(encode(encoder, one, style).prompt.ids) for one in benchmark.problems)
    return -(-(longest + largest) // CONTEXT_STEP) * CONTEXT_STEP


def in_samples(items: Sequence[Item], samples: int) -> tuple[Item, ...]:
    """Each item ``samples`` times: all items, then all their second samples, and so on.

    Raises UserError where a task's id is the name of another task's sample.
    """
    made = tuple(
        replace(item, prompt=replace(item.prompt, sample=sample))
        for sample in range(samples)
        for item in items
    )
    seen: set[str] = set()
    for item in made:
        if item.key in seen:
            raise UserError(
                f"--samples {samples}: {item.key!r} is a task's id and the name of another task's "
                "sample; rename the task"
            )
        seen.add(item.key)
    return made


def prompts_sha256(items: Sequence[Item]) -> str:
    """One hash over all prompts' token ids: both arms must have seen the same."""
    joined = "\n".join(f"{item.problem.task_id} {item.prompt_sha}" for item in items)
    return hashlib.sha256(joined.encode()).hexdigest()


def require_solvable(
    benchmark: Benchmark,
    problems: Sequence[Problem],
    level: IsolationLevel,
    limits: Limits,
    reporter: Reporter,
) -> None:
    """Raise UserError where a task of a user's file fails its own reference solution.

    Every answer to such a task would be counted as wrong, whatever it is. The sets that ship
    with threearc are not run again: its tests do.
    """
    if benchmark.ships:
        return
    jobs = [(one.task_id, one, one.prompt + one.canonical_solution) for one in problems]
    with reporter.bar("reference solutions", len(jobs), "programs") as bar:
        done = execute_many(
            jobs,
            level=level,
            limits=limits,
            workers=os.cpu_count() or 1,
            on_done=lambda *_: bar.advance(1),
        )
    failed = [f"{key} ({one.detail})" for key, one in done.items() if one.status != "passed"]
    if failed:
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise UserError(
            f"{benchmark.name}: the reference solution of {', '.join(failed[:3])}{more} does not "
            "pass its own test here; repair or remove these tasks"
        )
