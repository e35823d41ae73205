"""``threearc consistency``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli import app
from arcs.cli.config_file import Config, Json


@app.command(
    epilog="""
Examples:\n
  threearc consistency\n
  threearc consistency --model Qwen3-0.6B --json\n
  threearc consistency --model path/to/model --bisect --out parting/
""",
)
def consistency(
    model: Annotated[
        str, typer.Option(help="Name (see threearc models), hub id or path")
    ] = "SmolLM2-135M-Instruct",
    prompts: Annotated[int, typer.Option(help="Texts compared, 1 to 20", min=1, max=20)] = 20,
    max_tokens: Annotated[int, typer.Option(help="Tokens a text", min=1)] = 128,
    bisect: Annotated[
        bool,
        typer.Option(
            "--bisect/--no-bisect", help="Name the first layer and module where engines part"
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for consistency.json, or for --bisect's reproduction"),
    ] = None,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Do MLX, PyTorch and llama.cpp agree on this machine, and within what?

    Compares every installed engine on one model in float32, one after the other, and exits
    with status 1 where a bound is broken.
    """
    from arcs.consistency import start

    start(
        model, prompts=prompts, max_tokens=max_tokens, bisect=bisect, out=out, as_json=json_output
    )
