"""The real command line, called in the tests' own process.

A process of its own costs 2 to 6 CPU seconds, nearly all of it imports. Each command keeps a
test or two that do start one (they show that nothing leans on what tests have imported); what
is said about a mistake, or what a further run writes, does not depend on it.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest


def call_here(
    *argv: object, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``threearc ARGV`` in this process: exit status, and all that went to stdout and stderr.

    Captures the file descriptors, so that what native code prints counts as well. ``cwd`` and
    ``environment`` are put back afterwards. Nothing else is: commands must not need more.
    """
    from arcs.cli import main

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("THREEARC_BLAS_TRIED", "1")  # or the command would start pytest anew
        for name, value in environment.items():
            patch.setenv(name, value)
        if cwd is not None:
            patch.chdir(cwd)
        out, err = Path(folder) / "out", Path(folder) / "err"
        status = 0
        with _redirected(out, 1, "stdout"), _redirected(err, 2, "stderr"):
            try:
                main([str(one) for one in argv])
            except SystemExit as ended:
                if isinstance(ended.code, str):
                    print(ended.code, file=sys.stderr)
                status = 1 if isinstance(ended.code, str) else int(ended.code or 0)
        gc.collect()  # engines, and locks of runs, that a process's end would have let go
        return subprocess.CompletedProcess(
            [*argv], status, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")
        )


@contextlib.contextmanager
def _redirected(path: Path, descriptor: int, name: str) -> Iterator[None]:
    """The descriptor and ``sys.NAME`` go to ``path``."""
    kept_stream: IO[str] = getattr(sys, name)
    kept_stream.flush()
    kept = os.dup(descriptor)
    with path.open("wb", buffering=0) as file:
        os.dup2(file.fileno(), descriptor)
        stream = io.TextIOWrapper(file, encoding="utf-8", write_through=True)
        setattr(sys, name, stream)
        try:
            yield
        finally:
            setattr(sys, name, kept_stream)
            os.dup2(kept, descriptor)
            os.close(kept)
            stream.detach()
