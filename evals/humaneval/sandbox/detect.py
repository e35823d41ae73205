"""Finds the strongest isolation level that works here, by trying it."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evals.humaneval.problems import Problem, dataset_path
from evals.humaneval.sandbox.level import Hazard, IsolationLevel, Limits
from evals.humaneval.sandbox.linux import (
    NotAvailableError,
    bubblewrap,
    landlock,
    limits_only,
    namespaces,
)
from evals.humaneval.sandbox.macos import seatbelt
from evals.humaneval.sandbox.process import run_pair
from models.errors import UserError

_LINUX: dict[str, Callable[[], IsolationLevel]] = {
    "bubblewrap": bubblewrap,
    "namespaces": namespaces,
    "landlock": landlock,
}
_MACOS: dict[str, Callable[[], IsolationLevel]] = {"sandbox-exec": seatbelt}
WEAK = "limits"

_PROBE_PROGRAM = """
import os, socket

def attempt(action, target):
    try:
        if action == "add":
            return target + 1
        if action == "read":
            with open(target, "rb") as file:
                return len(file.read(1)) == 1
        if action == "write":
            with open(target, "w") as file:
                return True
        if action == "scratch":
            with open("own", "w") as file:
                return file.write("x") == 1
        if action == "socket":
            socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
            return True
        if action == "fork":
            if os.fork() == 0:
                os._exit(0)
            os.wait()
            return True
        if action == "signal":
            os.kill(os.getppid(), 0)
            return True
    except (OSError, ImportError):
        return False
"""
_ATTEMPTS = {
    Hazard.READ_FILES: "read",
    Hazard.WRITE_OUTSIDE: "write",
    Hazard.NETWORK: "socket",
    Hazard.PROCESSES: "fork",
    Hazard.SIGNALS: "signal",
}


@dataclass(frozen=True)
class Availability:
    """One level on this machine: usable, or the reason why not."""

    name: str
    level: IsolationLevel | None
    reason: str


def levels_here() -> tuple[Availability, ...]:
    """Every level of this platform, strongest first, each really tried."""
    return tuple(_availability(name) for name in [*_known(), WEAK])


def level_named(name: str) -> IsolationLevel:
    """The level of that name.

    Raises:
        UserError: there is no such level, or it does not work here.
    """
    if name not in (*_known(), WEAK):
        names = ", ".join([*_known(), WEAK])
        raise UserError(f"no isolation level {name!r} on this platform: choose from {names}")
    found = _availability(name)
    if found.level is None:
        raise UserError(f"isolation level {name} does not work here: {found.reason}")
    return found.level


def detect_level(allow_weak: bool = False) -> IsolationLevel:
    """The strongest level that starts here and contains what it declares.

    Raises:
        UserError: none does, and ``allow_weak`` was not given.
    """
    tried = []
    for name in _known():
        found = _availability(name)
        if found.level is not None:
            return found.level
        tried.append(f"{name}: {found.reason}")
    if allow_weak:
        return level_named(WEAK)
    reasons = "; ".join(tried) or f"none is known for {sys.platform}"
    raise UserError(
        f"no isolation available for code that the model writes ({reasons}): "
        "install bubblewrap, or accept the risk with --allow-weak-sandbox"
    )


def _known() -> dict[str, Callable[[], IsolationLevel]]:
    return {"linux": _LINUX, "darwin": _MACOS}.get(sys.platform, {})


@functools.cache
def _availability(name: str) -> Availability:
    build = {**_known(), WEAK: limits_only}[name]
    try:
        level = build()
        _probe(level)
    except (NotAvailableError, OSError) as error:
        return Availability(name, None, str(error))
    return Availability(name, level, "")


def _probe(level: IsolationLevel) -> None:
    """Run a program that tries what the level says it contains.

    Raises:
        NotAvailableError: the level does not start, or an attempt succeeded.
    """
    with tempfile.TemporaryDirectory(prefix="threearc-probe-") as folder:
        marker = Path(folder).resolve() / "marker"
        problem = _probe_problem(level, marker)
        ending = run_pair(problem, _PROBE_PROGRAM, level, Limits())
    if ending.verdict is None:
        raise NotAvailableError(ending.candidate.errors.strip() or "the probe did not finish")
    if ending.verdict["status"] != "passed":
        errors = ending.candidate.errors.strip().splitlines()[:1]
        raise NotAvailableError(": ".join([ending.verdict["detail"], *errors]))


def _probe_problem(level: IsolationLevel, marker: Path) -> Problem:
    targets = {"read": os.fspath(dataset_path().resolve()), "write": os.fspath(marker)}
    lines = ['    assert candidate("add", 1) == 2', '    assert candidate("scratch", "") is True']
    for hazard in sorted(level.contains & set(_ATTEMPTS)):
        action = _ATTEMPTS[hazard]
        lines.append(f"    assert candidate({action!r}, {targets.get(action, '')!r}) is False")
    return Problem(
        task_id="probe",
        prompt="def attempt(action, target):\n",
        entry_point="attempt",
        canonical_solution="",
        test="def check(candidate):\n" + "\n".join(lines) + "\n",
    )
