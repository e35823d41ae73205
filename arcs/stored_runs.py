"""The runs on disk: list, show, compare settings, remove."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
from arcs.report.stored import StoredRun, as_damage
from arcs.report.view import ClaimCard, spelt
from arcs.runs import LOCK, MANIFEST, METRICS, TIMING, canonical_json
from models.errors import UserError

SWEEP = "sweep"


@dataclass(frozen=True)
class Summary:
    """One run in a list."""

    name: str
    path: str
    kind: str
    model: str | None
    state: str
    """``finished``, ``unfinished``, ``running``, or ``damaged``; of a sweep also ``finished, N
    failed``."""
    begun: str | None
    """Date of the first phase, UTC; None where no phase was begun."""
    verdicts: tuple[str, ...]
    """Of its claims, the run's own first."""
    bytes: int
    detail: str = ""
    """What is wrong with a damaged one."""


def runs_under(folder: Path) -> list[Path]:
    """The run directories in a folder, or the folder itself, in order of their names."""
    if is_run(folder):
        return [folder]
    try:
        return sorted(one for one in folder.iterdir() if is_run(one))
    except OSError as error:
        raise UserError(
            f"{folder}: no runs here ({error.strerror}); runs are made in ./runs, or give a folder"
        ) from None


def is_run(path: Path) -> bool:
    """Whether this is the folder of a run, be it damaged.

    Web pages, extensions and much else have a ``manifest.json`` as well: that of a run names its
    ``arc``. One that cannot be read is a run's where a file that only a run has lies beside it.
    """
    if not (path / MANIFEST).is_file():
        return False
    try:
        value = json.loads((path / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return any((path / name).is_file() for name in (LOCK, TIMING))
    return isinstance(value, dict) and isinstance(value.get("arc"), str)


def summary(path: Path) -> Summary:
    """What a list says of a run; one that cannot be read is listed as damaged, never left out."""
    name, size = path.resolve().name, size_of(path)
    try:
        run = StoredRun(path)
        verdicts = tuple(card.verdict for card in _main_claims(run))
        return Summary(
            name, str(path), run.kind, generic.model_name(run), _state(run), _begun(run),
            verdicts, size,
        )  # fmt: skip
    except UserError as error:
        return Summary(name, str(path), "-", None, "damaged", None, (), size, str(error))


def _main_claims(run: StoredRun) -> list[ClaimCard]:
    with as_damage(str(run.path / METRICS)):
        return list(generic.claims_in(run.metrics or {}, main_only=True))


def _state(run: StoredRun) -> str:
    """Whether a run is finished, or a process works in it now."""
    if in_use(run.path):
        return "running"
    if run.metrics is None:
        return "unfinished"
    failed = run.metrics.get("failed") if run.kind == SWEEP else 0
    return f"finished, {failed} failed" if failed else "finished"


def in_use(path: Path) -> bool:
    """Whether another process holds the lock of the run, or of one within it.

    A sweep that is killed leaves its cell at work. No file is made to find out.
    """
    return any(_is_held(Path(folder) / LOCK) for folder, _, names in os.walk(path) if LOCK in names)


def _is_held(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:  # gone since it was listed
        return False
    except OSError as error:
        raise UserError(f"{lock}: cannot be read ({error.strerror})") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def files_of(path: Path) -> Iterator[tuple[Path, int]]:
    """Every file within, and its bytes; links are not followed.

    What vanishes meanwhile is left out: a run at work writes files and renames them.
    """
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                found = (Path(folder) / name).lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
                yield Path(folder) / name, found.st_size


def size_of(path: Path) -> int:
    """Bytes of all files."""
    return sum(size for _, size in files_of(path))


def _begun(run: StoredRun) -> str | None:
    with as_damage(str(run.path / TIMING)):
        phases = (run.timing or {}).get("phases", {})
        starts = [start for phase in phases.values() for start in phase.get("starts", ())]
        first = min(starts, default=None)
        if not isinstance(first, str | None):
            raise TypeError(f"a date is text, not {first}")
        return first


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
            _plain(row.name), _plain(row.kind), _plain(row.model or "-"),
            _plain((row.begun or "-")[:16].replace("T", " ")), _plain(row.state),
            _verdicts(row.verdicts), Text(_size(row.bytes)),
        )  # fmt: skip
    console.print(table)
    for row in rows:
        if row.detail:
            console.print(_plain(f"{row.name}: {row.detail}"), style="yellow")


def _plain(text: str) -> Text:
    """Text of a file that anyone may have written: a terminal obeys none of it."""
    return Text(spelt(text))


def _verdicts(found: Sequence[str]) -> Text:
    text = Text("" if found else "-")
    for verdict, times in Counter(found).items():
        text.append(", " if text else "").append(spelt(verdict), style=COLOURS.get(verdict, ""))
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
        str(one.relative_to(path)): size
        for one, size in sorted(files_of(path))
        if not one.name.startswith(".")
    }
    cards = _main_claims(run)
    with as_damage(str(path / METRICS)):
        lines = [verdict_line(card) for card in cards]
    if as_json:
        document = {**asdict(found), "settings": generic.settings_of(run), "files": files,
                    "claims": lines}  # fmt: skip
        sys.stdout.write(canonical_json(document))
        return
    console = Console(highlight=False, markup=False)
    console.print(_plain(
        f"{found.name}: {found.kind}, {found.model or '-'}, {found.state}, {_size(found.bytes)}, "
        f"begun {(found.begun or '-')[:16].replace('T', ' ')} UTC"
    ))  # fmt: skip
    if found.detail:
        console.print(_plain(found.detail), style="yellow")
    for card, line in zip(cards, lines, strict=True):
        console.print(_plain(line), style=COLOURS.get(card.verdict, ""))
    _print_tree(console, "settings", generic.settings_of(run))
    _print_tree(console, "files", {name: _size(size) for name, size in files.items()})


def _print_tree(console: Console, title: str, values: Mapping[str, Any]) -> None:
    console.print(f"\n{title}", style="bold")
    width = max(map(len, values), default=0)
    for key, value in values.items():
        text = "-" if value is None else str(value)
        console.print(_plain(f"  {key:<{width}}  {text}"), soft_wrap=True)


def diff(paths: Sequence[Path], *, as_json: bool) -> None:
    """Print what differs in how runs were made."""
    from arcs.report.command import names_apart

    if len(paths) < 2:
        raise UserError("threearc runs diff needs at least two runs")
    names = names_apart(paths)
    with as_damage(", ".join(map(str, paths))):
        made = {name: generic.made_with(StoredRun(path))
                for name, path in zip(names, paths, strict=True)}  # fmt: skip
        found = differences(made)
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
        table.add_column(_plain(name), overflow="fold")
    for key, values in found.items():
        table.add_row(_plain(key), *map(_plain, values))
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
    for place, one in enumerate(found):
        try:
            shutil.rmtree(one.path)
        except OSError as error:
            raise UserError(_remains(error, found, place)) from None
    if as_json:
        sys.stdout.write(canonical_json({"removed": [one.path for one in found]}))
    else:
        freed = sum(one.bytes for one in found)
        print(f"removed {len(found)} run{'s' if len(found) > 1 else ''}, {_size(freed)}")


def _remains(error: OSError, found: Sequence[Summary], place: int) -> str:
    path = found[place].path
    left = sum(1 for _ in files_of(Path(path)))
    said = (
        f"{path}: cannot be removed whole ({error.strerror}: {error.filename}); {left} of its "
        "files remain: make that possible and remove the folder by hand"
    )
    for what, runs in (("removed", found[:place]), ("untouched", found[place + 1 :])):
        if runs:
            said += f"; {what}: {', '.join(one.path for one in runs)}"
    return said


def _require_removable(path: Path) -> None:
    if path.is_symlink():
        raise UserError(f"{path}: is a link; name the run itself")
    if not (path / MANIFEST).is_file():
        raise UserError(f"{path}: no run here (no {MANIFEST}); nothing is removed")
    if not is_run(path):
        raise UserError(f"{path}: no run here ({MANIFEST} is not of threearc); nothing is removed")
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
