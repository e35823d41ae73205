"""Stages as runs of the arcs: each in a folder of this run, and continued with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from arcs.arc1.evaluations import left_of, owes_labels
from arcs.measure.judged import JudgeSettings
from arcs.paper.plan import Stage
from arcs.progress import Reporter
from arcs.runs import METRICS, RunDirectory
from arcs.subruns import sub_run

FOLDER, PROMPTS = "stages", "prompts"


def folder_of(run: Path, name: str) -> Path:
    """Where a stage's run is."""
    return run / FOLDER / name


def prompts_file(run: Path, name: str) -> Path:
    """The paper's prompts, as ``threearc data import paper`` writes them."""
    return run / PROMPTS / f"paper_{name}.jsonl"


def run_stage(
    stage: Stage, run: RunDirectory, reporter: Reporter, judging: JudgeSettings | None = None
) -> dict[str, Any]:
    """Run or continue a stage; what stands in its metrics.json. Raises UserError as the arc.

    ``judging``: how the judge of a stage that needs one is asked; its budget is the whole run's.
    """
    config = _with_paths(stage, run.path)
    kind, judged = stage.recipe.kind, stage.recipe.needs_judge
    with sub_run(folder_of(run.path, stage.name), kind, config.model_dump(mode="json")) as own:
        if not (own.path / METRICS).exists() or (judged and owes_labels(own.read_json(METRICS))):
            _take_base(stage, run.path, own)
            if judged:
                assert judging is not None  # a stage that needs a judge is left out without one
                left = left_of(judging.options, run.path, FOLDER)
                _measure(config, own, reporter, replace(judging, options=left))
            else:
                _RUN[kind](config, own, reporter)
        return own.read_json(METRICS)


def _with_paths(stage: Stage, run: Path) -> Any:
    """The settings with what earlier stages made."""
    recipe, root = stage.recipe, run.absolute()
    found: dict[str, Any] = {}
    if recipe.adapter_of is not None:
        adapter = folder_of(root, recipe.adapter_of) / "adapter"
        found |= {"adapters": (adapter,)} if recipe.kind == "measure" else {"adapter": adapter}
    if recipe.source is not None:
        found["source"] = folder_of(root, recipe.source)
    if recipe.prompts is not None:
        found["items"] = prompts_file(root, recipe.prompts)
    return stage.config.model_copy(update=found)


def _take_base(stage: Stage, run: Path, own: RunDirectory) -> None:
    """The base's answers of an earlier stage of the same evaluation, which no training changes."""
    from arcs.arc1.seeds import take_base

    if stage.recipe.base_of is None:
        return
    path = folder_of(run, stage.recipe.base_of)
    if not (path / METRICS).exists():  # it was refused: this one answers for itself
        return
    take_base(RunDirectory(path, -1), own)


def _arc1(config: Any, run: RunDirectory, reporter: Reporter) -> None:
    from arcs.arc1.pipeline import run_arc1

    run_arc1(config, run, reporter)


def _eval(config: Any, run: RunDirectory, reporter: Reporter) -> None:
    from arcs.evaluate.pipeline import run_eval

    run_eval(config, run, reporter, with_quality=False)  # the base alone is asked about


def _measure(
    config: Any, run: RunDirectory, reporter: Reporter, judging: JudgeSettings | None = None
) -> None:
    from arcs.measure.pipeline import run_measure

    run_measure(config, run, reporter, judging)


def _arc2(config: Any, run: RunDirectory, reporter: Reporter) -> None:
    from arcs.arc2.pipeline import run_arc2

    run_arc2(config, run, reporter)


def _arc3(config: Any, run: RunDirectory, reporter: Reporter) -> None:
    from arcs.arc3.pipeline import run_arc3
    from arcs.judging.opening import JudgeOptions

    run_arc3(config, run, reporter, JudgeOptions())


def _falsify(config: Any, run: RunDirectory, reporter: Reporter) -> None:
    from arcs.falsification.pipeline import run_falsification

    run_falsification(config, run, reporter)


_RUN: Mapping[str, Callable[[Any, RunDirectory, Reporter], None]] = {
    "arc1": _arc1, "eval": _eval, "measure": _measure, "arc2": _arc2, "arc3": _arc3,
    "falsify": _falsify,
}  # fmt: skip
