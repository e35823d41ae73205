"""``report.html`` in a run's directory."""

from __future__ import annotations

from pathlib import Path

from arcs.report.kinds import view_of
from arcs.report.page import page
from arcs.report.stored import as_damage
from arcs.runs import MANIFEST, METRICS, write_text_atomically
from models.errors import UserError

REPORT = "report.html"


def write_report(run: Path) -> Path:
    """Write the run's page beside its results; returns its path.

    Raises UserError where there is no run, it is damaged, or the page cannot be written.
    """
    path = run / REPORT
    view = view_of(run)
    with as_damage(str(run)):
        text = page(view)
    write_page(path, text)
    return path


def write_reports(run: Path) -> Path:
    """The run's page and those of the finished runs within it; returns the first's path.

    Raises UserError as :func:`write_report`.
    """
    for found in sorted(run.rglob(METRICS)):
        if found.parent != run and (found.parent / MANIFEST).is_file():
            write_report(found.parent)
    return write_report(run)


def write_page(path: Path, text: str) -> None:
    """Write a page whole or not at all. Raises UserError where that cannot be done."""
    try:
        # a lone surrogate cannot be written; it can stand in names only, never in the items
        write_text_atomically(path, text.encode("utf-8", "replace").decode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
