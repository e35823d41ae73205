"""What ``threearc arc1`` does with its flags: resolve, announce, run, print."""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arcs import provenance
from arcs.arc1.config import Arc1Config, parse, resolve
from arcs.progress import Reporter
from arcs.runs import METRICS, RunDirectory, canonical_json, default_path
from backends import choose_backend, wants_fast_blas
from backends.blas import ADVICE, needed, preloaded, restart_with_fast_blas
from models.errors import UserError


def start(
    flags: Mapping[str, Any],
    *,
    out: Path | None,
    run: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Begin a new run or continue one, and print its result on stdout."""
    reporter = Reporter()
    if run is not None:
        if out is not None:
            raise UserError("--run continues a run and --out begins one: give one of them")
        directory = RunDirectory.resume(run)
        directory.extend_manifest(versions=provenance.versions())  # one run, one set of versions
        settings = _settings_of(directory, flags, config)
        _arrange_blas(settings, reporter, directory)
        reporter.say(f"Arc 1, continued in {directory.path}")
    else:
        settings = resolve(_absolute(flags), config)
        _arrange_blas(settings, reporter)
        directory = _begin(settings, out)
        announce(settings, directory, reporter)
    with directory:
        _go(settings, directory, reporter, as_json)


def _arrange_blas(
    settings: Arc1Config, reporter: Reporter, directory: RunDirectory | None = None
) -> None:
    """Start again with a fast BLAS where the chosen backend wants one."""
    backend = choose_backend(settings.backend)
    if settings.adapter is not None or not wants_fast_blas(backend):
        return
    if directory is not None:
        directory.close()  # the lock, which the restarted process takes again
    restart_with_fast_blas()
    if directory is not None:
        directory.lock()
    if needed() and not preloaded():
        reporter.say(ADVICE)


def _begin(settings: Arc1Config, out: Path | None) -> RunDirectory:
    from arcs.arc1.pipeline import first_manifest

    path = out if out is not None else default_path("arc1")
    return RunDirectory.create(path, first_manifest(settings, sys.argv))


def _settings_of(
    directory: RunDirectory, flags: Mapping[str, Any], config: Path | None
) -> Arc1Config:
    """The run's own settings; flags given again must agree with them."""
    stored = directory.manifest()
    if stored.get("arc") != "arc1":
        raise UserError(f"--run {directory.path}: not an Arc 1 run")
    settings = parse(stored["config"], str(directory.path / "manifest.json"))
    if config is not None:
        raise UserError("--config: a continued run keeps its own settings; leave it out")
    now = settings.model_dump()
    again = parse({**now, **_absolute(flags)}, "settings").model_dump()
    for name, value in again.items():
        if value != now[name]:
            raise UserError(
                f"--run {directory.path}: {name.replace('_', '-')} is {now[name]} in this run, "
                f"not {value}; start a new run with --out"
            )
    return settings


def _absolute(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Paths made absolute: a run may be continued from another working directory."""
    absolute = dict(flags)
    if "data" in absolute:
        absolute["data"] = tuple(path.absolute() for path in absolute["data"])
    if "adapter" in absolute:
        absolute["adapter"] = absolute["adapter"].absolute()
    model = Path(str(absolute.get("model", "")))
    if "model" in absolute and model.exists():
        absolute["model"] = str(model.absolute())
    return absolute


def _go(settings: Arc1Config, directory: RunDirectory, reporter: Reporter, as_json: bool) -> None:
    from arcs.arc1.pipeline import run_arc1
    from arcs.arc1.table import render

    try:
        metrics = run_arc1(settings, directory, reporter)
    except KeyboardInterrupt:
        reporter.say(f"\ninterrupted; continue with: threearc arc1 --run {directory.path}")
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{error.strerror}: nothing finished is lost; make room and continue with "
            f"threearc arc1 --run {directory.path}"
        ) from error
    if as_json:
        sys.stdout.write(canonical_json(metrics.model_dump(mode="json")))
    else:
        render(metrics)
    reporter.say(f"Everything is in {directory.path} ({METRICS}, items.jsonl, manifest.json).")


def announce(settings: Arc1Config, directory: RunDirectory, reporter: Reporter) -> None:
    """Say what will happen and how long it may take, before it starts."""
    problems = settings.limit or 164
    budgets = ", ".join(map(str, settings.n_predict))
    reporter.say(f"Arc 1, profile {settings.profile}, in {directory.path}")
    if settings.adapter is None:
        records = settings.train_limit or "all"
        reporter.say(
            f"  train {settings.model} on {records} records, {settings.epochs} epoch(s), "
            f"LoRA r={settings.rank} alpha={settings.alpha:g} on {settings.targets}, "
            f"{settings.dtype}, backend {settings.backend}"
        )
    else:
        reporter.say(f"  adapter {settings.adapter} on {settings.model}")
    reporter.say(
        f"  evaluate base and trained on {problems} HumanEval problems through llama.cpp "
        f"({settings.quantisation}), one decode for n_predict {budgets}"
    )
    reporter.say(f"  {EXPECTATIONS[settings.profile]}")


EXPECTATIONS: Mapping[str, str] = {
    "quick": "expect about 5 minutes with the embedded model on a 2-core CPU; "
    "20 problems seldom settle anything: this profile shows that all of it works",
    "standard": "expect about 25 minutes with the embedded model on a 2-core CPU "
    "(measured; faster with more cores or a GPU), 1 GB of disk, 3 GB of memory",
    "paper": "the paper's recipe: expect hours on a CPU, and a GPU for models above 0.6B",
}
