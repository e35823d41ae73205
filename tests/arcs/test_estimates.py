from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcs.claims import ReasonCode, Verdict
from arcs.estimates import (
    DOUBTS,
    FAULTS,
    Direction,
    Estimate,
    Gate,
    GateState,
    hold_to_gate,
    judge,
    judge_claim,
)
from arcs.explanations import why
from evals.statistics.rates import Interval

numbers = st.floats(-1, 1, allow_nan=False).map(lambda x: round(x, 3))


def estimate(low: float, value: float, high: float, *, null: float = 0.0, p=None) -> Estimate:
    return Estimate("x", value, Interval(low, high, 0.95), "by hand", 100, null, p)


@st.composite
def estimates(draw) -> Estimate:
    low, value, high = sorted(draw(st.tuples(numbers, numbers, numbers)))
    p = draw(st.none() | st.floats(0, 1))
    return estimate(low, value, high, null=draw(st.sampled_from([0.0, 0.5])), p=p)


@pytest.mark.parametrize(
    ("low", "high", "at_least", "state"),
    [
        (0.64, 0.8, True, GateState.PASSED),
        (0.63, 0.8, True, GateState.PASSED),  # on the threshold passes, as ">=" says
        (0.34, 0.70, True, GateState.NOT_DECIDABLE),
        (0.43, 0.61, True, GateState.FAILED),
        (-0.4, -0.2, False, GateState.FAILED),
    ],
)
def test_a_gate_is_decided_only_by_a_whole_interval(low, high, at_least, state) -> None:
    threshold = 0.63 if at_least else -0.5
    assert hold_to_gate(Interval(low, high, 0.95), Gate("g", threshold, at_least)) is state


def test_a_gate_that_must_not_be_exceeded_passes_from_below() -> None:
    gate = Gate("asymmetry", -0.15, at_least=False)
    assert hold_to_gate(Interval(-0.4, -0.15, 0.95), gate) is GateState.PASSED
    assert hold_to_gate(Interval(-0.4, -0.14, 0.95), gate) is GateState.NOT_DECIDABLE


@given(st.tuples(numbers, numbers).map(sorted), numbers)
def test_turning_a_gate_round_turns_its_state_round(ends, threshold) -> None:
    interval = Interval(ends[0], ends[1], 0.95)
    turned = hold_to_gate(interval.negated(), Gate("g", -threshold, at_least=False))
    assert hold_to_gate(interval, Gate("g", threshold)) is turned


@pytest.mark.parametrize(
    ("low", "value", "high", "direction", "expected"),
    [
        (0.02, 0.10, 0.18, Direction.EITHER, Verdict.SUPPORTED),
        (0.02, 0.10, 0.18, Direction.MORE, Verdict.SUPPORTED),
        (0.02, 0.10, 0.18, Direction.LESS, Verdict.REFUTED),
        (-0.18, -0.10, -0.02, Direction.LESS, Verdict.SUPPORTED),
        (-0.02, 0.10, 0.22, Direction.EITHER, Verdict.INCONCLUSIVE),  # not significant
        (0.01, 0.04, 0.07, Direction.EITHER, Verdict.INCONCLUSIVE),  # significant but small
        (-0.04, 0.0, 0.04, Direction.EITHER, Verdict.REFUTED),
        (-0.30, -0.13, 0.04, Direction.MORE, Verdict.REFUTED),
        (-0.30, -0.13, 0.04, Direction.EITHER, Verdict.INCONCLUSIVE),
        (-0.05, 0.0, 0.05, Direction.EITHER, Verdict.INCONCLUSIVE),  # the border is not excluded
    ],
)
def test_an_estimate_is_held_to_the_smallest_effect(low, value, high, direction, expected) -> None:
    assert judge(estimate(low, value, high), 0.05, direction=direction)[0] is expected


def test_a_test_decides_over_the_interval_where_there_is_one() -> None:
    assert judge(estimate(0.01, 0.1, 0.2, p=0.06), 0.05)[0] is Verdict.INCONCLUSIVE
    assert judge(estimate(-0.01, 0.1, 0.2, p=0.04), 0.05)[0] is Verdict.SUPPORTED


@given(estimates(), st.floats(0.001, 0.5), st.sampled_from(list(Direction)))
def test_an_effect_is_never_excluded_by_an_interval_that_holds_it(one, smallest, way) -> None:
    verdict, reason = judge(one, smallest, direction=way)
    far = one.value - one.null
    large = {
        Direction.MORE: far >= smallest,
        Direction.LESS: far <= -smallest,
        Direction.EITHER: abs(far) >= smallest,
    }[way]
    if verdict is Verdict.REFUTED:
        assert not large and reason is ReasonCode.EFFECT_EXCLUDED
    if verdict is Verdict.SUPPORTED:
        assert one.significant(0.05) and reason is ReasonCode.EFFECT_SHOWN


@given(estimates(), st.floats(0.001, 0.5))
def test_a_claim_in_either_direction_is_no_easier_to_refute_than_one_in_one(one, smallest) -> None:
    if judge(one, smallest)[0] is Verdict.REFUTED:
        for way in (Direction.MORE, Direction.LESS):
            assert judge(one, smallest, direction=way)[0] is Verdict.REFUTED


@given(
    st.none() | estimates(),
    st.lists(st.sampled_from(sorted(FAULTS)), max_size=2),
    st.lists(st.sampled_from(sorted(DOUBTS)), max_size=2),
)
def test_validity_comes_first_then_doubts_then_the_statistic(one, faults, doubts) -> None:
    if one is None and not faults and not doubts:
        with pytest.raises(ValueError, match="nothing to judge"):
            judge_claim("c", None, None)
        return
    claim = judge_claim("c", one, 0.05, faults=faults, doubts=doubts, n_to_settle=200)
    if faults:
        assert claim.verdict is Verdict.INVALID and claim.reasons == tuple(faults)
    elif doubts:
        assert claim.verdict is Verdict.INCONCLUSIVE and claim.reasons[: len(doubts)] == (*doubts,)
    else:
        assert claim.verdict is judge(one, 0.05)[0]
    assert (claim.statistic_verdict is None) == (one is None)
    assert (claim.n_to_settle == 200) == (claim.verdict is Verdict.INCONCLUSIVE)
    json.dumps(claim.to_json(), allow_nan=False)


def test_an_artifact_that_is_hugely_significant_is_still_invalid() -> None:
    # The paper's claim at n_predict 512: 35 gained, 6 lost, McNemar p = 4.9e-6.
    shown = estimate(0.106, 0.177, 0.248, p=4.9e-6)
    claim = judge_claim("gain", shown, 0.05, faults=[ReasonCode.TRUNCATION_ARTIFACT])
    assert claim.verdict is Verdict.INVALID and claim.statistic_verdict is Verdict.SUPPORTED


def test_wrong_reasons_and_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="is no fault"):
        judge_claim("c", None, None, faults=[ReasonCode.UNDERPOWERED])
    with pytest.raises(ValueError, match="is no doubt"):
        judge_claim("c", None, None, doubts=[ReasonCode.TRUNCATED])
    with pytest.raises(ValueError, match="outside its own"):
        estimate(0.1, 0.3, 0.2)
    with pytest.raises(ValueError, match="above 0"):
        judge(estimate(0, 0, 0), 0.0)


def test_every_reason_has_words_and_only_one_role() -> None:
    assert not FAULTS & DOUBTS
    for reason in ReasonCode:
        assert why(reason)
