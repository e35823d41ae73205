"""The five steps, each from rows to numbers held to gates. The statistics are those of Arc 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr

from arcs.arc3 import claims, probing
from arcs.arc3.analysis import as_read
from arcs.arc3.probing import FOLDS, H_LAST, Study
from arcs.arc3.table import Side
from arcs.claims import Verdict
from arcs.estimates import Estimate, Gate, GateState, hold_to_gate
from arcs.falsification.evidence import ALL, Evidence, side_of
from arcs.falsification.protocol import (
    LAST_K,
    Held,
    Step,
    combined,
    level_to_fail,
    not_run,
    step_json,
)
from arcs.gates import Gates
from evals.probing import gate as gates_of
from evals.probing.probes import PRIMARY, PROBES, scores_on
from evals.statistics.auc import auc, delong_interval
from evals.statistics.cross_validation import CrossValidatedAuc, cross_validated
from evals.statistics.multiplicity import holm
from evals.statistics.power_auc import n_to_hold
from evals.statistics.rates import Interval, wilson
from evals.statistics.thresholds import Threshold, asymmetry_null, best_asymmetry

FloatArray = NDArray[np.float64]
Rows = NDArray[np.float32]
LEAST = claims.LEAST


@dataclass(frozen=True)
class Trained:
    """A probe of one kind of features, out of fold."""

    cv: CrossValidatedAuc
    threshold: Threshold | None

    @property
    def oof(self) -> FloatArray:
        """[n] mean over the seeds of the folds."""
        found: FloatArray = self.cv.scores.mean(axis=0)
        return found


def too_few(train: Side, fresh: Side | None = None) -> str | None:
    """Why no probe can be fitted, or none tested."""
    if train.smaller_class < FOLDS:
        return f"{train.smaller_class} training items of one class; {FOLDS} folds need as many"
    if fresh is not None and fresh.smaller_class < LEAST:
        return f"{fresh.smaller_class} fresh items of one class; an AUC needs {LEAST}"
    return None


def training(study: Study, gates: Gates, grouped: bool) -> dict[str, Any]:
    """Step 1. ``grouped``: whether the kinds of the items are known."""
    train, asked = study.train, gates.protocol
    why = too_few(train)
    if why is not None:
        return not_run(Step.TRAINING, why, no_signal=True, n=_counts(train))
    made, held = out_of_fold(study, gates)
    null = probing.permuted(study)
    by_group = None
    if grouped:
        by_group = probing.cross_validate(
            PROBES[PRIMARY](), train.x[H_LAST], train, study.slow_seeds, grouped=True
        )
    return step_json(
        Step.TRAINING, held,
        n=_counts(train),
        cross_validated=probing.cv_json(made.cv),
        permuted_labels=null,
        no_signal=null["p_value"] >= gates.test.alpha,
        n_to_decide=_n_to_decide(held, gates),
        whole_kinds_left_out=None if by_group is None else probing.cv_json(by_group),
        threshold=None if made.threshold is None else made.threshold.value,
        chance=_chance(made, train, study, -asked.cv_asymmetry, asked.asserted_right),
    )  # fmt: skip


def out_of_fold(study: Study, gates: Gates) -> tuple[Trained, list[Held]]:
    """The probe of step 1, and its numbers held to their gates."""
    train, asked = study.train, gates.protocol
    made = _trained(train, train.x[H_LAST], study, asked.asserted_right)
    return made, [
        Held(Gate("AUC, out of fold", asked.cv_auc), _oof_auc(made, train, study.level)),
        _asymmetry(
            Gate("asymmetry, out of fold", -asked.cv_asymmetry, at_least=False),
            made, made.oof, train, study.level,
        ),
    ]  # fmt: skip


def _chance(
    made: Trained, side: Side, study: Study, gate: float, share: float
) -> dict[str, Any] | None:
    """How often permuted labels pass the asymmetry gate, the threshold chosen for each.

    That null is over the paper's grid, which ends at 0.05: None where no threshold of it asserts
    enough, though one of the scores themselves does.
    """
    if best_asymmetry(made.oof, side.y, min_p_correct=share) is None:
        return None
    null = asymmetry_null(
        made.oof, side.y, gate=gate, min_p_correct=share,
        permutations=study.sizes.oracle_permutations, seed=study.seed,
    )  # fmt: skip
    return {"p_value": null.p_value, "passes_the_gate": null.share_at_most(gate),
            "permutations": study.sizes.oracle_permutations}  # fmt: skip


def fresh(study: Study, gates: Gates) -> dict[str, Any]:
    """Step 2, how it ends where cut answers are taken otherwise, and whether it finds a plant."""
    found = held_out(study, gates, Step.FRESH)
    stuck = claims.undecided(study.train, study.fresh, (), gates.test.alpha)
    if stuck is not None:
        return {**found, "readings": [], "undecided": [one.value for one in stuck.reasons]}
    planted = claims.transfer(
        as_read(probing.planted(study)), gates, no_signal=False, faults=()
    )  # fmt: skip
    return {
        **found,
        "readings": _readings(study, gates, Step.FRESH, H_LAST),
        "detectable_auc": claims.detectable(study.fresh, gates),
        "finds_a_plant": planted.verdict is Verdict.SUPPORTED,
    }


def _readings(study: Study, gates: Gates, step: Step, features: str) -> list[dict[str, Any]]:
    """What the step comes to for each other way that cut answers could have ended."""
    found = []
    for way, one in claims.readings(study).items():
        again = held_out(one, gates, step, features)
        found.append({"way": way, "n": len(one.fresh.y), "state": again["state"],
                      "auc": again.get("auc")})  # fmt: skip
    return found


def in_every_reading(
    study: Study, gates: Gates, step: Step, features: str = H_LAST
) -> dict[str, Any]:
    """A step that decides only what it decides however cut answers ended."""
    found = held_out(study, gates, step, features)
    if found["state"] not in (GateState.PASSED.value, GateState.FAILED.value):
        return {**found, "readings": []}
    readings = _readings(study, gates, step, features)
    if any(one["state"] != found["state"] for one in readings):
        verb = "passes" if found["state"] == GateState.PASSED.value else "fails"
        found |= {"state": GateState.NOT_DECIDABLE.value,
                  "reason": f"it {verb} only as its cut answers were taken"}  # fmt: skip
    return {**found, "readings": readings}


def held_out(
    study: Study, gates: Gates, step: Step, features: str = H_LAST, **more: Any
) -> dict[str, Any]:
    """Fit on all of training, test on the fresh set, by the gates of step 2."""
    why = too_few(study.train, study.fresh)
    if why is not None:
        return not_run(step, why, n=_both(study), **more)
    x, x_fresh = study.train.x[features], study.fresh.x[features]
    asked = gates.protocol
    made = _trained(study.train, x, study, asked.asserted_right)
    scores = scores_on(PROBES[PRIMARY](), x, study.train.y, x_fresh)
    primary = step is Step.FRESH  # its AUC fails by the interval that is shown
    to_fail = level_to_fail(gates, 2 if primary else 3)
    wider = None if primary else delong_interval(scores, study.fresh.y, to_fail)
    held = [
        Held(Gate("AUC on fresh items", asked.fresh_auc),
             claims.auc_estimate(scores, study.fresh.y, study.level), wider=wider),
        _asymmetry(
            Gate("asymmetry on fresh items", -asked.fresh_asymmetry, at_least=False),
            made, scores, study.fresh, study.level, to_fail,
        ),
        _balanced(Gate("share asserted of the right ones", asked.asserted_right), made, scores,
                  study.fresh, study.level, to_fail),
    ]  # fmt: skip
    found = step_json(
        step, held,
        n=_both(study),
        features=features,
        auc=auc(scores, study.fresh.y),
        training_auc=auc(made.oof, study.train.y),
        n_to_decide=_n_to_decide(held, gates),
        **more,
    )  # fmt: skip
    return {**found, **_by_kind(found, study, scores, gates)}


def _by_kind(
    found: Mapping[str, Any], study: Study, scores: FloatArray, gates: Gates
) -> dict[str, Any]:
    """What items show must be shown within kinds of question, or over whole kinds, as well."""
    known = study.fresh.groups != study.fresh.item_ids
    if found["state"] != GateState.PASSED.value or not known:
        return {"kinds": None}
    kinds = claims.kinds_of(study, scores)
    if not kinds.tested or kinds.shown(gates.test.alpha):
        return {"kinds": kinds.to_json()}
    return {"kinds": kinds.to_json(), "state": GateState.NOT_DECIDABLE.value,
            "reason": "it passes by items, and neither within kinds of question nor over whole "
            "kinds", "between_kinds": True}  # fmt: skip


def axes(train: Evidence, fresh: Evidence, main: str, like: Study, gates: Gates) -> dict[str, Any]:
    """Step 3."""
    of_train, of_fresh = _labelled(train), _labelled(fresh)
    named = sorted(of_train & of_fresh, key=lambda one: (one != main, one))
    one_set = sorted(of_train ^ of_fresh)
    if len(named) < 2:
        return not_run(Step.AXES, f"labels of one axis only ({main}); give others beside it",
                       axes=[], correlations=[], in_one_set=one_set)  # fmt: skip
    sides = {axis: (side_of(train, axis), side_of(fresh, axis)) for axis in named}
    left_out = {
        axis: why for axis, both in sides.items()
        if (why := too_few(*both) or unlabelled(train, fresh, axis, gates)) is not None
    }  # fmt: skip
    used = [axis for axis in named if axis not in left_out]
    if len(used) < 2 or main not in used:
        return not_run(Step.AXES, f"{next(iter(left_out))}: {next(iter(left_out.values()))}",
                       axes=[], correlations=[], left_out=left_out,
                       in_one_set=one_set)  # fmt: skip
    pairs = list(combinations(used, 2))
    to_fail = level_to_fail(gates, 2 * len(used) + len(pairs))
    own = replace(like, train=sides[main][0], fresh=sides[main][1])
    scores: dict[str, dict[str, float]] = {}
    rows: list[dict[str, Any]] = []
    held: list[Held] = []
    main_scores = dict(zip(own.fresh.item_ids, _fresh_scores(own), strict=True))
    for axis in used:
        study = replace(like, train=sides[axis][0], fresh=sides[axis][1])
        made = _trained(study.train, study.train.x[H_LAST], study, gates.protocol.asserted_right)
        on_fresh = _fresh_scores(study)
        estimate = claims.auc_estimate(on_fresh, study.fresh.y, study.level)
        cv = _oof_auc(made, study.train, study.level)
        wider = [delong_interval(made.oof, study.train.y, to_fail),
                 delong_interval(on_fresh, study.fresh.y, to_fail)]  # fmt: skip
        gated = [
            Held(Gate(f"{axis}: AUC, out of fold", gates.protocol.axis_cv_auc), cv,
                 wider=wider[0]),
            Held(Gate(f"{axis}: AUC on fresh items", gates.protocol.axis_fresh_auc), estimate,
                 wider=wider[1]),
        ]  # fmt: skip
        held += gated
        scores[axis] = dict(zip(study.train.item_ids, made.oof, strict=True))
        rows.append({
            "axis": axis, "n": _both(study), "state": combined(gated).value,
            "training": cv.to_json(), "fresh": estimate.to_json(),
            "main_probe": _reads(main_scores, study),
        })  # fmt: skip
    adjusted = holm({row["axis"]: row["fresh"]["p_value"] for row in rows}, gates.test.alpha)
    for row in rows:
        row["fresh"]["p_holm"] = adjusted[row["axis"]].adjusted
    correlated = [_correlated(pair, scores, gates, to_fail) for pair in pairs]
    held += [one for one, _ in correlated]
    found = step_json(
        Step.AXES, held, axes=rows, correlations=[found for _, found in correlated],
        passing=sum(row["state"] == GateState.PASSED.value for row in rows),
        left_out=left_out, in_one_set=one_set,
    )  # fmt: skip
    if left_out and found["state"] == GateState.PASSED.value:
        axis, why = next(iter(left_out.items()))
        found |= {"state": GateState.NOT_DECIDABLE.value, "reason": f"{axis} is left out: {why}"}
    return found


def _labelled(found: Evidence) -> set[str]:
    """Axes of which any item has a label."""
    return {axis for axis, labels in found.labels.items() if any(one is not None for one in labels)}


def unlabelled(train: Evidence, fresh: Evidence, axis: str, gates: Gates) -> str | None:
    """Why an axis lacks too many labels; None where it does not."""
    for name, found in (("training", train), ("fresh", fresh)):
        n, missing = len(found.item_ids), found.missing(axis)
        if missing > gates.validity.max_missing_share * n:
            return f"{missing} of {n} {name} items have no label"
    return None


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


def pooled_name(x: Mapping[str, Any], asked: str | None) -> tuple[str | None, str]:
    """Which features step 4 uses, and why none: decided by what the training rows hold."""
    there = [name for name in x if name != H_LAST]
    if asked is not None:
        return (
            (asked, "")
            if asked in there
            else (
                None,
                f"--pooled {asked}: the rows have no such states ({', '.join(there) or 'none'})",
            )
        )
    for name in (*probing.POOLED, ALL):
        if name in there:
            return name, ""
    if len(there) == 1:
        return there[0], ""
    if not there:
        return None, "the rows hold the state of one layer only"
    return None, f"several kinds of states ({', '.join(sorted(there))}); say --pooled NAME"


def mean_of_layers(rows: Rows) -> Rows:
    """[n, layers, d] -> [n, d]: the last layers, each row at root mean square 1, averaged.

    Unscaled, the layer of the largest states would decide alone (PAPER.md 8.2 T10). States [n, d]
    are pooled already.
    """
    if rows.ndim == 2:
        return rows
    last = rows[:, -LAST_K:].astype(np.float64)
    scale = np.sqrt((last**2).mean(axis=2, keepdims=True))
    made = (last / np.where(scale > 0, scale, 1.0)).mean(axis=1)
    return np.asarray(made, dtype=np.float32)


def pooled(study: Study, gates: Gates, asked: str | None) -> dict[str, Any]:
    """Step 4."""
    name, why = pooled_name(study.train.x, asked)
    if name is None:
        return not_run(Step.POOLED, why)
    both = [replace(side, x={name: mean_of_layers(side.x[name])})
            for side in (study.train, study.fresh)]  # fmt: skip
    return in_every_reading(replace(study, train=both[0], fresh=both[1]), gates, Step.POOLED, name)


def _trained(side: Side, x: Rows, study: Study, share: float) -> Trained:
    cv = cross_validated(PROBES[PRIMARY](), x, side.y, folds=FOLDS, seeds=study.seeds)
    oof = cv.scores.mean(axis=0)
    return Trained(cv, gates_of.choose_threshold(oof, side.y, share))


def _fresh_scores(study: Study) -> FloatArray:
    x = study.train.x[H_LAST]
    return scores_on(PROBES[PRIMARY](), x, study.train.y, study.fresh.x[H_LAST])


def _oof_auc(made: Trained, side: Side, level: float) -> Estimate:
    return Estimate(
        "AUC, out of fold", auc(made.oof, side.y), delong_interval(made.oof, side.y, level),
        "DeLong, logit scale", len(side.y), null=0.5,
    )  # fmt: skip


def _asymmetry(
    gate: Gate, made: Trained, scores: FloatArray, side: Side, level: float,
    to_fail: float | None = None,
) -> Held:  # fmt: skip
    point = _point(made, scores, side, level)
    if point is None:
        return Held(gate, None, "no threshold asserts enough of the right training answers")
    difference = point.asymmetry
    return Held(gate, Estimate(
        gate.name, difference.value, difference.interval, "Newcombe", len(side.y),
        p_value=difference.p_value, test="Fisher's exact test",
    ), wider=_wider(made, scores, side, to_fail))  # fmt: skip


def _wider(
    made: Trained, scores: FloatArray, side: Side, to_fail: float | None
) -> Interval | None:  # fmt: skip
    point = None if to_fail is None else _point(made, scores, side, to_fail)
    return None if point is None else point.asymmetry.interval


def _balanced(
    gate: Gate, made: Trained, scores: FloatArray, side: Side, level: float, to_fail: float
) -> Held:
    point = _point(made, scores, side, level)
    if point is None:
        return Held(gate, None, by_estimate=True)
    interval = wilson(point.asserted_right, point.right, level)
    share = point.asserted_right / point.right
    estimate = Estimate(gate.name, share, interval, "Wilson", point.right)
    wider = wilson(point.asserted_right, point.right, to_fail)
    return Held(gate, estimate, by_estimate=True, wider=wider)


def _point(
    made: Trained, scores: FloatArray, side: Side, level: float
) -> gates_of.OperatingPoint | None:
    if made.threshold is None:
        return None
    return gates_of.operate(made.threshold.value, scores, side.y, level)


def _n_to_decide(held: list[Held], gates: Gates) -> int | None:
    """Items that would put every interval on one side; None where that is done, or never."""
    if combined(held) is GateState.FAILED:
        return None
    needed = [
        n_to_hold(one.estimate.value, _open_interval(one, one.estimate), one.estimate.n,
                  one.gate.threshold, power=gates.test.power)
        for one in held
        if one.state is GateState.NOT_DECIDABLE and one.estimate is not None
        and not one.by_estimate
    ]  # fmt: skip
    known = [n for n in needed if n is not None]
    return max(known) if known and len(known) == len(needed) else None


def _open_interval(held: Held, estimate: Estimate) -> Interval:
    """The interval that is not on one side yet."""
    open_now = hold_to_gate(estimate.interval, held.gate) is GateState.NOT_DECIDABLE
    return estimate.interval if open_now or held.wider is None else held.wider


def _counts(side: Side) -> dict[str, int]:
    return {"right": side.n_right, "wrong": len(side.y) - side.n_right}


def _both(study: Study) -> dict[str, dict[str, int]]:
    return {"train": _counts(study.train), "fresh": _counts(study.fresh)}
