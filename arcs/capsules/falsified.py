"""A falsification in a capsule: the run of Arc 3 that it rests on, or the features and labels that
were brought, and its five steps beside.

Steps 1 and 2 are made again from the states and labels that the capsule holds, by the gates that it
states; the others, and the nulls, need what it does not hold or hours, and are as stated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arcs.arc3 import features
from arcs.arc3.pipeline import LABELS
from arcs.arc3.probing import H_LAST
from arcs.arc3.questions import SETS
from arcs.audits.readers.source import read_json
from arcs.capsules.arrays import packed, unpacked
from arcs.falsification.config import FalsifyConfig
from arcs.falsification.edited import EDITED
from arcs.falsification.evidence import Evidence, study_of
from arcs.falsification.finished_run import RIGHT
from arcs.falsification.own import Own
from arcs.falsification.pipeline import files_of
from arcs.falsification.protocol import FILE, NAMES, NOT_RUN, Step, not_run, step_json
from arcs.gates import stored_gates
from arcs.runs import METRICS, canonical_json
from models.errors import UserError
from models.fingerprint import file_sha256

if TYPE_CHECKING:
    from arcs.capsules.contents import Row

KIND, SECTION = "falsify", "falsification"
TOLERANCE = 1e-3
"""Of a rate or an AUC: a solver of another version may order a pair of answers otherwise. The
threshold's rates move by whole answers, so they may be apart by one of those that they are of."""


def source_of(run: Path, manifest: Mapping[str, Any]) -> Path | None:
    """The run of Arc 3; None: it rests on files that were brought. Raises UserError where it is
    another one by now."""
    config = manifest.get("config") or {}
    if config.get("adapter"):
        source = run / EDITED
    elif config.get("source"):
        source = Path(config["source"])
        if not source.exists():  # both were copied, from another machine or folder
            source = run.resolve().parent / source.name
    else:
        return None
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


def own(run: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """States and labels of both sets, from the user's files. Raises UserError where these are not
    there any more, or others by now."""
    section = contents(run, manifest)
    config = FalsifyConfig.model_validate(manifest["config"])
    awaited = manifest.get("awaited", ())
    source = Own(files_of(config, ""), config.axis, config.untruncated, awaited)
    try:
        found = dict(zip(SETS, (source.train(), source.fresh()), strict=True))
    except UserError as error:
        raise UserError(f"{run}: it cannot be read again: {error}") from None
    for name, one in found.items():
        told = json.loads(canonical_json(one.described))
        for what in ("features", "labels"):
            if told[what] != manifest[name][what]:
                path = told[what]["path"]
                raise UserError(f"{run}: {path} has changed since it was falsified")
    axis = source.axis()
    return {
        "claims": {},
        "axis": axis,
        "files": dict(
            pair for one in found.values()
            for pair in ((one.described["features"]["path"], one.described["features"]["sha256"]),
                         *one.described["labels"]["sha256"].items())
        ),
        "rows": [
            {"item_id": item, "set": name, "right": label, "state": packed(state)}
            for name, one in found.items()
            for item, label, state in zip(one.item_ids, one.labels[axis], one.x[H_LAST],
                                          strict=True)
        ],
        SECTION: section,
    }  # fmt: skip


def verify(document: Mapping[str, Any]) -> dict[str, Any]:
    """Of a capsule of :func:`own`; no model is asked, and nothing is drawn."""
    rows = {name: [row for row in document["rows"] if row["set"] == name] for name in SETS}
    train, fresh = (
        _evidence([row["item_id"] for row in of], [unpacked(row["state"]) for row in of],
                  [row["right"] for row in of])
        for of in rows.values()
    )  # fmt: skip
    return {
        "rows": {name: len(of) for name, of in rows.items()},
        "numbers": list(_numbers(document[SECTION], train, fresh)),
    }


def numbers_again(section: Mapping[str, Any], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each number of steps 1 and 2 as stated, and from an Arc 3 capsule's states and labels."""
    sides = ([one for one in rows if one.set == name] for name in SETS)
    train, fresh = (
        _evidence([one.item_id for one in side], [one.state for one in side],
                  [one.right for one in side], [one.finish_reason == "length" for one in side])
        for side in sides
    )  # fmt: skip
    return list(_numbers(section, train, fresh))


def _evidence(
    item_ids: Sequence[str], states: Sequence[Any], labels: Sequence[bool | None],
    cut: Sequence[bool] | None = None,
) -> Evidence:  # fmt: skip
    return Evidence(
        item_ids=tuple(item_ids),
        x={H_LAST: np.stack(states)},
        labels={RIGHT: tuple(labels)},
        truncated=None if cut is None else tuple(cut),
    )


def _numbers(
    section: Mapping[str, Any], train: Evidence, fresh: Evidence
) -> Iterator[dict[str, Any]]:
    from arcs.falsification import steps

    config = FalsifyConfig.model_validate(section["manifest"]["config"])
    gates = stored_gates(section["manifest"]["gates"], "the capsule")
    study = study_of(
        train, fresh, RIGHT, None, sizes=config.sizes, seed=config.seed, level=gates.level
    )
    why = steps.too_few(study.train)
    first = (
        not_run(Step.TRAINING, why)
        if why is not None
        else step_json(Step.TRAINING, steps.out_of_fold(study, gates)[1])
    )
    made = {Step.TRAINING: first, Step.FRESH: steps.held_out(study, gates, Step.FRESH)}
    for step, here in made.items():
        stated = next(one for one in section["steps"] if one["step"] == step.value)
        title = f"step {NAMES[step][0]}"
        if NOT_RUN in (stated["state"], here["state"]):
            same = stated["state"] == here["state"]
            told = stated if stated["state"] == NOT_RUN else here
            yield {"quantity": title, "stated": None, "recomputed": None, "tolerance": TOLERANCE,
                   "reproduces": None if same else False,
                   "why": f"{title} was not run: {told['reason']}"}  # fmt: skip
            continue
        again = {one["gate"]: one for one in here["gates"]}
        for one in stated["gates"]:
            yield _compared(title, one, again.get(one["gate"]))


def _compared(
    title: str, stated: Mapping[str, Any], here: Mapping[str, Any] | None
) -> dict[str, Any]:
    told = stated["estimate"]
    again = None if here is None else here["estimate"]
    found = {"quantity": f"{title}, {stated['gate']}", "recomputed": None, "tolerance": TOLERANCE,
             "stated": None if told is None else told["value"], "why": None}  # fmt: skip
    if here is None or told is None or again is None:
        why = "there is no number of it" if told is None else "what the capsule holds gives none"
        return {**found, "reproduces": (told is None) == (again is None), "why": why}
    slack = TOLERANCE if "AUC" in stated["gate"] else TOLERANCE + 1 / again["n"]
    near = abs(told["value"] - again["value"]) <= slack
    return {**found, "recomputed": again["value"], "tolerance": slack,
            "reproduces": bool(near and stated["state"] == here["state"])}  # fmt: skip
