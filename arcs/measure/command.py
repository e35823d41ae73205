"""What ``threearc measure`` does with its flags: resolve, announce, run, print."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from arcs import provenance
from arcs.arc1.config import absolute_paths
from arcs.continuing import continuable
from arcs.fast_blas import arrange_fast_blas
from arcs.judging.opening import COSTS, JudgeOptions
from arcs.labels import parse_judge
from arcs.measure.config import (
    INSTRUMENTS,
    JUDGED,
    LEXICAL,
    N_PREDICT,
    SHORT_ANSWERS,
    MeasureConfig,
    flag_of,
    parse,
)
from arcs.measure.judged import JudgeSettings
from arcs.measure.report import report
from arcs.progress import Reporter
from arcs.report.writing import write_report
from arcs.runs import METRICS, RunDirectory, canonical_json, default_path, read_manifest
from backends import choose_backend
from models.errors import UserError

ARC = "measure"


def start(
    flags: Mapping[str, Any],
    *,
    out: Path | None,
    run: Path | None,
    as_json: bool,
    asking: JudgeOptions | None = None,
    cache: Path | None = None,
) -> None:
    """Begin a new measurement or continue one, and print its result on stdout.

    ``flags``: what the user set, ``instrument`` among it unless a run is continued. ``asking``:
    how a judge is asked, apart from what the run's settings hold; ``cache``: its labels.
    """
    reporter = Reporter()
    if run is not None:
        if out is not None:
            raise UserError("--run continues a run and --out begins one: give one of them")
        config = _settings_of(run, flags)
        settings = asking_of(config, asking, cache)
        arrange_fast_blas(choose_backend(config.backend), reporter)
        directory = RunDirectory.resume(run)
        directory.extend_manifest(versions=provenance.versions())
        directory.require_same_commit(provenance.code_state())
        reporter.say(f"{config.instrument}, continued in {directory.path}")
    else:
        if "instrument" not in flags:
            raise UserError(f"say what to measure: threearc measure {', '.join(INSTRUMENTS)}")
        config = parse(_absolute(flags))
        settings = asking_of(config, asking, cache)
        arrange_fast_blas(choose_backend(config.backend), reporter)
        path = out if out is not None else default_path(config.instrument)
        directory = RunDirectory.create(
            path, provenance.first_manifest(ARC, config.model_dump(mode="json"), sys.argv)
        )
        reporter.say(f"{config.instrument}, in {directory.path}")
    with directory:
        _go(config, directory, reporter, as_json, settings, begun_now=run is None)


def asking_of(
    config: MeasureConfig, options: JudgeOptions | None, cache: Path | None
) -> JudgeSettings | None:
    """How the judge is asked: the run's settings, and what may differ when it is continued.

    Raises UserError for what would have no effect.
    """
    if config.instrument not in JUDGED:
        named = next(iter((options or JudgeOptions()).given()), None)
        if named is not None or cache is not None:
            flag = "--judge-cache" if named is None else f"--judge-{named.replace('_', '-')}"
            raise UserError(f"{flag}: {config.instrument} needs no judge; leave it out")
        return None
    if cache is not None and parse_judge(config.judge or LEXICAL).kind not in COSTS:
        raise UserError(
            f"--judge-cache: no api or gguf judge labels {config.instrument} here; leave it out"
        )
    options = replace(
        options or JudgeOptions(), max_tokens=config.judge_max_tokens, threads=config.judge_threads
    )
    return JudgeSettings(config.judge or LEXICAL, options, cache)


def _absolute(flags: Mapping[str, Any]) -> dict[str, Any]:
    made = absolute_paths({k: v for k, v in flags.items() if k != "adapters"})
    if "items" in flags:
        made["items"] = Path(flags["items"]).absolute()
    if "adapters" in flags:
        made["adapters"] = tuple(Path(path).absolute() for path in flags["adapters"])
    return made


def _settings_of(run: Path, flags: Mapping[str, Any]) -> MeasureConfig:
    """The run's own settings; flags given again must agree with them. Writes nothing."""
    stored = read_manifest(run)
    if stored.get("arc") != ARC or not isinstance(stored.get("config"), dict):
        raise UserError(f"--run {run}: not a measurement (threearc measure)")
    config = parse(stored["config"])
    now = config.model_dump()
    given = {name: value for name, value in _absolute(flags).items() if value != now[name]}
    default = (N_PREDICT,) if config.instrument == SHORT_ANSWERS else config.budgets
    if config.n_predict is None and given.get("n_predict") == default:
        del given["n_predict"]  # what it is by default
    if "instrument" in given:
        raise UserError(f"--run {run}: it measures {now['instrument']}, not {given['instrument']}")
    for name, value in parse({**now, **given}).model_dump().items():
        if value != now[name]:
            raise UserError(
                f"--run {run}: {flag_of(name)} is {_shown(now[name])} in this run, not "
                f"{_shown(value)}; start a new run with --out"
            )
    return config


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) or "empty" if isinstance(value, tuple) else str(value)


def _go(
    config: MeasureConfig,
    directory: RunDirectory,
    reporter: Reporter,
    as_json: bool,
    asking: JudgeSettings | None,
    *,
    begun_now: bool,
) -> None:
    from arcs.measure.pipeline import run_measure

    with continuable("measure", directory, reporter, begun_now=begun_now):
        metrics = run_measure(config, directory, reporter, asking)
    if as_json:
        sys.stdout.write(canonical_json(metrics))
    else:
        Console(highlight=False).print(report(metrics))
    page = write_report(directory.path)
    reporter.say(
        f"Everything is in {directory.path} ({page.name}, {METRICS}, *.jsonl by item, "
        "manifest.json)."
    )
