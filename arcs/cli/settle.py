"""``threearc settle``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli import app
from arcs.cli.config_file import Config, Json


@app.command(
    epilog="""
Examples:\n
  threearc settle runs/eval-20260101-120000 --dry-run\n
  threearc settle runs/eval-20260101-120000\n
  threearc settle runs/arc1-20260101-120000 --data mbpp-tasks.jsonl --data small\n
  threearc settle runs/meter-20260101-120000 --max-items 60\n
  threearc settle runs/arc2-20260101-120000 --data recall --data meter-items.jsonl\n
  threearc settle runs/arc3-20260101-120000 --data recall\n
  threearc settle runs/eval-20260101-120000     (continue after a kill)
"""
)
def settle(
    run: Annotated[
        Path,
        typer.Argument(help="A finished run of eval, arc1, arc2, arc3, or of measure"),
    ],
    max_items: Annotated[
        int | None,
        typer.Option(
            help="Open this many new items at most (meter: of each axis); default: as many as the "
            "plan needs",
            min=1, show_default=False,
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="More items of the same kind: a JSONL file, or small, humaneval, recall; may be "
            "repeated",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan; write and run nothing")
    ] = False,
    config: Config = None,
    json_output: Json = False,
) -> None:  # fmt: skip
    """Decide what too few items left open: more of them, in looks, alpha spent over the looks.

    The plan is written and hashed before a new item is opened. Given again, the command goes on
    where it was stopped.
    """
    from arcs.settling.command import start

    start(run, max_items, tuple(data or ()), dry_run=dry_run, as_json=json_output)
