"""Which module shows which kind of run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

from arcs.report import generic
from arcs.report.stored import StoredRun
from arcs.report.view import View

BUILDERS: Mapping[str, str] = {
    "arc1": "arcs.arc1.view",
    "eval": "arcs.evaluate.view",
    "measure": "arcs.measure.view",
}
"""Kind of run (``arc`` of its manifest) -> module with ``view(run: StoredRun) -> View``, which is
called for finished runs only."""


def view_of(path: Path) -> View:
    """What a run shows. Raises UserError where there is no run, or it is damaged.

    A kind that no module shows, and a run that is not finished, still get what stands in the
    manifest, the claims in their metrics and the metrics as they are.
    """
    run = StoredRun(path)
    module = BUILDERS.get(run.kind)
    if module is None or run.metrics is None:
        return generic.view(run)
    build: Callable[[StoredRun], View] = importlib.import_module(module).view
    return build(run)
