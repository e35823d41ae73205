"""Runs inside a run: each with its own manifest, records and results, continued with its parent."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arcs import provenance
from arcs.runs import ANEW, MANIFEST, RunDirectory, read_manifest
from models.errors import UserError

MOVES = frozenset({"adapters", "adapter", "source", "items"})
"""Paths into the parent, which may have been moved; a run knows what lies there by its hash."""


def sub_run(path: Path, arc: str, config: Mapping[str, Any]) -> RunDirectory:
    """Begin or continue the run in ``path``; close it as any other.

    Raises UserError where it was begun with other settings.
    """
    if not (path / MANIFEST).exists():
        return RunDirectory.create(path, provenance.first_manifest(arc, dict(config), sys.argv))
    begun = read_manifest(path).get("config")
    if not isinstance(begun, dict) or _unmoved(begun) != _unmoved(config):
        raise UserError(f"{path}: it was begun with other settings; {ANEW}")
    return RunDirectory.resume(path)


def _unmoved(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in MOVES}
