"""A falsification in a capsule: the run of Arc 3 that it rests on, and its five steps beside it.

Step 2, the one on fresh items, is made again from the states and labels that the capsule holds, by
the gates that it states; the others need what it does not hold, and are as stated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arcs.arc3 import features
from arcs.arc3.pipeline import LABELS
from arcs.arc3.questions import SETS
from arcs.audits.readers.source import read_json
from arcs.falsification.config import FalsifyConfig
from arcs.falsification.edited import EDITED
from arcs.falsification.evidence import Evidence, study_of
from arcs.falsification.finished_run import RIGHT
from arcs.falsification.protocol import FILE, NOT_RUN, Step
from arcs.gates import TABLES, Gates
from arcs.runs import METRICS
from models.errors import UserError
from models.fingerprint import file_sha256

if TYPE_CHECKING:
    from arcs.capsules.contents import Row

KIND, SECTION = "falsify", "falsification"
TOLERANCE = 1e-3
"""Of a rate or an AUC: a solver of another version may order a pair of answers otherwise. The
threshold's rates move by whole answers, so they may be apart by one of those that they are of."""


def source_of(run: Path, manifest: Mapping[str, Any]) -> Path:
    """The run of Arc 3. Raises UserError where there is none, or it is another one by now."""
    config = manifest.get("config") or {}
    if config.get("adapter"):
        source = run / EDITED
    elif config.get("source"):
        source = Path(config["source"])
        if not source.exists():  # both were copied, from another machine or folder
            source = run.resolve().parent / source.name
    else:
        raise UserError(
            f"{run}: it rests on files of yours ({config.get('features')}), and a capsule holds a "
            f"run of arc3; pass these files on, with {FILE}"
        )
    for name in SETS:
        stated = manifest.get(name)
        if stated is None:
            raise UserError(f"{run}: not finished; go on with threearc falsify --run {run}")
        for path, of in ((features.path_of(source, name), "features"), (source / LABELS, "labels")):
            if not path.is_file():
                raise UserError(f"{run}: it rests on {path}, which is not there any more")
            if file_sha256(path) != stated[of]["sha256"]:
                raise UserError(f"{run}: {path} has changed since it was falsified")
    return source


def contents(run: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the run adds to the capsule of its source."""
    if not (run / METRICS).is_file():
        raise UserError(f"{run}: not finished; go on with threearc falsify --run {run}")
    metrics = read_json(run / METRICS)
    return {
        "run": run.resolve().name,
        "manifest": manifest,
        "declared": read_json(run / FILE),
        "files": {name: file_sha256(run / name) for name in (METRICS, FILE)},
        **{name: metrics[name] for name in ("claims", "steps", "modes", "registration")},
    }


def numbers_again(section: Mapping[str, Any], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each number of step 2 as stated, and from the capsule's own states and labels."""
    from arcs.falsification import steps

    stated = next(one for one in section["steps"] if one["step"] == Step.FRESH.value)
    config = FalsifyConfig.model_validate(section["manifest"]["config"])
    stored = section["manifest"]["gates"]
    gates = Gates(**{name: kind(**stored[name]) for name, kind in TABLES.items()},
                  sha256=stored["sha256"])  # fmt: skip
    train, fresh = (_evidence([one for one in rows if one.set == name]) for name in SETS)
    study = study_of(
        train, fresh, RIGHT, None, sizes=config.sizes, seed=config.seed, level=gates.level
    )
    here = steps.held_out(study, gates, Step.FRESH)
    if stated["state"] == NOT_RUN:
        same = here["state"] == NOT_RUN
        return [{"quantity": "step 2", "stated": None, "recomputed": None, "tolerance": TOLERANCE,
                 "reproduces": None if same else False,
                 "why": f"step 2 was not run: {stated['reason']}"}]  # fmt: skip
    made = {one["gate"]: one for one in here["gates"]}
    return [_compared(one, made.get(one["gate"])) for one in stated["gates"]]


def _evidence(rows: Sequence[Row]) -> Evidence:
    return Evidence(
        item_ids=tuple(one.item_id for one in rows),
        x={"h_last": np.stack([one.state for one in rows])},
        labels={RIGHT: tuple(one.right for one in rows)},
        truncated=tuple(one.finish_reason == "length" for one in rows),
    )


def _compared(stated: Mapping[str, Any], here: Mapping[str, Any] | None) -> dict[str, Any]:
    told = stated["estimate"]
    again = None if here is None else here["estimate"]
    found = {"quantity": f"step 2, {stated['gate']}", "recomputed": None, "tolerance": TOLERANCE,
             "stated": None if told is None else told["value"], "why": None}  # fmt: skip
    if here is None or told is None or again is None:
        why = "there is no number of it" if told is None else "what the capsule holds gives none"
        return {**found, "reproduces": (told is None) == (again is None), "why": why}
    slack = TOLERANCE if "AUC" in stated["gate"] else TOLERANCE + 1 / again["n"]
    near = abs(told["value"] - again["value"]) <= slack
    return {**found, "recomputed": again["value"], "tolerance": slack,
            "reproduces": bool(near and stated["state"] == here["state"])}  # fmt: skip
