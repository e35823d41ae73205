"""Every audit there is, and running them."""

from __future__ import annotations

from collections.abc import Collection

from arcs.audits import (
    arms,
    decisions,
    defaults,
    drift,
    encoded,
    joins,
    labels,
    probes,
    selection,
    truncation,
)
from arcs.audits.findings import Audit, Outcome
from arcs.audits.results import Results

ALL: tuple[Audit, ...] = (
    *truncation.AUDITS,
    *encoded.AUDITS,
    *labels.AUDITS,
    *decisions.AUDITS,
    *defaults.AUDITS,
    *joins.AUDITS,
    *drift.AUDITS,
    *selection.AUDITS,
    *probes.AUDITS,
    *arms.AUDITS,
)
"""In the order in which they are reported: texts, labels, joins, selection, probes, arms."""


def run_audits(
    results: Results, *, only: Collection[str] | None = None
) -> list[tuple[Audit, Outcome]]:
    """Run every audit, or those named in ``only``, each with what it made of the results.

    Raises ValueError for a name that no audit has.
    """
    unknown = set(only or ()) - {audit.name for audit in ALL}
    if unknown:
        raise ValueError(f"no such audit: {', '.join(sorted(unknown))}")
    chosen = [audit for audit in ALL if only is None or audit.name in only]
    return [(audit, audit.run(results)) for audit in chosen]
