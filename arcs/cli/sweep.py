"""``threearc sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli import app


@app.command(
    epilog="""
Examples:\n
  threearc sweep sweep.toml --dry-run     (check every cell, run nothing)\n
  threearc sweep sweep.toml\n
  threearc sweep sweep.toml --executor ray --cpus-per-run 8\n
  threearc sweep --run runs/sweep-20260101-120000     (what failed or is unfinished, again)
"""
)
def sweep(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The grid, as TOML", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every cell and show its command")
    ] = False,
    executor: Annotated[
        str, typer.Option(help="sequence, or ray (on one machine or a cluster at RAY_ADDRESS)")
    ] = "sequence",
    cpus_per_run: Annotated[
        float | None,
        typer.Option(
            help="Over Ray, CPUs of each run; default: all of a machine, if all have as many",
            show_default=False,
        ),
    ] = None,
    gpus_per_run: Annotated[
        float | None,
        typer.Option(
            help="Over Ray, GPUs of each run; default: one a training process, where there are any",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the new sweep", show_default=False)
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Continue this sweep: finished cells are kept", show_default=False),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout")
    ] = False,
) -> None:
    """Run a grid of models x arcs x seeds x backends, and merge the runs into one report.

    Each cell is a normal run in a process and folder of its own; one that fails is shown as
    failed, the others go on, and the exit status is 1. Every cell is checked before the first.
    """
    from arcs.sweep.command import start
    from arcs.sweep.executors import Resources

    start(
        file, out=out, run=run, dry_run=dry_run, as_json=json_output, executor=executor,
        resources=Resources(cpus_per_run, gpus_per_run),
    )  # fmt: skip
