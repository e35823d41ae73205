"""A fast BLAS for MLX on Linux CPUs, preloaded before Python starts.

The mlx[cpu] wheel links the Netlib reference BLAS, some 20 times slower than OpenBLAS
(BACKENDS.md section 8). A library in LD_PRELOAD takes its place, so it must be there
before the process starts: hence the re-exec.

Run as a module it starts another program the same way: ``python -m backends.blas CMD ARG...``
"""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

NAMES = ("libopenblas.so.0", "libmkl_rt.so.2", "libmkl_rt.so.3")
ADVICE = (
    "MLX uses its slow reference BLAS here (about 20 times slower): install libopenblas0-pthread "
    'with apt, openblas with dnf, or "pip install mkl", then run again'
)
_TRIED = "THREEARC_BLAS_TRIED"


def needed() -> bool:
    """Whether MLX would run on a Linux CPU with the wheel's reference BLAS."""
    return sys.platform == "linux" and _installed("mlx-cpu")


def find_library() -> str | None:
    """Path or soname of an installed OpenBLAS or MKL that the loader can preload, else None."""
    beside_python = [Path(sys.prefix) / "lib" / name for name in NAMES]
    system = [
        Path(root) / name
        for root in (f"/usr/lib/{platform.machine()}-linux-gnu", "/usr/lib64", "/usr/lib")
        for name in NAMES
    ]
    for path in beside_python + system:
        if path.exists():
            return str(path)
    return ctypes.util.find_library("openblas") or ctypes.util.find_library("mkl_rt")


def preloaded() -> str | None:
    """The fast BLAS this process was started with, else None."""
    entries = os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
    return next((entry for entry in entries if "openblas" in entry or "mkl_rt" in entry), None)


def environment() -> dict[str, str]:
    """This process's environment with a fast BLAS preloaded where one is needed and there."""
    env = dict(os.environ)
    library = find_library() if needed() and not preloaded() else None
    if library is not None:
        env["LD_PRELOAD"] = " ".join(filter(None, (env.get("LD_PRELOAD"), library)))
    env[_TRIED] = "1"
    return env


def restart_with_fast_blas() -> None:
    """Re-exec this Python program with a fast BLAS preloaded; return where that changes nothing."""
    if os.environ.get(_TRIED) or not needed() or preloaded() or find_library() is None:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment())


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _run_module(argv: list[str]) -> None:
    if not argv:
        sys.exit("usage: python -m backends.blas COMMAND [ARGUMENT...]")
    if needed() and not preloaded() and find_library() is None:
        print(ADVICE, file=sys.stderr)
    os.execvpe(argv[0], argv, environment())


if __name__ == "__main__":
    _run_module(sys.argv[1:])
