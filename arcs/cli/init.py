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
  threearc init arc3 --out arc3.toml\n
  threearc init data generate --out data.toml
""",
)
def init(
    context: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND]",
            help="The command whose options are written, default arc1; any with --config, e.g. "
            "eval, or of two words, e.g. data generate",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="New file")] = Path("threearc.toml"),
) -> None:
    """Write a TOML file with every option of a command, its default and what it means.

    All lines are commented out: the file changes nothing until one is not. Then:
    `threearc arc1 --config threearc.toml`. Flags win over the file.
    """
    from arcs.cli.template import write

    write(context.find_root().command, " ".join(command or ["arc1"]), out)
