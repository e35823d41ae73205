"""Every cell checked by its own command, up to where it would begin its run."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arcs import runs
from arcs.runs import canonical_json
from arcs.sweep.grid import Cell
from arcs.sweep.options import Commands, arguments
from models.errors import UserError


def check(cells: Sequence[Cell], commands: Commands, folder: Path) -> dict[str, dict[str, Any]]:
    """The resolved settings of every cell, by name; nothing is written.

    Raises UserError, with the cell's name, where one cannot be run as it is asked for, and where
    two are one and the same run.
    """
    found: dict[str, dict[str, Any]] = {}
    seen: dict[str, str] = {}
    for cell in cells:
        try:
            manifest = _planned(cell, commands, folder)
            _require_model(manifest.get("config") or {})
        except UserError as error:
            raise UserError(f"cell {cell.name}: {error}") from None
        config = dict(manifest.get("config") or {})
        text = canonical_json([cell.arc, config])
        if text in seen:
            raise UserError(f"cells {seen[text]} and {cell.name} are the same run; leave one out")
        seen[text] = cell.name
        found[cell.name] = config
    return found


def _planned(cell: Cell, commands: Commands, folder: Path) -> Mapping[str, Any]:
    """The manifest that the cell's command would begin with."""
    import typer.main

    from arcs.cli import app
    from arcs.cli.config_file import begin, place, that_sets

    argv = [cell.arc, *arguments(commands[cell.arc], cell.settings), f"--out={folder / cell.name}"]
    begin()
    try:
        with runs.planning(), _quietly():
            typer.main.get_command(app).main(args=argv, standalone_mode=False)
    except runs.Planned as planned:
        if (file := that_sets("out")) is not None:  # a continued run would refuse it
            raise UserError(f"{file} has out, which the sweep sets for each cell; take it out "
                            "there") from None  # fmt: skip
        return planned.manifest
    except UserError as error:
        raise UserError(place(" ".join(str(error).split()))) from None
    except SystemExit as ended:
        raise UserError(f"threearc {cell.arc} ended with status {ended.code}") from None
    except Exception as error:
        said = getattr(error, "format_message", None)  # a mistake in the arguments
        if said is None:
            raise
        raise UserError(" ".join(str(said()).split())) from None
    finally:
        begin()  # or a later mistake would be put down to this cell's file
    raise UserError(f"with these options threearc {cell.arc} begins no run")


def _require_model(config: Mapping[str, Any]) -> None:
    """Raise UserError for a model that cannot be found; one of the hub is not asked for yet."""
    from models.store import require_findable

    if isinstance(config.get("model"), str):
        require_findable(config["model"])


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """What a command says before it begins is said again when it runs."""
    tried = os.environ.get("THREEARC_BLAS_TRIED")
    os.environ["THREEARC_BLAS_TRIED"] = "1"  # or MLX's command would start this process anew
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        if tried is None:
            del os.environ["THREEARC_BLAS_TRIED"]
        else:
            os.environ["THREEARC_BLAS_TRIED"] = tried
