"""What ``threearc data generate`` does with its flags: resolve, announce, run, print."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from arcs import provenance
from arcs.continuing import continuable
from arcs.progress import Reporter
from arcs.report.writing import write_report
from arcs.runs import METRICS, RunDirectory, canonical_json, default_path, read_manifest
from arcs.teachers.config import ARC, GenerateConfig, flag_of, parse
from arcs.teachers.purse import kept_budget
from arcs.teachers.roster import PRESETS
from models.errors import UserError

CHANGEABLE = frozenset({"budget"})
"""What may differ when a run goes on: it decides when to stop, not what is made."""


def start(flags: Mapping[str, Any], *, out: Path | None, run: Path | None, as_json: bool) -> None:
    """Begin a generation or continue one, and print what came of it on stdout."""
    from arcs.teachers.pipeline import checked, run_generate
    from arcs.teachers.report import report

    reporter = Reporter()
    given = _absolute(flags)
    if run is not None:
        if out is not None:
            raise UserError("--run continues a run and --out begins one: give one of them")
        config = _settings_of(run, given)
        directory = RunDirectory.resume(run)
        directory.require_same_commit(provenance.code_state())
        directory.extend_manifest(versions=provenance.versions())
        reporter.say(f"data generate, continued in {directory.path}")
    else:
        config = parse(given)
        checked(config)  # a refused licence leaves no directory behind
        path = out if out is not None else default_path("data")
        directory = RunDirectory.create(
            path, provenance.first_manifest(ARC, config.model_dump(mode="json"), sys.argv)
        )
        reporter.say(f"data generate, profile {config.profile}, in {directory.path}")
    with directory, continuable("data generate", directory, reporter, begun_now=run is None):
        metrics = run_generate(config, directory, reporter)
    page = write_report(directory.path)
    if as_json:
        sys.stdout.write(canonical_json(metrics))
    else:
        Console(highlight=False, markup=False).print(report(metrics))
    reporter.say(
        f"Everything is in {directory.path} ({page.name}, records/, dropped.jsonl, replies.jsonl, "
        f"prompts.jsonl, {METRICS}, manifest.json)."
    )


def _absolute(flags: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(flags)
    if "prompts" in found:
        found["prompts"] = Path(found["prompts"]).absolute()
    if "teachers" in found and found["teachers"] not in PRESETS:
        found["teachers"] = str(Path(found["teachers"]).absolute())
    return found


def _settings_of(run: Path, given: Mapping[str, Any]) -> GenerateConfig:
    """The run's own settings; flags given again must agree, but for the budget: without the flag
    it is the one that was given last. Writes nothing."""
    stored = read_manifest(run)
    if stored.get("arc") != ARC or not isinstance(stored.get("config"), dict):
        raise UserError(f"--run {run}: not a generation (threearc data generate)")
    config = parse(stored["config"])
    now = config.model_dump()
    asked = parse({**now, **kept_budget(run), **given})
    for name, value in asked.model_dump().items():
        if value != now[name] and name not in CHANGEABLE:
            raise UserError(
                f"--run {run}: {flag_of(name)} is {now[name]} in this run, not {value}; start a "
                "new run with --out"
            )
    return asked
