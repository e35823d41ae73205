"""``threearc models``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli import app
from arcs.cli.config_file import Config, Json

models = typer.Typer(
    help="List the models threearc knows by name; export one as GGUF.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: threearc models --json",
)
app.add_typer(models, name="models")

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@models.callback()
def _models(context: typer.Context, json_output: _Json = False) -> None:
    """List the models threearc knows by name, and what is on disk."""
    if context.invoked_subcommand is None:
        _list(json_output)


@models.command(
    epilog="""
Examples:\n
  threearc models export SmolLM2-135M-Instruct --out smollm2.gguf\n
  threearc models export merged --quant q4_k_m --out merged-q4.gguf     (threearc adapters merge)
""",
)
def export(
    model: Annotated[str, typer.Argument(help="Name, hub id or path.")],
    out: Annotated[Path, typer.Option(help="New file to write, *.gguf")],
    to: Annotated[str, typer.Option(help="gguf")] = "gguf",
    quant: Annotated[str, typer.Option(help="f32, f16, q8_0, q5_k_m, q4_k_m")] = "q8_0",
    tokenizer: Annotated[
        bool, typer.Option(help="Without: weights only, token ids in, token ids out.")
    ] = True,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Write a model for llama.cpp or Ollama, with its tokenizer and chat template.

    The tokenizer is compared with the model's own on varied texts; where ids differ nothing is
    written. A tokenizer of a kind that llama.cpp does not have is left out, which is said.
    """
    from arcs.model_export import export as start

    start(model, to=to, quant=quant, out=out, with_tokenizer=tokenizer, as_json=json_output)


def _list(json_output: bool) -> None:
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from models.hub import unfinished_downloads
    from models.listing import listing

    rows, unfinished = [asdict(row) for row in listing()], unfinished_downloads()
    if json_output:
        left = [{"path": path, "bytes": size} for path, size in unfinished]
        document = {"models": rows, "unfinished_downloads": left}
        typer.echo(json.dumps(document, sort_keys=True, indent=1, default=str))
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
    if unfinished:
        console.print(_left_behind(unfinished), soft_wrap=True, markup=False)


def _left_behind(unfinished: list[tuple[Path, int]]) -> str:
    import shlex

    total, folders = sum(size for _, size in unfinished), {path.parent for path, _ in unfinished}
    files = " ".join(f"{shlex.quote(str(folder))}/*.incomplete" for folder in sorted(folders))
    return (
        f"{len(unfinished)} unfinished download(s), {_count(total)}B, which no later try goes on "
        f"with: if none is running now, free the space with: rm {files}"
    )


def _count(number: int | None) -> str:
    if number is None:
        return "?"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
