"""A user's adapter: the base and the edited model answer, are read and labelled as in Arc 3.

Both are runs of Arc 3 inside the falsification, continued with it. The gates are on disk before
the first of them is asked anything. The questions ship with threearc: whether they were asked
before, in another run, no file can tell.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arcs.arc3.config import Arc3Config
from arcs.arc3.config import parse as parse_arc3
from arcs.arc3.probing import Study
from arcs.falsification import steps
from arcs.falsification.config import EDITED_MODEL, FalsifyConfig
from arcs.falsification.evidence import study_of
from arcs.falsification.finished_run import RIGHT, FinishedRun
from arcs.falsification.own import GATES_FIRST
from arcs.gates import Gates
from arcs.progress import Reporter
from arcs.report.writing import write_report
from arcs.runs import METRICS, RunDirectory
from arcs.subruns import sub_run
from models.errors import UserError

BASE, EDITED = "base", "edited"
ARC = "arc3"


class EditedRun(FinishedRun):
    """The edited model's answers, which were made after the gates were written."""

    def registration(self, gates_sha256: str) -> tuple[str, str]:
        """These answers are later than the gates; the same ones may have been made before."""
        return GATES_FIRST, (
            "both models were asked after these gates were written; whether these questions were "
            "asked before is not known"
        )


def arc3_config(config: FalsifyConfig, adapter: Path | None) -> Arc3Config:
    """The run of Arc 3 of the base, or of the adapter on it. Raises UserError for a mistake."""
    given = {name: getattr(config, name) for name in EDITED_MODEL}
    given = {name: value for name, value in given.items() if value is not None}
    return parse_arc3({**given, "adapter": adapter, "profile": config.profile, "seed": config.seed})


def make(config: FalsifyConfig, run: RunDirectory, reporter: Reporter) -> None:
    """Run or continue what is not finished. Raises UserError for each mistake."""
    for name, adapter in ((EDITED, config.adapter), (BASE, None)):
        settings = arc3_config(config, adapter)
        with sub_run(run.path / name, ARC, settings.model_dump(mode="json")) as own:
            if (own.path / METRICS).exists():
                continue
            _run(settings, own, reporter)
        write_report(own.path)


def _run(settings: Arc3Config, own: RunDirectory, reporter: Reporter) -> None:
    from arcs.arc3.pipeline import run_arc3
    from arcs.judging.opening import JudgeOptions

    try:
        run_arc3(settings, own, reporter, JudgeOptions())
    except UserError:
        own.discard_if_unused()  # a mistake is found before anything is answered
        raise


def base_beside(run: Path, gates: Gates, like: Study) -> dict[str, Any]:
    """Steps 1 and 2 on the base's own states and answers: what the edit is compared with."""
    source = FinishedRun(run / BASE, "--model")
    train, fresh = source.train(), source.fresh()
    both = study_of(train, fresh, RIGHT, like)
    alone = study_of(train, train, RIGHT, like)
    return {
        "model": source.identity().to_json(),
        "steps": [steps.training(alone, gates, train.groups is not None), steps.fresh(both, gates)],
        "sets": {
            name: {"right": one.n_right, "wrong": len(one.y) - one.n_right}
            for name, one in (("train", both.train), ("fresh", both.fresh))
        },
        "sources": {"train": train.described, "fresh": fresh.described},
    }
