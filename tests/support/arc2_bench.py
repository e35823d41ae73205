"""Arc 2 on tiny models: a quiet one, and one with a planted head, in a cache of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from arcs import provenance
from arcs.arc2.config import resolve
from arcs.arc2.pipeline import run_arc2
from arcs.progress import Reporter
from arcs.runs import RunDirectory
from backends.interface import Head
from tests.support.planted_heads import plant, quiet_tiny

PLANTED = Head(2, 4)
FLAGS: Mapping[str, Any] = {
    "profile": "quick", "backend": "torch", "labels": "meter", "limit": 48, "sweep_limit": 6,
    "n_predict": 5, "axis_items": 24, "permutations": 200, "causal_items": 10, "top_k": 1,
    "scales": (1.0, 0.5, 0.0),
}  # fmt: skip
"""Cohorts and axis by the meter: a random model answers nothing right."""


class Bench:
    """Models and runs under one folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.runs, self.cache = root, 0, root / "cache"
        self.quiet = quiet_tiny(root, self.cache)
        plant(self.quiet, root / "planted", self.cache, head=PLANTED.head, strength=3.0)

    def flags(self, model: str, **more: Any) -> dict[str, Any]:
        return {**FLAGS, "model": str(self.root / model), **more}

    def folder(self) -> Path:
        self.runs += 1
        return self.root / f"run-{self.runs}"

    def begin(self, flags: Mapping[str, Any]) -> RunDirectory:
        """A run directory with its manifest, and nothing done."""
        config = resolve(flags).model_dump(mode="json")
        return RunDirectory.create(
            self.folder(), provenance.first_manifest("arc2", config, ["test"])
        )

    def go_on(self, directory: RunDirectory, flags: Mapping[str, Any]) -> dict[str, Any]:
        with pytest.MonkeyPatch.context() as patch, directory:
            patch.setenv("THREEARC_CACHE", str(self.cache))
            run_arc2(resolve(flags), directory, Reporter(quiet=True))
        metrics: dict[str, Any] = json.loads((directory.path / "metrics.json").read_text())
        return metrics

    def run(self, flags: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
        directory = self.begin(flags)
        return directory.path, self.go_on(directory, flags)
