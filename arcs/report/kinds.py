"""Which module shows which kind of run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from arcs.report import generic
from arcs.report.links import linked_if_there
from arcs.report.stored import StoredRun, as_damage
from arcs.report.view import View

BUILDERS: Mapping[str, tuple[str, str]] = {
    "arc1": ("threearc-arc1-2", "arcs.arc1.view"),
    "arc2": ("threearc-arc2-1", "arcs.arc2.view"),
    "arc3": ("threearc-arc3-1", "arcs.arc3.view"),
    "eval": ("threearc-eval-1", "arcs.evaluate.view"),
    "falsify": ("threearc-falsify-1", "arcs.falsification.view"),
    "measure": ("threearc-measure-2", "arcs.measure.view"),
    "sweep": ("threearc-sweep-1", "arcs.sweep.view"),
}
"""Kind of run (``arc`` of its manifest) -> ``schema_version`` of the metrics that the module can
show, and the module, with ``view(run: StoredRun) -> View``, which is called for finished runs
of that schema only."""


def view_of(path: Path) -> View:
    """What a run shows. Raises UserError where there is no run, or it is damaged.

    A kind or schema that no module shows, and a run that is not finished, still get what stands in
    the manifest, the claims in their metrics and the metrics as they are.
    """
    with as_damage(str(path)):
        return _view_of(StoredRun(path))


def _view_of(run: StoredRun) -> View:
    schema, module = BUILDERS.get(run.kind, (None, ""))
    if run.metrics is None or schema is None:
        return generic.view(run)
    found = run.metrics.get("schema_version")
    if found != schema:
        view = generic.view(run)
        note = f"Its transcripts are not shown: metrics.json has schema {found}, not {schema}."
        return replace(view, notes=(*view.notes, note))
    build: Callable[[StoredRun], View] = importlib.import_module(module).view
    return linked_if_there(build(run))
