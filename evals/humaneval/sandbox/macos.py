"""The isolation level of macOS: ``sandbox-exec`` and a watch on resident memory.

Written from Apple's sandbox(7) and the profiles shipped in /System/Library/Sandbox; it has
not been run by its authors, who had no Mac. ``detect_level`` trusts nothing of it: the probe
tries what the level declares and refuses the level where an attempt succeeds.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from evals.humaneval.sandbox.interpreter import hidden_paths, readable_paths
from evals.humaneval.sandbox.level import Hazard, IsolationLevel
from evals.humaneval.sandbox.linux import NotAvailableError


def seatbelt() -> IsolationLevel:
    """No network, no process, no signal, reads and writes as listed.

    Raises:
        NotAvailableError: ``sandbox-exec`` is not there.
    """
    program = shutil.which("sandbox-exec")
    if program is None:
        raise NotAvailableError("sandbox-exec is not installed")
    return IsolationLevel(
        name="sandbox-exec",
        contains=frozenset(Hazard),
        mechanism="macOS sandbox-exec with a watch on resident memory",
        launch=functools.partial(_command, program),
        direct_child=False,
        watch_memory=True,
    )


def _command(program: str, scratch: Path, command: Sequence[str]) -> list[str]:
    return [program, "-p", profile(scratch), *command]


def profile(scratch: Path) -> str:
    """The profile in Apple's sandbox language; of several rules that match, the last holds.

    Everything outside the system's own folders is unreadable, then Python's library and the
    scratch directory are allowed back, then installed packages are hidden again. Names of
    files (metadata) stay visible, which Python needs to find its library.
    """
    private = [Path("/Users"), Path("/Volumes"), Path("/private/var"), Path("/private/tmp")]
    private += [Path("/opt"), Path("/usr/local"), Path(tempfile.gettempdir()).resolve()]
    readable = [*readable_paths(), *(path.resolve() for path in readable_paths())]
    own = scratch.resolve()
    rules = [
        "(version 1)",
        "(allow default)",
        "(deny network*)",
        "(deny process-fork)",
        "(deny signal (target others))",
        "(deny mach-lookup)",
        "(deny file-write*)",
        _rule("deny", "file-read-data", private),
        _rule("allow", "file-read-data", list(dict.fromkeys(readable))),
        _rule("deny", "file-read-data", list(hidden_paths())),
        _rule("allow", "file-read-data", [own]),
        _rule("allow", "file-write*", [own]),
        '(allow file-write-data (literal "/dev/null"))',
    ]
    return "\n".join(rules)


def _rule(verb: str, operation: str, paths: list[Path]) -> str:
    filters = " ".join(f"(subpath {_quoted(path)})" for path in paths)
    return f"({verb} {operation} {filters})"


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
