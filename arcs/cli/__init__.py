"""The ``threearc`` command. Each command module imports its work only when it is called."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
import typer.core

from arcs.cli.completion import prepare
from arcs.cli.config_file import begin, place
from models.errors import UserError

MEASURED = ("chef", "mcas", "recovery", "short-answers", "meter", "delivery")


class _Commands(typer.core.TyperGroup):
    """``eval chef`` is ``measure chef``: an instrument of dispositions, not a benchmark of code."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args[0] == "eval" and any(one in MEASURED for one in args[1:2]):
            args = ["measure", *args[1:]]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="threearc",
    cls=_Commands,
    help="Find out whether a behavioural edit of a small language model is real or an artifact.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        import importlib.metadata

        typer.echo(f"threearc {importlib.metadata.version('threearc')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version  # handled by the callback


def main(argv: list[str] | None = None) -> None:
    """Run the command line; a user's mistake ends in one line and exit status 2."""
    from arcs.cli import (  # registers the commands
        adapters,
        arc1,
        arc2,
        arc3,
        audit,
        bench,
        capsule,
        consistency,
        data,
        data_generate,
        doctor,
        evaluate,
        falsify,
        init,
        judge,
        measure,
        models,
        paper,
        report,
        reproduce,
        settle,
        sidecar,
        sweep,
    )

    del adapters, arc1, arc2, audit, bench, consistency, data, doctor, evaluate, measure, models
    del arc3, capsule, data_generate, falsify, init, judge, paper, report, reproduce, settle
    del sidecar, sweep
    begin()
    prepare(app)
    try:
        # typer reports its own usage errors and exits with their status
        app(args=argv, prog_name="threearc")
    except UserError as error:
        print("error: " + place(" ".join(str(error).split())), file=sys.stderr)
        sys.exit(2)
