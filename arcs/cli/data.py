"""``threearc data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli import app
from arcs.cli.config_file import Config, Json
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


@data.command(
    epilog="""
Examples:\n
  threearc data stats mcas --json\n
  threearc data stats dispositions_code --model SmolLM2-135M-Instruct --max-length 512
"""
)
def stats(
    name: _Name,
    kind: _Kind = None,
    model: Annotated[
        str | None,
        typer.Option(help="Of training data: count tokens as this model's trainer does."),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens above which a record is too long; 1024.")
    ] = None,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Count categories; measure lengths, diversity, style, licences, near duplicates within."""
    from arcs.data.command import stats as start

    start(name, kind=kind, model=model, max_length=max_length, as_json=json_output)


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
    config: Config = None,
    json_output: Json = False,
) -> None:
    """List every bad line, and of a generated folder what does not fit. Exits 1 for any."""
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
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Split a set by item id, near duplicates on one side, before anything is generated."""
    from arcs.data.command import make_split
    from arcs.data.splitting import Plan

    plan = Plan(_numbers(fractions), _words(names), seed, by, stratify)
    make_split(name, plan, kind=kind, out=out, as_json=json_output)


@data.command(
    epilog="""
Examples:\n
  threearc data mix generated/records/gold.jsonl dispositions_cooking:100 --out mixed.jsonl\n
  threearc data mix a.jsonl:0.5 b.jsonl --one-per-prompt --out mixed.jsonl
"""
)
def mix(
    names: Annotated[
        list[str],
        typer.Argument(help="Two or more training sets or files, each with :N records or :SHARE."),
    ],
    out: Annotated[Path, typer.Option(help="New file.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the permutations.")] = 0,
    one_per_prompt: Annotated[
        bool,
        typer.Option(
            "--one-per-prompt/--no-one-per-prompt",
            help="Pass over prompts that an earlier set has.",
        ),
    ] = False,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Mix training files in stated amounts; the mixture is described beside it."""
    from arcs.data.command import mix_sets

    mix_sets(names, seed=seed, out=out, one_per_prompt=one_per_prompt, as_json=json_output)


@data.command(
    "check-overlap",
    epilog="Example: threearc data check-overlap my-training.jsonl humaneval small_tasks",
)
def check_overlap(
    names: Annotated[
        list[str], typer.Argument(help="Two or more sets or files; humaneval is a set too.")
    ],
    kind: _Kind = None,
    config: Config = None,
    json_output: Json = False,
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
