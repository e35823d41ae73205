"""What ``threearc settle`` does with its flags: read the run, plan, say, run, print."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from arcs import provenance
from arcs.continuing import continuable
from arcs.progress import Reporter
from arcs.report.writing import write_report
from arcs.runs import ANEW, METRICS, canonical_json
from arcs.settling import pipeline, report
from arcs.settling.damping import Damping
from arcs.settling.measuring import Measuring
from arcs.settling.pipeline import FOLDER, PLAN, Asked
from arcs.settling.plan import Plan, make
from arcs.settling.probing import Probing
from arcs.settling.subject import Subject
from evals.benchmarks import TITLES
from models.errors import UserError


def start(
    run: Path, most: int | None, data: Sequence[str], *, dry_run: bool, as_json: bool
) -> None:
    """Plan and settle; with ``dry_run`` plan only."""
    reporter = Reporter(quiet=as_json)
    subject = pipeline.subject_of(run)
    asked = pipeline.asked_before(run, Asked(most, _absolute(data)))
    if not subject.claims:
        _print({"claims": {}, "not_settled": _others(subject)}, report.others(subject), as_json)
        return
    subject.require_same_edits()
    plan = make(subject, subject.pools(asked.data, reporter), asked.most)
    planned = {"plan": plan.to_json(), "hours": report.hours(subject, plan),
               "not_settled": _others(subject)}  # fmt: skip
    if dry_run or not plan.looks:
        said = [*report.others(subject), *report.planned(subject, plan)]
        if plan.looks:
            said.append("Nothing was written and nothing was run (--dry-run).")
        _print(planned, said, as_json)
        return
    if isinstance(
        subject, (Damping, Measuring, Probing)
    ):  # it may begin the process anew: not a word yet
        from arcs.fast_blas import arrange_fast_blas

        arrange_fast_blas(str(subject.manifest["backend"]).split()[0], reporter)
    for line in (*report.others(subject), *report.planned(subject, plan)):
        reporter.say(line)
    metrics = _run(subject, plan, asked, run, reporter)
    page = write_report(run / FOLDER)
    _print(metrics, report.settled(metrics), as_json)
    files = f"{page.name}, {PLAN}, {METRICS}, looks.jsonl, look-*"
    reporter.say(f"Everything is in {run / FOLDER} ({files}).")


def _run(
    subject: Subject, plan: Plan, asked: Asked, run: Path, reporter: Reporter
) -> Mapping[str, Any]:
    directory = pipeline.begin(subject, plan, asked)
    again = f"threearc settle {shlex.quote(str(run))}"
    with directory, continuable(
        "settle", directory, reporter, begun_now=False, again=again
    ):  # fmt: skip
        try:
            if not (directory.path / METRICS).exists():
                directory.extend_manifest(versions=provenance.versions())
                directory.require_same_commit(provenance.code_state())
            return pipeline.settle(subject, plan, directory, reporter)
        except UserError as error:
            # what runs say of themselves; a settle has no --out of its own
            said = str(error).replace(ANEW, f"begin a new {subject.kind} run")
            if pipeline.discard_unopened(directory):
                said += " (no new item was opened, so the plan was not kept)"
            raise UserError(said) from error


def _absolute(data: Sequence[str]) -> tuple[str, ...]:
    twice = next((one for place, one in enumerate(data) if one in data[:place]), None)
    if twice is not None:
        raise UserError(f"--data {twice}: given twice")
    return tuple(one if one in (*TITLES, "recall") else str(Path(one).absolute()) for one in data)


def _others(subject: Subject) -> list[dict[str, str]]:
    return [{"claim": name, "why": why} for name, why in subject.others]


def _print(document: Mapping[str, Any], lines: Sequence[str], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(canonical_json(document))
        return
    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, markup=False)
