"""``threearc data import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli.config_file import Config, Json
from models.errors import UserError

imports = typer.Typer(
    help="Bring other people's data into threearc's records.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Path = Annotated[Path, typer.Argument(help="The file to read.")]
_As = Annotated[
    str, typer.Option("--as", help="Kind of record to make, e.g. training, prompt, label.")
]
_Out = Annotated[Path, typer.Option(help="JSONL file to write; *.meta.json is written beside it.")]
_Map = Annotated[
    str, typer.Option("--map", help="FIELD=COLUMN,... for columns of another name than the field.")
]
_Set = Annotated[
    list[str] | None, typer.Option("--set", help="FIELD=VALUE for every record; may be repeated.")
]
_MakeIds = Annotated[
    str | None, typer.Option(help="Make ids of this and the row's number, e.g. my -> my-0007.")
]
_KeepGood = Annotated[
    bool,
    typer.Option("--keep-good/--no-keep-good", help="Write the good rows in spite of bad ones."),
]
_Author = Annotated[str | None, typer.Option(help="Who wrote the prompts.")]
_Licence = Annotated[str | None, typer.Option(help="Licence of the data.")]


@imports.command(
    epilog="""
Example:\n
  threearc data import csv questions.csv --as short_answer --map prompt=question,id=qid
  --set domain=cooking --set kind=mine --list-separator "|" --out questions.jsonl
"""
)
def csv(
    path: _Path,
    kind: _As,
    out: _Out,
    mapped: _Map = "",
    constants: _Set = None,
    make_ids: _MakeIds = None,
    list_separator: Annotated[
        str | None, typer.Option(help="Between the texts of one cell of a list field.")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Between cells; default a comma, a tab for *.tsv.")
    ] = None,
    keep_good: _KeepGood = False,
    author: _Author = None,
    licence: _Licence = None,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Read a CSV file with a header. Every bad row is listed; exits with status 1 for any."""
    from arcs.data.columns import Columns, pairs_of
    from arcs.data.importing import table

    _once("--list-separator", list_separator)
    columns = Columns(
        pairs_of("--map", mapped) if mapped else {},
        pairs_of("--set", constants or []),
        make_ids,
        list_separator,
        delimiter,
    )
    table(
        path, form="csv", kind=kind, columns=columns, out=out, keep_good=keep_good,
        author=author, licence=licence, as_json=json_output,
    )  # fmt: skip


@imports.command(
    epilog="Example: threearc data import jsonl sft.jsonl --as training "
    "--map prompt=instruction,response=output --make-ids sft --out sft-records.jsonl"
)
def jsonl(
    path: _Path,
    kind: _As,
    out: _Out,
    mapped: _Map = "",
    constants: _Set = None,
    make_ids: _MakeIds = None,
    keep_good: _KeepGood = False,
    author: _Author = None,
    licence: _Licence = None,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Read a JSONL file. Every bad line is listed; exits with status 1 for any."""
    from arcs.data.columns import Columns, pairs_of
    from arcs.data.importing import table

    columns = Columns(
        pairs_of("--map", mapped) if mapped else {}, pairs_of("--set", constants or []), make_ids
    )
    table(
        path, form="jsonl", kind=kind, columns=columns, out=out, keep_good=keep_good,
        author=author, licence=licence, as_json=json_output,
    )  # fmt: skip


@imports.command(
    epilog="Example: threearc data import mbpp mbpp.jsonl --out mbpp-tasks.jsonl --check"
)
def mbpp(
    path: _Path,
    out: _Out,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check", help="Run each solution on its own tests in the sandbox."
        ),
    ] = False,
    allow_weak_sandbox: Annotated[
        bool,
        typer.Option(
            "--allow-weak-sandbox/--no-allow-weak-sandbox",
            help="Run the solutions with resource limits only.",
        ),
    ] = False,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Turn MBPP (or its sanitized file) into small tasks; what cannot be turned is listed."""
    from arcs.data.importing import mbpp as start

    start(path, out=out, check=check, allow_weak_sandbox=allow_weak_sandbox, as_json=json_output)


@imports.command(
    epilog="""
Examples:\n
  threearc data import paper --download --out paper\n
  threearc data import paper path/to/disposition-distillation --out paper
"""
)
def paper(
    out: Annotated[Path, typer.Option(help="New folder for the files.")],
    folder: Annotated[
        Path | None,
        typer.Argument(help="The paper's published files, or a checkout of its repository."),
    ] = None,
    download: Annotated[
        bool,
        typer.Option(
            "--download/--no-download", help="Fetch the files from the paper's repository once"
        ),
    ] = False,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Import the paper's 793 prompts, with its answers and labels as recorded judgements."""
    from arcs.data.paper_command import start

    start(folder, download=download, out=out, as_json=json_output)


def _once(flag: str, value: str | None) -> None:
    if value is not None and not value:
        raise UserError(f"{flag}: at least one character is needed")
