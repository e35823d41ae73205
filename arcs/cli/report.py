"""``threearc report`` and ``threearc runs``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli import app
from arcs.cli.config_file import Config

runs = typer.Typer(
    help="List, show, compare and remove runs.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(runs, name="runs")

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_Runs = Annotated[list[Path] | None, typer.Argument(help="Run directories", show_default=False)]


@app.command(
    epilog="""
Examples:\n
  threearc report runs/arc1-20260101-120000                     (writes report.html there)\n
  threearc report runs/arc1-a runs/arc1-b --out both.html       (compares them on one page)\n
  threearc report runs/* --format csv > numbers.csv\n
  threearc report runs/arc1-20260101-120000 --format md
"""
)
def report(
    run: _Runs = None,
    form: Annotated[str, typer.Option("--format", help="html, md, csv or json")] = "html",
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; default of html: report.html in the run, or "
                     "comparison.html; of the others: stdout", show_default=False),
    ] = None,
    config: Config = None,
    json_output: Annotated[
        bool, typer.Option("--json/--no-json", help="The same as --format json", show_default=False)
    ] = False,
) -> None:  # fmt: skip
    """Show a run, or compare several, on one self-contained page.

    Verdicts first, then tables with intervals, figures, how every number was made, and the
    transcripts: each number leads to the items behind it. Works from disk, without a network.
    """
    from arcs.report.command import start

    start(run or [], kind="json" if json_output else form, out=out)


@runs.command("list", epilog="Examples: threearc runs list; threearc runs list my-runs --json")
def list_(
    folder: Annotated[Path, typer.Argument(help="Folder that holds runs")] = Path("runs"),
    json_output: _Json = False,
) -> None:
    """List the runs of a folder: model, state, verdicts, size."""
    from arcs import stored_runs

    stored_runs.list_runs(folder, as_json=json_output)


@runs.command(epilog="Example: threearc runs show runs/arc1-20260101-120000")
def show(
    run: Annotated[Path, typer.Argument(help="Run directory")], json_output: _Json = False
) -> None:
    """Show one run: verdicts, settings, files."""
    from arcs import stored_runs

    stored_runs.show(run, as_json=json_output)


@runs.command(epilog="Example: threearc runs diff runs/arc1-a runs/arc1-b")
def diff(run: _Runs = None, json_output: _Json = False) -> None:
    """Say what differs in how runs were made: settings, versions, hashes, machine."""
    from arcs import stored_runs

    stored_runs.diff(run or [], as_json=json_output)


@runs.command(epilog="Example: threearc runs rm runs/arc1-20260101-120000 --yes")
def rm(
    run: _Runs = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_output: _Json = False,
) -> None:
    """Remove runs for good, after asking."""
    from arcs import stored_runs

    stored_runs.remove(run or [], yes=yes, as_json=json_output)
