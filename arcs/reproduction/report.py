"""What ``threearc reproduce`` prints: the paper's numbers beside ours, then its claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from arcs.estimates import Estimate
from arcs.reproduction.claims import PaperClaim, Stands
from arcs.reproduction.rows import Row, Status
from evals.statistics.rates import Interval

SCHEMA_VERSION = 1
WIDEST = 14
"""Characters of a value that is a text; the JSON document has all of it."""
STATUS_COLOURS = {
    Status.EXACT: "green",
    Status.CONSISTENT: "cyan",
    Status.CONTRADICTS: "bold red",
    Status.NOT_DETERMINED: "dim",
}
SHORT = {
    Status.EXACT: "exact",
    Status.CONSISTENT: "consistent",
    Status.CONTRADICTS: "contradicts",
    Status.NOT_DETERMINED: "not determined",
}
STANDS_COLOURS = {
    Stands.YES: "bold green",
    Stands.NO: "bold red",
    Stands.OPEN: "bold yellow",
    Stands.INVALID: "bold magenta",
}


@dataclass(frozen=True)
class Reproduction:
    """Everything that was recomputed and judged."""

    folder: Path
    rows: Sequence[Row]
    claims: Sequence[PaperClaim]
    warnings: Sequence[str]
    """Files that are missing or are not the published ones."""

    def counts(self) -> dict[str, int]:
        """Rows by status."""
        counted = Counter(row.status for row in self.rows)
        return {status.value: counted[status] for status in Status}

    def compared(self) -> int:
        """Exact rows for which the paper or its files hold a number to compare with."""
        exact = [row for row in self.rows if row.status is Status.EXACT]
        return sum(row.paper is not None or row.published is not None for row in exact)

    def to_json(self) -> dict[str, Any]:
        """The documented JSON document (docs/reproduce.md)."""
        return {
            "schema_version": SCHEMA_VERSION,
            "artifacts": str(self.folder),
            "warnings": list(self.warnings),
            "counts": self.counts(),
            "exact_and_printed": self.compared(),
            "rows": [row.to_json() for row in self.rows],
            "claims": [claim.to_json() for claim in self.claims],
        }


def render(found: Reproduction, console: Console | None = None, *, full: bool = False) -> None:
    """Print the tables on stdout; ``full``: the reason of every row, not of contradictions only."""
    console = console or Console(highlight=False)
    sections = list(dict.fromkeys(row.section for row in found.rows))
    parts: list[RenderableType] = [Text(f"Warning: {one}", style="red") for one in found.warnings]
    for name in sections:
        parts += _section(name, [row for row in found.rows if row.section == name], full)
    if found.claims:
        parts.append(_claims(found.claims))
    parts.append(_summary(found))
    console.print(Group(*parts))


def _section(name: str, rows: Sequence[Row], full: bool) -> list[RenderableType]:
    table = Table(
        title=name, box=SIMPLE_HEAD, title_justify="left", title_style="bold", expand=True
    )
    table.add_column("quantity", ratio=1, min_width=24)  # takes what the others leave
    for column in ("n", "paper", "published", "recomputed", "95% interval"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for row in rows:
        table.add_row(
            row.quantity,
            "" if row.n is None else str(row.n),
            *(_number(value) for value in (row.paper, row.published, row.recomputed)),
            _interval(row.interval),
            Text(SHORT[row.status], style=STATUS_COLOURS[row.status]),
        )
    explained = [row for row in rows if row.reason and (full or row.status is Status.CONTRADICTS)]
    return [table, *(Padding(_reason(row), (0, 0, 0, 2)) for row in explained), Text("")]


def _reason(row: Row) -> Text:
    return Text.assemble(
        (f"{row.status.value}: ", STATUS_COLOURS[row.status]),
        (row.quantity, "bold"),
        f": {row.reason}",
    )


def _number(value: float | int | str | None) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.1e}"
    text = "" if value is None else str(value)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _interval(interval: Interval | None) -> str:
    return f"[{interval.low:.3g}, {interval.high:.3g}]" if interval else ""


def _claims(claims: Sequence[PaperClaim]) -> RenderableType:
    parts: list[RenderableType] = [Text("\nThe paper's claims, from its published data", "bold")]
    for claim in claims:
        judged = claim.judged
        codes = ", ".join(reason.value for reason in judged.reasons)
        says = claim.paper_says.value
        head = Text.assemble(
            (f"\n{judged.verdict.value} ({codes})", STANDS_COLOURS[claim.stands]),
            (f"  {claim.key}, {claim.source}", "dim"),
        )
        body = Text(f"Does it hold that {judged.statement}? The paper says {says}: ")
        body.append(claim.stands.value, STANDS_COLOURS[claim.stands])
        parts += [head, Padding(body, (0, 0, 0, 2))]
        if judged.estimate is not None:
            parts.append(
                Padding(Text(_estimate(judged.estimate, judged.n_to_settle)), (0, 0, 0, 2))
            )
        parts.append(Padding(Text(f"{claim.why}."), (0, 0, 0, 2)))
        parts.append(Padding(Text(f"To decide it: {claim.missing}.", style="dim"), (0, 0, 0, 2)))
    return Group(*parts)


def _estimate(estimate: Estimate, n_to_settle: int | None) -> str:
    interval = estimate.interval
    text = (
        f"{estimate.quantity}: {estimate.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}] "
        f"({estimate.interval_method}; null {estimate.null:g}; n = {estimate.n})"
    )
    if n_to_settle is not None:
        text += f"; about {n_to_settle:,} items would settle it"
    return text


def _summary(found: Reproduction) -> Panel:
    counted = ", ".join(f"{n} {status}" for status, n in found.counts().items())
    stands = Counter(claim.stands for claim in found.claims)
    judged = ", ".join(f"{stands[kind]} {kind.value}" for kind in Stands)
    lines = [
        Text(f"{len(found.rows)} numbers: {counted}"),
        Text(
            f"Of the exact ones {found.compared()} are in the paper or its files; the others "
            "follow from its files and are given nowhere."
        ),
        Text("Reasons of all of them: --full, or --json", style="dim"),
    ]
    if found.claims:
        lines.append(Text(f"{len(found.claims)} claims: {judged}"))
    return Panel(Group(*lines), title="Reproduction", title_align="left")
