"""``threearc bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from arcs.cli import app
from arcs.cli.config_file import Config, Json
from models.errors import UserError

if TYPE_CHECKING:
    from backends.interface import Dtype


@app.command(
    epilog="""
Examples:\n
  threearc bench\n
  threearc bench train --engine torch\n
  threearc bench extract --rows 64 --json\n
  threearc bench generate --model Qwen3-0.6B --max-tokens 32\n
  threearc bench eval --quant q4_k_m --engine none
""",
)
def bench(
    work: Annotated[
        str, typer.Argument(help="generate, extract, train, all (those three), or eval")
    ] = "all",
    model: Annotated[
        str, typer.Option(help="Name (see threearc models), hub id or path")
    ] = "SmolLM2-135M-Instruct",
    engine: Annotated[
        str, typer.Option(help="torch, mlx or all; eval: what llama.cpp is compared with, or none")
    ] = "all",
    prompts: Annotated[
        int | None,
        typer.Option(help="Texts generated, default 8 (of 20); eval: 16 (of 164)", min=1),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Tokens a generated text, default 64; eval: 128", min=1)
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(help="Rows of built-in training data to read, default 24", min=8),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32 (default), bfloat16 or float16; eval has its own"),
    ] = None,
    quant: Annotated[
        str | None,
        typer.Option(help="eval: original, f16, q8_0 (default), q5_k_m or q4_k_m"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="eval: default one a physical core", min=1)
    ] = None,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """How fast are generation, extraction, training and evaluation, beside the plain libraries?

    The same model, inputs and token counts, by turns. Speed is reported and never judged: the
    exit status says only whether the work was done.
    """
    other = (
        {"rows": rows, "dtype": dtype} if work == "eval" else {"quant": quant, "threads": threads}
    )
    for name, value in other.items():
        if value is not None:
            raise UserError(f"--{name} means nothing to bench {work}: leave it out")
    if work == "eval":
        from arcs.bench import evaluation_command as evaluation

        asked = evaluation.EvalRequest(
            model=model,
            quantisation=quant or evaluation.QUANTISATION,
            engine=engine,
            prompts=prompts or evaluation.PROMPTS,
            max_tokens=max_tokens or evaluation.MAX_TOKENS,
            threads=threads,
        )
        evaluation.start(asked, as_json=json_output)
        return
    from arcs.bench.command import Request, start

    request = Request(
        work,
        model,
        prompts=prompts or 8,
        max_tokens=max_tokens or 64,
        rows=rows or 24,
        dtype=cast("Dtype", dtype or "float32"),
    )
    start(request, engine=engine, as_json=json_output)
