"""``threearc bench``."""

from __future__ import annotations

from typing import Annotated

import typer

from arcs.cli import app


@app.command(
    epilog="""
Examples:\n
  threearc bench\n
  threearc bench train --engine torch\n
  threearc bench extract --rows 64 --json\n
  threearc bench generate --model Qwen3-0.6B --max-tokens 32
""",
)
def bench(
    work: Annotated[str, typer.Argument(help="generate, extract, train or all")] = "all",
    model: Annotated[
        str, typer.Option(help="Name (see threearc models), hub id or path")
    ] = "SmolLM2-135M-Instruct",
    engine: Annotated[str, typer.Option(help="torch, mlx or all")] = "all",
    prompts: Annotated[
        int, typer.Option(help="Texts generated at once, 1 to 20", min=1, max=20)
    ] = 8,
    max_tokens: Annotated[int, typer.Option(help="Tokens a generated text", min=1)] = 64,
    rows: Annotated[
        int, typer.Option(help="Rows of the built-in training data to extract and train on", min=8)
    ] = 24,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """How fast are generation, extraction and training here, beside the library's own calls?

    The same model, inputs, token counts and dtype (float32), by turns. Speed is reported and
    never judged: the exit status says only whether the work was done.
    """
    from arcs.bench.command import Request, start

    request = Request(work, model, prompts=prompts, max_tokens=max_tokens, rows=rows)
    start(request, engine=engine, as_json=json_output)
