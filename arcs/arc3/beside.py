"""One run's features beside another's, of the very same ids: how far two engines are apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from arcs.arc3 import features
from arcs.arc3.probing import H_LAST, Study
from arcs.arc3.questions import SETS
from arcs.runs import read_manifest
from evals.probing.probes import PRIMARY, PROBES, scores_on
from evals.statistics.auc import AlikeScores, auc, delong_difference


def compare(run: Path, study: Study, position: str) -> dict[str, Any] | None:
    """h_last of the other run for the same rows: distance, and the primary probe's AUC on each.

    The probe is fitted anew on either's features, with this run's labels. None where the other
    run's states are those of another position, or where no answer has a label.
    """
    theirs = {name: features.read(features.path_of(run, name)) for name in SETS}
    if any(one.definition["position"] != position for one in theirs.values()):
        return None
    if not len(study.train.y) + len(study.fresh.y):
        return None
    mine = {"train": study.train, "fresh": study.fresh}
    rows = {}
    for name in SETS:
        place = {item: row for row, item in enumerate(theirs[name].item_ids)}
        rows[name] = theirs[name].arrays[H_LAST][[place[item] for item in mine[name].item_ids]]
    distances = np.concatenate(
        [
            np.linalg.norm(mine[name].x[H_LAST] - rows[name], axis=1)
            / np.linalg.norm(rows[name], axis=1)
            for name in SETS
        ]
    )
    found: dict[str, Any] = {
        "other": read_manifest(run)["backend"],
        "n": len(distances),
        "relative_distance": {
            "median": float(np.median(distances)),
            "largest": float(distances.max()),
        },
        "auc": None,
    }
    if min(study.train.smaller_class, study.fresh.smaller_class) < 2:
        return found
    y, truth = study.train.y, study.fresh.y
    own = scores_on(PROBES[PRIMARY](), study.train.x[H_LAST], y, study.fresh.x[H_LAST])
    its = scores_on(PROBES[PRIMARY](), rows["train"], y, rows["fresh"])
    found["auc"] = {"this": auc(own, truth), "other": auc(its, truth)}
    found["auc"]["difference"] = found["auc"]["this"] - found["auc"]["other"]
    try:
        interval = delong_difference(its, own, truth, study.level).interval.to_json()
    except AlikeScores:
        interval = None
    found["auc"]["interval"] = interval
    return found
