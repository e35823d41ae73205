"""From the steps to claims, in the one vocabulary of verdicts (arcs/estimates.py).

A conjunction: every step that it names must pass, none may fail. For SUPPORTED nothing is corrected
for their number, since all must pass at the same level (an intersection-union test, Berger 1982).
REFUTED takes one failed gate of many, so that gates fail by wider intervals
(:func:`arcs.falsification.protocol.level_to_fail`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from arcs.arc3.claims import held_to_controls
from arcs.claims import ReasonCode, Verdict
from arcs.estimates import Direction, Estimate, GateState, JudgedClaim, judge_claim
from arcs.falsification.modes import State
from arcs.falsification.protocol import NOT_RUN, Step
from arcs.gates import Gates
from evals.statistics.rates import Interval

Found = Mapping[str, Any]
PASSED, FAILED, OPEN = (one.value for one in
                        (GateState.PASSED, GateState.FAILED, GateState.NOT_DECIDABLE))  # fmt: skip
SINGLE = (Step.FRESH, Step.AXES, Step.POOLED)
"""Of one model, beside training: what may refute."""
ALONE = (Step.TRAINING, *SINGLE)
ALL = (*ALONE, Step.REPLICATION)


def claims_of(
    steps: Mapping[str, Found],
    modes: Sequence[Found],
    faults: Sequence[ReasonCode],
    gates: Gates,
    *,
    axis: str,
    ends_known: bool,
) -> dict[str, JudgedClaim]:
    """Both claims, the one of all five steps first: it is the run's."""
    faults = list(faults)
    if _turns(steps[Step.FRESH]):
        faults.append(ReasonCode.TRUNCATED)
    doubts = _doubts(steps, modes, ends_known)
    judged = _both_claims(steps, faults, doubts, gates, axis)
    if steps[Step.FRESH].get("finds_a_plant", True):
        return judged
    return {name: held_to_controls(one, planted=Verdict.INCONCLUSIVE)
            for name, one in judged.items()}  # fmt: skip


def _both_claims(
    steps: Mapping[str, Found],
    faults: Sequence[ReasonCode],
    doubts: Sequence[ReasonCode],
    gates: Gates,
    axis: str,
) -> dict[str, JudgedClaim]:
    single = _conjunction(
        f"the states tell {axis} from not {axis} on fresh items, {_by(steps, ALONE)}",
        steps, ALONE, faults, doubts, gates,
    )  # fmt: skip
    return {
        "all_five": _all_five(single, steps, faults, doubts, gates, axis),
        "this_model": single,
    }


def _all_five(
    single: JudgedClaim,
    steps: Mapping[str, Found],
    faults: Sequence[ReasonCode],
    doubts: Sequence[ReasonCode],
    gates: Gates,
    axis: str,
) -> JudgedClaim:
    """Step 5 refutes only where the other model's own training carries the signal."""
    statement = (
        f"the states tell {axis} from not {axis} on fresh items, and another model's do, "
        f"{_by(steps, ALL)}"
    )
    other = steps[Step.REPLICATION]
    if single.verdict in (Verdict.INVALID, Verdict.REFUTED):
        return replace(single, statement=statement)
    refuting = other["state"] == FAILED and not other.get("cliff") and _carries(other)
    if other["state"] == PASSED or refuting:
        return _conjunction(statement, steps, ALL, faults, doubts, gates)
    return _conjunction(
        statement, steps, ALONE, faults, [*doubts, ReasonCode.NOT_REPLICATED], gates
    )


def _carries(other: Found) -> bool:
    """Whether the other model's own training has a signal that could be lost."""
    return not other.get("no_signal") and other.get("training_state") != FAILED


