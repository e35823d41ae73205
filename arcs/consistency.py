"""What ``threearc consistency`` does with its flags."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from arcs import provenance
from arcs.progress import Reporter
from arcs.runs import canonical_json, write_text_atomically
from backends import available_backends
from backends.blas import ADVICE, needed, preloaded, restart_with_fast_blas
from backends.consistency.bisect import Parting, write_reproduction
from backends.consistency.bounds import Measure
from backends.consistency.compare import Row
from backends.consistency.run import Consistency, find_parting, run, worst
from models.directory import ModelDirectory
from models.store import prepare


def start(
    model: str, *, prompts: int, max_tokens: int, bisect: bool, out: Path | None, as_json: bool
) -> None:
    """Compare or bisect, print, and exit with status 1 on a breach."""
    reporter = Reporter()
    if available_backends()["mlx"] is None:
        restart_with_fast_blas()
        if needed() and not preloaded():
            reporter.say(ADVICE)
    directory = prepare(model, say=reporter.say)
    if bisect:
        _bisect(directory, out, as_json, reporter)
        return
    found = run(directory, prompts=prompts, max_tokens=max_tokens, say=reporter.say)
    document = {**found.to_json(), "made_with": _made_with()}
    if out is not None:
        write_text_atomically(out / "consistency.json", canonical_json(document))
        reporter.say(f"Written to {out / 'consistency.json'}.")
    if as_json:
        sys.stdout.write(canonical_json(document))
    else:
        Console(highlight=False).print(Group(*_tables(found)))
    if not found.passed:
        sys.exit(1)


def _made_with() -> dict[str, object]:
    return {"versions": provenance.versions(), "hardware": provenance.hardware()}


def _tables(found: Consistency) -> list[Table | Panel | Text]:
    table = Table(title=f"Engines on {found.model}, float32", box=SIMPLE_HEAD, title_justify="left")
    table.add_column("quantity")
    table.add_column("engines")
    for column in ("n", "difference", "bound"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for row in found.rows:
        table.add_row(
            row.quantity,
            " / ".join(row.engines),
            f"{row.n:,}",
            _value(row, row.difference),
            _value(row, row.bound),
            Text("ok", "green") if row.passed else Text("BREACH", "bold red"),
        )
    notes = [
        Text(f"{row.quantity}, {' / '.join(row.engines)}: {row.note}", style="dim")
        for row in found.rows
        if row.note
    ]
    skipped = [Text(f"not compared: {reason}", style="yellow") for reason in found.skipped]
    return [table, *notes, *skipped, _verdict(found)]


def _value(row: Row, value: float) -> str:
    return f"{value:.0f}" if row.measure is Measure.COUNT else f"{value:.1e}"


def _verdict(found: Consistency) -> Panel:
    broken = [row for row in found.rows if not row.passed]
    furthest = worst(found.rows)
    if furthest is None:
        text = Text(f"All {len(found.rows)} comparisons hold.", style="bold green")
    else:
        text = Text(
            f"{len(broken)} of {len(found.rows)} comparisons break their bound; the furthest is "
            f"{furthest.quantity} ({' / '.join(furthest.engines)}). Find where with --bisect.",
            style="bold red",
        )
    return Panel(text, title="Consistency", title_align="left")


def _bisect(directory: ModelDirectory, out: Path | None, as_json: bool, reporter: Reporter) -> None:
    found = find_parting(directory)
    if found.stage is not None:
        folder = out if out is not None else Path("parting")
        path = write_reproduction(
            folder,
            found,
            model=directory.name,
            fingerprint=directory.fingerprint,
            versions=provenance.versions(),
        )
        reporter.say(f"A reproduction for an upstream report is in {path}.")
    if as_json:
        sys.stdout.write(canonical_json({**found.to_json(), "made_with": _made_with()}))
    else:
        Console(highlight=False).print(_parting_text(found))
    if found.stage is not None:
        sys.exit(1)


def _parting_text(found: Parting) -> Text:
    engines = " and ".join(found.engines)
    if found.stage is None:
        return Text(
            f"{engines} agree at all {len(found.stages)} stages on {len(found.ids)} ids: at most "
            f"{found.difference:.1e} of the range (bound {found.bound:.0e}).",
            style="green",
        )
    after = f" after {found.before}, which agrees" if found.before else ""
    return Text(
        f"{engines} part at {found.stage}{after}: {found.difference:.1e} of the range (bound "
        f"{found.bound:.0e}), on {len(found.ids)} ids.",
        style="bold red",
    )
