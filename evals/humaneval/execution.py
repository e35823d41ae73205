"""Runs a program against its problem's test and says what happened."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

from evals.humaneval.problems import Problem
from evals.humaneval.sandbox.level import IsolationLevel, Limits
from evals.humaneval.sandbox.process import CancelledError, CandidateEnd, Ending, run_pair

__all__ = ["Execution", "Limits", "Status", "execute", "execute_many"]

Status = Literal["passed", "wrong", "timeout", "syntax_error", "infrastructure_error"]
Key = TypeVar("Key", bound=Hashable)
Job = tuple[Key, Problem, str]

_DETAIL_CHARACTERS = 200
_NEARLY = 0.5
"""Of the CPU limit. The kernel enforces it by counting ticks and reports usage exactly: a
process killed at 1 s was measured at 0.83 to 0.89 s on a loaded machine."""


@dataclass(frozen=True)
class Execution:
    """What happened to one program."""

    status: Status
    detail: str
    """One line for people; without addresses, paths or times, so that it repeats."""


@dataclass(frozen=True)
class _Trial:
    execution: Execution
    load_could_decide: bool
    """A time-out, a kill from outside or a failed sandbox: worth one quiet retry."""


def execute(problem: Problem, code: str, *, level: IsolationLevel, limits: Limits) -> Execution:
    """Run ``code`` (a complete program) in the sandbox, its test outside of it.

    What the load of the machine could have caused (a time-out, a killed process, a sandbox
    that did not start) is tried once more.
    """
    first = _trial(problem, code, level, limits)
    if not first.load_could_decide:
        return first.execution
    return _trial(problem, code, level, limits).execution


def execute_many(
    jobs: Sequence[Job[Key]],
    *,
    level: IsolationLevel,
    limits: Limits,
    workers: int,
    on_done: Callable[[Key, Execution], None] | None = None,
) -> dict[Key, Execution]:
    """Run many programs, ``workers`` at a time; identical ones (same task, code) once.

    ``on_done`` is called in this thread as results come, in no fixed order. Retries are
    made after everything else, one at a time, with the machine quiet. An interrupt ends
    all running programs.
    """
    groups: dict[tuple[str, str], list[Job[Key]]] = {}
    for job in jobs:
        groups.setdefault((job[1].task_id, job[2]), []).append(job)
    results: dict[Key, Execution] = {}

    def finish(group: list[Job[Key]], execution: Execution) -> None:
        for key, _, _ in group:
            results[key] = execution
            if on_done is not None:
                on_done(key, execution)

    retries = []
    for group, trial in _trials(list(groups.values()), level, limits, workers):
        if trial.load_could_decide:
            retries.append(group)
        else:
            finish(group, trial.execution)
    for group in retries:
        finish(group, _trial(group[0][1], group[0][2], level, limits).execution)
    return {job[0]: results[job[0]] for job in jobs}


def _trials(
    groups: list[list[Job[Key]]], level: IsolationLevel, limits: Limits, workers: int
) -> Iterator[tuple[list[Job[Key]], _Trial]]:
    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
        try:
            futures = {
                pool.submit(_trial, group[0][1], group[0][2], level, limits, stop.is_set): group
                for group in groups
            }
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _trial(
    problem: Problem,
    code: str,
    level: IsolationLevel,
    limits: Limits,
    cancelled: Callable[[], bool] = lambda: False,
) -> _Trial:
    try:
        ending = run_pair(problem, code, level, limits, cancelled)
    except CancelledError:
        return _Trial(Execution("infrastructure_error", "the run was stopped"), False)
    except OSError as error:
        detail = f"a process could not be started: {error.strerror}"
        return _Trial(Execution("infrastructure_error", detail), True)
    trial = _judge(ending, limits)
    detail = _clean(trial.execution.detail, ending.scratch)
    return _Trial(Execution(trial.execution.status, detail), trial.load_could_decide)


def _judge(ending: Ending, limits: Limits) -> _Trial:
    stopped = ending.candidate.stopped_for
    if stopped == "wall":
        return _Trial(Execution("timeout", f"over {limits.wall_seconds:g} s of wall time"), True)
    if stopped is not None:
        return _Trial(Execution("wrong", f"over the limit of {stopped}"), False)
    if ending.verdict is None and ending.checker_signal == signal.SIGXCPU:
        return _Trial(Execution("timeout", "the test did not end on what it was given"), True)
    if ending.verdict is None or ending.verdict["status"] == "gone":
        return _judge_end(ending.candidate, limits)
    return _judge_verdict(ending.verdict, ending.candidate.errors)


def _judge_verdict(verdict: dict[str, str], errors: str) -> _Trial:
    status, detail = verdict["status"], verdict["detail"]
    if status in ("passed", "wrong", "syntax_error"):
        return _Trial(Execution(cast(Status, status), detail), False)
    first_error = errors.strip().splitlines()[:1]
    return _Trial(Execution("infrastructure_error", ": ".join([detail, *first_error])), True)


def _judge_end(end: CandidateEnd, limits: Limits) -> _Trial:
    """A candidate that ended before the test did: nothing it does so is a success."""
    if end.exit_code is not None:
        detail = f"the program ended its process with status {end.exit_code}"
        return _Trial(Execution("wrong", detail), False)
    if end.signal is None:
        return _Trial(Execution("infrastructure_error", "the checker gave no verdict"), True)
    by_limit = end.signal in (signal.SIGXCPU, signal.SIGKILL)
    if by_limit and end.cpu_seconds >= _NEARLY * limits.cpu_seconds:
        return _Trial(Execution("timeout", f"over {limits.cpu_seconds} s of CPU time"), True)
    detail = f"the program was killed by {_signal_name(end.signal)}"
    return _Trial(Execution("wrong", detail), end.signal == signal.SIGKILL)


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _clean(detail: str, scratch: str) -> str:
    """One printable line without what differs from run to run."""
    text = re.sub(r"0x[0-9a-fA-F]{6,}", "0x...", detail.replace(scratch, "."))
    line = next(iter(text.splitlines()), "")
    printable = "".join(letter if letter.isprintable() else "?" for letter in line)
    return printable[:_DETAIL_CHARACTERS]
