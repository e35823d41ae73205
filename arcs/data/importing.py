"""What ``threearc data import csv|jsonl|mbpp`` do: read, list what is bad, write what is good."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from arcs.data import report
from arcs.data.columns import Columns, import_table
from arcs.data.kinds import KINDS, kind_named
from arcs.data.lines import Problem, read_bytes
from arcs.data.mbpp import AUTHOR, LICENCE, convert_file
from arcs.data.writing import SCHEMA, jsonl, write_set
from arcs.progress import Reporter
from arcs.runs import canonical_json
from evals.items.records import SmallTask
from models.errors import UserError


def table(
    path: Path,
    *,
    form: Literal["csv", "jsonl"],
    kind: str,
    columns: Columns,
    out: Path,
    keep_good: bool,
    author: str | None,
    licence: str | None,
    as_json: bool,
) -> None:
    """Import a table. With a bad row nothing is written and the exit status is 1.

    With ``keep_good`` the good rows are written, and the bad ones are listed here and in the
    description beside the file.
    """
    found = import_table(path, kind_named(kind), columns, form)
    document = {
        "schema": SCHEMA,
        "out": str(out),
        "kind": kind,
        "rows": found.rows,
        "records": len(found.records),
        "columns": dict(found.used),
        "constants": dict(columns.constants),
        "unused_columns": list(found.unused),
        "bad_rows": _listed(found.problems),
        "source": _source(path),
    }
    bad = bool(found.problems)
    document["written"] = bool(found.records) and (keep_good or not bad)
    if document["written"]:
        _write(out, found.records, document, author, licence)
    _print(document, as_json)
    if not document["written"] or (bad and not keep_good):
        sys.exit(1)


def mbpp(path: Path, *, out: Path, check: bool, allow_weak_sandbox: bool, as_json: bool) -> None:
    """Import MBPP's tasks; with ``check`` only those whose solution passes its own tests."""
    reporter = Reporter()
    found = convert_file(path)
    tasks, problems = found.tasks, list(found.problems)
    if check and tasks:
        failed = _failures(tasks, reporter, allow_weak=allow_weak_sandbox)
        problems += [
            Problem(str(path), 0, f"{key}: its solution fails its own tests: {why}")
            for key, why in failed.items()
        ]
        tasks = tuple(task for task in tasks if task.id not in failed)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "out": str(out),
        "kind": KINDS["small_task"].name,
        "rows": found.rows,
        "records": len(tasks),
        "checked": check,
        "bad_rows": _listed(problems),
        "source": _source(path),
        "written": bool(tasks),
    }
    if tasks:
        _write(out, tasks, document, AUTHOR, LICENCE)
    _print(document, as_json)
    if not tasks:
        sys.exit(1)


def _failures(
    tasks: Sequence[SmallTask], reporter: Reporter, *, allow_weak: bool
) -> dict[str, str]:
    """Task id -> what happened, of tasks whose reference solution does not pass."""
    from evals.humaneval.execution import Limits, execute_many
    from evals.humaneval.problems import Problem as Task
    from evals.humaneval.sandbox import detect_level

    level = detect_level(allow_weak=allow_weak)
    jobs = [
        (
            task.id,
            Task(task.id, task.prompt, task.entry_point, task.canonical_solution, task.test),
            task.prompt + task.canonical_solution,
        )
        for task in tasks
    ]
    with reporter.bar(f"solutions ({level.name})", len(jobs), "programs") as bar:
        done = execute_many(
            jobs,
            level=level,
            limits=Limits(),
            workers=os.cpu_count() or 1,
            on_done=lambda *_: bar.advance(1),
        )
    return {
        key: f"{one.status}, {one.detail}" if one.detail else one.status
        for key, one in done.items()
        if one.status != "passed"
    }


def _listed(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    return [{"row": one.line or None, "what": one.what} for one in problems]


def _source(path: Path) -> dict[str, Any]:
    return {"file": path.name, "sha256": hashlib.sha256(read_bytes(path)).hexdigest()}


def _write(
    out: Path,
    records: Sequence[Any],
    document: dict[str, Any],
    author: str | None,
    licence: str | None,
) -> None:
    if out.suffix != ".jsonl":
        raise UserError(f"--out {out}: name it *.jsonl")
    meta = {k: v for k, v in document.items() if k not in ("schema", "out", "written")}
    document["sha256"] = write_set(out, jsonl(records), meta, author=author, licence=licence)


def _print(document: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(canonical_json(document))
    else:
        report.to_terminal(report.imported(document))
