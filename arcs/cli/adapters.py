"""``threearc adapters``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli import app
from arcs.cli.config_file import Config, Json

adapters = typer.Typer(
    help="Show LoRA adapters, convert them between PEFT, mlx-lm and llama.cpp, and merge them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(adapters, name="adapters")

_Adapter = Annotated[Path, typer.Argument(help="Adapter directory: PEFT's, mlx-lm's or ours.")]
_Model = Annotated[
    str | None,
    typer.Option(help="Base model: name, hub id or path. Default: the one the adapter names."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@adapters.command(epilog="Example: threearc adapters show runs/arc1/adapter --json")
def show(path: _Adapter, json_output: _Json = False) -> None:
    """Say what an adapter is: base, rank, scale, modules, size of the update. No engine needed."""
    from arcs.adapters import show as start

    start(path, as_json=json_output)


@adapters.command(
    epilog="""
Examples:\n
  threearc adapters export runs/arc1/adapter --to mlx --out adapter-mlx\n
  threearc adapters export adapter-mlx --to peft --out adapter-peft\n
  threearc adapters export runs/arc1/adapter --to gguf --out adapter-gguf --json
""",
)
def export(
    path: _Adapter,
    to: Annotated[str, typer.Option(help="mlx, gguf or peft")],
    out: Annotated[Path, typer.Option(help="New directory to write")],
    model: _Model = None,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Write an adapter for another program, and prove by logits that it computes the same.

    Exits with status 0 also where the proof could not be made (the engine is not installed):
    the output then says "unproven" and why. A failed proof leaves nothing behind.
    """
    from arcs.adapters import export as start

    start(path, to=to, out=out, model=model, as_json=json_output)


@adapters.command(
    epilog="""
Examples:\n
  threearc adapters merge runs/arc1/adapter --out merged\n
  threearc adapters merge runs/arc1/adapter --out merged-bf16 --dtype bfloat16
""",
)
def merge(
    path: _Adapter,
    out: Annotated[Path, typer.Option(help="New model directory to write")],
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16 or float16. Default: what the base is stored in."),
    ] = None,
    model: _Model = None,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Add an adapter to its base's weights: a complete Hugging Face directory, proven by logits.

    Sums are made in float32 and then rounded. Exits with status 0 also where the proof could
    not be made; the output then says "unproven" and why.
    """
    from arcs.adapters import merge as start

    start(path, out=out, dtype=dtype, model=model, as_json=json_output)
