"""What ``threearc arc3`` does with its flags: resolve, announce, run, print."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from arcs import provenance
from arcs.arc1.config import absolute_paths
from arcs.arc3.config import JUDGE, Arc3Config, flag_of, parse
from arcs.arc3.engine import engine_of
from arcs.continuing import continuable
from arcs.fast_blas import arrange_fast_blas
from arcs.judging.opening import JudgeOptions
from arcs.progress import Reporter
from arcs.report.writing import write_report
from arcs.runs import METRICS, RunDirectory, canonical_json, default_path, read_manifest
from models.errors import UserError

ARC = "arc3"
EXPECTATIONS: Mapping[str, str] = {
    "quick": "expect under 10 minutes with the embedded model on a 2-core CPU",
    "standard": "expect about half an hour with the embedded model on a 2-core CPU",
}


def start(
    flags: Mapping[str, Any],
    *,
    out: Path | None,
    run: Path | None,
    as_json: bool,
    options: JudgeOptions | None = None,
) -> None:
    """Begin a new run or continue one, and print its result on stdout."""
    reporter = Reporter()
    asking = options or JudgeOptions()
    if run is not None:
        if out is not None:
            raise UserError("--run continues a run and --out begins one: give one of them")
        config = _settings_of(run, flags)
        _require_meaning(config, asking)
        arrange_fast_blas(engine_of(config).name, reporter)
        directory = RunDirectory.resume(run)
        directory.extend_manifest(versions=provenance.versions())
        directory.require_same_commit(provenance.code_state())
        reporter.say(f"Arc 3, continued in {directory.path}")
    else:
        config = parse(_absolute(flags))
        _require_meaning(config, asking)
        arrange_fast_blas(engine_of(config).name, reporter)
        directory = RunDirectory.create(
            out if out is not None else default_path(ARC),
            provenance.first_manifest(ARC, config.model_dump(mode="json"), sys.argv),
        )
        reporter.say(
            f"Arc 3, profile {config.profile}, {config.asked} labelled by {config.labels}, in "
            f"{directory.path}; {EXPECTATIONS[config.profile]}"
        )
    with directory:
        _go(config, directory, reporter, asking, as_json, begun_now=run is None)


def _absolute(flags: Mapping[str, Any]) -> dict[str, Any]:
    made = absolute_paths(flags)
    for name in ("adapter", "ids_from", "difficulty"):
        if isinstance(made.get(name), Path):
            made[name] = made[name].absolute()
    return made


def _settings_of(run: Path, flags: Mapping[str, Any]) -> Arc3Config:
    """The run's own settings; flags given again must agree with them. Writes nothing."""
    stored = read_manifest(run)
    if stored.get("arc") != ARC or not isinstance(stored.get("config"), dict):
        raise UserError(f"--run {run}: not a run of threearc arc3")
    config = parse(stored["config"])
    now = config.model_dump()
    for name, value in parse({**now, **_absolute(flags)}).model_dump().items():
        if value != now[name]:
            raise UserError(
                f"--run {run}: {flag_of(name)} is {now[name]} in this run, not {value}; start a "
                "new run with --out"
            )
    return config


def _require_meaning(config: Arc3Config, options: JudgeOptions) -> None:
    """Raise UserError for options of a judge that these labels have not."""
    given = list(options.given())
    if given and config.kind != JUDGE:
        raise UserError(
            f"--judge-{given[0].replace('_', '-')}: labels by {config.kind} have no judge; leave "
            "it out, or give --labels judge:..."
        )


def _go(
    config: Arc3Config,
    directory: RunDirectory,
    reporter: Reporter,
    options: JudgeOptions,
    as_json: bool,
    *,
    begun_now: bool,
) -> None:
    from arcs.arc3.pipeline import run_arc3
    from arcs.arc3.report import report

    with continuable("arc3", directory, reporter, begun_now=begun_now):
        metrics = run_arc3(config, directory, reporter, options)
    if as_json:
        sys.stdout.write(canonical_json(metrics))
    else:
        Console(highlight=False).print(report(metrics, directory.path))
    page = write_report(directory.path)
    reporter.say(
        f"Everything is in {directory.path} ({page.name}, {METRICS}, responses.jsonl, "
        "features-*.safetensors, sidecar/, manifest.json)."
    )
