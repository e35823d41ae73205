"""Starts the candidate and its checker, watches both, and leaves nothing of them behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.humaneval.problems import Problem
from evals.humaneval.sandbox.interpreter import command, environment
from evals.humaneval.sandbox.level import IsolationLevel, Limits

POLL_SECONDS = 0.1
_DEATH_SECONDS = 2.0
"""How long a candidate whose pipe closed is given to be seen dead."""


_UNSHARE_COMPLAINT = "unshare: sigprocmask"
"""What util-linux 2.38 says, before it exits with 1, when SIGKILL ended its child."""
_CHECKER_SECONDS = 5.0
"""How long a checker may go on after the candidate's death."""


class CancelledError(Exception):
    """The run was stopped; there is no result."""


@dataclass(frozen=True)
class CandidateEnd:
    """How the candidate's process ended."""

    exit_code: int | None
    """None if it was killed by a signal or by us."""
    signal: int | None
    cpu_seconds: float
    stopped_for: str | None
    """Why we ended it: ``wall``, ``memory``, ``storage`` or None."""
    errors: str
    """What the launcher wrote to standard error before the candidate was silenced."""


@dataclass(frozen=True)
class Ending:
    """One execution, as seen from outside."""

    verdict: dict[str, str] | None
    """The checker's; None if it gave none."""
    checker_signal: int | None
    candidate: CandidateEnd
    scratch: str


def run_pair(
    problem: Problem,
    program: str,
    level: IsolationLevel,
    limits: Limits,
    cancelled: Callable[[], bool] = lambda: False,
) -> Ending:
    """Run ``program`` in the sandbox against the problem's test outside of it.

    Raises:
        CancelledError: ``cancelled()`` became true; both processes are gone.
        OSError: a process could not be started.
    """
    with (
        tempfile.TemporaryDirectory(prefix="threearc-", ignore_cleanup_errors=True) as folder,
        _Pipes() as pipes,
    ):
        scratch = Path(folder).resolve()
        job = _job(problem, program, level.setup(limits, scratch), pipes)
        with _candidate(level, scratch, pipes) as candidate, _checker(pipes, job) as checker:
            pipes.close()
            watch = _Watch(candidate, level, limits, scratch, cancelled)
            verdict = _await(checker, watch)
            end = _end(candidate, verdict, watch)
        return Ending(verdict, _signal_of(checker.returncode), end, str(scratch))


class _Pipes:
    """Requests to the candidate and responses from it; closed here once both sides run."""

    def __enter__(self) -> _Pipes:
        self._open: set[int] = set()
        self.requests_out, self.requests_in = self._pipe()
        self.responses_out, self.responses_in = self._pipe()
        return self

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._open.update(ends)
        return ends

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop())

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def _candidate(
    level: IsolationLevel, scratch: Path, pipes: _Pipes
) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            level.launch(scratch, command("worker")),
            stdin=pipes.requests_out,
            stdout=pipes.responses_in,
            stderr=errors,
            env=environment(),
            cwd=scratch,
            start_new_session=True,
        )
        process.stderr = errors  # read when it has ended
        try:
            yield process
        finally:
            _kill_group(process)
            if process.returncode is None:
                process.wait()


