"""Three claims: the signal survives fresh prompts, it beats the baselines, its gate separates.

Validity comes first (arcs/estimates.py): a judge below its bar, too many missing labels, and a
conclusion that depends on how cut answers would have ended are instrument faults. No signal in
training, and a class that hardly exists on fresh prompts, leave a claim undecided. So does what is
shown of items alone, and neither within kinds of question nor over whole kinds
(:mod:`evals.probing.kinds`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcs.arc3.probing import FOLDS, Study
from arcs.arc3.probing import primary_on_fresh as _scores
from arcs.arc3.table import Side
from arcs.claims import ReasonCode, Verdict
from arcs.estimates import (
    Direction,
    Estimate,
    Gate,
    GateState,
    JudgedClaim,
    hold_to_gate,
    judge,
    judge_claim,
)
from arcs.gates import Gates
from evals.probing.gate import OperatingPoint
from evals.probing.kinds import PERMUTATIONS, ByKind, PairedByKind, by_kind
from evals.statistics.auc import auc, auc_p_value, delong_interval
from evals.statistics.differences import difference_of_rates
from evals.statistics.power_auc import minimum_detectable_auc, n_to_settle_auc
from evals.statistics.rates import Interval, wilson

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
MIN_P_CORRECT = 0.70
"""Share of the right answers that a balanced gate asserts (PAPER.md 5.3): of the training answers
for its threshold, of the fresh ones for the claim."""
CLIFF = 10
"""Items of the rarer class on fresh prompts below which a fallen rate counts as a cliff: an AUC of
10 against 150 items has an interval of +- 0.19."""
MOST_PERMUTATIONS = 19_999
"""Of kinds: a kind of 1,000 answers then takes 160 MB, and a level of 0.0004 can be reached."""
LEAST = 2
"""Items of each class that an interval of an AUC needs."""
OPEN_WRONG, OPEN_RIGHT, FINISHED = (
    "open answers wrong", "open answers right", "finished answers only",
)  # fmt: skip
"""Ways to read cut answers."""
BALANCE = Gate("share asserted of the right fresh answers", MIN_P_CORRECT)
PAPER_GATES = (
    Gate("AUC in training of out-of-fold scores averaged over seeds", 0.65),
    Gate("AUC on fresh items", 0.63),
    Gate("asymmetry on fresh items", -0.15, at_least=False),
    BALANCE,
)
"""PAPER.md 5.3 and 5.4; held to the interval, not to the estimate. The first is of the scores that
choose the threshold; averaged over the folds' seeds they rank a little better than those of one
seed, whose mean AUC stands in the probes' table. The last two are one gate: an asymmetry is
balanced only where enough right answers are asserted, on fresh items too."""


def auc_estimate(scores: FloatArray, labels: BoolArray, level: float) -> Estimate:
    """AUC of scores on labels, against 0.5."""
    return Estimate(
        quantity="AUC on fresh items",
        value=auc(scores, labels),
        interval=delong_interval(scores, labels, level),
        interval_method="DeLong, logit scale",
        n=len(labels),
        null=0.5,
        p_value=auc_p_value(scores, labels),
        test="Mann-Whitney",
    )


def transfer(
    study: Study,
    gates: Gates,
    *,
    no_signal: bool,
    faults: Sequence[ReasonCode],
    more_doubts: Sequence[ReasonCode] = (),
) -> JudgedClaim:
    """The primary claim: h_last tells right from wrong on fresh prompts."""
    smallest = gates.smallest_effect.auc
    scores = _scores(study)
    estimate = auc_estimate(scores, study.fresh.y, gates.level)
    found = list(faults)
    if _conclusion_moves(study, gates) and ReasonCode.TRUNCATED not in found:
        found.append(ReasonCode.TRUNCATED)
    doubts = list(dict.fromkeys([*cliff(study, gates.test.alpha), *more_doubts]))
    if no_signal:
        doubts.append(ReasonCode.NO_SIGNAL_IN_TRAINING)
    fresh = study.fresh
    settles = n_to_settle_auc(
        estimate.value, fresh.n_right, len(fresh.y) - fresh.n_right, smallest,
        alpha=gates.test.alpha, power=gates.test.power,
    )  # fmt: skip
    claim = judge_claim(
        f"h_last of the frozen model tells right from wrong answers on fresh prompts (an AUC that "
        f"matters: {0.5 + smallest:g})",
        estimate, smallest,
        faults=found, doubts=doubts, alpha=gates.test.alpha, direction=Direction.MORE,
        n_to_settle=settles,
    )  # fmt: skip
    return _by_kind_too(claim, study, scores, gates.test.alpha)


def kinds_of(study: Study, scores: FloatArray, permutations: int = PERMUTATIONS) -> ByKind:
    """Scores (or a gate's decisions) of the fresh answers, within kinds and over whole kinds."""
    fresh = study.fresh
    return by_kind(scores, fresh.y, fresh.groups, permutations=permutations, seed=study.seed)


def _by_kind_too(claim: JudgedClaim, study: Study, scores: FloatArray, alpha: float) -> JudgedClaim:
    """Held to kinds at a level that may be far below 0.05 (a look of ``threearc settle``).

    There are as many permutations as can tell a p of a fourth of the level; where even
    :data:`MOST_PERMUTATIONS` cannot, nothing is shown by kind.
    """
    if claim.verdict is not Verdict.SUPPORTED:
        return claim
    finest = math.ceil(8 / alpha) - 1  # two-sided: 2 / (1 + permutations) is the smallest p
    permutations = max(PERMUTATIONS, min(finest, MOST_PERMUTATIONS))
    return held_to_kinds(claim, kinds_of(study, scores, permutations), alpha)


def held_to_kinds(claim: JudgedClaim, kinds: ByKind | None, alpha: float) -> JudgedClaim:
    """What items show must be shown within kinds, or over whole kinds, as well.

    A second condition, so that nothing is added to the error of the first; its two ways share
    ``alpha``. Where there is one kind it is not tested, and the claim stays what it is.
    """
    if claim.verdict is not Verdict.SUPPORTED or kinds is None or not kinds.tested:
        return claim
    if kinds.shown(alpha):
        return claim
    return replace(claim, verdict=Verdict.INCONCLUSIVE, reasons=(ReasonCode.BETWEEN_KINDS,))


def held_to_controls(claim: JudgedClaim, *, planted: Verdict) -> JudgedClaim:
    """A probe that does not find what was planted excludes nothing."""
    if claim.verdict is not Verdict.REFUTED or planted is Verdict.SUPPORTED:
        return claim
    return replace(claim, verdict=Verdict.INCONCLUSIVE, reasons=(ReasonCode.INSENSITIVE,))


def above_chance(scores: FloatArray, right: BoolArray, level: float) -> dict[str, Any]:
    """Chance as a baseline: a probe below it beats nothing, however bad its rivals are."""
    own = auc_estimate(scores, right, level)
    assert own.interval is not None
    return {
        "difference": own.value - 0.5,
        "interval": {"low": own.interval.low - 0.5, "high": own.interval.high - 0.5,
                     "level": level},
        "p_value": own.p_value,
    }  # fmt: skip


def beyond_baselines(
    differences: Mapping[str, Mapping[str, Any] | None],
    n: int,
    gates: Gates,
    *,
    faults: Sequence[ReasonCode],
    doubts: Sequence[ReasonCode],
    kinds: ByKind | None = None,
) -> JudgedClaim:
    """The probe beats every baseline: SUPPORTED only if each difference is.

    An intersection-union test (Berger 1982): all must pass at alpha, so nothing is corrected. One
    baseline that the probe cannot beat by what matters refutes it; one that orders all answers as
    the probe does (None) is not beaten. Each difference must be shown by kind as well, where it has
    that; of chance, which is one of the baselines, ``kinds`` (of the probe's own scores) say it.
    """
    smallest, alpha = gates.smallest_effect.auc, gates.test.alpha
    estimates = {
        name: Estimate(
            quantity=f"AUC minus that of {name}",
            value=found["difference"],
            interval=Interval(**found["interval"]),
            interval_method="DeLong, paired",
            n=n,
            p_value=found["p_value"],
            test="DeLong",
        )
        for name, found in differences.items()
        if found is not None
    }
    statement = (
        f"the probe's AUC on fresh prompts is above that of every baseline (a difference that "
        f"matters: {smallest:g})"
    )
    if not estimates:
        return judge_claim(statement, None, None, faults=faults,
                           doubts=[*doubts, ReasonCode.FLOOR])  # fmt: skip
    verdicts = {
        name: judge(one, smallest, alpha=alpha, direction=Direction.MORE)[0]
        for name, one in estimates.items()
    }
    closest = min(estimates.values(), key=lambda one: one.value)
    claim = judge_claim(
        statement, closest, smallest,
        faults=faults, doubts=doubts, alpha=alpha, direction=Direction.MORE,
    )  # fmt: skip
    if faults or doubts or claim.verdict is Verdict.REFUTED:
        return claim
    if Verdict.REFUTED in verdicts.values():
        refuting = next(n for n, verdict in verdicts.items() if verdict is Verdict.REFUTED)
        return judge_claim(statement, estimates[refuting], smallest, alpha=alpha,
                           direction=Direction.MORE)  # fmt: skip
    unbeaten = Verdict.INCONCLUSIVE in verdicts.values() or None in differences.values()
    if claim.verdict is Verdict.SUPPORTED and unbeaten:
        return replace(claim, verdict=Verdict.INCONCLUSIVE, reasons=(ReasonCode.UNDERPOWERED,))
    for name, found in differences.items():
        by = (found or {}).get("by_kind")
        if claim.verdict is Verdict.SUPPORTED and by and not PairedByKind(**by).shown(alpha):
            return replace(
                claim, verdict=Verdict.INCONCLUSIVE, reasons=(ReasonCode.BETWEEN_KINDS,),
                estimate=estimates[name],
            )  # fmt: skip
    return held_to_kinds(claim, kinds, alpha)


def separates(
    point: OperatingPoint | None,
    gates: Gates,
    *,
    faults: Sequence[ReasonCode],
    doubts: Sequence[ReasonCode],
    kinds: ByKind | None = None,
    reading: bool = False,
) -> JudgedClaim:
    """The gate asserts wrong answers less often than right ones, and enough of the right ones.

    Both parts are needed (an intersection-union test, as for the baselines), so both are tested:
    Wilson's interval of the share asserted of the right fresh answers must lie at or above
    :data:`MIN_P_CORRECT`, since the paper's asymmetry is balanced on the answers it is reported on.
    An interval wholly below that refutes the claim. These are the two sides of the same gate in
    :func:`paper_gates`. ``kinds``: of the gate's decisions.

    ``reading``: whether a verdict that stands is asked to outlive another reading of cut answers.
    There an *estimated* share of that size does: held to the same interval again, one answer at
    its edge would make the claim INVALID.
    """
    smallest = gates.smallest_effect.rate
    statement = (
        f"the gate, its threshold fixed in training, asserts wrong answers less often than right "
        f"ones (a difference that matters: {100 * smallest:g} points) and at least "
        f"{MIN_P_CORRECT:.0%} of the right ones, on fresh prompts"
    )
    if point is None:
        found = [*doubts, *([] if doubts or faults else [ReasonCode.NO_SIGNAL_IN_TRAINING])]
        return judge_claim(statement, None, None, faults=faults, doubts=found)
    difference = point.asymmetry
    estimate = Estimate(
        quantity="asymmetry on fresh items",
        value=difference.value,
        interval=difference.interval,
        interval_method="Newcombe",
        n=point.right + point.wrong,
        p_value=difference.p_value,
        test="Fisher's exact test",
    )
    claim = judge_claim(
        statement, estimate, smallest,
        faults=faults, doubts=doubts, alpha=gates.test.alpha, direction=Direction.LESS,
    )  # fmt: skip
    if faults or doubts:
        return claim
    balanced = _balanced(claim, point, gates.level, reading=reading)
    return held_to_kinds(balanced, kinds, gates.test.alpha)


def _balanced(
    claim: JudgedClaim, point: OperatingPoint, level: float, *, reading: bool
) -> JudgedClaim:
    """The claim of an asymmetry, held to the share asserted of the right answers as well."""
    share = Estimate(
        quantity="share asserted of the right fresh answers",
        value=point.asserted_right / point.right,
        interval=wilson(point.asserted_right, point.right, level),
        interval_method="Wilson",
        n=point.right,
        null=MIN_P_CORRECT,
    )
    state = hold_to_gate(share.interval, BALANCE)
    if claim.verdict is Verdict.REFUTED or state is GateState.PASSED:
        return claim
    unbalanced = replace(claim, estimate=share, reasons=(ReasonCode.UNBALANCED,))
    if state is GateState.FAILED:
        return replace(unbalanced, verdict=Verdict.REFUTED)
    enough = share.value >= MIN_P_CORRECT
    if claim.verdict is not Verdict.SUPPORTED or (reading and enough):
        return claim
    reasons = (() if enough else unbalanced.reasons) + (ReasonCode.UNDERPOWERED,)
    return replace(unbalanced, verdict=Verdict.INCONCLUSIVE, reasons=reasons)


def undecided(
    train: Side, fresh: Side, faults: Sequence[ReasonCode], alpha: float
) -> JudgedClaim | None:
    """The one claim of a run whose labels allow no probe; None where they do.

    A class that is hardly there is a cliff only where training had enough of it and the rates
    differ; else a floor, or a ceiling, of the set that lacks it.
    """
    doubts: list[ReasonCode] = []
    if train.smaller_class < FOLDS:
        doubts.append(_edge(train))
    if fresh.smaller_class < LEAST:
        moved = train.smaller_class >= FOLDS and _moved(train, fresh, alpha)
        doubts.append(ReasonCode.CAPABILITY_CLIFF if moved else _edge(fresh))
    if not doubts:
        return None
    return judge_claim(
        "h_last of the frozen model tells right from wrong answers on fresh prompts", None, None,
        faults=faults, doubts=list(dict.fromkeys(doubts)),
    )  # fmt: skip


def cliff(study: Study, alpha: float) -> tuple[ReasonCode, ...]:
    """Whether one class hardly exists on fresh prompts though training had enough of it."""
    train, fresh = study.train, study.fresh
    few = fresh.smaller_class < CLIFF <= train.smaller_class
    return (ReasonCode.CAPABILITY_CLIFF,) if few and _moved(train, fresh, alpha) else ()


def _moved(train: Side, fresh: Side, alpha: float) -> bool:
    """Whether the rates of right answers differ. Not of an empty set."""
    if not (len(train.y) and len(fresh.y)):
        return False
    found = difference_of_rates(train.n_right, len(train.y), fresh.n_right, len(fresh.y))
    return found.p_value < alpha


def paper_gates(
    cv: tuple[FloatArray, BoolArray],
    fresh: tuple[FloatArray, BoolArray],
    point: OperatingPoint | None,
    level: float,
) -> list[dict[str, Any]]:
    """The paper's gates, each passed or failed only where the whole interval is on one side."""
    intervals: list[Interval | None] = [
        delong_interval(*cv, level),
        delong_interval(*fresh, level),
        None if point is None else point.asymmetry.interval,
        None if point is None else wilson(point.asserted_right, point.right, level),
    ]
    values = [
        auc(*cv),
        auc(*fresh),
        None if point is None else point.asymmetry.value,
        None if point is None else point.asserted_right / point.right,
    ]
    return [
        {
            "gate": gate.name,
            "threshold": gate.threshold,
            "value": value,
            "interval": None if interval is None else interval.to_json(),
            "state": (
                GateState.NOT_DECIDABLE if interval is None else hold_to_gate(interval, gate)
            ).value,
        }
        for gate, value, interval in zip(PAPER_GATES, values, intervals, strict=True)
    ]


def detectable(fresh: Side, gates: Gates) -> float | None:
    """Smallest true AUC that this many fresh items would show."""
    return minimum_detectable_auc(
        fresh.n_right, len(fresh.y) - fresh.n_right, alpha=gates.test.alpha, power=gates.test.power
    )


def ways(study: Study) -> list[dict[str, Any]]:
    """The claim's number where cut answers are left out, or ended otherwise."""
    return [
        {
            "way": name,
            "n": len(one.fresh.y),
            "auc": None if (scores := _refit(one)) is None else auc(scores, one.fresh.y),
        }
        for name, one in readings(study).items()
    ]


def _conclusion_moves(study: Study, gates: Gates) -> bool:
    """Whether the conclusion hangs on how cut answers would have ended, or on their being there.

    SUPPORTED and REFUTED must hold in every reading, and what is not SUPPORTED be so in none.
    """
    others = readings(study)
    if not others:
        return False
    as_read, found = _alone(study, gates), [_alone(one, gates) for one in others.values()]
    if as_read is Verdict.REFUTED:
        return any(one is not as_read for one in found)
    return any((one is Verdict.SUPPORTED) != (as_read is Verdict.SUPPORTED) for one in found)


def readings(study: Study) -> dict[str, Study]:
    """Other readings of the cut answers; none where there are none."""
    train, fresh = study.train, study.fresh
    found = {}
    if any((side.low != side.high).any() for side in (train, fresh)):
        found[OPEN_WRONG] = replace(
            study, train=train.relabelled(train.low), fresh=fresh.relabelled(fresh.low)
        )
        found[OPEN_RIGHT] = replace(
            study, train=train.relabelled(train.high), fresh=fresh.relabelled(fresh.high)
        )
    if not (train.finished.all() and fresh.finished.all()):
        found[FINISHED] = replace(
            study, train=train.where(train.finished), fresh=fresh.where(fresh.finished)
        )
    return found


def enough(study: Study) -> bool:
    """Whether both sets hold enough of either class for a probe and its AUC."""
    return study.train.smaller_class >= FOLDS and study.fresh.smaller_class >= LEAST


def _alone(study: Study, gates: Gates) -> Verdict:
    """The verdict without validity and doubts; too few of a class decide nothing."""
    if not enough(study):
        return Verdict.INCONCLUSIVE
    scores = _scores(study)
    claim = judge_claim(
        "", auc_estimate(scores, study.fresh.y, gates.level), gates.smallest_effect.auc,
        alpha=gates.test.alpha, direction=Direction.MORE,
    )  # fmt: skip
    return _by_kind_too(claim, study, scores, gates.test.alpha).verdict


def _refit(study: Study) -> FloatArray | None:
    return _scores(study) if enough(study) else None


def _edge(side: Side) -> ReasonCode:
    return ReasonCode.FLOOR if side.n_right * 2 < len(side.y) else ReasonCode.CEILING
