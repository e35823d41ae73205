"""What ``threearc arc1`` does with its flags: resolve, announce, run, print."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arcs import provenance
from arcs.arc1.config import Arc1Config, absolute_paths, parse, resolve
from arcs.arc1.profiles import MCAS_JUDGE, NO_JUDGE
from arcs.arc1.recipes import note_of
from arcs.continuing import continuable
from arcs.judging.opening import COSTS, JudgeOptions
from arcs.labels import parse_judge
from arcs.progress import Reporter
from arcs.report.writing import write_reports
from arcs.runs import (
    MANIFEST,
    METRICS,
    RunDirectory,
    canonical_json,
    default_path,
    read_manifest,
)
from backends import choose_backend, wants_fast_blas
from backends.blas import ADVICE, needed, preloaded, restart_with_fast_blas
from evals.benchmarks import load_benchmark
from models.errors import UserError

if TYPE_CHECKING:
    from arcs.arc1.evaluations import Asking


def start(
    flags: Mapping[str, Any],
    *,
    out: Path | None,
    run: Path | None,
    as_json: bool,
    options: JudgeOptions | None = None,
    cache: Path | None = None,
) -> None:
    """Begin a new run or continue one, and print its result on stdout.

    ``options``: how the judge is asked, apart from what the run's settings hold; ``cache``: its
    labels.
    """
    from arcs.arc1.evaluations import keep_paying, paying

    reporter = Reporter()
    if run is not None:
        if out is not None:
            raise UserError("--run continues a run and --out begins one: give one of them")
        settings = _settings_of(run, flags)
        asking = _asking(settings, paying(run, options), cache)
        directory = RunDirectory.resume(run)
        # one run, one set of versions, one state of the code
        directory.extend_manifest(versions=provenance.versions())
        directory.require_same_commit(provenance.code_state())
        _arrange_blas(settings, reporter, directory)
        reporter.say(f"Arc 1, continued in {directory.path}")
    else:
        settings = resolve(absolute_paths(flags))
        asking = _asking(settings, options, cache)
        load_benchmark(settings.benchmark)  # a wrong one: before there is a run
        _arrange_blas(settings, reporter)
        directory = _begin(settings, out)
        announce(settings, directory, reporter)
    with directory:
        keep_paying(directory, asking.options)
        _go(settings, directory, reporter, as_json, asking, begun=run is None)


def _asking(settings: Arc1Config, options: JudgeOptions | None, cache: Path | None) -> Asking:
    """Raises UserError for an option of a judge that nobody named, or that would have no effect."""
    from arcs.arc1.evaluations import Asking

    if cache is not None and not _costs(settings):
        raise UserError(
            "--judge-cache: no api or gguf judge labels anything in this run; leave it out"
        )
    named = next(iter((options or JudgeOptions()).given()), None)
    if named is not None and settings.judge is None:
        raise UserError(f"--judge-{named.replace('_', '-')}: it is of a --judge; name one")
    return Asking(options or JudgeOptions(), cache)


def _costs(settings: Arc1Config) -> bool:
    """Whether a judge labels something whose labels take time or money."""
    if settings.judge is not None:  # which needs an evaluation that it labels
        return parse_judge(settings.judge).kind in COSTS
    return "mcas" in settings.evaluations  # by the embedded model


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
    from arcs.arc1.pipeline import first_manifest, training_engine

    training_engine(settings)  # one that cannot: before there is a run
    path = out if out is not None else default_path("arc1")
    return RunDirectory.create(path, first_manifest(settings, sys.argv))


def _settings_of(run: Path, flags: Mapping[str, Any]) -> Arc1Config:
    """The run's own settings; flags given again must agree with them. Writes nothing."""
    stored = read_manifest(run)
    if stored.get("arc") != "arc1" or not isinstance(stored.get("config"), dict):
        raise UserError(f"--run {run}: not an Arc 1 run")
    settings = parse(stored["config"], str(run / MANIFEST))
    now = settings.model_dump()
    again = parse({**now, **absolute_paths(flags)}).model_dump()
    for name, value in again.items():
        if value != now[name]:
            raise UserError(
                f"--run {run}: {name.replace('_', '-')} is {now[name]} in this run, "
                f"not {value}; start a new run with --out"
            )
    return settings


def _go(
    settings: Arc1Config,
    directory: RunDirectory,
    reporter: Reporter,
    as_json: bool,
    asking: Asking,
    *,
    begun: bool,
) -> None:
    """Run and print. ``begun``: by this call, so that a mistake may remove it again."""
    from arcs.arc1.pipeline import run_arc1
    from arcs.arc1.table import render

    with continuable("arc1", directory, reporter, begun_now=begun):
        metrics = run_arc1(settings, directory, reporter, asking=asking)
    if as_json:
        sys.stdout.write(canonical_json(metrics.model_dump(mode="json")))
    else:
        render(metrics)
    page = write_reports(directory.path)
    reporter.say(
        f"Everything is in {directory.path} ({page.name}, {METRICS}, items.jsonl, manifest.json)."
    )