@contextlib.contextmanager
def _checker(pipes: _Pipes, job: bytes) -> Iterator[subprocess.Popen[bytes]]:
    # The job comes in a file: communicate() forgets, after a time-out, what of its input a
    # full pipe (64 KiB) had not taken, and the checker would wait for the rest for ever.
    with tempfile.TemporaryFile() as given:
        given.write(job)
        given.seek(0)
        process = subprocess.Popen(
            command("checker"),
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            pass_fds=(pipes.requests_in, pipes.responses_out),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _kill_group(process)
        process.communicate()


def _job(problem: Problem, program: str, setup: dict[str, Any], pipes: _Pipes) -> bytes:
    job = {
        "program": program,
        "entry_point": problem.entry_point,
        "preamble": problem.preamble,
        "test": problem.test,
        "setup": setup,
        "requests": pipes.requests_in,
        "responses": pipes.responses_out,
    }
    return json.dumps(job).encode()


class _Watch:
    """Looks after a running candidate every ``POLL_SECONDS``; kills it at a limit."""

    def __init__(
        self,
        candidate: subprocess.Popen[bytes],
        level: IsolationLevel,
        limits: Limits,
        scratch: Path,
        cancelled: Callable[[], bool],
    ) -> None:
        self._candidate, self._level, self._limits = candidate, level, limits
        self._scratch, self._cancelled = scratch, cancelled
        self._deadline = time.monotonic() + limits.wall_seconds
        self._seen_dead: float | None = None
        self.stopped_for: str | None = None

    def look(self) -> bool:
        """Whether the pair may go on; False after the candidate was killed and time is up.

        Raises:
            CancelledError: the run was stopped.
        """
        if self._cancelled():
            raise CancelledError
        if self.stopped_for is None:
            self.stopped_for = self._violation()
            if self.stopped_for is not None:
                _kill_group(self._candidate)
        return not self._checker_is_late(time.monotonic())

    def _checker_is_late(self, now: float) -> bool:
        """Time is up, or the candidate is dead and a child of its keeps the pipe open.

        A checker that is itself still busy is bounded by its own CPU limit.
        """
        if self._seen_dead is None and _has_ended(self._candidate.pid):
            self._seen_dead = now
        if now > self._deadline + _DEATH_SECONDS:
            return True
        return self._seen_dead is not None and now > self._seen_dead + _CHECKER_SECONDS

    def _violation(self) -> str | None:
        if time.monotonic() > self._deadline:
            return "wall"
        if _storage_exceeded(self._scratch, self._limits):
            return "storage"
        if self._level.watch_memory and self._memory() > self._limits.memory_bytes:
            return "memory"
        return None

    def _memory(self) -> int:
        """Resident bytes of the candidate and its descendants."""
        import psutil

        try:
            process = psutil.Process(self._candidate.pid)
            family = [process, *process.children(recursive=True)]
            return sum(member.memory_info().rss for member in family)
        except psutil.Error:
            return 0  # it has just ended


def _storage_exceeded(folder: Path, limits: Limits) -> bool:
    size = count = 0
    for root, folders, files in os.walk(folder):
        count += len(folders) + len(files)
        if count > limits.scratch_files:
            return True
        for name in files:
            with contextlib.suppress(OSError):  # removed since it was listed
                size += Path(root, name).lstat().st_blocks * 512
    return size > limits.scratch_bytes


def _await(checker: subprocess.Popen[bytes], watch: _Watch) -> dict[str, str] | None:
    """The checker's verdict; None if it crashed or had to be given up."""
    while True:
        try:
            output, _ = checker.communicate(timeout=POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if not watch.look():
                return None
        else:
            return _verdict(output) if checker.returncode == 0 else None


def _verdict(output: bytes) -> dict[str, str] | None:
    try:
        verdict = json.loads(output)
    except ValueError:
        return None
    return verdict if isinstance(verdict, dict) else None


def _end(
    candidate: subprocess.Popen[bytes], verdict: dict[str, str] | None, watch: _Watch
) -> CandidateEnd:
    """Wait for a candidate that is ending by itself, kill any other, and read its usage."""
    ending = verdict is None or verdict["status"] in ("gone", "infrastructure_error")
    ended = ending and _wait_ended(candidate.pid)
    if not ended:
        _kill_group(candidate)
    _, status, usage = os.wait4(candidate.pid, 0)
    candidate.returncode = os.waitstatus_to_exitcode(status)
    errors = _read_errors(candidate)
    number = _signal_of(candidate.returncode) if ended else None
    if ended and candidate.returncode == 1 and errors.startswith(_UNSHARE_COMPLAINT):
        number = signal.SIGKILL
    return CandidateEnd(
        exit_code=candidate.returncode if ended and number is None else None,
        signal=number,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        stopped_for=watch.stopped_for,
        errors=errors,
    )


def _wait_ended(pid: int) -> bool:
    deadline = time.monotonic() + _DEATH_SECONDS
    while time.monotonic() < deadline:
        if _has_ended(pid):
            return True
        time.sleep(0.002)
    return False


def _has_ended(pid: int) -> bool:
    """Whether our child has ended; it stays unreaped, so that its usage can still be read."""
    if sys.platform == "darwin":  # os.waitid came to macOS with Python 3.13
        import psutil

        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    else:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _read_errors(candidate: subprocess.Popen[bytes]) -> str:
    if candidate.stderr is None:
        return ""
    candidate.stderr.seek(0)
    return candidate.stderr.read(2000).decode(errors="replace")


def _signal_of(returncode: int | None) -> int | None:
    """The signal, as the system reports it or as launchers pass it on (128 + number)."""
    if returncode is None:
        return None
    number = -returncode if returncode < 0 else returncode - 128
    return number if 0 < number < signal.NSIG else None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and everything it started that is still in its group."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
        os.kill(process.pid, signal.SIGKILL)
