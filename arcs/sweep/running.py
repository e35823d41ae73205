"""One cell as a process of the same command line: one that crashes takes no other with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from arcs.runs import MANIFEST, METRICS
from arcs.stored_runs import in_use

POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Task:
    """All that is needed to run a cell, on this machine or another that shares the folder."""

    name: str
    arc: str
    arguments: tuple[str, ...]
    folder: str
    """Of its run."""
    log: str
    """What it says is added to this file."""
    cwd: str
    """Relative paths in its options start here."""


@dataclass(frozen=True)
class Outcome:
    """How a cell ended this time."""

    state: Literal["finished", "failed"]
    exit_code: int | None
    """None where no process was started."""
    line: str | None = None
    """Why it failed."""

    def to_json(self) -> dict[str, Any]:
        """For cells.jsonl."""
        return asdict(self)


def command_of(task: Task) -> list[str]:
    """The command line that begins the cell's run, or continues it."""
    flag = "--run" if (Path(task.folder) / MANIFEST).exists() else "--out"
    return [task.arc, *task.arguments, f"{flag}={task.folder}"]


def run_cell(
    task: Task, say: Callable[[str], None] | None = None, *, has_terminal: bool = True
) -> Outcome:
    """Run or continue the cell to its end.

    A process that an interrupted sweep left at work in it is waited for. KeyboardInterrupt lets
    the process end first; ``has_terminal``: Ctrl-C there has interrupted it as well.
    """
    folder, log = Path(task.folder), Path(task.log)
    _wait_until_free(folder, task.name, say)
    log.parent.mkdir(parents=True, exist_ok=True)
    begins = log.stat().st_size if log.exists() else 0
    # -P: a file named like a module in the user's folder is not imported
    command = [sys.executable, "-P", "-m", "arcs.cli", *command_of(task)]
    try:
        with log.open("ab") as stream:
            process = subprocess.Popen(
                command, cwd=task.cwd, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )
        code = _ended(process, has_terminal)
    except OSError as error:
        return Outcome("failed", None, f"cannot be started in {task.cwd} ({error.strerror})")
    if code == 0 and (folder / METRICS).is_file():
        return Outcome("finished", 0)
    with log.open("rb") as stream:
        stream.seek(begins)
        said = stream.read().decode("utf-8", "replace")
    return Outcome("failed", code, why(code, said))


def _wait_until_free(folder: Path, name: str, say: Callable[[str], None] | None) -> None:
    if folder.is_dir() and in_use(folder):
        if say is not None:
            say(f"cell {name}: a process of an earlier sitting still works in it; waiting for it")
        while in_use(folder):
            time.sleep(POLL_SECONDS)


def _ended(process: subprocess.Popen[bytes], has_terminal: bool) -> int:
    """Its exit status. When interrupted, it is let end, then asked to, then made to."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        if not has_terminal:
            process.send_signal(signal.SIGINT)
        for following in (signal.SIGINT, signal.SIGKILL):
            try:
                process.wait(timeout=20)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(following)
        process.wait()
        raise


def why(code: int, said: str) -> str:
    """One line: the command's own error, else how it ended and what it said last."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if errors and code > 0:
        return errors[-1]
    if code < 0:
        try:  # what it said last is its progress, and no reason
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    how = f"exit status {code}" if code else "it ended without a result"
    return how + (f" ({lines[-1][:200]})" if lines else "")
