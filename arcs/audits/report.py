"""What ``threearc audit`` prints: findings by severity for people, one document for machines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from arcs.audits.findings import Audit, Finding, Outcome, Severity
from arcs.audits.results import Results, ResultSet

SCHEMA_VERSION = 1
PLACES = 4
"""Places shown of one audit at one severity, unless all are asked for."""
COLOURS = {
    Severity.INVALIDATES: "bold red",
    Severity.BIASES: "bold yellow",
    Severity.CAUTION: "bold cyan",
}


@dataclass(frozen=True)
class Report:
    """Every audit's outcome on one set of results."""

    results: Results
    outcomes: Sequence[tuple[Audit, Outcome]]

    def findings(self) -> list[tuple[Audit, Finding]]:
        """All findings, the worst first; within a severity in the order of the catalogue."""
        every = [(audit, found) for audit, made in self.outcomes for found in made.findings]
        rank = {severity: position for position, severity in enumerate(Severity)}
        return sorted(every, key=lambda pair: rank[pair[1].severity])

    def counts(self) -> dict[str, int]:
        """Findings by severity."""
        counted = Counter(found.severity for _, found in self.findings())
        return {severity.value: counted[severity] for severity in Severity}

    def worst(self) -> Severity | None:
        """The gravest severity that was found."""
        found = self.findings()
        return found[0][1].severity if found else None

    def to_json(self) -> dict[str, Any]:
        """The documented JSON document (docs/audit.md)."""
        return {
            "schema_version": SCHEMA_VERSION,
            "path": str(self.results.path),
            "format": self.results.format,
            "sets": [_set_json(one) for one in self.results.sets],
            "probes": len(self.results.probes),
            "rankings": len(self.results.rankings),
            "interventions": len(self.results.interventions),
            "claims": len(self.results.claims),
            "skipped": list(self.results.skipped),
            "counts": self.counts(),
            "audits": [_outcome_json(audit, made) for audit, made in self.outcomes],
        }


def _set_json(one: ResultSet) -> dict[str, Any]:
    return {
        "name": one.name,
        "source": str(one.source),
        "role": one.role.value if one.role else None,
        "arm": one.arm,
        "task": one.task,
        "family": one.family,
        "n_predict": one.n_predict,
        "n_items": len(one.items),
        "labels": sorted(one.instruments),
        "features": list(one.features.x.shape) if one.features else None,
        "stores_finish_reasons": one.stores_finish_reasons(),
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity: a number that is none becomes its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list) else value


def _state(made: Outcome) -> str:
    if made.findings:
        return "findings"
    return "clean" if made.examined else "not applicable"


def _outcome_json(audit: Audit, made: Outcome) -> dict[str, Any]:
    return {
        "name": audit.name,
        "question": audit.question,
        "state": _state(made),
        "needs": audit.needs,
        "examined": made.examined,
        "findings": [_finite(found.to_json()) for found in made.findings],
    }


def render(report: Report, console: Console | None = None, *, full: bool = False) -> None:
    """Print the report on stdout; ``full``: every place of every finding."""
    console = console or Console(highlight=False)
    parts = [*_what_was_read(report.results), *_findings(report, full), _summary(report)]
    console.print(Group(*parts))


def _what_was_read(results: Results) -> list[RenderableType]:
    lines: list[RenderableType] = [Text(f"{results.path}: {results.format}", style="bold")]
    for one in results.sets:
        about = [f"{len(one.items)} items"]
        about += [part for part in (one.role and one.role.value, one.arm, one.task) if part]
        about += [f"n_predict {one.n_predict}"] if one.n_predict else []
        about += [f"features {one.features.x.shape[1]}-d"] if one.features else []
        lines.append(Text(f"  {one.name}: {', '.join(about)}", style="dim"))
    for reason in results.skipped:
        lines.append(Text(f"  not read: {reason}", style="yellow"))
    return lines


def _findings(report: Report, full: bool) -> list[RenderableType]:
    """One block an audit and severity: its places, then the fix once."""
    blocks: dict[tuple[Severity, Audit], list[Finding]] = {}
    for audit, found in report.findings():
        blocks.setdefault((found.severity, audit), []).append(found)
    return [
        line
        for (severity, audit), found in blocks.items()
        for line in _block(severity, audit, found, full)
    ]


def _block(
    severity: Severity, audit: Audit, found: Sequence[Finding], full: bool
) -> list[RenderableType]:
    head = Text.assemble(
        (f"\n{severity.value.upper()}", COLOURS[severity]),
        (f"  {audit.name}", "bold"),
        (f"  {audit.question}", "dim"),
    )
    shown = found if full else found[:PLACES]
    lines: list[RenderableType] = [head]
    for one in shown:
        place = Text.assemble((f"{one.where}: ", "bold"), one.message)
        lines.append(Padding(place, (0, 0, 0, 2)))
    if len(found) > len(shown):
        left = f"and {len(found) - len(shown)} more (--full or --json shows them)"
        lines.append(Padding(Text(left, style="dim"), (0, 0, 0, 2)))
    for fix in dict.fromkeys(one.fix for one in shown):
        lines.append(Padding(Text(f"Fix: {fix}", style="dim"), (0, 0, 0, 2)))
    return lines


def _summary(report: Report) -> RenderableType:
    by_state: dict[str, list[str]] = {"clean": [], "not applicable": []}
    for audit, made in report.outcomes:
        by_state.setdefault(_state(made), []).append(
            audit.name if made.examined else f"{audit.name} (needs {audit.needs})"
        )
    counted = ", ".join(f"{n} {severity}" for severity, n in report.counts().items())
    lines = [Text(f"Findings: {counted}", style="bold")]
    for state, names in by_state.items():
        if state != "findings" and names:
            lines.append(Text(f"{state.capitalize()}: {', '.join(names)}"))
    return Panel(Group(*lines), title="Audit", title_align="left")
