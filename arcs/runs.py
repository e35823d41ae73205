"""Run directories: append-only records, atomic results, exact continuation after a kill.

A run directory holds ``manifest.json`` (how every number was made), append-only ``*.jsonl``
(one finished item a line, fsynced), ``metrics.json`` (results; byte-identical for a run that
was killed and continued) and ``timing.json`` (seconds, rates and dates, kept apart because
they differ from run to run). DESIGN section 5.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from models import files
from models.errors import UserError

MANIFEST = "manifest.json"
METRICS = "metrics.json"
TIMING = "timing.json"
ANEW = "start a new run with --out"
"""The way out of a run that cannot be continued."""
PAYING = "paying.json"
"""Budget and prices of a run's judge: what may differ from sitting to sitting, so not of what a
run is made of."""
LOCK = ".lock"
LOOK_SECONDS = 1.0
"""How long looks at a run (``threearc runs``) are waited for before it is said to be in use."""


def canonical_json(value: Any) -> str:
    """JSON text that is the same for the same value: sorted keys, no NaN, final newline."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_text_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` so that a kill leaves the old or the new file, never a part."""
    files.write_atomically(path, text.encode())


@dataclass
class JsonLines:
    """An append-only JSONL file; each record is on disk when :meth:`append` returns."""

    path: Path
    records: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read what is there, dropping a last line that a kill left torn.

        Raises UserError when any other line is not JSON: that is damage, not a torn write.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return cls(path)
        raw = path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if whole != raw:
            with path.open("r+b") as stream:
                stream.truncate(len(whole))
                os.fsync(stream.fileno())
        return cls(path, list(_parse_lines(path, whole)))

    @classmethod
    def read(cls, path: Path) -> list[dict[str, Any]]:
        """The whole lines of another run's file, which is not touched: a torn one stays there.

        Raises UserError for a file that cannot be read, and as :meth:`open`.
        """
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        return list(_parse_lines(path, raw))

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record and fsync it."""
        line = json.dumps(record, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        with self.path.open("ab") as stream:
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())
        self.records.append(dict(record))


def _parse_lines(path: Path, raw: bytes) -> Iterator[dict[str, Any]]:
    # bytes are split, not text: JSON strings may hold U+0085 or U+2028, which end text lines;
    # what follows the last newline is torn
    for number, line in enumerate(raw.split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: not JSON ({error}); the run is damaged: start a new one"
            ) from None
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: not a JSON object; start a new run")
        yield record


class Planned(Exception):
    """Instead of a run that would begin now, all its settings being right: see planning()."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        super().__init__("this run is only planned")
        self.manifest = manifest


_PLANNING: ContextVar[bool] = ContextVar("planning", default=False)


@contextmanager
def planning() -> Iterator[None]:
    """Meanwhile no run is begun: :meth:`RunDirectory.create` raises Planned and writes nothing.

    So a command can be asked, by itself, whether it would run and with what settings.
    """
    token = _PLANNING.set(True)
    try:
        yield
    finally:
        _PLANNING.reset(token)


def is_planning() -> bool:
    """Whether this is within :func:`planning`."""
    return _PLANNING.get()


