"""``threearc audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli import app
from arcs.cli.config_file import Config, Json


@app.command(
    epilog="""
Examples:\n
  threearc audit runs/arc1-20260101-120000\n
  threearc audit logs/2026-01-01_humaneval.eval          (inspect_ai)\n
  threearc audit output/my-model/                        (lm-evaluation-harness samples)\n
  threearc audit results.csv --columns item_id=task,response=output,passed=ok\n
  threearc audit results/ --only truncated-responses --json
""",
)
def audit(
    path: Annotated[
        Path | None, typer.Argument(help="Run directory, folder, log or table", show_default=False)
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(help="field=column pairs for a table, with commas between or repeated"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Run this audit only; may be repeated")
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(help="Exit with status 1 at this severity or worse", show_default=False),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full/--no-full", help="Show every place of a finding")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Also write audit.json into this folder")] = None,
    list_audits: Annotated[bool, typer.Option("--list", help="List the audits and exit.")] = False,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Look for known artifact patterns in anyone's results.

    Reads our runs, inspect_ai logs, lm-evaluation-harness samples, evalplus results, the
    paper's files, and CSV, JSON, JSONL or NPZ tables. An audit.toml in a folder says what
    its files are.
    """
    from arcs.audits import command

    if list_audits:
        command.list_audits(json_output)
        return
    command.start(
        path,
        columns=columns or [],
        only=only or [],
        fail_on=fail_on,
        out=out,
        as_json=json_output,
        full=full,
    )
