"""The same run with further seeds, each a run of its own in ``seeds/<seed>``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from arcs.arc1.config import Arc1Config
from arcs.arc1.evaluation import BASE, store_of
from arcs.arc1.evaluations import owes_labels
from arcs.arc1.metrics import Arc1Metrics
from arcs.progress import Reporter
from arcs.runs import METRICS, RunDirectory
from arcs.subruns import sub_run

FOLDER = "seeds"
Run = Callable[[Arc1Config, RunDirectory, Reporter, Path | None], Arc1Metrics]


def repeat(
    config: Arc1Config, run: RunDirectory, reporter: Reporter, again: Run
) -> list[Arc1Metrics]:
    """Run or continue the other seeds; their results, in order."""
    found = []
    for seed in range(config.seed + 1, config.seed + config.seeds):
        changed = {"seed": seed, "seeds": 1, "planted": False}
        settings = config.model_copy(update=changed)
        reporter.say(f"seed {seed}")
        with (
            run.timed(f"seed {seed}"),
            sub_run(run.path / FOLDER / str(seed), "arc1", settings.model_dump(mode="json")) as own,
        ):
            if not (own.path / METRICS).exists() or _owes(own):
                take_base(run, own)
                again(settings, own, reporter, run.path)
            found.append(Arc1Metrics.model_validate(own.read_json(METRICS)))
    return found


def _owes(own: RunDirectory) -> bool:
    found = own.read_json(METRICS).get("evaluations") or {}
    return any(owes_labels(one) for one in found.values())


def take_base(run: RunDirectory, own: RunDirectory) -> None:
    """Take over the base's answers, which no training changes, with how they were made."""
    source, target = store_of(run, BASE).path, store_of(own, BASE).path
    if target.exists():
        return
    own.extend_manifest(**{f"engine_{BASE}": run.manifest()[f"engine_{BASE}"]})
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, part)
    part.replace(target)
