"""What an isolation level is: what it contains, and how a candidate is started in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class Hazard(StrEnum):
    """What a hostile program may try. Each level says which of these it contains.

    That no program can forge a verdict by what it prints, raises, exits with or returns is
    not on the list: the checker is another process at every level.
    """

    CPU = "computes without end"
    WALL = "sleeps without end"
    MEMORY = "takes all memory"
    OUTPUT = "prints or stores without end"
    PROCESSES = "starts processes, in a new session too"
    WRITE_OUTSIDE = "writes outside its directory"
    READ_FILES = "reads files other than Python's own library, the tests among them"
    NETWORK = "opens a socket"
    SIGNALS = "signals, inspects or kills other processes"


@dataclass(frozen=True)
class Limits:
    """Bounds on one candidate. The defaults leave every canonical solution a wide margin."""

    cpu_seconds: int = 5
    """What a time-out is. Start-up counts (some 0.05 s)."""
    wall_seconds: float = 60.0
    """For a program that sleeps. Generous, so that a loaded machine does not decide."""
    memory_bytes: int = 512 << 20
    """Address space on Linux, resident memory (watched) on macOS."""
    file_bytes: int = 4 << 20
    """Of one file."""
    scratch_bytes: int = 32 << 20
    """Of its directory in all (watched)."""
    scratch_files: int = 1000
    message_bytes: int = 1 << 20
    """Of one argument list or return value."""

    def description(self) -> dict[str, float]:
        """For the manifest."""
        return asdict(self)


@dataclass(frozen=True)
class IsolationLevel:
    """One way of starting a candidate."""

    name: str
    contains: frozenset[Hazard]
    mechanism: str
    """One line for the manifest: what does the work, in which version."""
    launch: Callable[[Path, Sequence[str]], list[str]] = field(repr=False)
    """(scratch directory, interpreter's command line) to the command line to start."""
    landlock_read: tuple[str, ...] | None = None
    """Paths that stay readable under Landlock; None where Landlock is not used."""
    seccomp: bool = False
    drop_capabilities: bool = False
    direct_child: bool = False
    """The interpreter is a child of this process, so it must ask to die with it."""
    watch_memory: bool = False
    """Resident memory is polled, because the system ignores RLIMIT_AS."""

    def setup(self, limits: Limits, scratch: Path) -> dict[str, Any]:
        """What the worker applies to itself before it accepts a program."""
        landlock = None
        if self.landlock_read is not None:
            landlock = {"read": list(self.landlock_read), "write": [str(scratch)]}
        return {
            "cpu_seconds": limits.cpu_seconds,
            "memory_bytes": limits.memory_bytes,
            "file_bytes": limits.file_bytes,
            "message_bytes": limits.message_bytes,
            "drop_capabilities": self.drop_capabilities,
            "die_with_parent": self.direct_child,
            "landlock": landlock,
            "seccomp": self.seccomp,
        }

    def description(self) -> dict[str, Any]:
        """For the manifest: name, mechanism, and what is contained and what is not."""
        return {
            "name": self.name,
            "mechanism": self.mechanism,
            "contains": [hazard.name.lower() for hazard in Hazard if hazard in self.contains],
            "does_not_contain": [
                hazard.name.lower() for hazard in Hazard if hazard not in self.contains
            ],
        }
