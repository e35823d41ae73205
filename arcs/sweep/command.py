"""What ``threearc sweep`` does with its flags: check, run the cells, merge."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from arcs import provenance
from arcs.continuing import continuable
from arcs.gates import load_gates
from arcs.progress import Reporter
from arcs.report.writing import write_report
from arcs.runs import (
    METRICS,
    JsonLines,
    RunDirectory,
    canonical_json,
    default_path,
    read_manifest,
    write_text_atomically,
)
from arcs.sweep import executors
from arcs.sweep.executors import Resources
from arcs.sweep.grid import Cell, read, to_toml
from arcs.sweep.options import arguments, sweepable
from arcs.sweep.plan import check
from arcs.sweep.report import render
from arcs.sweep.results import CELLS, results
from arcs.sweep.running import Outcome, Task, command_of
from models import files
from models.errors import UserError

KIND, LOGS, RECORD = "sweep", "logs", "cells.jsonl"
RESOLVED, GIVEN = "sweep.toml", "given.toml"
FAILED = 1
"""Exit status where a cell failed."""


@dataclass(frozen=True)
class Sweep:
    """All cells, and where they run."""

    cells: tuple[Cell, ...]
    resolved: Mapping[str, Mapping[str, Any]]
    """Settings as each command resolved them, by cell."""
    cwd: Path
    alpha: float

    def to_json(self) -> dict[str, Any]:
        """The sweep's settings, for its manifest."""
        cells = [{**one.to_json(), "resolved": self.resolved[one.name]} for one in self.cells]
        return {"cells": cells, "cwd": str(self.cwd), "alpha": self.alpha}


def start(
    file: Path | None,
    *,
    out: Path | None,
    run: Path | None,
    dry_run: bool,
    as_json: bool,
    executor: str,
    resources: Resources,
) -> None:
    """Begin a sweep or continue one, and print what it gave. Exits with 1 where a cell failed."""
    executors.require_executor(executor, resources)
    reporter = Reporter()
    if run is not None:
        if file is not None or out is not None:
            raise UserError("--run continues a sweep as it was begun: leave FILE and --out out")
        sweep, given = _stored(run), None
        if dry_run:
            _show_plan(sweep, run, as_json)
            return
        directory = RunDirectory.resume(run)
        directory.extend_manifest(versions=provenance.versions())
        directory.require_same_commit(provenance.code_state())
    else:
        if file is None:
            raise UserError("give a sweep file, or --run; docs/sweep.md shows one")
        path = (out if out is not None else default_path(KIND)).absolute()
        sweep, given = _asked(file, path)
        if dry_run:
            _show_plan(sweep, path, as_json)
            return
        manifest = provenance.first_manifest(KIND, sweep.to_json(), sys.argv)
        directory = RunDirectory.create(path, manifest)
    with directory:
        _go(sweep, given, directory, reporter, executor, resources, as_json)


def _asked(file: Path, path: Path) -> tuple[Sweep, bytes]:
    """The sweep that a file asks for, and the file."""
    commands = sweepable()
    cells, given = read(file, commands)
    resolved = check(cells, commands, path / CELLS)
    return Sweep(cells, resolved, Path.cwd(), load_gates().test.alpha), given


def _stored(run: Path) -> Sweep:
    """Raises UserError where ``run`` is no sweep, or the folder it was begun in is gone."""
    manifest = read_manifest(run)
    config = manifest.get("config")
    if manifest.get("arc") != KIND or not isinstance(config, dict):
        raise UserError(f"--run {run}: not a sweep; continue it with threearc "
                        f"{manifest.get('arc')} --run")  # fmt: skip
    rows = config["cells"]
    cells = tuple(Cell(one["name"], one["arc"], one["settings"]) for one in rows)
    commands = sweepable()
    for cell in cells:
        if cell.arc not in commands or not cell.settings.keys() <= commands[cell.arc].keys():
            raise UserError(f"--run {run}: cell {cell.name}: this threearc has not all its options")
    cwd = Path(config["cwd"])
    if not cwd.is_dir():
        raise UserError(f"--run {run}: it was begun in {cwd}, where its relative paths start, and "
                        "that folder is gone")  # fmt: skip
    resolved = {one["name"]: one["resolved"] for one in rows}
    return Sweep(cells, resolved, cwd, config["alpha"])


def _keep_files(path: Path, sweep: Sweep, given: bytes | None) -> None:
    (path / LOGS).mkdir(exist_ok=True)
    if not (path / RESOLVED).exists():
        write_text_atomically(path / RESOLVED, to_toml(sweep.cells))
    if given is not None:
        files.write_atomically(path / GIVEN, given)


