"""``threearc reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli import app
from arcs.cli.config_file import Config, Json


@app.command(
    epilog="""
Examples:\n
  threearc reproduce --download\n
  threearc reproduce --artifacts path/to/disposition-distillation --json
""",
)
def reproduce(
    artifacts: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the paper's published result files, or a checkout of its repository",
            show_default=False,
        ),
    ] = None,
    download: Annotated[
        bool,
        typer.Option(
            "--download/--no-download", help="Fetch the files from the paper's repository once"
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for reproduce.json and figures", show_default=False),
    ] = None,
    figures: Annotated[bool, typer.Option(help="Draw the figures (SVG and PNG)")] = True,
    full: Annotated[
        bool, typer.Option("--full/--no-full", help="Show the reason of every number")
    ] = False,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Recompute every number that the paper's published files determine, and judge its claims."""
    from arcs.reproduction.command import start

    start(artifacts=artifacts, download=download, out=out, figures=figures, as_json=json_output)
