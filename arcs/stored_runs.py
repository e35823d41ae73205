"""The runs on disk: list, show, compare settings, remove."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from arcs.evaluate.report import COLOURS
from arcs.report import generic
from arcs.report.compare import differences
from arcs.report.parts import verdict_line
from arcs.report.stored import StoredRun
from arcs.runs import MANIFEST, METRICS, canonical_json
from models.errors import UserError


@dataclass(frozen=True)
class Summary:
    """One run in a list."""

    name: str
    path: str
    kind: str
    model: str | None
    state: str
    """``finished``, ``unfinished``, ``running``, or ``damaged``."""
    begun: str | None
    """Date of the first phase, UTC; None where no phase was begun."""
    verdicts: tuple[str, ...]
    """Of its claims, the run's own first."""
    bytes: int
    detail: str = ""
    """What is wrong with a damaged one."""


def runs_under(folder: Path) -> list[Path]:
    """The run directories in a folder, or the folder itself, in order of their names."""
    if (folder / MANIFEST).is_file():
        return [folder]
    try:
        return sorted(one for one in folder.iterdir() if (one / MANIFEST).is_file())
    except OSError as error:
        raise UserError(
            f"{folder}: no runs here ({error.strerror}); runs are made in ./runs, or give a folder"
        ) from None


def summary(path: Path) -> Summary:
    """What a list says of a run; one that cannot be read is listed as damaged, never left out."""
    name, size = path.resolve().name, size_of(path)
    try:
        run = StoredRun(path)
        verdicts = tuple(
            card.verdict for card in generic.claims_in(run.metrics or {}, main_only=True)
        )
        return Summary(
            name, str(path), run.kind, generic.model_name(run), state_of(path), _begun(run),
            verdicts, size,
        )  # fmt: skip
    except UserError as error:
        return Summary(name, str(path), "-", None, "damaged", None, (), size, str(error))


def state_of(path: Path) -> str:
    """Whether a run is finished, or a process works in it now."""
    if in_use(path):
        return "running"
    return "finished" if (path / METRICS).is_file() else "unfinished"


def in_use(path: Path) -> bool:
    """Whether another process holds the run's lock; no file is made to find out."""
    try:
        descriptor = os.open(path / ".lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def size_of(path: Path) -> int:
    """Bytes of all files; links are not followed."""
    found = 0
    for folder, _, names in os.walk(path):
        found += sum(os.lstat(Path(folder) / name).st_size for name in names)
    return found


def _begun(run: StoredRun) -> str | None:
    phases = (run.timing or {}).get("phases", {})
    starts = [start for phase in phases.values() for start in phase.get("starts", ())]
    return min(starts, default=None)


# -- the commands ---------------------------------------------------------------------------------


def list_runs(folder: Path, *, as_json: bool) -> None:
    """Print every run of a folder."""
    rows = [summary(path) for path in runs_under(folder)]
    if as_json:
        sys.stdout.write(canonical_json({"runs": [asdict(row) for row in rows]}))
        return
    console = Console(highlight=False, markup=False)
    if not rows:
        console.print(f"no runs in {folder}")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "kind", "model", "begun (UTC)", "state", "verdicts", "size"):
        whole = name in ("begun (UTC)", "verdicts", "size")
        justify: Literal["left", "right"] = "right" if name == "size" else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(
            Text(row.name), Text(row.kind), Text(row.model or "-"),
            Text((row.begun or "-")[:16].replace("T", " ")), Text(row.state),
            _verdicts(row.verdicts), Text(_size(row.bytes)),
        )  # fmt: skip
    console.print(table)
    for row in rows:
        if row.detail:
            console.print(f"{row.name}: {row.detail}", style="yellow")


def _verdicts(found: Sequence[str]) -> Text:
    text = Text("" if found else "-")
    for verdict, times in Counter(found).items():
        text.append(", " if text else "").append(verdict, style=COLOURS.get(verdict, ""))
        text.append(f" x{times}" if times > 1 else "")
    return text


def _size(number: int) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number} B"