@dataclass
class RunDirectory:
    """One run on disk, locked against a second process."""

    path: Path
    _lock: int

    @classmethod
    def create(cls, path: Path, manifest: Mapping[str, Any]) -> Self:
        """Make a new run directory with its manifest.

        Raises UserError when ``path`` exists and is not empty.
        """
        if _PLANNING.get():
            raise Planned(manifest)
        try:
            if path.exists() and (not path.is_dir() or any(_visible(path))):
                begun = (path / MANIFEST).exists()
                hint = (
                    f"continue it with --run {shlex.quote(str(path))}" if begun else "name another"
                )
                raise UserError(f"--out {path}: already exists and is not empty; {hint}")
            path.mkdir(parents=True, exist_ok=True)
            run = cls(path, _lock(path))
            write_text_atomically(path / MANIFEST, canonical_json(manifest))
        except OSError as error:
            raise UserError(f"--out {_shown(path)}: cannot be made ({error.strerror})") from None
        return run

    @classmethod
    def resume(cls, path: Path) -> Self:
        """Open a run that was begun. Raises UserError when there is none, or it is in use."""
        read_manifest(path)
        return cls(path, _lock(path))

    def close(self) -> None:
        """Give the lock back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def lock(self) -> None:
        """Take the lock again after :meth:`close`."""
        self._lock = _lock(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def manifest(self) -> dict[str, Any]:
        """The manifest as it stands on disk."""
        return self.read_json(MANIFEST)

    def extend_manifest(self, **entries: Any) -> None:
        """Add entries that are known only now.

        Raises UserError where an entry is there with another value: what a run is made of does
        not change when it is continued.
        """
        manifest = self.manifest()
        plain = json.loads(canonical_json(entries))
        for key, value in plain.items():
            if key in manifest and manifest[key] != value:
                detail = _first_difference(manifest[key], value, key)
                raise UserError(f"--run {self.path}: {detail}; {ANEW}")
        if any(key not in manifest for key in plain):
            write_text_atomically(self.path / MANIFEST, canonical_json({**manifest, **plain}))

    def require_same_commit(self, code: Mapping[str, Any]) -> None:
        """Raise UserError where the run was begun with another commit of threearc."""
        begun = self.manifest().get("code", {}).get("git_commit")
        now = code.get("git_commit")
        if begun != now:
            raise UserError(
                f"--run {self.path}: it was begun with threearc at commit {_commit(begun)}, and "
                f"this is {_commit(now)}; check that one out or {ANEW}"
            )

    def discard_if_unused(self) -> None:
        """Remove the run where nothing but its manifest, timing and budget was ever written."""
        if {entry.name for entry in _visible(self.path)} <= {MANIFEST, TIMING, PAYING}:
            self.close()
            shutil.rmtree(self.path)

    def json_lines(self, name: str) -> JsonLines:
        """Open an append-only file of this run."""
        return JsonLines.open(self.path / name)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object written by :meth:`write_json`. Raises UserError when damaged."""
        path = self.path / name
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); start a new run") from None
        if not isinstance(value, dict):
            raise UserError(f"{path}: not a JSON object; start a new run")
        return value

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON object atomically in canonical form."""
        write_text_atomically(self.path / name, canonical_json(value))

    @contextmanager
    def timed(self, phase: str, **rates: float) -> Iterator[dict[str, float]]:
        """Add the wall time of a phase to timing.json, summed over continuations.

        Yields a dict to which the phase adds counts (``tokens``, ``items``); their rates a
        second are worked out at the end.
        """
        self._log_timing(phase, started=True, seconds=0.0, counts={})
        counts: dict[str, float] = dict(rates)
        begun = time.monotonic()
        try:
            yield counts
        finally:
            self._log_timing(
                phase, started=False, seconds=time.monotonic() - begun, counts=dict(counts)
            )

    def _log_timing(
        self, phase: str, *, started: bool, seconds: float, counts: Mapping[str, float]
    ) -> None:
        path = self.path / TIMING
        timing = self.read_json(TIMING) if path.exists() else {"phases": {}}
        entry = timing["phases"].setdefault(phase, {"starts": [], "seconds": 0.0, "counts": {}})
        if started:
            entry["starts"].append(datetime.datetime.now(datetime.UTC).isoformat())
        entry["seconds"] = round(entry["seconds"] + seconds, 3)
        for name, value in counts.items():
            entry["counts"][name] = entry["counts"].get(name, 0) + value
        if entry["seconds"] > 0:
            entry["per_second"] = {
                name: round(value / entry["seconds"], 2) for name, value in entry["counts"].items()
            }
        self.write_json(TIMING, timing)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of the run at ``path``, which is not touched.

    Raises UserError when there is no run, or its manifest is not a JSON object.
    """
    try:
        value = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        why = f"no {MANIFEST}" if path.exists() else "no such folder"
        raise UserError(
            f"{_shown(path)}: no run here ({why}); threearc runs list shows the runs"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{_shown(path)}: {MANIFEST} cannot be read ({reason})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: {MANIFEST} is not a JSON object; this is no run")
    return value


def _shown(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 80 else text[:77] + "..."


def _commit(commit: Any) -> str:
    return str(commit)[:12] if commit else "an unknown commit"


def _visible(path: Path) -> Iterator[Path]:
    """What a person sees in a directory: not our lock, nor what a kill left of a write."""
    return (entry for entry in path.iterdir() if not entry.name.startswith("."))


def _lock(path: Path) -> int:
    # flock is freed by the kernel however the process ends, so a kill leaves no stale lock.
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"{path}: cannot be written to ({error.strerror})") from None
    if not _taken(descriptor):
        os.close(descriptor)
        raise UserError(f"{path}: another threearc process is working in this run")
    return descriptor


def _taken(descriptor: int) -> bool:
    """Take the lock; whether that could be done.

    Whoever looks whether a run is in use (:func:`arcs.stored_runs.in_use`) holds a shared lock for
    a moment. That is waited for, and a process that works in the run is not.
    """
    until = time.monotonic() + LOOK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() > until:
                return False
        try:  # beside a look another is possible, beside a process at work none
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(0.01)


def _first_difference(old: Any, new: Any, path: str) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                return _first_difference(old.get(key), new.get(key), f"{path}.{key}")
    return f"{path} was {_short(old)} and is now {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else text[:57] + "..."


def default_path(kind: str) -> Path:
    """Return ``runs/<kind>-<date>-<time>`` under the working directory, not yet there."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")  # local: a person reads it
    path = Path("runs") / f"{kind}-{stamp}"
    number = 2
    while path.exists():
        path = Path("runs") / f"{kind}-{stamp}-{number}"
        number += 1
    return path
