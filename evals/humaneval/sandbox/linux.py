"""The isolation levels of Linux, strongest first."""

from __future__ import annotations

import functools
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from evals.humaneval.sandbox.interpreter import hidden_paths, readable_paths, without
from evals.humaneval.sandbox.level import Hazard, IsolationLevel
from evals.humaneval.sandbox.programs import lockdown, seccomp

EVERYTHING = frozenset(Hazard)
INSIDE = "/scratch"
"""Where a candidate sees its directory under bubblewrap."""


class NotAvailableError(Exception):
    """This level cannot work here; the message says why in a few words."""


def bubblewrap() -> IsolationLevel:
    """Namespaces for PID, network, mounts, IPC; a root with Python's own files only.

    Raises:
        NotAvailableError: ``bwrap`` is not installed, or the machine has no filter table.
    """
    program = _find("bwrap")
    _require_filter()
    return IsolationLevel(
        name="bubblewrap",
        contains=EVERYTHING,
        mechanism=f"{_version(program)} with seccomp, no capabilities",
        launch=functools.partial(_bubblewrap_command, program),
        seccomp=True,
        drop_capabilities=True,
    )


def namespaces() -> IsolationLevel:
    """Namespaces of util-linux's ``unshare`` for PID, network and IPC; Landlock for files.

    Raises:
        NotAvailableError: ``unshare`` or ``setpriv`` is not installed, or Landlock is missing
            or too old.
    """
    program, guard = _find("unshare"), _find("setpriv")
    _require_filter()
    return IsolationLevel(
        name="namespaces",
        contains=EVERYTHING,
        mechanism=f"{_version(program)} with {_landlock_version()} and seccomp, no capabilities",
        launch=functools.partial(_unshare_command, program, guard),
        landlock_read=_landlock_paths(),
        seccomp=True,
        drop_capabilities=True,
    )


def landlock() -> IsolationLevel:
    """Landlock for files and TCP, seccomp for the rest: where namespaces are forbidden.

    Raises:
        NotAvailableError: Landlock is missing or too old.
    """
    _require_filter()
    return IsolationLevel(
        name="landlock",
        contains=EVERYTHING,
        mechanism=f"{_landlock_version()} and seccomp, no capabilities",
        launch=_plain_command,
        landlock_read=_landlock_paths(),
        seccomp=True,
        drop_capabilities=True,
        direct_child=True,
    )


def limits_only() -> IsolationLevel:
    """Resource limits, and nothing else: files, network and processes are open to the code."""
    return IsolationLevel(
        name="limits",
        contains=frozenset({Hazard.CPU, Hazard.WALL, Hazard.MEMORY, Hazard.OUTPUT}),
        mechanism="resource limits only",
        launch=_plain_command,
        drop_capabilities=True,
        direct_child=True,
    )


def _plain_command(scratch: Path, command: Sequence[str]) -> list[str]:
    return list(command)


def _bubblewrap_command(program: str, scratch: Path, command: Sequence[str]) -> list[str]:
    # As process 1, so that bwrap waits for it and its CPU time can be read afterwards.
    options = ["--unshare-all", "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL"]
    for path in readable_paths():
        options += ["--ro-bind", str(path), str(path)]
    for path in _hidden_below_readable():
        options += ["--tmpfs", str(path), "--remount-ro", str(path)]
    options += ["--dev-bind", "/dev/null", "/dev/null"]
    options += ["--bind", str(scratch), INSIDE, "--chdir", INSIDE, "--remount-ro", "/"]
    return [program, *options, "--", *command]


def _hidden_below_readable() -> list[Path]:
    readable = readable_paths()
    return [
        path for path in hidden_paths() if any(path.is_relative_to(above) for above in readable)
    ]


def _unshare_command(program: str, guard: str, scratch: Path, command: Sequence[str]) -> list[str]:
    """``--kill-child`` ends the candidate with unshare, ``setpriv`` ends unshare with us."""
    spaces = ["--user", "--map-root-user", "--pid", "--net", "--ipc", "--uts"]
    options = [*spaces, "--fork", "--kill-child", "--"]
    return [guard, "--pdeathsig", "KILL", program, *options, *command]


def _landlock_paths() -> tuple[str, ...]:
    hidden = hidden_paths()
    resolved = dict.fromkeys(path.resolve() for path in readable_paths())
    return tuple(str(kept) for path in resolved for kept in without(path, hidden))


def _landlock_version() -> str:
    version = lockdown.landlock_version()
    if version < lockdown.LANDLOCK_MINIMUM:
        found = f"Landlock version {version}" if version else "no Landlock"
        raise NotAvailableError(f"{found}, needs version {lockdown.LANDLOCK_MINIMUM}")
    return f"Landlock version {version}"


def _require_filter() -> None:
    if platform.machine() not in seccomp.ARCHITECTURES:
        raise NotAvailableError(f"no system-call filter for {platform.machine()}")


def _find(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise NotAvailableError(f"{program} is not installed")
    return path


def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or Path(program).name
