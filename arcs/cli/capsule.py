"""``threearc capsule`` and ``threearc verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli import app
from arcs.cli.config_file import Config, Json


@app.command(epilog="Example: threearc capsule runs/arc3-20260101-120000 --out claim.json")
def capsule(
    run: Annotated[
        Path,
        typer.Argument(help="Finished run of arc1, arc2, arc3, eval, falsify, or of measure meter "
                       "or short-answers"),
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: capsule.json in the run",
                                  show_default=False)
    ] = None,
    json_output: Json = False,
) -> None:  # fmt: skip
    """One file of what a run's claim rests on: ids, hashes, gates, labels, readings, verdicts."""
    from arcs.capsules.command import capsule as start

    start(run, out, as_json=json_output)


@app.command(
    epilog="""
Examples:\n
  threearc verify claim.json\n
  threearc verify claim.json --backend mlx --sample 40\n
  threearc verify claim.json --backend gguf --quant q8_0\n
  threearc verify claim.json --adapter my-lora
"""
)
def verify(
    file: Annotated[Path, typer.Argument(help="A capsule")],
    model: Annotated[
        str | None,
        typer.Option(help="Where that model is here; default: as in the run", show_default=False),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="auto (default), torch, mlx or gguf", show_default=False)
    ] = None,
    quant: Annotated[
        str | None, typer.Option(help="Of a gguf: f32 (default), f16, q8_0, ...",
                                 show_default=False)
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16 or float16; default: the run's", show_default=False),
    ] = None,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(
            help="An adapter of the run, known by its hash: replay its arm too; may be repeated",
            show_default=False,
        ),
    ] = None,
    allow_weak_sandbox: Annotated[
        bool | None,
        typer.Option(
            "--allow-weak-sandbox/--no-allow-weak-sandbox",
            help="Run model-written code with resource limits only, where nothing better is there",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[int, typer.Option(help="Answers to replay")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample")] = 0,
    config: Config = None,
    json_output: Json = False,
) -> None:  # fmt: skip
    """Replay a random sample of a capsule here, and say what reproduces, and to what tolerance.

    Ends with status 1 where its numbers, words, verdict or labels, or states, answers and readings
    in a dtype that promises them, do not come out.
    """
    from arcs.capsules.command import verify as start

    given = {
        "model": model,
        "backend": backend,
        "quant": quant,
        "dtype": dtype,
        "adapters": tuple(adapter) if adapter else None,
        "allow_weak_sandbox": allow_weak_sandbox,
    }
    flags = {name: value for name, value in given.items() if value is not None}
    start(file, flags, sample=sample, seed=seed, as_json=json_output)