def announce(settings: Arc1Config, directory: RunDirectory, reporter: Reporter) -> None:
    """Say what will happen and how long it may take, before it starts."""
    benchmark = load_benchmark(settings.benchmark)
    problems = min(settings.limit or len(benchmark.problems), len(benchmark.problems))
    budgets = ", ".join(map(str, settings.n_predict))
    reporter.say(f"Arc 1, profile {settings.profile}, in {directory.path}")
    for line in training_lines(settings):
        reporter.say(f"  {line}")
    reporter.say(
        f"  evaluate base and trained on {problems} problems of {benchmark.title} through "
        f"llama.cpp ({settings.quantisation}), one decode for n_predict {budgets}"
    )
    if settings.evaluations:
        items = (
            f"{settings.evaluation_limit} items each" if settings.evaluation_limit else "all items"
        )
        reporter.say(f"  then measure all arms: {', '.join(settings.evaluations)} ({items})")
    if settings.escalate is not None:
        reporter.say(
            f"  continue unfinished answers to at most {settings.escalate} tokens while they could "
            "change the conclusion"
        )
    reporter.say(f"  {EXPECTATIONS[settings.profile]}")
    for line in mcas_lines(settings):
        reporter.say(f"  {line}")


FEW = 10
"""Items of MCAS that the embedded model labels in minutes: 7 labels an answer, one a second."""


def mcas_lines(settings: Arc1Config) -> list[str]:
    """What is to be known of MCAS before it is judged, or why it is left out."""
    embedded = settings.judge in (None, str(parse_judge(MCAS_JUDGE)))
    if "mcas" in settings.evaluations and embedded:
        many = settings.evaluation_limit is None or settings.evaluation_limit > FEW
        return [
            "mcas is judged by the embedded model, which is validated first (its labels are kept "
            "for later runs); its claims are INVALID if it fails its bar, as it is expected to"
            + ("; with so many items its labels take hours" if many else "")
        ]
    if settings.evaluations != NO_JUDGE:
        return []
    if settings.judge is None:
        return [
            "mcas is left out: it needs a judge above its bar; name one with --judge (or take the "
            "embedded one with --evaluations all)"
        ]
    if parse_judge(settings.judge).kind == "lexical":
        return ["mcas is left out: the lexical judge cannot apply it; name another with --judge"]
    return []  # as was asked for


def training_lines(settings: Arc1Config) -> list[str]:
    """What will be trained, a line each."""
    if settings.adapter is not None:
        return [f"adapter {settings.adapter} on {settings.model}"]
    lines = []
    if settings.recipe is not None:
        lines.append(f"recipe {settings.recipe}: {note_of(settings.recipe)}")
    shape = (
        f"LoRA r={settings.rank} alpha={settings.alpha:g} on {settings.targets}, "
        f"dtype {settings.dtype}, backend {settings.backend}"
    )
    if "sft" in settings.trains:
        records = settings.train_limit or "all"
        lines.append(
            f"train {settings.model} on {records} records, {settings.epochs} epoch(s), {shape}"
        )
    if "dpo" in settings.trains:
        lines.append(
            f"DPO on {settings.pairs_limit or 'all'} pairs, {settings.dpo_epochs} epoch(s), "
            f"beta {settings.beta:g}, reference {settings.dpo_reference}"
            + ("" if "sft" in settings.trains else f", {shape}")
        )
    if settings.processes > 1:
        lines.append(
            f"each step's micro-batches are shared out among {settings.processes} processes"
        )
    if settings.planted:
        lines.append("train the planted effect (always hedges) and its placebo")
    if settings.seeds > 1:
        last = settings.seed + settings.seeds - 1
        lines.append(f"all of it with seeds {settings.seed} to {last}, but the controls")
    return lines


EXPECTATIONS: Mapping[str, str] = {
    "quick": "as it stands: about 7 minutes with the embedded model on 2 cores; 20 problems "
    "and 3 items seldom settle anything: this profile shows that all of it works",
    "standard": "as it stands: about an hour with the embedded model on 2 cores (76 minutes "
    "with --planted, 25 with --method sft --evaluations none), 1 GB of disk, 3 GB of memory",
    "paper": "the paper's recipe: expect hours on a CPU, and a GPU for models above 0.6B",
}
"""What a profile takes without other flags."""
