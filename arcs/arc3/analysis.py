"""From both sets' rows to the numbers of metrics.json: probes, controls, gate, claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcs.arc3 import claims, probing
from arcs.arc3.claims import MIN_P_CORRECT
from arcs.arc3.kept import Kept, study_sha256
from arcs.arc3.probing import Part, Study
from arcs.arc3.questions import SetName
from arcs.arc3.table import Side
from arcs.claims import ReasonCode, Verdict
from arcs.estimates import JudgedClaim
from arcs.gates import Gates
from arcs.progress import Reporter
from arcs.runs import JsonLines
from evals.delivery import Delivery, Rate, delivery_table
from evals.probing import gate
from evals.probing.kinds import ByKind

FloatArray = NDArray[np.float64]
SCORES = "scores"
"""Part that holds the primary probe's score of each used row, by set: out of fold in training."""
OTHER_STEPS = 6


def analyse(
    study: Study,
    gates: Gates,
    faults: Sequence[ReasonCode],
    reporter: Reporter,
    store: JsonLines | None = None,
) -> dict[str, Any]:
    """All results of labels and features; what cannot be computed is None, with a reason.

    ``store``: where finished parts are kept, and looked for.
    """
    stuck = claims.undecided(study.train, study.fresh, faults, gates.test.alpha)
    common = {"decoupling": decoupling(study)}
    if stuck is not None:
        return {**common, **dict.fromkeys(_KEYS), "claims": {"transfer": stuck.to_json()}}
    part = Kept.of(study, store).part
    with reporter.bar("probes", probing.steps(study) + OTHER_STEPS, "steps") as bar:
        probes = probing.all_probes(study, part, bar)
        swept = probing.sweep(study, part, bar)
        cv, fresh_scores = probing.primary_scores(study)
        oof = cv.scores.mean(axis=0)
        part(SCORES, lambda: {"train": oof.tolist(), "fresh": fresh_scores.tolist()})
        null = part("permutations", lambda: probing.permuted(study))
        bar.advance(1, "permutations")
        compared = probing.all_baselines(study, part, fresh_scores, oof)
        bar.advance(1, "baselines")
        nuisances = part("nuisance", lambda: probing.nuisance(study))
        bar.advance(1, "nuisance")
        selective = part("control task", lambda: probing.selectivity(study, cv))
        bar.advance(1, "control task")
        controls = _controls(study, gates, part, bar)
    planted, shuffled = (Verdict(controls[name]["verdict"]) for name in ("planted", "shuffled"))
    no_signal = null["p_value"] >= gates.test.alpha
    gated, point = _gate(study, gates, oof, fresh_scores)
    placebo = [ReasonCode.PLACEBO_SHOWN] if shuffled is Verdict.SUPPORTED else []
    first = claims.transfer(
        study, gates, no_signal=no_signal, faults=faults, more_doubts=placebo
    )  # fmt: skip
    inherited = [one for one in first.reasons if first.verdict is Verdict.INVALID]
    doubts = [*claims.cliff(study, gates.test.alpha), *placebo]
    if no_signal:  # a probe of noise can still lie above baselines that fall below 0.5
        doubts.append(ReasonCode.NO_SIGNAL_IN_TRAINING)
    kinds = claims.kinds_of(study, fresh_scores)
    decided = _kinds_of_decisions(study, point, fresh_scores)
    paired = {one["name"]: one["probe_minus_baseline"] for one in compared}
    differences = _with_chance(study, paired, fresh_scores)
    n = len(study.fresh.y)
    beyond = claims.beyond_baselines(
        differences, n, gates, faults=inherited, doubts=doubts, kinds=kinds
    )
    separating = claims.separates(point, gates, faults=inherited, doubts=doubts, kinds=decided)
    if _hangs_on_cut_answers(beyond.verdict, study, gates, _beyond):
        beyond = claims.beyond_baselines(differences, n, gates, faults=_CUT, doubts=doubts)
    if _hangs_on_cut_answers(separating.verdict, study, gates, _separates):
        separating = claims.separates(point, gates, faults=_CUT, doubts=doubts)
    first, beyond, separating = (
        claims.held_to_controls(one, planted=planted) for one in (first, beyond, separating)
    )
    return {
        **common,
        "probes": probes,
        "sweep": swept,
        "permutation": null,
        "baselines": compared,
        "nuisance": nuisances,
        "selectivity": selective,
        "controls": controls,
        "gate": gated,
        "sidecar": _sidecar(study, point, fresh_scores),
        "kinds": {
            "fresh": kinds.to_json(),
            "gate": None if decided is None else decided.to_json(),
        },
        "ways": claims.ways(study),
        "paper_gates": claims.paper_gates(
            (oof, study.train.y), (fresh_scores, study.fresh.y), point, study.level
        ),
        "minimum_detectable_auc": claims.detectable(study.fresh, gates),
        "claims": {
            "transfer": first.to_json(),
            "beyond_baselines": beyond.to_json(),
            "gate": separating.to_json(),
        },
    }


def scores_of(study: Study, store: JsonLines) -> dict[SetName, list[float]] | None:
    """What :func:`analyse` kept there of this study; None where no probe could be fitted."""
    own = study_sha256(study)
    found = [row["found"] for row in store.records if row["part"] == SCORES and row["study"] == own]
    return found[-1] if found else None


_KEYS = (
    "probes", "sweep", "permutation", "baselines", "nuisance", "selectivity", "controls", "gate",
    "sidecar", "kinds", "ways", "paper_gates", "minimum_detectable_auc",
)  # fmt: skip


_CUT = (ReasonCode.TRUNCATED,)


