"""``threearc doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from arcs.cli import app


@app.command(epilog="Examples: threearc doctor; threearc doctor --json")
def doctor(
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say what works on this machine, what does not, and why.

    Engines and their devices, dtypes tried and timed, GPUs left unused, the sandbox for
    model-written code, memory and the models that fit, disk, limits. Exits with status 1
    when no engine works.
    """
    from arcs.doctor.command import start

    start(as_json=json_output)
