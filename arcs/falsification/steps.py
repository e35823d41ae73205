"""Steps 1, 2, 4 and 5, each from rows to numbers held to gates; the third is in
:mod:`arcs.falsification.axes`. The statistics are those of Arc 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcs.arc3 import claims, probing
from arcs.arc3.analysis import as_read
from arcs.arc3.probing import FOLDS, H_LAST, Study
from arcs.arc3.table import Side
from arcs.claims import Verdict
from arcs.estimates import Estimate, Gate, GateState, hold_to_gate
from arcs.falsification.evidence import ALL, Evidence
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
from evals.statistics.auc import FEW, auc, guarded_interval
from evals.statistics.cross_validation import CrossValidatedAuc, cross_validated
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
    made = trained(train, train.x[H_LAST], study, asked.asserted_right)
    return made, [
        Held(Gate("AUC, out of fold", asked.cv_auc), oof_auc(made, train, study.level)),
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
    otherwise = [one["way"] for one in readings if one["state"] != found["state"]]
    return {**(only_as_taken(found, otherwise) if otherwise else found), "readings": readings}


def only_as_taken(found: Mapping[str, Any], otherwise: Sequence[str]) -> dict[str, Any]:
    """A step that is lost where its cut answers are taken otherwise decides nothing."""
    verb = "passes" if found["state"] == GateState.PASSED.value else "fails"
    return {
        **found,
        "state": GateState.NOT_DECIDABLE.value,
        "hangs_on_cut_answers": True,
        "reason": f"it {verb} only as its cut answers were taken, not with "
        f"{' or '.join(otherwise)}",
    }


def held_out(
    study: Study, gates: Gates, step: Step, features: str = H_LAST, **more: Any
) -> dict[str, Any]:
    """Fit on all of training, test on the fresh set, by the gates of step 2."""
    why = too_few(study.train, study.fresh)
    if why is not None:
        return not_run(step, why, n=both_counts(study), **more)
    x, x_fresh = study.train.x[features], study.fresh.x[features]
    asked = gates.protocol
    made = trained(study.train, x, study, asked.asserted_right)
    scores = scores_on(PROBES[PRIMARY](), x, study.train.y, x_fresh)
    primary = step is Step.FRESH  # its AUC fails by the interval that is shown
    to_fail = level_to_fail(gates, 2 if primary else 3)
    wider = None if primary else guarded_interval(scores, study.fresh.y, to_fail)
    held = [
        Held(Gate("AUC on fresh items", asked.fresh_auc),
             fresh_estimate(scores, study.fresh.y, study.level), wider=wider),
        _asymmetry(
            Gate("asymmetry on fresh items", -asked.fresh_asymmetry, at_least=False),
            made, scores, study.fresh, study.level, to_fail,
        ),
        _balanced(Gate("share asserted of the right ones", asked.asserted_right), made, scores,
                  study.fresh, study.level, to_fail),
    ]  # fmt: skip
    found = step_json(
        step, held,
        n=both_counts(study),
        features=features,
        auc=auc(scores, study.fresh.y),
        training_auc=auc(made.oof, study.train.y),
        n_to_decide=_n_to_decide(held, gates),
        **more,
    )  # fmt: skip
    return {**found, **by_kind(found, study, scores, gates)}


def by_kind(
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


def unlabelled(train: Evidence, fresh: Evidence, axis: str, gates: Gates) -> str | None:
    """Why an axis lacks too many labels; None where it does not."""
    for name, found in (("training", train), ("fresh", fresh)):
        n, missing = len(found.item_ids), found.missing(axis)
        if missing > gates.validity.max_missing_share * n:
            return f"{missing} of {n} {name} items have no label"
    return None


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


def trained(side: Side, x: Rows, study: Study, share: float) -> Trained:
    """The primary probe, out of fold, with its threshold."""
    cv = cross_validated(PROBES[PRIMARY](), x, side.y, folds=FOLDS, seeds=study.seeds)
    oof = cv.scores.mean(axis=0)
    return Trained(cv, gates_of.choose_threshold(oof, side.y, share))


def fresh_estimate(scores: FloatArray, labels: NDArray[np.bool_], level: float) -> Estimate:
    """AUC on fresh items, by an interval that a handful of one class does not make narrow."""
    return replace(
        claims.auc_estimate(scores, labels, level),
        interval=guarded_interval(scores, labels, level), interval_method=_method(labels),
    )  # fmt: skip


def oof_auc(made: Trained, side: Side, level: float) -> Estimate:
    """AUC of the out-of-fold scores."""
    return Estimate(
        "AUC, out of fold", auc(made.oof, side.y), guarded_interval(made.oof, side.y, level),
        _method(side.y), len(side.y), null=0.5,
    )  # fmt: skip


def _method(labels: NDArray[np.bool_]) -> str:
    few = min(int(labels.sum()), int((~labels).sum())) < FEW
    return "DeLong, logit scale" + (f", widened to Newcombe's: below {FEW} of a class" * few)


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


def both_counts(study: Study) -> dict[str, dict[str, int]]:
    """Right and wrong in either set."""
    return {"train": _counts(study.train), "fresh": _counts(study.fresh)}
