"""What ``threearc audit`` does with its flags."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from arcs import provenance
from arcs.audits.catalogue import ALL, run_audits
from arcs.audits.findings import Severity
from arcs.audits.readers import ReadOptions, read
from arcs.audits.report import Report, render
from arcs.progress import Reporter
from arcs.runs import canonical_json, write_text_atomically
from models.errors import UserError


def start(
    path: Path | None,
    *,
    columns: Sequence[str],
    only: Sequence[str],
    fail_on: str | None,
    out: Path | None,
    as_json: bool,
    full: bool = False,
) -> None:
    """Read, audit, print; exits with status 1 where ``fail_on`` is reached."""
    if path is None:
        raise UserError("threearc audit needs a PATH: a run directory, a folder, a log or a table")
    limit = _severity(fail_on)
    names = _known(only)
    options = ReadOptions.from_flags(columns)
    try:
        results = read(path, options)
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read ({error.strerror})") from None
    report = Report(results, run_audits(results, only=names))
    document = {**report.to_json(), "made_with": provenance.versions()}
    if out is not None:
        try:
            write_text_atomically(out / "audit.json", canonical_json(document))
        except OSError as error:
            raise UserError(f"--out {out}: cannot be written ({error.strerror})") from None
    if as_json:
        sys.stdout.write(canonical_json(document))
    else:
        render(report, full=full)
    if out is not None:
        Reporter().say(f"Written to {out / 'audit.json'}.")
    worst = report.worst()
    if limit and worst and list(Severity).index(worst) <= list(Severity).index(limit):
        sys.exit(1)


def list_audits(as_json: bool) -> None:
    """Print name, question and need of every audit."""
    if as_json:
        rows = [{"name": a.name, "question": a.question, "needs": a.needs} for a in ALL]
        sys.stdout.write(canonical_json({"audits": rows}))
        return
    table = Table(title="Audits")
    table.add_column("name", no_wrap=True)
    table.add_column("question", ratio=3)
    table.add_column("needs", ratio=2)
    for audit in ALL:
        table.add_row(audit.name, audit.question, audit.needs)
    Console(highlight=False).print(table)


def _severity(name: str | None) -> Severity | None:
    if name is None:
        return None
    try:
        return Severity(name)
    except ValueError:
        known = ", ".join(Severity)
        raise UserError(f"--fail-on {name}: no such severity; there are {known}") from None


def _known(only: Sequence[str]) -> tuple[str, ...] | None:
    known = {audit.name for audit in ALL}
    for name in only:
        if name not in known:
            raise UserError(f"--only {name}: no such audit; threearc audit --list shows all")
    return tuple(only) or None
