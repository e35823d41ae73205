"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.disk import require_free


@contextmanager
def whole_file(out: Path, *, needs: int) -> Iterator[Path]:
    """Yield a temporary path beside ``out`` that becomes ``out`` when the block ends well.

    ``needs`` is the size in bytes about to be written: raises UserError when the disk has
    less. After an exception nothing is left behind and an earlier ``out`` is untouched;
    what a killed process left is removed by the next one that writes ``out``.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}."
    for left in out.parent.glob(f"{prefix}*.part"):
        left.unlink(missing_ok=True)
    require_free(out, needs, out.name)
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=out.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(0o644)  # mkstemp makes it private; models are meant to be shared
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
