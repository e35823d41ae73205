"""Gives up, for good, what a candidate must not have; then its program may run.

Linux system calls go through ctypes. Sources: the man pages landlock(7), seccomp(2),
capabilities(7), setrlimit(2), and the kernel's uapi headers for the numbers.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import TYPE_CHECKING, Any

from . import seccomp

if TYPE_CHECKING:
    import ctypes

SETUP_BYTES = 1 << 20
CHECKER_MEMORY_BYTES = 2 << 30
OPEN_FILES = 32

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_SIGKILL = 9
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION_3 = 0x20080522
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_GET_VERSION = 1
_RULE_PATH_BENEATH = 1
_O_PATH = 0o10000000
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_WRITES = (1 << 1) | sum(1 << bit for bit in range(4, 9)) | (1 << 14)
"""write_file, remove_dir, remove_file, make_char, make_dir, make_reg, truncate."""
_FILE_RIGHTS = (1 << 0) | (1 << 1) | _READ_FILE | (1 << 14) | (1 << 15)
"""execute, write_file, read_file, truncate, ioctl_dev: the only ones a rule on a file may hold."""
LANDLOCK_MINIMUM = 3
"""The first version that restricts truncation."""


def apply(setup: dict[str, Any]) -> None:
    """Apply what the isolation level asks for, strictest last.

    Raises:
        OSError: the kernel refused; the message says which step.
    """
    _limit_resources(setup)
    if setup["drop_capabilities"]:
        _step("dropping capabilities", _drop_capabilities)
    if setup["die_with_parent"]:
        _step("asking to die with the parent", _die_with_parent)
    if setup["landlock"] is not None:
        _step("landlock", lambda: _landlock(setup["landlock"]))
    if setup["seccomp"]:
        _step("seccomp", seccomp.install)


def limit_checker(setup: dict[str, Any]) -> None:
    """Bound the checker: a test can be made to hang by what a candidate returns."""
    _set(resource.RLIMIT_CPU, 2 * int(setup["cpu_seconds"]) + 5, grace=1)
    if sys.platform == "linux":
        _set(resource.RLIMIT_AS, CHECKER_MEMORY_BYTES)


def landlock_version() -> int:
    """The kernel's Landlock version; 0 where there is none."""
    if os.uname().sysname != "Linux":
        return 0
    version = _libc().syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_GET_VERSION)
    return max(int(version), 0)


def _limit_resources(setup: dict[str, Any]) -> None:
    # No grace: SIGKILL at once. SIGXCPU can be ignored, and the first process of a PID
    # namespace ignores it by default.
    _set(resource.RLIMIT_CPU, int(setup["cpu_seconds"]))
    _set(resource.RLIMIT_FSIZE, int(setup["file_bytes"]))
    _set(resource.RLIMIT_NOFILE, OPEN_FILES)
    _set(resource.RLIMIT_CORE, 0)
    # No process and no thread more. It does not bind root, for whom seccomp forbids both.
    _set(resource.RLIMIT_NPROC, 0)
    if sys.platform == "linux":  # macOS accepts the limit and ignores it
        _set(resource.RLIMIT_AS, int(setup["memory_bytes"]))


def _set(kind: int, value: int, grace: int = 0) -> None:
    """Soft limit ``value``, hard limit ``grace`` above it, neither above what is allowed."""
    hard = resource.getrlimit(kind)[1]
    ceiling = value + grace if hard == resource.RLIM_INFINITY else min(value + grace, hard)
    resource.setrlimit(kind, (min(value, ceiling), ceiling))


def _step(name: str, action: Any) -> None:
    try:
        action()
    except OSError as error:
        raise OSError(f"{name}: {os.strerror(error.errno or 0)}") from error


def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> int:
    """``result`` of a system call.

    Raises:
        OSError: it is negative.
    """
    if result < 0:
        import ctypes

        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _drop_capabilities() -> None:
    """Root without capabilities: limits bind, foreign files and processes are out of reach."""
    number = _CAPSET.get(os.uname().machine)
    if number is None:
        raise OSError(38, os.strerror(38))
    header = _CAPABILITY_VERSION_3.to_bytes(4, sys.byteorder) + bytes(4)
    checked(_libc().syscall(number, header, bytes(24)))


def _die_with_parent() -> None:
    checked(_libc().prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0))


def _landlock(rules: dict[str, Any]) -> None:
    """Read below ``rules["read"]``, everything but execution below ``rules["write"]``."""
    import ctypes

    libc = _libc()
    version = landlock_version()
    handled = _handled(version)
    attributes = handled.to_bytes(8, sys.byteorder)
    if version >= 4:
        attributes += (0b11).to_bytes(8, sys.byteorder)  # bind and connect over TCP
    if version >= 6:
        attributes += (0b11).to_bytes(8, sys.byteorder)  # abstract sockets, signals
    ruleset = checked(libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0))
    granted = [(path, _READ_FILE | _READ_DIR) for path in rules["read"]]
    granted += [(path, _READ_FILE | _READ_DIR | _WRITES) for path in rules["write"]]
    for path, rights in granted:
        beneath = os.open(path, _O_PATH)
        allowed = rights if os.path.isdir(path) else rights & _FILE_RIGHTS  # noqa: PTH112
        rule = allowed.to_bytes(8, sys.byteorder) + beneath.to_bytes(4, sys.byteorder)
        checked(libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0))
        os.close(beneath)
    checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    checked(libc.syscall(_LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), 0))
    os.close(ruleset)


def _handled(version: int) -> int:
    """Every file-system right that this version of Landlock can take away."""
    bits = {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    return (1 << bits) - 1