def _by(steps: Mapping[str, Found], named: Sequence[Step]) -> str:
    """Which steps a statement rests on, by their numbers, and which of those named were not run."""
    number = {step: place for place, step in enumerate(Step, start=1)}
    left = [str(number[step]) for step in named if steps[step]["state"] == NOT_RUN]
    if not left:
        return "by all five steps" if len(named) == len(number) else f"by steps 1 to {len(named)}"
    run = [str(number[step]) for step in named if steps[step]["state"] != NOT_RUN]
    if not run:
        return "by no step, since none was run"
    return f"by step{'s' if len(run) > 1 else ''} {_and(run)}; {_and(left)} not run"


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _conjunction(
    statement: str,
    steps: Mapping[str, Found],
    named: Sequence[Step],
    faults: Sequence[ReasonCode],
    doubts: Sequence[ReasonCode],
    gates: Gates,
) -> JudgedClaim:
    """SUPPORTED only where all that was run passed, REFUTED where one (not training) failed."""
    states = {step: steps[step]["state"] for step in named if steps[step]["state"] != NOT_RUN}
    failed = [step for step, state in states.items() if state == FAILED and step is not
              Step.TRAINING]  # fmt: skip
    passed = set(states.values()) == {PASSED} and Step.FRESH in states
    undecided = [step for step, state in states.items() if state != PASSED]
    chosen = (failed or undecided or [Step.FRESH])[0]
    estimate, smallest, direction = _deciding(steps[chosen], FAILED if failed else OPEN)
    if estimate is None and not faults and not doubts:
        doubts = [ReasonCode.NO_SIGNAL_IN_TRAINING]
    claim = judge_claim(
        statement, estimate, smallest, faults=faults, doubts=doubts, alpha=gates.test.alpha,
        direction=direction, n_to_settle=steps[chosen].get("n_to_decide"),
    )  # fmt: skip
    if faults or doubts or passed:
        return claim
    unbalanced = (ReasonCode.UNBALANCED,) if _by_estimate(steps[chosen], estimate) else ()
    if failed and claim.verdict is Verdict.REFUTED:
        return replace(claim, reasons=unbalanced or claim.reasons)
    # a gate is passed by the whole interval, which asks for more than an estimate beyond it
    cut = steps[chosen].get("hangs_on_cut_answers")
    reasons = (*unbalanced, ReasonCode.UNFINISHED_ANSWERS if cut else ReasonCode.UNDERPOWERED)
    return replace(claim, verdict=Verdict.INCONCLUSIVE, reasons=reasons,
                   n_to_settle=steps[chosen].get("n_to_decide"))  # fmt: skip


def _by_estimate(step: Found, estimate: Estimate | None) -> bool:
    """Whether what decides a step is the share that a balanced threshold must assert."""
    return any(
        gate["held_by"] == "estimate" and estimate is not None and gate["gate"] == estimate.quantity
        for gate in step["gates"]
    )


def _deciding(step: Found, wanted: str) -> tuple[Estimate | None, float | None, Direction]:
    """The number that speaks for a step: the first gate of the wanted state, else the first."""
    known = [one for one in step["gates"] if one["estimate"] is not None]
    if not known:
        return None, None, Direction.EITHER
    of_state = [one for one in known if one["state"] == wanted]
    gate = (of_state or known)[0]
    stored, null = gate["estimate"], _null(gate)
    p_value = stored["p_value"] if null == stored["null"] else None
    estimate = Estimate(
        gate["gate"], stored["value"], Interval(**stored["interval"]), stored["interval_method"],
        stored["n"], null=null, p_value=p_value, test=None if p_value is None else stored["test"],
    )  # fmt: skip
    smallest = abs(gate["threshold"] - estimate.null)
    return estimate, smallest, Direction.MORE if gate["at_least"] else Direction.LESS


def _null(gate: Found) -> float:
    """What the gate is measured from. A size that must stay small is measured from 1, its worst."""
    stored: float = gate["estimate"]["null"]
    return 1.0 if not gate["at_least"] and gate["threshold"] > 0 else stored


def _doubts(
    steps: Mapping[str, Found], modes: Sequence[Found], ends_known: bool
) -> list[ReasonCode]:
    shown = {one["mode"] for one in modes if one["state"] == State.SHOWN.value}
    found = [ReasonCode(one) for one in steps[Step.FRESH].get("undecided", ())]
    if ReasonCode.CAPABILITY_CLIFF in found and "capability_cliff" not in shown:
        found.remove(ReasonCode.CAPABILITY_CLIFF)
        found.append(ReasonCode.UNDERPOWERED)
    training = steps[Step.TRAINING]
    if training["state"] != NOT_RUN and (training["no_signal"] or training["state"] == FAILED):
        found.append(ReasonCode.NO_SIGNAL_IN_TRAINING)
    if "capability_cliff" in shown and ReasonCode.CAPABILITY_CLIFF not in found:
        found.append(ReasonCode.CAPABILITY_CLIFF)
    if steps[Step.FRESH]["state"] == OPEN and "uniform_output" in shown:
        found.append(ReasonCode.UNIFORM_OUTPUT)
    if any(steps[step].get("between_kinds") for step in SINGLE):
        found.append(ReasonCode.BETWEEN_KINDS)
    if not ends_known:
        found.append(ReasonCode.FINISH_REASONS_UNKNOWN)
    if steps[Step.FRESH]["state"] == FAILED and _open_ways(steps[Step.FRESH]):
        found.append(ReasonCode.UNFINISHED_ANSWERS)
    return found


def _open_ways(step: Found) -> bool:
    """Whether a failed step does not fail for every way that cut answers could have ended."""
    return any(one["state"] != FAILED for one in step.get("readings", ()))


def _turns(step: Found) -> bool:
    """Whether a passed step is lost where cut answers end otherwise, or are left out."""
    return step["state"] == PASSED and any(
        one["state"] != PASSED for one in step.get("readings", ())
    )
