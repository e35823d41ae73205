"""The bare interpreter that candidates and checkers run in, and the files it needs."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from pathlib import Path

from evals.humaneval.problems import dataset_path

PROGRAMS = Path(__file__).parent / "programs"

_FLAGS = ("-B", "-P", "-s", "-S", "-X", "utf8")
"""No byte code written, no unsafe path, no user site, no site: the standard library only.

This is what ``-I`` does but for reading PYTHON* variables: the environment holds the hash
seed and nothing else, so that the order of a set is the same in every run.
"""


def interpreter() -> Path:
    """The Python under the virtual environment, if there is one."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return Path(base).resolve()


def command(program: str) -> list[str]:
    """The command line that runs ``programs/<program>.py``."""
    start = f"import sys; sys.path.insert(0, {str(PROGRAMS.parent)!r})\n"
    start += f"from programs import {program}; {program}.main()"
    return [str(interpreter()), *_FLAGS, "-c", start]


def environment() -> dict[str, str]:
    """Empty, but for what the interpreter needs to start and to be repeatable."""
    loader = {
        name: os.environ[name]
        for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
        if name in os.environ
    }
    return {"PYTHONHASHSEED": "0", **loader}


@functools.cache
def readable_paths() -> tuple[Path, ...]:
    """What a candidate may read: the interpreter, its library, shared libraries, our worker."""
    base = interpreter()
    # In a virtual environment sysconfig answers with the environment's own platform path.
    prefixes = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    prefixes["installed_base"] = sys.base_prefix
    names = ("stdlib", "platstdlib")
    stdlib = {Path(sysconfig.get_path(name, vars=prefixes)).resolve() for name in names}
    system = (Path(name) for name in ("/lib", "/lib64", "/usr/lib", "/usr/lib64"))
    beside = sorted(base.parent.parent.glob("lib/*.so*")) + sorted(
        base.parent.parent.glob("lib/*.dylib")
    )
    wanted = [base, *sorted(stdlib), PROGRAMS.resolve(), *system, *beside]
    return tuple(path for path in dict.fromkeys(wanted) if path.exists())


@functools.cache
def hidden_paths() -> tuple[Path, ...]:
    """What stays unreadable even below a readable path: installed packages, tests among them."""
    stdlib = Path(sysconfig.get_path("stdlib")).resolve()
    site = [stdlib / "site-packages", stdlib / "dist-packages"]
    imported = [Path(entry).resolve() for entry in sys.path if entry.endswith("-packages")]
    system = [Path("/usr/lib/python3/dist-packages")]
    dataset = [dataset_path().resolve().parent]
    wanted = [*site, *imported, *system, *dataset]
    found = [path for path in dict.fromkeys(wanted) if path.is_dir()]
    return tuple(path for path in found if not any(above in path.parents for above in found))


def without(path: Path, hidden: tuple[Path, ...]) -> list[Path]:
    """``path`` as a list of paths that reach everything below it but the hidden ones."""
    if path in hidden:
        return []
    if not any(hide.is_relative_to(path) for hide in hidden):
        return [path]
    return [kept for child in sorted(path.iterdir()) for kept in without(child, hidden)]
