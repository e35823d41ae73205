"""Writes that are whole or absent, for anything a killed process must be able to read again."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.disk import require_free


def canonical_json(value: Any) -> str:
    """Return one line of JSON with sorted keys: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def sync_path(path: Path) -> None:
    """Bring a file's content, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` through a synced temporary file in the same folder."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def whole_file(out: Path, *, needs: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside ``out`` that becomes ``out`` when the block ends well.

    ``needs`` is the size in bytes about to be written: raises UserError when the disk has
    less. After an exception nothing is left behind and an earlier ``out`` is untouched;
    what a killed process left is removed by the next one that writes ``out``.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}."
    for left in out.parent.glob(f"{prefix}*.part"):
        left.unlink(missing_ok=True)
    if needs is not None:
        require_free(out, needs, out.name)
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=out.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync_path(temporary)
        temporary.chmod(0o644)  # mkstemp makes it private; results are meant to be shared
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def write_directory_atomically(path: Path, fill: Callable[[Path], None]) -> None:
    """Make directory ``path`` from what ``fill`` writes, replacing an older one.

    The new directory appears under its name only when ``fill`` has returned and its files
    are synced; a kill leaves the old one, or none, never half of one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        fill(temporary)
        for file in temporary.rglob("*"):
            if file.is_file():
                sync_path(file)
        temporary.chmod(0o755)  # mkdtemp makes it private
        _swap(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _swap(new: Path, path: Path) -> None:
    """Rename ``new`` to ``path``; a directory in the way is moved aside first, then deleted."""
    if not path.exists():
        new.replace(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    path.replace(old)
    new.replace(path)
    shutil.rmtree(old)
