"""``threearc sidecar``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli import app
from arcs.cli.config_file import Config, Json

sidecars = typer.Typer(
    no_args_is_help=True, help="Hedge a frozen model's answers by a probe of its own state."
)
app.add_typer(sidecars, name="sidecar")


@sidecars.command(
    "fit",
    epilog="""
Examples:\n
  threearc sidecar fit --run runs/arc3-20260101-120000 --out my-sidecar\n
  threearc sidecar fit --run runs/arc3-20260101-120000 --out s --hedge "Perhaps: "
""",
)
def fit(
    run: Annotated[Path, typer.Option(help="A finished run of threearc arc3")],
    out: Annotated[Path, typer.Option(help="Folder of the sidecar")],
    hedge: Annotated[
        str | None, typer.Option(help="What is put in front of a doubtful answer")
    ] = None,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Make a sidecar of a run's probe and its gate, the threshold as chosen in training."""
    from arcs.arc3.sidecar_command import fit as work

    work(run, out, hedge, as_json=json_output)


@sidecars.command(
    "answer",
    epilog="""
Examples:\n
  threearc sidecar answer "What is the capital of Peru?" --sidecar my-sidecar\n
  threearc sidecar answer "Is tea a drink or a tool?" --sidecar my-sidecar --backend mlx --json
""",
)
def answer(
    question: Annotated[str, typer.Argument(help="What to ask")],
    sidecar: Annotated[Path, typer.Option(help="Folder made by threearc sidecar fit")],
    model: Annotated[
        str | None, typer.Option(help="Default: the one that it was fitted on", show_default=False)
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="auto (default), torch, mlx or gguf", show_default=False)
    ] = None,
    n_predict: Annotated[
        int | None, typer.Option(help="Token budget; default as fitted", show_default=False)
    ] = None,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Answer a question; a hedge goes in front where the gate doubts the answer."""
    from arcs.arc3.sidecar_command import answer as work

    work(question, sidecar, model=model, backend=backend, n_predict=n_predict, as_json=json_output)
