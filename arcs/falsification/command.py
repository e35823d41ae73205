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
from arcs.falsification.finished_run import FinishedRun
from arcs.falsification.protocol import FILE
from arcs.fast_blas import arrange_fast_blas
from arcs.progress import Reporter
from arcs.report.command import views_of
from arcs.report.compare import compared
from arcs.report.page import page as page_of
from arcs.report.writing import write_page, write_report
from arcs.runs import (
    METRICS,
    RunDirectory,
    canonical_json,
    default_path,
    is_planning,
    read_manifest,
)
from models.errors import UserError

ARC = "falsify"
PAGE = "latest.html"


def start(flags: Mapping[str, Any], *, out: Path | None, run: Path | None, as_json: bool) -> None:
    """Begin a new falsification or continue one, and print its result on stdout."""
    reporter = Reporter()
    if run is None and not flags.keys() - {"profile", "gates", "seed"}:
        if is_planning():  # which run is the latest may be another one when it begins
            raise UserError(
                "give a run of Arc 3 (source), adapter, or features, fresh and labels: what the "
                "latest run is can change before this one begins"
            )
        _over_the_latest(flags, out, reporter, as_json)
        return
    if run is not None:
        if out is not None:
            raise UserError("--run continues a run and --out begins one: give one of them")
        config = _settings_of(run, flags)
        _arrange(config, reporter)
        directory = RunDirectory.resume(run)
        directory.extend_manifest(versions=provenance.versions())
        directory.require_same_commit(provenance.code_state())
        reporter.say(f"falsify, continued in {directory.path}")
    else:
        config = parse(absolute(flags))
        _arrange(config, reporter)
        directory = _begun(config, out)
        reporter.say(f"falsify, profile {config.profile}, in {directory.path}")
    with directory:
        metrics = _go(config, directory, reporter, begun_now=run is None)
    _print(metrics, as_json)


def _arrange(config: FalsifyConfig, reporter: Reporter) -> None:
    """Check what is given; where models are opened here, have MLX its BLAS."""
    # a mistake in a name makes no run of this, and costs no steps
    if config.source is not None:
        FinishedRun(config.source)
    if config.replication is not None:
        FinishedRun(config.replication, "--replication")
    for name in ("replication_features", "replication_labels", "replication_responses"):
        path = getattr(config, name)
        if path is not None and not path.exists():
            raise UserError(f"{flag_of(name)} {path}: no such file")
    if config.adapter is None:
        return
    from arcs.arc3.engine import engine_of
    from arcs.falsification.edited import arc3_config

    arrange_fast_blas(engine_of(arc3_config(config, config.adapter)).name, reporter)


def _over_the_latest(
    flags: Mapping[str, Any], out: Path | None, reporter: Reporter, as_json: bool
) -> None:
    """Falsify the last run of Arc 3, and put it beside the other arcs' last ones on one page."""
    from arcs.falsification.latest import RUNS, latest, not_audited, rows, table

    found = latest()
    falsified: Path | None = None
    metrics: dict[str, Any] | None = None
    if "arc3" in found.runs:
        given = {"source": found.runs["arc3"], "replication": found.replication}
        config = parse(absolute({**flags, **{k: v for k, v in given.items() if v is not None}}))
        with _begun(config, out) as directory:
            metrics = _go(config, directory, reporter, begun_now=True)
            falsified = directory.path
    elif flags or out is not None:
        raise UserError(
            f"{flag_of(next(iter(flags), 'out'))}: {RUNS} has no finished run of arc3, so nothing "
            "is falsified here; run threearc arc3 first, or leave it out"
        )
    paths = [*found.runs.values(), *([] if falsified is None else [falsified])]
    listed = rows(paths)
    if as_json:
        document = {"runs": listed, "falsified": metrics, "notes": list(found.notes)}
        sys.stdout.write(canonical_json(document))
        return
    if metrics is not None:
        _print(metrics, as_json)
    console = Console(highlight=False)
    console.print(table(listed))
    for line in (*(f"{note}." for note in found.notes), *not_audited(listed)):
        console.print(line, markup=False, soft_wrap=True)
    if falsified is not None and len(paths) > 1:
        page = falsified / PAGE
        write_page(page, page_of(compared(views_of(paths))))
        reporter.say(f"All of them on one page: {page}.")


def _begun(config: FalsifyConfig, out: Path | None) -> RunDirectory:
    return RunDirectory.create(
        out if out is not None else default_path(ARC),
        provenance.first_manifest(ARC, config.model_dump(mode="json"), sys.argv),
    )


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
    config: FalsifyConfig, directory: RunDirectory, reporter: Reporter, *, begun_now: bool
) -> dict[str, Any]:
    from arcs.falsification.pipeline import STEPS, run_falsification

    with continuable(ARC, directory, reporter, begun_now=begun_now):
        try:
            metrics = run_falsification(config, directory, reporter)
        except UserError:
            if begun_now and not (directory.path / STEPS).exists():
                (directory.path / FILE).unlink(missing_ok=True)  # nothing was done by these gates
            raise
    page = write_report(directory.path)
    reporter.say(
        f"Everything is in {directory.path} ({page.name}, {METRICS}, {FILE}, {STEPS}, "
        "manifest.json)."
    )
    return metrics


def _print(metrics: Mapping[str, Any], as_json: bool) -> None:
    from arcs.falsification.report import report

    if as_json:
        sys.stdout.write(canonical_json(metrics))
    else:
        Console(highlight=False).print(report(metrics))
