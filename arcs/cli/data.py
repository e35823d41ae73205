"""``threearc data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli import app
from arcs.cli.data_import import imports
from models.errors import UserError

data = typer.Typer(
    help="Show, check, split, compare and import data sets.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data, name="data")
data.add_typer(imports, name="import")

_Name = Annotated[
    str, typer.Argument(help="A set's name (see threearc data show), humaneval, or a file.")
]
_Kind = Annotated[
    str | None,
    typer.Option("--as", help="Kind of the file's records; default: told by its keys."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@data.command(
    epilog="""
Examples:\n
  threearc data show\n
  threearc data show chef_train --id chef-train-001\n
  threearc data show my.jsonl --limit 10 --json
"""
)
def show(
    name: Annotated[
        str | None, typer.Argument(help="A set's name or a file; none: all sets that ship.")
    ] = None,
    item: Annotated[str | None, typer.Option("--id", help="Show this record.")] = None,
    limit: Annotated[int | None, typer.Option(help="Show this many records.")] = None,
    kind: _Kind = None,
    json_output: _Json = False,
) -> None:
    """Say what a set is: records, author, licence, hash; without a name: all sets that ship."""
    from arcs.data.command import show as start

    start(name, kind=kind, item=item, limit=limit, as_json=json_output)


@data.command(epilog="Example: threearc data stats mcas --json")
def stats(name: _Name, kind: _Kind = None, json_output: _Json = False) -> None:
    """Count categories; measure lengths, diversity and near duplicates within."""
    from arcs.data.command import stats as start

    start(name, kind=kind, as_json=json_output)


@data.command(
    epilog="""
Examples:\n
  threearc data validate my.jsonl --as training\n
  threearc data validate folder --json
"""
)
def validate(
    path: Annotated[Path, typer.Argument(help="A JSONL file, or a folder of them.")],
    kind: _Kind = None,
    json_output: _Json = False,
) -> None:
    """List every bad line. Exits with status 1 when there is any."""
    from arcs.data.command import validate as start

    start(path, kind=kind, as_json=json_output)


@data.command(
    epilog="""
Examples:\n
  threearc data split my.jsonl --out parts\n
  threearc data split mcas --fractions 0.6,0.4 --names dev,test --stratify type --out parts
"""
)
def split(
    name: _Name,
    out: Annotated[Path, typer.Option(help="New folder for the parts and split.json.")],
    fractions: Annotated[str, typer.Option(help="Of the records, with commas.")] = "0.8,0.2",
    names: Annotated[str, typer.Option(help="Of the parts, with commas.")] = "train,test",
    seed: Annotated[int, typer.Option(min=0, help="Of the permutation.")] = 0,
    by: Annotated[
        str | None, typer.Option(help="Keep records with one value of this field together.")
    ] = None,
    stratify: Annotated[
        str | None, typer.Option(help="Hold the fractions within each value of this field.")
    ] = None,
    kind: _Kind = None,
    json_output: _Json = False,
) -> None:
    """Split a set by item id, near duplicates on one side, before anything is generated."""
    from arcs.data.command import make_split
    from arcs.data.splitting import Plan

    plan = Plan(_numbers(fractions), _words(names), seed, by, stratify)
    make_split(name, plan, kind=kind, out=out, as_json=json_output)


@data.command(
    "check-overlap",
    epilog="Example: threearc data check-overlap my-training.jsonl humaneval small_tasks",
)
def check_overlap(
    names: Annotated[
        list[str], typer.Argument(help="Two or more sets or files; humaneval is a set too.")
    ],
    kind: _Kind = None,
    json_output: _Json = False,
) -> None:
    """Find exact, near and partly equal prompts and answers. Exits with status 1 for any."""
    from arcs.data.command import check_overlap as start

    start(names, kind=kind, as_json=json_output)


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--fractions {text!r}: numbers with commas between are expected, e.g. 0.8,0.2"
        ) from None
