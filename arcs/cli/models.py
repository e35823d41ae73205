"""``threearc models``."""

from __future__ import annotations

from typing import Annotated

import typer

from arcs.cli import app


@app.command(epilog="Example: threearc models --json")
def models(
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the models threearc knows by name, and what is on disk."""
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from models.listing import listing

    rows = [asdict(row) for row in listing()]
    if json_output:
        typer.echo(json.dumps({"models": rows}, sort_keys=True, indent=1, default=str))
        return
    table = Table(title="Models threearc knows by name")
    for name in ("name", "parameters", "family", "licence", "on disk", "hub id"):
        table.add_column(name, justify="right" if name == "parameters" else "left")
    for row in rows:
        table.add_row(
            row["name"],
            _count(row["parameters"]),
            row["family"],
            row["licence"],
            row["state"] + (f", {_count(row['size'])}B" if row["size"] else ""),
            (row["hub_id"] or "") + (" (gated)" if row["gated"] else ""),
        )
    console = Console(highlight=False)
    console.print(table)
    for row in rows:
        if row["notes"]:
            console.print(f"{row['name']}: {row['notes']}", style="dim", soft_wrap=True)
    console.print("A hub id, a local Hugging Face directory or a .gguf path works as well.")


def _count(number: int | None) -> str:
    if number is None:
        return "?"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
