"""What ``threearc eval`` does with its flags: resolve, announce, run, print."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from arcs import provenance
from arcs.arc1.config import absolute_paths
from arcs.continuing import continuable
from arcs.evaluate.config import EvalConfig, as_begun, conditions_of, flag_of, parse
from arcs.evaluate.report import report
from arcs.progress import Reporter
from arcs.report.writing import write_report
from arcs.runs import METRICS, RunDirectory, canonical_json, default_path, read_manifest
from evals.benchmarks import Benchmark, load_benchmark
from models.errors import UserError


def start(flags: Mapping[str, Any], *, out: Path | None, run: Path | None, as_json: bool) -> None:
    """Begin a new evaluation or continue one, and print its result on stdout."""
    reporter = Reporter()
    if run is not None:
        if out is not None:
            raise UserError("--run continues a run and --out begins one: give one of them")
        config = _settings_of(run, flags)
        directory = RunDirectory.resume(run)
        directory.extend_manifest(versions=provenance.versions())
        directory.require_same_commit(provenance.code_state())
        reporter.say(f"evaluation, continued in {directory.path}")
    else:
        config = parse(_absolute(flags))
        # mistakes in these: before there is a run
        benchmark, _ = load_benchmark(config.benchmark), conditions_of(config)
        path = out if out is not None else default_path("eval")
        directory = RunDirectory.create(
            path, provenance.first_manifest("eval", config.model_dump(mode="json"), sys.argv)
        )
        _announce(config, benchmark, directory, reporter)
    with directory:
        _go(config, directory, reporter, as_json, begun_now=run is None)


def _absolute(flags: Mapping[str, Any]) -> dict[str, Any]:
    made = absolute_paths({k: v for k, v in flags.items() if k != "adapters"})
    if "adapters" in flags:
        made["adapters"] = tuple(Path(path).absolute() for path in flags["adapters"])
    return made


def _settings_of(run: Path, flags: Mapping[str, Any]) -> EvalConfig:
    """The run's own settings; flags given again must agree with them. Writes nothing."""
    stored = read_manifest(run)
    if stored.get("arc") != "eval" or not isinstance(stored.get("config"), dict):
        raise UserError(f"--run {run}: not an evaluation (threearc eval)")
    config = parse(as_begun(stored["config"]))
    now = config.model_dump()
    given = _absolute(flags)
    if given.get("share_prefix") == config.shares_prefix:  # what it does by default
        del given["share_prefix"]
    for name, value in parse({**now, **given}).model_dump().items():
        if value != now[name]:
            raise UserError(
                f"--run {run}: {flag_of(name)} is {_shown(now[name])} in this run, not "
                f"{_shown(value)}; start a new run with --out"
            )
    return config


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) or "empty" if isinstance(value, tuple) else str(value)


def _announce(
    config: EvalConfig, benchmark: Benchmark, directory: RunDirectory, reporter: Reporter
) -> None:
    conditions = len(conditions_of(config))
    problems = len(benchmark.problems)
    items = min(config.limit or problems, problems)
    decodes = conditions * len(config.quantisations)
    reporter.say(
        f"{decodes} decodes ({conditions} conditions x {len(config.quantisations)} quantisations) "
        f"of {items} problems of {benchmark.title} to {config.n_predict[-1]} tokens, in "
        f"{directory.path}"
    )
    if config.samples > 1:
        reporter.say(
            f"{config.samples} samples of each problem at temperature {config.temperature}"
        )


def _go(
    config: EvalConfig,
    directory: RunDirectory,
    reporter: Reporter,
    as_json: bool,
    *,
    begun_now: bool,
) -> None:
    from arcs.evaluate.pipeline import run_eval

    # the run knows its benchmark; a path would be one more thing to quote and mistype
    with continuable("eval", directory, reporter, begun_now=begun_now):
        metrics = run_eval(config, directory, reporter)
    if as_json:
        sys.stdout.write(canonical_json(metrics))
    else:
        Console(highlight=False).print(report(metrics))
    page = write_report(directory.path)
    reporter.say(
        f"Everything is in {directory.path} ({page.name}, {METRICS}, items.jsonl, manifest.json)."
    )
