"""``threearc measure``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from arcs.cli import app


@app.command(
    "measure",
    epilog="""
Examples:\n
  threearc measure meter\n
  threearc measure meter --adapter my-lora --temper L16H5=0.5 --axis hedging\n
  threearc measure short-answers --adapter my-lora --n-predict 64\n
  threearc measure --run runs/meter-20260101-120000     (continue after a kill)
""",
)
def measure(
    instrument: Annotated[
        str | None, typer.Argument(help="meter or short-answers", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Name (see threearc models), hub id or path", show_default=False),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="auto (default), torch or mlx", show_default=False)
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32 (default; the engines agree in it), bfloat16 or float16",
            show_default=False,
        ),
    ] = None,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(help="An adapter's directory; may be repeated", show_default=False),
    ] = None,
    temper: Annotated[
        list[str] | None,
        typer.Option(
            help="Scale heads, e.g. L16H5=0.5,L3H1=0; one condition each time",
            show_default=False,
        ),
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            help="Meter: hedging, self_checking or deferring; may be repeated, default all",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="This many items: meter, of each axis; short answers, in all", show_default=False
        ),
    ] = None,
    n_predict: Annotated[
        int | None,
        typer.Option(help="Short answers: token budget, default 48", show_default=False),
    ] = None,
    allow_overlap: Annotated[
        bool | None,
        typer.Option(
            "--allow-overlap",
            help="Go on where an adapter was trained on measured items; claims are INVALID then",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the new run", show_default=False)
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Continue this run where it was stopped", show_default=False),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout")
    ] = False,
) -> None:
    """Measure a base and its edits with an instrument that needs no judge.

    The meter reads from log-probabilities how a model inclines to hedge, to check itself and to
    defer. Short answers are 320 questions, answered greedily and compared exactly.
    """
    given: dict[str, Any] = {
        "instrument": instrument,
        "model": model,
        "backend": backend,
        "dtype": dtype,
        "adapters": tuple(adapter) if adapter else None,
        "tempers": tuple(temper) if temper else None,
        "axes": tuple(axis) if axis else None,
        "limit": limit,
        "n_predict": n_predict,
        "allow_overlap": allow_overlap,
    }
    from arcs.measure.command import start

    flags = {name: value for name, value in given.items() if value is not None}
    start(flags, out=out, run=run, as_json=json_output)
