"""``threearc data generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from arcs.cli.config_file import Config
from arcs.cli.data import data

_WHAT, _WHO = "What is made", "Who makes it"


def _option(*names: str, panel: str | None, help: str) -> Any:
    return typer.Option(*names, rich_help_panel=panel, help=help, show_default=False)


@data.command(
    epilog="""
Examples:\n
  threearc data generate --profile quick --out generated\n
  threearc data generate --teachers teachers.toml --require-licence mit --budget 5\n
  threearc data generate --teachers paper --profile paper --out chef\n
  threearc data generate --run generated     (continue after a kill, or with more credit)
"""
)
def generate(
    profile: Annotated[
        str | None,
        _option("--profile", panel=_WHAT, help="quick, standard (default), paper: sizes"),
    ] = None,
    out: Annotated[
        Path | None, _option("--out", panel=None, help="Directory of the new run")
    ] = None,
    run: Annotated[
        Path | None, _option("--run", panel=None, help="Continue this run where it was stopped")
    ] = None,
    teachers: Annotated[
        str | None,
        _option(
            "--teachers",
            panel=_WHO,
            help="embedded (default, offline), paper, or a TOML file (docs/generate.md)",
        ),
    ] = None,
    require_licence: Annotated[
        str | None,
        _option(
            "--require-licence",
            panel=_WHO,
            help="Refuse teachers with any other, e.g. mit; modified-mit is another",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        _option("--budget", panel=_WHO, help="US dollars for all endpoints together"),
    ] = None,
    serial: Annotated[
        bool | None, _option("--serial/--no-serial", panel=_WHO, help="Stage 3 sees stage 2, too")
    ] = None,
    prompts: Annotated[
        Path | None,
        _option("--prompts", panel=_WHAT, help="Your own prompts (JSONL, kind prompt)"),
    ] = None,
    kind: Annotated[
        str | None,
        _option(
            "--kind",
            panel=_WHAT,
            help="Domain of the records, default cooking; else with --prompts",
        ),
    ] = None,
    seed: Annotated[int | None, _option("--seed", panel=_WHAT, help="Default 0")] = None,
    held_out: Annotated[
        float | None, _option("--held-out", panel=_WHAT, help="Share of the prompts, default 0.15")
    ] = None,
    gold: Annotated[int | None, _option("--gold", panel=_WHAT, help="Gold answers")] = None,
    failure_traces: Annotated[
        int | None, _option("--failure-traces", panel=_WHAT, help="Attempt, critique, correction")
    ] = None,
    counterexamples: Annotated[
        int | None, _option("--counterexamples", panel=_WHAT, help="Preference pairs")
    ] = None,
    boundary: Annotated[
        int | None, _option("--boundary", panel=_WHAT, help="Questions without a definite answer")
    ] = None,
    fresh: Annotated[
        int | None, _option("--fresh", panel=_WHAT, help="Prompts of another generator")
    ] = None,
    config: Config = None,
    json_output: Annotated[
        bool,
        _option(
            "--json/--no-json",
            panel=None,
            help="Print one JSON document on stdout",
        ),
    ] = False,
) -> None:
    """Have teachers write training data: four stages, failures, pairs, boundary cases; filtered."""
    from arcs.teachers.command import start

    flags = {
        "profile": profile, "teachers": teachers, "require_licence": require_licence,
        "budget": budget, "serial": serial, "prompts": prompts, "kind": kind, "seed": seed,
        "held_out": held_out, "gold": gold, "failure_traces": failure_traces,
        "counterexamples": counterexamples, "boundary": boundary, "fresh": fresh,
    }  # fmt: skip
    given = {name: value for name, value in flags.items() if value is not None}
    start(given, out=out, run=run, as_json=json_output)
