"""``threearc init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli import app


@app.command(
    epilog="""
Examples:\n
  threearc init\n
  threearc init --arc arc3 --out arc3.toml\n
  threearc init --arc "data generate" --out data.toml
""",
)
def init(
    context: typer.Context,
    arc: Annotated[
        str,
        typer.Option(
            help="The command whose options are written: arc1, arc2, arc3, eval, measure, falsify, "
            'or another with --config, e.g. "data generate"'
        ),
    ] = "arc1",
    out: Annotated[Path, typer.Option(help="New file")] = Path("threearc.toml"),
) -> None:
    """Write a TOML file with every option of a command, its default and what it means.

    All lines are commented out: the file changes nothing until one is not. Then:
    `threearc arc1 --config threearc.toml`. Flags win over the file.
    """
    from arcs.cli.template import write

    write(context.find_root().command, arc, out)
