"""Where prepared models live, and how a directory appears there whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models.errors import UserError
from models.files import sync_path
from models.fingerprint import file_sha256

BUILDING = ".building-"


def cache_root() -> Path:
    """``THREEARC_CACHE`` if set, else ``~/.cache/threearc``."""
    named = os.environ.get("THREEARC_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "threearc"


@contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock on ``path``; the kernel frees it if the process dies.

    ``on_wait`` is called once if another process holds it. Raises UserError when the cache
    cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"cannot write to the model cache at {path.parent}: {error.strerror};"
            " set THREEARC_CACHE to a directory you can write to"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def build_directory(target: Path, build: Callable[[Path], None]) -> None:
    """Let ``build`` fill a temporary directory beside ``target``, then rename it into place.

    The caller holds the lock of ``target``. Leftovers of killed builds are removed first; an
    earlier ``target`` is replaced. Raises UserError when the disk fills up on the way.
    """
    remove_leftovers(target)
    temporary = target.with_name(f"{BUILDING}{target.name}-{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        build(temporary)
        _sync(temporary)
        _replace(target, temporary)
    except OSError as error:
        raise UserError(
            f"could not write {target}: {error.strerror or error}; check the disk and"
            " THREEARC_CACHE"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(target: Path) -> None:
    """Delete what killed builds of ``target`` left beside it."""
    if target.parent.is_dir():
        for left in target.parent.glob(f"{BUILDING}{target.name}-*"):
            shutil.rmtree(left, ignore_errors=True)


def remembered_sha256(path: Path, root: Path) -> str:
    """sha-256 of a file, hashed again only when its size or modification time changed."""
    stat = path.stat()
    state = [str(path), stat.st_size, stat.st_mtime_ns]
    memo = root / "hashes" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:24]}.json"
    try:
        saved = json.loads(memo.read_text())
        if isinstance(saved, dict) and saved.get("state") == state:
            return str(saved["sha256"])
    except (OSError, ValueError, KeyError):
        pass  # no memo yet, or a half-written one: hash again
    value = file_sha256(path)
    with suppress(OSError):  # a memo saves time only; a read-only cache is reported on building
        memo.parent.mkdir(parents=True, exist_ok=True)
        temporary = memo.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps({"state": state, "sha256": value}))
        temporary.replace(memo)
    return value


def _replace(target: Path, temporary: Path) -> None:
    if target.exists():
        stale = target.with_name(f"{BUILDING}{target.name}-old-{os.getpid()}")
        target.rename(stale)
        temporary.rename(target)
        shutil.rmtree(stale, ignore_errors=True)
    else:
        temporary.rename(target)
    sync_path(target.parent)


def _sync(directory: Path) -> None:
    for file in directory.iterdir():
        if file.is_file() and not file.is_symlink():
            sync_path(file)
    sync_path(directory)
