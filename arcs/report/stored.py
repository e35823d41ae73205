"""A run directory as it lies there, read and never touched: no lock, no repair."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from arcs.runs import MANIFEST, METRICS, TIMING, read_manifest
from models.errors import UserError


@dataclass(frozen=True)
class StoredRun:
    """One run. It may be unfinished, or worked on by another process at this moment."""

    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Raises UserError where this is no run: other programs have a manifest.json too."""
        found = read_manifest(self.path)
        if not isinstance(found.get("arc"), str):
            raise UserError(
                f"{self.path}: no run here ({MANIFEST} is not of threearc: it has no arc); "
                "threearc runs list shows the runs"
            )
        return found

    @property
    def kind(self) -> str:
        """Which command made it: ``arc1``, ``eval``, ``measure``, ..."""
        return str(self.manifest["arc"])

    @property
    def name(self) -> str:
        """The directory's."""
        return self.path.resolve().name

    @cached_property
    def metrics(self) -> Mapping[str, Any] | None:
        """None while the run is unfinished."""
        return self._json(METRICS)

    @cached_property
    def timing(self) -> Mapping[str, Any] | None:
        """Seconds and dates; None where there are none yet."""
        return self._json(TIMING)

    def has(self, name: str) -> bool:
        """Whether the run has a file of this name."""
        return (self.path / name).is_file()

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        """Records of a JSONL file; a last line that is not whole is left out.

        Raises UserError for a damaged line.
        """
        path = self.path / name
        raw = _read(path)
        for number, line in enumerate(raw.split(b"\n")[:-1], start=1):
            yield _object(line, f"{path}, line {number}")

    def document(self, name: str) -> dict[str, Any] | None:
        """A JSON object; None where there is no such file. Raises UserError where it is damaged."""
        return self._json(name)

    def _json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        return _object(_read(path), str(path)) if path.exists() else None


@contextmanager
def as_damage(what: str) -> Iterator[None]:
    """Turn what is raised where a file holds other things than a run writes there into one line.

    ``what``: the file or the run, as the line names it. Raises UserError.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        words = " ".join(str(error).split())[:200]
        raise UserError(
            f"{what}: does not hold what a run writes there ({type(error).__name__}: {words}; seen "
            f"in {Path(place.filename).name}, line {place.lineno}); it is damaged, or another "
            "version's"
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _object(raw: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error}); the run is damaged") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: not a JSON object; the run is damaged")
    return value
