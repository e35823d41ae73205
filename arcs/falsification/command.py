"""What ``threearc falsify`` does with its flags: resolve, announce, run, print."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from arcs import provenance
from arcs.continuing import continuable
from arcs.falsification.config import FalsifyConfig, absolute, flag_of, parse
from arcs.falsification.protocol import FILE
from arcs.progress import Reporter
from arcs.report.writing import write_report
from arcs.runs import METRICS, RunDirectory, canonical_json, default_path, read_manifest
from models.errors import UserError

ARC = "falsify"


def start(flags: Mapping[str, Any], *, out: Path | None, run: Path | None, as_json: bool) -> None:
    """Begin a new falsification or continue one, and print its result on stdout."""
    reporter = Reporter()
    if run is not None:
        if out is not None:
            raise UserError("--run continues a run and --out begins one: give one of them")
        config = _settings_of(run, flags)
        directory = RunDirectory.resume(run)
        directory.extend_manifest(versions=provenance.versions())
        directory.require_same_commit(provenance.code_state())
        reporter.say(f"falsify, continued in {directory.path}")
    else:
        config = parse(absolute(flags))
        directory = RunDirectory.create(
            out if out is not None else default_path(ARC),
            provenance.first_manifest(ARC, config.model_dump(mode="json"), sys.argv),
        )
        reporter.say(f"falsify, profile {config.profile}, in {directory.path}")
    with directory:
        _go(config, directory, reporter, as_json, begun_now=run is None)


def _settings_of(run: Path, flags: Mapping[str, Any]) -> FalsifyConfig:
    """The run's own settings; flags given again must agree with them. Writes nothing."""
    stored = read_manifest(run)
    if stored.get("arc") != ARC or not isinstance(stored.get("config"), dict):
        raise UserError(f"--run {run}: not a run of threearc falsify")
    config = parse(stored["config"])
    now = config.model_dump()
    for name, value in parse({**now, **absolute(flags)}).model_dump().items():
        if value != now[name]:
            raise UserError(
                f"--run {run}: {flag_of(name)} is {now[name]} in this run, not {value}; start a "
                "new run with --out"
            )
    return config


def _go(
    config: FalsifyConfig,
    directory: RunDirectory,
    reporter: Reporter,
    as_json: bool,
    *,
    begun_now: bool,
) -> None:
    from arcs.falsification.pipeline import STEPS, run_falsification
    from arcs.falsification.report import report

    with continuable(ARC, directory, reporter, begun_now=begun_now):
        try:
            metrics = run_falsification(config, directory, reporter)
        except UserError:
            if begun_now and not (directory.path / STEPS).exists():
                (directory.path / FILE).unlink(missing_ok=True)  # nothing was done by these gates
            raise
    if as_json:
        sys.stdout.write(canonical_json(metrics))
    else:
        Console(highlight=False).print(report(metrics))
    page = write_report(directory.path)
    reporter.say(
        f"Everything is in {directory.path} ({page.name}, {METRICS}, {FILE}, steps.jsonl, "
        "manifest.json)."
    )