def _go(
    sweep: Sweep,
    given: bytes | None,
    directory: RunDirectory,
    reporter: Reporter,
    executor: str,
    resources: Resources,
    as_json: bool,
) -> None:
    """``given``: the file of a sweep that is begun now; None where one is continued."""
    with continuable(KIND, directory, reporter, begun_now=given is not None):
        _keep_files(directory.path, sweep, given)
        with directory.timed("cells"):
            outcomes = _run_cells(sweep, directory, reporter, executor, resources)
        folder = directory.path / CELLS
        metrics = results(sweep.cells, sweep.resolved, outcomes, folder, sweep.alpha)
        directory.write_json(METRICS, metrics)
    page = write_report(directory.path)
    if as_json:
        sys.stdout.write(canonical_json(metrics))
    else:
        render(metrics, Console(highlight=False, markup=False))
    reporter.say(f"Everything is in {directory.path} ({page.name}, {METRICS}, {CELLS}/, {LOGS}/).")
    if metrics["failed"]:
        again = shlex.quote(str(directory.path))
        reporter.say(f"failed cells are tried again by: threearc sweep --run {again}")
        sys.exit(FAILED)


def _run_cells(
    sweep: Sweep,
    directory: RunDirectory,
    reporter: Reporter,
    executor: str,
    resources: Resources,
) -> dict[str, Outcome]:
    """Run what is not finished; how each cell stands then."""
    record = directory.json_lines(RECORD)
    known = _known(record.records, directory.path)
    tasks = [task for task in _tasks(sweep, directory.path) if task.name not in known]
    if known:
        reporter.say(f"{len(known)} of {len(sweep.cells)} cells are finished and kept")
    with reporter.bar("cells", len(sweep.cells), "cells", done=len(known)) as bar:
        for task, ended in _executed(sweep, tasks, reporter.say, executor, resources):
            outcome = _as_checked(task, ended, sweep.resolved[task.name])
            record.append({"cell": task.name, **outcome.to_json()})
            known[task.name] = outcome
            note = outcome.state if outcome.line is None else f"{outcome.state}: {outcome.line}"
            reporter.say(f"cell {task.name}: {note}")
            bar.advance(1, task.name)
    return known


def _executed(
    sweep: Sweep,
    tasks: Sequence[Task],
    say: Callable[[str], None],
    executor: str,
    resources: Resources,
) -> Iterator[tuple[Task, Outcome]]:
    if executor == executors.RAY:
        processes = {name: int(one.get("processes") or 1) for name, one in sweep.resolved.items()}
        return executors.over_ray(tasks, say, resources, processes)
    return executors.in_sequence(tasks, say)


def _as_checked(task: Task, outcome: Outcome, resolved: Mapping[str, Any]) -> Outcome:
    """A finished cell that ran with other settings than were checked and are stated has failed."""
    if outcome.state != "finished":
        return outcome
    ran = read_manifest(Path(task.folder)).get("config") or {}
    wanted = json.loads(canonical_json(resolved))
    for name in [*wanted, *(name for name in ran if name not in wanted)]:
        if ran.get(name) != wanted.get(name):
            line = (
                f"it ran with {name} = {ran.get(name)}, where {wanted.get(name)} was checked; "
                "start a new sweep"
            )
            return Outcome("failed", outcome.exit_code, line)
    return outcome


def _known(records: Sequence[Mapping[str, Any]], path: Path) -> dict[str, Outcome]:
    """Cells that are finished. A later record of a cell stands for it."""
    last = {one["cell"]: one for one in records}
    return {
        name: Outcome("finished", 0)
        for name, one in last.items()
        if one["state"] == "finished" and (path / CELLS / name / METRICS).is_file()
    }


def _tasks(sweep: Sweep, path: Path) -> list[Task]:
    commands, path = sweepable(), path.absolute()
    return [
        Task(
            name=cell.name,
            arc=cell.arc,
            arguments=tuple(arguments(commands[cell.arc], cell.settings)),
            folder=str(path / CELLS / cell.name),
            log=str(path / LOGS / f"{cell.name}.log"),
            cwd=str(sweep.cwd),
        )
        for cell in sweep.cells
    ]


def _show_plan(sweep: Sweep, path: Path, as_json: bool) -> None:
    """Print each cell and its command; nothing is written."""
    known: dict[str, Outcome] = {}
    if (path / RECORD).exists():
        known = _known(JsonLines.read(path / RECORD), path)
    tasks = _tasks(sweep, path)
    if as_json:
        rows = [
            {"name": one.name, "arc": one.arc, "settings": dict(one.settings),
             "resolved": sweep.resolved[one.name], "finished": one.name in known,
             "command": ["threearc", *command_of(task)]}
            for one, task in zip(sweep.cells, tasks, strict=True)
        ]  # fmt: skip
        sys.stdout.write(canonical_json({"cells": rows}))
        return
    for task in tasks:
        what = (
            "finished, kept" if task.name in known else shlex.join(["threearc", *command_of(task)])
        )
        print(f"{task.name}: {what}")
    print(f"{len(tasks)} cells, {len(tasks) - len(known)} to run; nothing was run (--dry-run)")
