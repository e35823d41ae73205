"""What the report shows of a measurement."""

from __future__ import annotations

from arcs.measure.config import METER, SHORT_ANSWERS
from arcs.measure.views.free_answers import free_answers
from arcs.measure.views.meter import meter
from arcs.measure.views.short_answers import short_answers
from arcs.report.stored import StoredRun
from arcs.report.view import View


def view(run: StoredRun) -> View:
    """Each instrument's own page; those that this page does not know answer freely."""
    metrics = run.metrics
    assert metrics is not None  # finished runs only
    found = {METER: meter, SHORT_ANSWERS: short_answers}.get(metrics["instrument"], free_answers)
    return found(run, metrics)
