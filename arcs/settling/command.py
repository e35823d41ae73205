"""What ``threearc settle`` does with its flags: read the run, plan, say, run, print."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from arcs import provenance
from arcs.arc1.evaluations import FOLDER as FOLDER_OF_ARC1
from arcs.continuing import continuable
from arcs.progress import Reporter
from arcs.report.writing import write_report
from arcs.runs import ANEW, MANIFEST, METRICS, canonical_json
from arcs.settling import pipeline, report
from arcs.settling.damping import Damping
from arcs.settling.measuring import Measuring
from arcs.settling.pipeline import FOLDER, PLAN, Asked
from arcs.settling.plan import Plan, make
from arcs.settling.probing import Probing
from arcs.settling.subject import Subject
from evals.benchmarks import TITLES
from models.errors import UserError


@dataclass(frozen=True)
class _Work:
    """One run's claims, and the plan for them."""

    run: Path
    subject: Subject
    asked: Asked
    plan: Plan | None
    """None where no claim is open."""


def start(
    run: Path, most: int | None, data: Sequence[str], *, dry_run: bool, as_json: bool
) -> None:
    """Plan and settle; with ``dry_run`` plan only.

    The evaluations of a run of arc1 are runs of their own, and are settled after it, each in its
    own folder.
    """
    reporter = Reporter(quiet=as_json)
    asked = Asked(most, _absolute(data))
    inside_of = [path.parent for path in sorted((run / FOLDER_OF_ARC1).glob(f"*/{MANIFEST}"))]
    for path in (run, *inside_of):  # continued without flags, what was not begun has them too
        asked = pipeline.asked_before(path, asked)
    own = _work(run, pipeline.subject_of(run), asked, reporter)
    inside, notes = _evaluations(inside_of, asked, reporter)
    if not dry_run:  # it may begin the process anew: not a word yet
        _arrange([own, *inside.values()], reporter)
    document, lines = _settle(own, dry_run=dry_run, reporter=reporter)
    if inside or notes:
        document = {**document, "evaluations": dict(notes)}
    for name, work in inside.items():
        reporter.say(f"evaluation: {name}")
        document["evaluations"][name], more = _settle(work, dry_run=dry_run, reporter=reporter)
        lines += ["", f"{FOLDER_OF_ARC1}/{name}", *more]
    lines += [f"{FOLDER_OF_ARC1}/{name}: {one['why']}" for name, one in notes.items()]
    _print(document, lines, as_json)


def _work(run: Path, subject: Subject, asked: Asked, reporter: Reporter) -> _Work:
    if not subject.claims:
        return _Work(run, subject, asked, None)
    subject.require_same_edits()
    plan = make(subject, subject.pools(asked.data, reporter), asked.most)
    return _Work(run, subject, asked, plan)


def _evaluations(
    paths: Sequence[Path], asked: Asked, reporter: Reporter
) -> tuple[dict[str, _Work], dict[str, dict[str, str]]]:
    """Those in a run of arc1, by name, and why some are not settled here."""
    found: dict[str, _Work] = {}
    notes: dict[str, dict[str, str]] = {}
    for own in paths:
        name = own.name
        try:
            subject = pipeline.subject_of(own)
        except UserError as error:
            notes[name] = {"why": str(error).removeprefix(f"{own}: ")}
            continue
        if asked.data and subject.claims:  # which claim a file is for is not guessed
            notes[name] = {"why": f"--data adds to the run's own claim; open here: "
                           f"threearc settle {shlex.quote(str(own))} --data ..."}  # fmt: skip
        else:
            found[name] = _work(own, subject, replace(asked, data=()), reporter)
    return found, notes


def _arrange(works: Sequence[_Work], reporter: Reporter) -> None:
    for one in works:
        runs = one.plan is not None and bool(one.plan.looks)
        if runs and isinstance(one.subject, (Damping, Measuring, Probing)):
            from arcs.fast_blas import arrange_fast_blas

            arrange_fast_blas(str(one.subject.manifest["backend"]).split()[0], reporter)
            return


def _settle(work: _Work, *, dry_run: bool, reporter: Reporter) -> tuple[dict[str, Any], list[str]]:
    """What stands in the document, and what is said."""
    subject, plan = work.subject, work.plan
    if plan is None:
        return {"claims": {}, "not_settled": _others(subject)}, report.others(subject)
    said = [*report.others(subject), *report.planned(subject, plan)]
    if dry_run or not plan.looks:
        if plan.looks:
            said.append("Nothing was written and nothing was run (--dry-run).")
        hours = report.hours(subject, plan)
        return {"plan": plan.to_json(), "hours": hours, "not_settled": _others(subject)}, said
    for line in said:
        reporter.say(line)
    metrics = dict(_run(subject, plan, work.asked, work.run, reporter))
    page = write_report(work.run / FOLDER)
    files = f"{page.name}, {PLAN}, {METRICS}, looks.jsonl, look-*"
    reporter.say(f"Everything is in {work.run / FOLDER} ({files}).")
    return metrics, report.settled(metrics)


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
