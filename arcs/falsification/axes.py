"""Step 3: every label of both sets is a claim of its own, and no two of them are one.

Cut answers may have ended otherwise, and of each axis otherwise than of another: one that would
have become right need not have become one that hedges. A sweep that passes must pass in every such
reading; one that fails must fail by one and the same gate in all of them. Every axis wrong, every
axis right, and each one right alone while the others are wrong: that holds either label of an axis,
and all four of a pair, which is all that a gate of this step rests on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import pearsonr

from arcs.arc3 import claims, probing
from arcs.arc3.probing import H_LAST, Study
from arcs.estimates import Estimate, Gate, GateState
from arcs.falsification.evidence import Evidence, mixed, study_of
from arcs.falsification.protocol import Held, Step, combined, level_to_fail, not_run, step_json
from arcs.falsification.steps import (
    both_counts,
    by_kind,
    fresh_estimate,
    only_as_taken,
    oof_auc,
    too_few,
    trained,
    unlabelled,
)
from arcs.gates import Gates
from evals.statistics.auc import guarded_interval
from evals.statistics.multiplicity import holm
from evals.statistics.rates import Interval

AS_TAKEN = "as taken"
PASSED, FAILED = GateState.PASSED.value, GateState.FAILED.value
Ways = Mapping[str, str]
"""How each axis's cut answers are read."""


