"""``threearc bench``."""

from __future__ import annotations

from typing import Annotated

import typer

from arcs.cli import app


@app.command(
    epilog="""
Examples:\n
  threearc bench\n
  threearc bench --engine mlx --json\n
  threearc bench --model Qwen3-0.6B --max-tokens 32
""",
)
def bench(
    model: Annotated[
        str, typer.Option(help="Name (see threearc models), hub id or path")
    ] = "SmolLM2-135M-Instruct",
    engine: Annotated[str, typer.Option(help="torch, mlx or all")] = "all",
    prompts: Annotated[int, typer.Option(help="Texts in the batch, 1 to 20", min=1, max=20)] = 8,
    max_tokens: Annotated[int, typer.Option(help="Tokens a text", min=1)] = 64,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """How fast are generation and extraction here, beside the library's own calls?

    The same model, prompts, token counts and dtype (float32), by turns. Speed is reported and
    never judged: the exit status says only whether the work was done.
    """
    from arcs.bench import start

    start(model, engine=engine, prompts=prompts, max_tokens=max_tokens, as_json=json_output)
