"""What ``threearc arc2`` does with its flags: resolve, announce, run, print."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from arcs import provenance
from arcs.arc1.config import absolute_paths
from arcs.arc2.config import ARC, Arc2Config, flag_of, parse, resolve
from arcs.continuing import continuable
from arcs.fast_blas import arrange_fast_blas
from arcs.gates import load_gates
from arcs.judging.opening import JudgeOptions
from arcs.measure.judged import JudgeSettings
from arcs.progress import Reporter
from arcs.report.writing import write_report
from arcs.runs import METRICS, RunDirectory, canonical_json, default_path, read_manifest
from backends import choose_backend
from models.errors import UserError

EXPECTATIONS: Mapping[str, str] = {
    "quick": "expect about 10 minutes with the embedded model on a 2-core CPU; few items, so most "
    "words stay open: this profile shows that all of it works",
    "standard": "expect an hour or more with the embedded model on a 2-core CPU",
    "paper": "the paper's sizes, with controls and nulls: expect hours on a CPU",
}


def start(
    flags: Mapping[str, Any],
    *,
    out: Path | None,
    run: Path | None,
    as_json: bool,
    judge: Mapping[str, Any] | None = None,
    judge_cache: Path | None = None,
) -> None:
    """Begin a new run or continue one, and print its result on stdout.

    ``judge``: options of :class:`JudgeOptions` that may differ from one continuation to another.
    """
    reporter = Reporter()
    if run is not None:
        if out is not None:
            raise UserError("--run continues a run and --out begins one: give one of them")
        config = _settings_of(run, flags)
        arrange_fast_blas(choose_backend(config.backend), reporter)
        directory = RunDirectory.resume(run)
        directory.extend_manifest(versions=provenance.versions())
        directory.require_same_commit(provenance.code_state())
        reporter.say(f"Arc 2, continued in {directory.path}")
    else:
        config = resolve(absolute_paths(flags))
        arrange_fast_blas(choose_backend(config.backend), reporter)
        path = out if out is not None else default_path(ARC)
        directory = RunDirectory.create(
            path, provenance.first_manifest(ARC, config.model_dump(mode="json"), sys.argv)
        )
        announce(config, directory, reporter)
    with directory:
        options = JudgeOptions(
            threads=config.judge_threads, max_tokens=config.judge_max_tokens, **(judge or {})
        )
        asking = JudgeSettings(config.labels, options, judge_cache)
        _go(config, directory, reporter, as_json, asking, begun_now=run is None)


def paper_tables(*, as_json: bool) -> None:
    """Print what the paper's published sweep tables determine; no engine, no run."""
    from arcs.arc2.paper_tables import paper_words
    from arcs.arc2.table import paper_report

    found = paper_words()
    if as_json:
        document = {
            "schema_version": "threearc-arc2-paper-1",
            "gates_sha256": load_gates().sha256,
            "words": [one.to_json() for one in found],
        }
        sys.stdout.write(canonical_json(document))
    else:
        Console(highlight=False).print(paper_report([one.to_json() for one in found]))


def announce(config: Arc2Config, directory: RunDirectory, reporter: Reporter) -> None:
    """Say what will happen and how long it may take, before it starts."""
    reporter.say(f"Arc 2, profile {config.profile}, in {directory.path}")
    reporter.say(
        f"  {config.model} answers {config.limit or 'all'} prompts ({config.labels}); heads are "
        f"ranked by magnitude, direction{' and ablation' if config.causal_items else ''}"
    )
    scales = ", ".join(f"{scale:g}" for scale in config.scales)
    reporter.say(
        f"  the {config.top_k} first by {config.rank_by} are damped to lambda {scales}, beside "
        f"{config.random_draws} random set(s) and the other end of the ranking"
        + (" at the strongest" if config.controls == "strongest" else "")
    )
    reporter.say(f"  {EXPECTATIONS[config.profile]}")


def _settings_of(run: Path, flags: Mapping[str, Any]) -> Arc2Config:
    """The run's own settings; flags given again must agree with them. Writes nothing."""
    stored = read_manifest(run)
    if stored.get("arc") != ARC or not isinstance(stored.get("config"), dict):
        raise UserError(f"--run {run}: not an Arc 2 run")
    config = parse(stored["config"])
    now = config.model_dump()
    for name, value in parse({**now, **absolute_paths(flags)}).model_dump().items():
        if value != now[name]:
            raise UserError(
                f"--run {run}: {flag_of(name)} is {_shown(now[name])} in this run, not "
                f"{_shown(value)}; start a new run with --out"
            )
    return config


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) or "empty" if isinstance(value, tuple) else str(value)


def _go(
    config: Arc2Config,
    directory: RunDirectory,
    reporter: Reporter,
    as_json: bool,
    asking: JudgeSettings,
    *,
    begun_now: bool,
) -> None:
    from arcs.arc2.pipeline import run_arc2
    from arcs.arc2.table import report

    with continuable(ARC, directory, reporter, begun_now=begun_now):
        metrics = run_arc2(config, directory, reporter, asking)
    if as_json:
        sys.stdout.write(canonical_json(metrics))
    else:
        Console(highlight=False).print(report(metrics))
    page = write_report(directory.path)
    reporter.say(
        f"Everything is in {directory.path} ({page.name}, {METRICS}, *.jsonl by item, "
        "manifest.json)."
    )