@dataclass(frozen=True, eq=False)
class Tested:
    """One axis, its cut answers read in one way."""

    row: dict[str, Any]
    held: list[Held]
    oof: Mapping[str, float]
    """Out-of-fold score by training item."""
    on_fresh: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Sweep:
    """All axes; each is fitted once in each reading of its own."""

    studies: Mapping[str, Mapping[str, Study]]
    """By axis, by way; of an axis without cut answers, :data:`AS_TAKEN` alone."""
    gates: Gates
    _made: dict[tuple[str, str], Tested | None] = field(default_factory=dict)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Of any two axes."""
        return list(combinations(self.studies, 2))

    @property
    def level(self) -> float:
        """Of the intervals by which a gate of this step fails."""
        return level_to_fail(self.gates, 2 * len(self.studies) + len(self.pairs))

    def tested(self, axis: str, way: str) -> Tested | None:
        """None where that reading leaves too few of a class."""
        key = axis, way
        if key not in self._made:
            study = self.studies[axis][way]
            few = too_few(study.train, study.fresh) is not None
            self._made[key] = None if few else _tested(axis, study, self.gates, self.level)
        return self._made[key]

    def readings(self) -> dict[str, dict[str, str]]:
        """Every other way to read cut answers, axis by axis; none where there are none."""
        opened = [axis for axis, ways in self.studies.items() if claims.OPEN_RIGHT in ways]
        named = dict.fromkeys(way for ways in self.studies.values() for way in ways)
        found = {way: self._all(way) for way in named if way != AS_TAKEN}
        for axis in opened if len(opened) > 1 else []:
            ways = {**self._all(claims.OPEN_WRONG), axis: claims.OPEN_RIGHT}
            found[f"{claims.OPEN_RIGHT} of {axis} alone"] = ways
        return found

    def _all(self, way: str) -> dict[str, str]:
        return {axis: way if way in ways else AS_TAKEN for axis, ways in self.studies.items()}

    def correlated(self, ways: Ways) -> list[tuple[Held, dict[str, Any]]]:
        """Every pair of which both can be tested."""
        of = {axis: one.oof for axis in self.studies if (one := self.tested(axis, ways[axis]))}
        return [_correlated(pair, of, self.gates, self.level) for pair in self.pairs
                if of.keys() >= set(pair)]  # fmt: skip

    def read(self, ways: Ways) -> dict[str, Any]:
        """What the step comes to, and the gates that fail."""
        found = [self.tested(axis, way) for axis, way in ways.items()]
        there = [one for one in found if one is not None]
        held = [each for one in there for each in one.held]
        held += [one for one, _ in self.correlated(ways)]
        state = combined(held)
        whole = len(there) == len(found) and all(one.row["state"] == PASSED for one in there)
        if state is GateState.PASSED and not whole:
            state = GateState.NOT_DECIDABLE
        failed = [one.gate.name for one in held if one.state is GateState.FAILED]
        return {"state": state.value, "failed": failed}


def axes(train: Evidence, fresh: Evidence, main: str, like: Study, gates: Gates) -> dict[str, Any]:
    """Step 3."""
    of_train, of_fresh = _labelled(train), _labelled(fresh)
    named = sorted(of_train & of_fresh, key=lambda one: (one != main, one))
    none = {"axes": [], "correlations": [], "in_one_set": sorted(of_train ^ of_fresh)}
    if len(named) < 2:
        return not_run(
            Step.AXES, f"labels of one axis only ({main}); give others beside it", **none
        )
    studies = {axis: study_of(train, fresh, axis, like) for axis in named}
    left_out = {
        axis: why for axis, study in studies.items()
        if (why := _unfit(train, fresh, axis, study, gates)) is not None
    }  # fmt: skip
    used = {axis: {AS_TAKEN: study, **claims.readings(study)}
            for axis, study in studies.items() if axis not in left_out}  # fmt: skip
    if len(used) < 2 or main not in used:
        axis, why = next(iter(left_out.items()))
        return not_run(Step.AXES, f"{axis}: {why}", **none, left_out=left_out)
    sweep = Sweep(used, gates)
    found = _as_taken(sweep, main)
    found |= {"left_out": left_out, "in_one_set": none["in_one_set"]}
    if left_out and found["state"] == PASSED:
        axis, why = next(iter(left_out.items()))
        found |= {"state": GateState.NOT_DECIDABLE.value, "reason": f"{axis} is left out: {why}"}
    return _in_every_reading(found, sweep, main)


def _unfit(
    train: Evidence, fresh: Evidence, axis: str, study: Study, gates: Gates
) -> str | None:  # fmt: skip
    if mixed(train, fresh, axis):
        return "its labels come from different judges, prompts or cuts"
    return too_few(study.train, study.fresh) or unlabelled(train, fresh, axis, gates)


def _labelled(found: Evidence) -> set[str]:
    """Axes of which any item has a label."""
    return {axis for axis, labels in found.labels.items() if any(one is not None for one in labels)}


def _tested(axis: str, study: Study, gates: Gates, to_fail: float) -> Tested:
    asked, train, fresh = gates.protocol, study.train, study.fresh
    made = trained(train, train.x[H_LAST], study, asked.asserted_right)
    scores = probing.primary_on_fresh(study)
    cv, estimate = (
        oof_auc(made, train, study.level),
        fresh_estimate(scores, fresh.y, study.level),
    )
    held = [
        Held(Gate(f"{axis}: AUC, out of fold", asked.axis_cv_auc), cv,
             wider=guarded_interval(made.oof, train.y, to_fail)),
        Held(Gate(f"{axis}: AUC on fresh items", asked.axis_fresh_auc), estimate,
             wider=guarded_interval(scores, fresh.y, to_fail)),
    ]  # fmt: skip
    row = {
        "axis": axis, "n": both_counts(study), "state": combined(held).value,
        "training": cv.to_json(), "fresh": estimate.to_json(),
    }  # fmt: skip
    return Tested(
        {**row, **by_kind(row, study, scores, gates)}, held,
        dict(zip(train.item_ids, made.oof, strict=True)),
        dict(zip(fresh.item_ids, scores, strict=True)),
    )  # fmt: skip


def _as_taken(sweep: Sweep, main: str) -> dict[str, Any]:
    """The step by the labels that the answers have."""
    ways = dict.fromkeys(sweep.studies, AS_TAKEN)
    tested = {axis: one for axis in ways if (one := sweep.tested(axis, AS_TAKEN))}
    rows = [
        {**one.row, "main_probe": _reads(tested[main].on_fresh, sweep.studies[axis][AS_TAKEN])}
        for axis, one in tested.items()
    ]
    adjusted = holm({row["axis"]: row["fresh"]["p_value"] for row in rows}, sweep.gates.test.alpha)
    for row in rows:
        row["fresh"] = {**row["fresh"], "p_holm": adjusted[row["axis"]].adjusted}
    correlated = sweep.correlated(ways)
    held = [each for one in tested.values() for each in one.held]
    found = step_json(
        Step.AXES, [*held, *(one for one, _ in correlated)],
        axes=rows, correlations=[one for _, one in correlated],
        passing=sum(row["state"] == PASSED for row in rows),
    )  # fmt: skip
    between = next((row for row in rows if row.get("between_kinds")), None)
    if between is not None and found["state"] == PASSED:
        found |= {"state": between["state"], "between_kinds": True,
                  "reason": f"{between['axis']}: {between['reason']}"}  # fmt: skip
    return found


def _in_every_reading(found: dict[str, Any], sweep: Sweep, main: str) -> dict[str, Any]:
    """The step decides only what it decides however cut answers ended."""
    if found["state"] not in (PASSED, FAILED):
        return {**found, "readings": []}
    readings = [
        {"way": way, "n": len(sweep.studies[main][ways[main]].fresh.y), **sweep.read(ways)}
        for way, ways in sweep.readings().items()
    ]
    otherwise = [one["way"] for one in readings if one["state"] != found["state"]]
    if found["state"] == FAILED:
        failed = {one["gate"] for one in found["gates"] if one["state"] == FAILED}
        for one in readings:  # one gate that fails in all, so that it does in any mixture of them
            failed &= set(one["failed"])
            if not failed:
                otherwise = otherwise or [one["way"]]
    return {**(only_as_taken(found, otherwise) if otherwise else found), "readings": readings}


def _reads(main: Mapping[str, float], study: Study) -> dict[str, Any] | None:
    """How well the main axis's probe tells another axis's labels: what it may be reading."""
    kept = [row for row, item in enumerate(study.fresh.item_ids) if item in main]
    labels = study.fresh.y[kept]
    if len(kept) < 2 or labels.all() or not labels.any():
        return None
    scores = np.array([main[study.fresh.item_ids[row]] for row in kept])
    return probing.shown(scores, labels, study.level)


def _correlated(
    pair: tuple[str, str], scores: Mapping[str, Mapping[str, float]], gates: Gates, to_fail: float
) -> tuple[Held, dict[str, Any]]:
    """Size of the correlation of two axes' out-of-fold scores over the items of both."""
    name = f"|r| of {pair[0]} and {pair[1]}"
    limit = Gate(name, gates.protocol.axis_correlation, at_least=False)
    shared = [item for item in scores[pair[0]] if item in scores[pair[1]]]
    first, second = (np.array([scores[axis][item] for item in shared]) for axis in pair)
    if len(shared) < 4 or np.ptp(first) == 0 or np.ptp(second) == 0:
        held = Held(limit, None, f"{name}: too few items of both axes, or scores that are all one")
        return held, {"axes": list(pair), "r": None, "interval": None, "n": len(shared)}
    found = pearsonr(first, second)
    (low, high), wider = (
        (float(one.low), float(one.high))
        for one in map(found.confidence_interval, (gates.level, to_fail))
    )
    size = _size(low, high, gates.level)
    estimate = Estimate(
        name, abs(float(found.statistic)), size, "Fisher's z, of the size", len(shared),
        p_value=float(found.pvalue), test="t",
    )  # fmt: skip
    interval = {"low": low, "high": high, "level": gates.level}
    held = Held(limit, estimate, wider=_size(*wider, to_fail))
    return held, {"axes": list(pair), "r": float(found.statistic), "interval": interval,
                  "n": len(shared)}  # fmt: skip


def _size(low: float, high: float, level: float) -> Interval:
    """Interval of |r| from that of r."""
    least = 0.0 if low < 0 < high else min(abs(low), abs(high))
    return Interval(least, max(abs(low), abs(high)), level)