def show(path: Path, *, as_json: bool) -> None:
    """Print one run: verdicts, settings, files."""
    run = StoredRun(path)
    _ = run.manifest  # of no run there is nothing to show
    found = summary(path)
    files = {
        str(one.relative_to(path)): one.lstat().st_size
        for one in sorted(path.rglob("*"))
        if one.is_file() and not one.name.startswith(".")
    }
    cards = list(generic.claims_in(run.metrics or {}, main_only=True))
    if as_json:
        document = {**asdict(found), "settings": generic.settings_of(run), "files": files,
                    "claims": [verdict_line(card) for card in cards]}  # fmt: skip
        sys.stdout.write(canonical_json(document))
        return
    console = Console(highlight=False, markup=False)
    console.print(
        f"{found.name}: {found.kind}, {found.model or '-'}, {found.state}, {_size(found.bytes)}, "
        f"begun {(found.begun or '-')[:16].replace('T', ' ')} UTC"
    )
    for card in cards:
        console.print(verdict_line(card), style=COLOURS.get(card.verdict, ""))
    _print_tree(console, "settings", generic.settings_of(run))
    _print_tree(console, "files", {name: _size(size) for name, size in files.items()})


def _print_tree(console: Console, title: str, values: Mapping[str, Any]) -> None:
    console.print(f"\n{title}", style="bold")
    width = max(map(len, values), default=0)
    for key, value in values.items():
        text = "-" if value is None else str(value)
        console.print(f"  {key:<{width}}  {text}", soft_wrap=True)


def diff(paths: Sequence[Path], *, as_json: bool) -> None:
    """Print what differs in how runs were made."""
    from arcs.report.command import names_apart

    if len(paths) < 2:
        raise UserError("threearc runs diff needs at least two runs")
    names = names_apart(paths)
    found = differences(
        {name: generic.made_with(StoredRun(path)) for name, path in zip(names, paths, strict=True)}
    )
    if as_json:
        rows = [
            {"setting": key, "values": dict(zip(names, values, strict=True))}
            for key, values in found.items()
        ]
        sys.stdout.write(canonical_json({"runs": names, "differences": rows}))
        return
    console = Console(highlight=False, markup=False)
    if not found:
        console.print("Nothing differs but dates and seconds.")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("setting", *names):
        table.add_column(Text(name), overflow="fold")
    for key, values in found.items():
        table.add_row(Text(key), *(Text(value) for value in values))
    console.print(table)


def remove(paths: Sequence[Path], *, yes: bool, as_json: bool) -> None:
    """Delete runs, all or none, after asking.

    Raises UserError for what is no run, for one that a process works in, and where nobody can be
    asked.
    """
    if not paths:
        raise UserError("threearc runs rm needs a run: threearc runs list shows them")
    for path in paths:
        _require_removable(path)
    found = [summary(path) for path in dict.fromkeys(one.resolve() for one in paths)]
    if not yes:
        _ask(found)
    for one in found:
        shutil.rmtree(one.path)
    if as_json:
        sys.stdout.write(canonical_json({"removed": [one.path for one in found]}))
    else:
        freed = sum(one.bytes for one in found)
        print(f"removed {len(found)} run{'s' if len(found) > 1 else ''}, {_size(freed)}")


def _require_removable(path: Path) -> None:
    if path.is_symlink():
        raise UserError(f"{path}: is a link; name the run itself")
    if not (path / MANIFEST).is_file():
        raise UserError(f"{path}: no run here (no {MANIFEST}); nothing is removed")
    if in_use(path):
        raise UserError(f"{path}: a threearc process is working in this run; nothing is removed")


def _ask(found: Sequence[Summary]) -> None:
    if not sys.stdin.isatty():
        raise UserError("threearc runs rm asks before it removes; without a terminal give --yes")
    for one in found:
        print(f"{one.path}: {one.kind}, {one.model or '-'}, {one.state}, {_size(one.bytes)}",
              file=sys.stderr)  # fmt: skip
    print("Remove for good? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing is removed")
