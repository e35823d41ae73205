"""Training checkpoints: whole or absent, the last two kept, and never resumed by another run."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import UserError
from models.files import canonical_json, write_atomically, write_directory_atomically

KEEP = 2
_NAME = re.compile(r"step-(\d{8})")
_STATE, _PROGRESS = "state.safetensors", "progress.json"


@dataclass(frozen=True)
class Checkpoint:
    """The state after ``step`` optimiser steps.

    The data order and the dropout seeds are functions of (seed, step), so the step number
    is all there is to restore of them.
    """

    step: int
    log_bytes: int
    """Length of log.jsonl when the checkpoint was written; what lies behind it is redone."""
    state: Mapping[str, NDArray[Any]]


class CheckpointStore:
    """The checkpoints of one training in ``directory``, bound to one identity.

    ``identity`` is everything that must be equal for a resumed run to give what an
    uninterrupted one gives: the config, the data and the engine.
    """

    def __init__(self, directory: Path, identity: Mapping[str, Any]) -> None:
        self._directory = directory
        self._identity = dict(identity)
        self._check_identity()
        for torn in self._directory.glob(".step-*"):
            shutil.rmtree(torn)  # half-written when a run was killed

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint and remove all but the newest two."""
        from safetensors.numpy import save

        content = save({name: np.ascontiguousarray(a) for name, a in checkpoint.state.items()})
        progress = {
            "step": checkpoint.step,
            "log_bytes": checkpoint.log_bytes,
            "sha256": hashlib.sha256(content).hexdigest(),
        }

        def fill(directory: Path) -> None:
            (directory / _STATE).write_bytes(content)
            (directory / _PROGRESS).write_text(canonical_json(progress) + "\n")

        write_directory_atomically(self._directory / f"step-{checkpoint.step:08d}", fill)
        for old in self._paths()[:-KEEP]:
            shutil.rmtree(old)

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint, or None before the first.

        Raises UserError when it is damaged: resuming from an older one without a word would
        hide a failing disk.
        """
        paths = self._paths()
        return _read(paths[-1]) if paths else None

    def previous(self) -> Checkpoint | None:
        """Return the checkpoint before the newest, or None when there is none."""
        paths = self._paths()
        return _read(paths[-2]) if len(paths) > 1 else None

    def _paths(self) -> list[Path]:
        if not self._directory.is_dir():
            return []
        return sorted(path for path in self._directory.iterdir() if _NAME.fullmatch(path.name))

    def _check_identity(self) -> None:
        """Refuse to continue a run made with other settings; record ours when there is none."""
        file = self._directory / "identity.json"
        text = canonical_json(self._identity) + "\n"
        if not file.exists():
            write_atomically(file, text.encode())
            return
        try:
            found = json.loads(file.read_text())
        except ValueError:
            raise UserError(f"{file} is damaged: train in a new directory") from None
        changed = _difference(found, json.loads(text))
        if changed is not None:
            raise UserError(
                f"{self._directory.parent} holds a training with {changed}: use the same "
                "settings to continue it, or a new directory"
            )


def _difference(found: Any, wanted: Any, where: str = "") -> str | None:
    """Describe the first setting that differs, or return None."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            inner = f"{where}.{key}" if where else key
            change = _difference(found.get(key), wanted.get(key), inner)
            if change is not None:
                return change
        return None
    return None if found == wanted else f"{where} = {found!r} and not {wanted!r}"


def _read(path: Path) -> Checkpoint:
    from safetensors.numpy import load

    damaged = UserError(
        f"checkpoint {path} is damaged: delete that directory to continue from the one before"
    )
    try:
        progress = json.loads((path / _PROGRESS).read_text())
        content = (path / _STATE).read_bytes()
    except (OSError, ValueError):
        raise damaged from None
    if hashlib.sha256(content).hexdigest() != progress["sha256"]:
        raise damaged
    return Checkpoint(step=progress["step"], log_bytes=progress["log_bytes"], state=load(content))
