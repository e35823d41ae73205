"""What ``threearc paper`` does with its flags: resolve, say what it needs, run, print."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from arcs import provenance
from arcs.arc1.evaluations import keep_paying, paying
from arcs.continuing import continuable
from arcs.fast_blas import arrange_fast_blas
from arcs.judging.opening import JudgeOptions, check_judge
from arcs.labels import parse_judge
from arcs.measure.command import asking_of
from arcs.measure.judged import JudgeSettings
from arcs.paper.config import PaperConfig, flag_of, parse, resolve
from arcs.paper.forecast import Forecast, forecast
from arcs.paper.pipeline import Prepared, prepare_paper, run_paper
from arcs.paper.plan import Plan
from arcs.paper.recipe import Recipe, recipe_of
from arcs.paper.report import report
from arcs.progress import Reporter
from arcs.report.writing import write_report
from arcs.runs import METRICS, RunDirectory, canonical_json, default_path, read_manifest
from models.disk import require_free
from models.errors import UserError

ARC = "paper"


def start(
    flags: Mapping[str, Any],
    *,
    out: Path | None,
    run: Path | None,
    as_json: bool,
    dry_run: bool = False,
    options: JudgeOptions | None = None,
    cache: Path | None = None,
) -> None:
    """Begin a new run or continue one, and print its table on stdout.

    ``dry_run``: only say what would be run, needed and substituted. ``options``: how the judge is
    asked, apart from what the run's settings hold; ``cache``: its labels.
    """
    reporter = Reporter()
    if run is not None:
        if out is not None or dry_run:
            raise UserError("--run continues a run; leave --out and --dry-run out")
        config, recipe = _settings_of(run, flags)
        options = paying(run, options)
    else:
        config, recipe = resolve(flags)
    prepared = prepare_paper(config, recipe, reporter, runs=not dry_run)
    judging = _judging(prepared.plan, options, cache)
    if judging is not None and not dry_run:
        check_judge(parse_judge(judging.judge), reporter, judging.options)
    arrange_fast_blas(prepared.backend, reporter)
    needs = forecast(prepared.plan, prepared.directory, prepared.backend)
    if dry_run:
        _print_plan(config, recipe, prepared, needs, as_json)
        return
    if run is not None:
        directory = RunDirectory.resume(run)
        directory.extend_manifest(versions=provenance.versions())
        directory.require_same_commit(provenance.code_state())
        reporter.say(f"paper, continued in {directory.path}")
    else:
        path = out if out is not None else default_path(ARC)
        require_free(path, needs.disk, "this run")
        directory = RunDirectory.create(
            path,
            provenance.first_manifest(ARC, config.model_dump(mode="json"), sys.argv),
        )
        for line in announcement(config, recipe, prepared, needs):
            reporter.say(line)
        reporter.say(f"in {directory.path}")
    with directory:
        if judging is not None:
            keep_paying(directory, judging.options)
        with continuable(ARC, directory, reporter, begun_now=run is None):
            metrics = run_paper(config, recipe, prepared, directory, reporter, judging)
        if as_json:
            sys.stdout.write(canonical_json(metrics))
        else:
            Console(highlight=False).print(report(metrics))
        page = write_report(directory.path)
        reporter.say(
            f"Everything is in {directory.path} ({page.name}, {METRICS}, manifest.json; stages/: "
            "each a run of its own)."
        )


def _judging(plan: Plan, options: JudgeOptions | None, cache: Path | None) -> JudgeSettings | None:
    """How the stage that needs a judge asks it. Raises UserError for what would have no effect."""
    stage = next((one for one in plan.stages if one.recipe.needs_judge), None)
    if stage is not None:
        return asking_of(stage.config, options, cache)
    named = [*(options or JudgeOptions()).given(), *(() if cache is None else ("cache",))]
    if named:
        raise UserError(f"--judge-{named[0].replace('_', '-')}: it is of a --judge; name one")
    return None


def announcement(
    config: PaperConfig, recipe: Recipe, prepared: Prepared, needs: Forecast
) -> list[str]:
    """What will be run, what it needs, and what has to be substituted."""
    plan, name = prepared.plan, prepared.directory.name
    stands_in = f", on {name}" if name != recipe.model else ""
    lines = [f"The paper's {recipe.model}{stands_in}, profile {config.profile}: {recipe.says}"]
    lines += [
        f"  {one.name}: threearc {one.recipe.kind} on {prepared.backend}" for one in plan.stages
    ]
    lines += [f"  not {one}: {why}" for one, why in plan.left_out.items()]
    lines += [f"  {line}" for line in needs.lines()]
    if config.judge is not None:
        lines.append(f"  the labels of {config.judge} are not in that time")
    where: dict[str, list[str]] = {}
    for one in plan.stages:
        for note in one.substituted:
            where.setdefault(note, []).append(one.name)
    for note, found in where.items():
        of = "" if len(found) == len(plan.stages) else f" ({', '.join(found)})"
        lines.append(f"  substituted{of}: {note}")
    return lines


def _print_plan(
    config: PaperConfig, recipe: Recipe, prepared: Prepared, needs: Forecast, as_json: bool
) -> None:
    if not as_json:
        Console(highlight=False, markup=False).print(
            "\n".join(announcement(config, recipe, prepared, needs)), soft_wrap=True
        )
        return
    plan = prepared.plan
    sys.stdout.write(canonical_json({
        "schema_version": "threearc-paper-plan-1",
        "recipe": recipe.model,
        "model": prepared.directory.name,
        "stages": [
            {"name": one.name, "kind": one.recipe.kind, "substituted": list(one.substituted),
             "settings": one.config.model_dump(mode="json")}
            for one in plan.stages
        ],
        "left_out": dict(plan.left_out),
        "memory_bytes": needs.memory,
        "free_memory_bytes": needs.free_memory,
        "disk_bytes": needs.disk,
        "seconds_at_most": needs.seconds,
        "seconds_from": "measured" if needs.measured else "scaled by parameters",
    }))  # fmt: skip


def _settings_of(run: Path, flags: Mapping[str, Any]) -> tuple[PaperConfig, Recipe]:
    """The run's own settings; flags given again must agree with them. Writes nothing."""
    stored = read_manifest(run)
    if stored.get("arc") != ARC or not isinstance(stored.get("config"), dict):
        raise UserError(f"--run {run}: not a run of threearc paper")
    config = parse(stored["config"])
    now = config.model_dump()
    if flags:
        own = {"model": config.model, "recipe": config.recipe}
        if config.judge is not None:
            own["judge"] = config.judge
        again, _ = resolve({**own, **flags})
        given = again.model_dump()
        for name in flags:
            if given[name] != now[name]:
                raise UserError(
                    f"--run {run}: {flag_of(name)} is {_shown(now[name])} in this run, not "
                    f"{_shown(given[name])}; start a new run with --out"
                )
    return config, recipe_of(config.model, config.recipe)


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
