"""``threearc judge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli import app

judges = typer.Typer(no_args_is_help=True, help="Judges, and how far they can be believed.")
app.add_typer(judges, name="judge")


@judges.command(
    "validate",
    epilog="""
Examples:\n
  threearc judge validate\n
  threearc judge validate --judge gguf --model SmolLM2-1.7B-Instruct --instrument coverage\n
  threearc judge validate --judge api --url http://localhost:8000/v1 --model my-model --json\n
  threearc judge validate --judge recorded:labels.jsonl
""",
)
def validate(
    judge: Annotated[str, typer.Option(help="lexical, gguf, api, or recorded:FILE")] = "lexical",
    instrument: Annotated[
        list[str] | None,
        typer.Option(
            help="coverage, delivery, certainty, rubric.AXIS, mcas.holistic, mcas.AXIS; may be "
            "repeated; default: all that the judge applies",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Of gguf and api judges", show_default=False)
    ] = None,
    quant: Annotated[
        str | None, typer.Option(help="Of a gguf judge, default q8_0", show_default=False)
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Base URL of an api judge", show_default=False)
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="llama.cpp threads", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="References of each instrument", show_default=False)
    ] = None,
    repeats: Annotated[
        bool, typer.Option(help="Ask again, and with the answers listed in reverse")
    ] = True,
    cache: Annotated[
        Path | None,
        typer.Option(help="SQLite file of labels once made, shared by runs", show_default=False),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout")
    ] = False,
) -> None:
    """Compare a judge with the references that ship with threearc, and hold it to its bar.

    A claim that rests on a judge below the bar is INVALID.
    """
    from arcs.judging.command import start

    start(
        judge=judge, instruments=tuple(instrument or ()), model=model, quant=quant, url=url,
        threads=threads, limit=limit, repeats=repeats, cache=cache, as_json=json_output,
    )  # fmt: skip