def _with_chance(
    study: Study, paired: Mapping[str, Mapping[str, Any] | None], scores: FloatArray
) -> dict[str, Mapping[str, Any] | None]:
    """What the probe is above, by name; chance is one of them."""
    return {"chance": claims.above_chance(scores, study.fresh.y, study.level), **paired}


def _hangs_on_cut_answers(
    verdict: Verdict, study: Study, gates: Gates, claim: Callable[[Study, Gates], JudgedClaim]
) -> bool:
    """Whether what is shown, or excluded, is lost where cut answers end otherwise or are left out.

    What is neither hangs on nothing.
    """
    if verdict not in (Verdict.SUPPORTED, Verdict.REFUTED):
        return False
    return any(
        not claims.enough(one) or claim(one, gates).verdict is not verdict
        for one in claims.readings(study).values()
    )


def _beyond(study: Study, gates: Gates) -> JudgedClaim:
    scores = probing.primary_on_fresh(study)
    differences = _with_chance(study, probing.differences(study, scores), scores)
    return claims.beyond_baselines(
        differences, len(study.fresh.y), gates, faults=(), doubts=(),
        kinds=claims.kinds_of(study, scores),
    )  # fmt: skip


def _separates(study: Study, gates: Gates) -> JudgedClaim:
    """With the threshold that this reading's training answers choose."""
    cv, scores = probing.primary_scores(study)
    chosen = gate.choose_threshold(cv.scores.mean(axis=0), study.train.y, MIN_P_CORRECT)
    point = None
    if chosen is not None:
        point = gate.operate(chosen.value, scores, study.fresh.y, gates.level)
    kinds = _kinds_of_decisions(study, point, scores)
    return claims.separates(point, gates, faults=(), doubts=(), kinds=kinds, reading=True)


def _kinds_of_decisions(
    study: Study, point: gate.OperatingPoint | None, scores: FloatArray
) -> ByKind | None:
    """Whether asserting goes with being right within kinds, or over whole kinds."""
    if point is None:
        return None
    return claims.kinds_of(study, (scores >= point.threshold).astype(np.float64))


def decoupling(study: Study) -> dict[str, Any]:
    """Right and wrong against asserted and hedged, of the model alone (the paper's Table 2)."""
    return {
        name: {
            "all": delivery_table(side.judged()).to_json(),
            "finished": delivery_table(side.judged(), finished_only=True).to_json(),
        }
        for name, side in (("train", study.train), ("fresh", study.fresh))
    }


def _gate(
    study: Study, gates: Gates, oof: FloatArray, fresh_scores: FloatArray
) -> tuple[dict[str, Any], gate.OperatingPoint | None]:
    train, fresh = study.train, study.fresh
    chosen = gate.choose_threshold(oof, train.y, MIN_P_CORRECT)
    point = None
    if chosen is not None:
        point = gate.operate(chosen.value, fresh_scores, fresh.y, gates.level)
    found = {
        "rule": f"smallest asymmetry with p_assert_correct >= {MIN_P_CORRECT:g}, at one of the "
        "out-of-fold training scores",
        "chosen": None
        if chosen is None
        else {
            "threshold": chosen.value,
            "asymmetry": chosen.asymmetry,
            "p_assert_correct": chosen.p_assert_correct,
            "p_assert_wrong": chosen.p_assert_wrong,
            "n": len(train.y),
        },
        "fresh": None if point is None else point.to_json(),
        "oracle": gate.oracle(
            fresh_scores, fresh.y, min_p_correct=MIN_P_CORRECT,
            permutations=study.sizes.oracle_permutations, seed=study.seed,
        ),
        "calibration": gate.calibration(fresh_scores, fresh.y, float(train.y.mean())),
        "risk_coverage": gate.risk(fresh_scores, fresh.y),
    }  # fmt: skip
    return found, point


def _sidecar(
    study: Study, point: gate.OperatingPoint | None, scores: FloatArray
) -> dict[str, Any] | None:
    """What a reader of the fresh answers sees with and without the hedge; None without a gate."""
    if point is None:
        return None
    fresh = study.fresh
    lets = scores >= point.threshold
    return {
        "without": _seen(delivery_table(fresh.judged())),
        "with": _seen(delivery_table(fresh.judged(lets))),
    }


def _seen(table: Delivery) -> dict[str, Any]:
    return {
        **table.to_json(),
        "coverage": table.assertion_rate.to_json(),
        "accuracy_of_asserted": Rate(table.cr, table.cr + table.cw).to_json(),
    }


def _controls(study: Study, gates: Gates, part: Part, bar: Any) -> dict[str, Any]:
    """The same pipeline on a planted signal and on shuffled labels."""
    found = {}
    for name, one in (
        ("planted", probing.planted(study)),
        ("shuffled", probing.placebo(study)),
    ):
        found[name] = part(name, partial(_control, one, gates))
        bar.advance(1, name)
    return found


def _control(study: Study, gates: Gates) -> dict[str, Any]:
    null = probing.permuted(study)
    claim = control(study, gates, no_signal=null["p_value"] >= gates.test.alpha)
    return {
        "verdict": claim.verdict.value,
        "reasons": [reason.value for reason in claim.reasons],
        "training": null,
        "fresh": probing.shown(probing.primary_on_fresh(study), study.fresh.y, study.level),
    }


def control(study: Study, gates: Gates, *, no_signal: bool) -> JudgedClaim:
    """The claim of a control's labels."""
    return claims.transfer(as_read(study), gates, no_signal=no_signal, faults=())


def as_read(study: Study) -> Study:
    """Without the readings of cut answers: their labels belong to the real ones."""

    def settled(side: Side) -> Side:
        done = np.ones(len(side.y), dtype=np.bool_)
        return replace(side, low=side.y, high=side.y, finished=done)

    return replace(study, train=settled(study.train), fresh=settled(study.fresh))
