"""The words of Arc 2 as rules: what holds, what is excluded, what stays open."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcs.arc2.effects import Effect, family, slopes
from arcs.arc2.paper_tables import VARIANTS, paper_words
from arcs.arc2.rules import Evidence, State, Word, rulings, verdict
from arcs.claims import Verdict
from evals.statistics.paired import mcnemar_exact, tango_interval
from evals.statistics.rates import Interval


def effect(value: float, half: float, p: float, name: str = "0.5") -> Effect:
    interval = Interval(value - half, value + half, 0.95)
    return Effect(name, value, interval, p, p, 50, smallest=0.1, alpha=0.05)


UP, DOWN = effect(0.3, 0.1, 0.001), effect(-0.3, 0.1, 0.001)
FLAT, OPEN = effect(0.01, 0.05, 0.6), effect(0.05, 0.3, 0.6)
CLEAN: dict[str, Any] = {
    "axis": [effect(0.15, 0.1, 0.01, "0.5"), effect(0.3, 0.1, 0.001, "0")],
    "steps": [effect(0.15, 0.1, 0.01), effect(0.15, 0.1, 0.01)],
    "trend": UP,
    "content": [[FLAT, FLAT], [FLAT, FLAT]],
    "against_random": [UP, UP],
    "random_rank": 1 / 3,
    "over_hedging": [FLAT, FLAT],
    "replicates": [UP, UP],
    "separable": True,
}


def states(**given: Any) -> dict[Word, State]:
    return {one.word: one.state for one in rulings(Evidence(**{**CLEAN, **given}))}


def claimed(**given: Any) -> Verdict:
    found = Evidence(**{**CLEAN, **given})
    return verdict("a claim", found, rulings(found)).verdict


def test_all_that_is_needed_gives_a_clean_positive() -> None:
    assert states()[Word.CLEAN_POSITIVE] is State.HOLDS
    assert claimed() is Verdict.SUPPORTED


@pytest.mark.parametrize(
    ("given_", "word", "becomes"),
    [
        ({"axis": [FLAT, FLAT]}, Word.FROZEN, Verdict.REFUTED),
        ({"axis": [DOWN, FLAT]}, Word.WRONG_DIRECTION, Verdict.REFUTED),
        ({"steps": [UP, DOWN]}, Word.NON_MONOTONIC, Verdict.REFUTED),
        ({"content": [[FLAT, DOWN]] * 5}, Word.CONTENT_DAMAGE, Verdict.REFUTED),
        (
            {"replicates": [UP, FLAT], "replicate_difference": UP},
            Word.NOT_REPLICATED,
            Verdict.REFUTED,
        ),
        ({"against_random": [UP, FLAT]}, Word.LIKE_RANDOM_HEADS, Verdict.REFUTED),
        ({"over_hedging": [FLAT, UP]}, Word.OVER_HEDGING, Verdict.REFUTED),
    ],
)
def test_each_word_holds_where_it_is_shown(
    given_: dict[str, Any], word: Word, becomes: Verdict
) -> None:
    assert states(**given_)[word] is State.HOLDS
    assert claimed(**given_) is becomes


@pytest.mark.parametrize(
    ("given_", "word"),
    [
        ({"axis": [OPEN, OPEN]}, Word.FROZEN),
        ({"axis": [OPEN, OPEN]}, Word.WRONG_DIRECTION),
        ({"steps": [OPEN, OPEN]}, Word.NON_MONOTONIC),
        ({"content": [[FLAT, OPEN]]}, Word.CONTENT_DAMAGE),
        ({"content": [[FLAT], [DOWN]]}, Word.CONTENT_DAMAGE),
        ({"replicates": [UP, OPEN]}, Word.NOT_REPLICATED),
        ({"against_random": [UP, UP, OPEN]}, Word.LIKE_RANDOM_HEADS),
        ({"over_hedging": [FLAT, OPEN]}, Word.OVER_HEDGING),
        ({"separable": False, "largest_separation": 0.9}, Word.NO_SEPARABLE_AXIS),
    ],
)
def test_what_is_neither_shown_nor_excluded_stays_open(given_: dict[str, Any], word: Word) -> None:
    """That p is above alpha excludes nothing, and a claim with an open word is not settled."""
    assert states(**given_)[word] is State.OPEN
    if word is not Word.NON_MONOTONIC:  # a rising trend is asked for, not that every step is shown
        assert claimed(**given_) is Verdict.INCONCLUSIVE


def test_what_was_not_measured_is_not_tested_and_settles_nothing() -> None:
    for given_, word in (
        ({"axis": [], "steps": [], "trend": None}, Word.FROZEN),
        ({"content": []}, Word.CONTENT_DAMAGE),
        ({"content_floor": "floor: 2% of 40"}, Word.CONTENT_DAMAGE),
        ({"against_random": []}, Word.LIKE_RANDOM_HEADS),
        ({"over_hedging": []}, Word.OVER_HEDGING),
        ({"replicates": [UP]}, Word.NOT_REPLICATED),
        ({"separable": None}, Word.NO_SEPARABLE_AXIS),
    ):
        assert states(**given_)[word] is State.NOT_TESTED
        assert claimed(**given_) is Verdict.INCONCLUSIVE


def test_noise_heads_hold_only_where_intervals_say_so() -> None:
    assert states(separable=False, largest_separation=0.4)[Word.NO_SEPARABLE_AXIS] is State.HOLDS
    assert claimed(separable=False, largest_separation=0.4) is Verdict.INCONCLUSIVE


def test_over_hedging_is_asked_only_where_hedging_is_the_axis() -> None:
    assert states(over_hedging=None)[Word.OVER_HEDGING] is State.NOT_TESTED
    assert claimed(over_hedging=None) is Verdict.SUPPORTED


def test_a_clean_positive_on_prompts_that_chose_the_heads_says_so() -> None:
    clean = rulings(Evidence(**CLEAN, chosen_on_same=41))[-1]
    assert (
        clean.state is State.HOLDS and "on 41 prompts that the heads were chosen" in clean.because
    )


def test_heads_that_stand_out_by_less_than_matters_leave_the_axis_open() -> None:
    found = Evidence(**{**CLEAN, "separable": False}, too_small="0.03 of 0.05")
    ruling = next(one for one in rulings(found) if one.word is Word.NO_SEPARABLE_AXIS)
    assert ruling.state is State.OPEN and "by 0.03 of 0.05 at most" in ruling.because


def test_more_than_random_says_the_rank_among_the_sets() -> None:
    ruling = next(one for one in rulings(Evidence(**CLEAN)) if one.word is Word.LIKE_RANDOM_HEADS)
    assert ruling.state is State.EXCLUDED and "rank p among the sets 0.33" in ruling.because


def test_a_failed_instrument_comes_before_any_statistic() -> None:
    assert claimed(faults=["judge not valid"]) is Verdict.INVALID


numbers = st.builds(
    effect,
    st.floats(-0.5, 0.5),
    st.floats(0.01, 0.4),
    st.floats(0, 1),
)


@given(st.lists(numbers, min_size=1, max_size=4), st.lists(numbers, min_size=2, max_size=4))
@settings(max_examples=200, deadline=None)
def test_words_never_contradict_each_other(axis: list[Effect], steps: list[Effect]) -> None:
    found = states(axis=axis, steps=steps)
    holding = {word for word, state in found.items() if state is State.HOLDS}
    assert not {Word.FROZEN, Word.CLEAN_POSITIVE} <= holding
    assert not {Word.WRONG_DIRECTION, Word.CLEAN_POSITIVE} <= holding
    if Word.CLEAN_POSITIVE in holding:
        assert any(one.up for one in axis)
        assert not (any(one.up for one in steps) and any(one.down for one in steps))


# -- effects --------------------------------------------------------------------------------------


def test_single_answers_get_the_exact_test_and_a_family_is_corrected() -> None:
    values = np.array([1.0] * 12 + [-1.0] * 2 + [0.0] * 36)
    quiet = np.zeros(50)
    found = family({"a": values, "b": quiet}, smallest=0.1, alpha=0.05, is_rate=True)
    assert found["a"].p == mcnemar_exact(12, 2)
    assert found["a"].p_adjusted == pytest.approx(2 * found["a"].p)
    wide = tango_interval(12, 2, 50, 0.975)
    assert (found["a"].interval.low, found["a"].interval.high) == (wide.low, wide.high)
    assert found["b"].within and found["b"].p == 1


def test_a_shift_of_nats_is_tested_by_signs_and_nothing_is_claimed_from_one_value() -> None:
    up = np.linspace(0.1, 0.3, 12)
    found = family({"up": up, "same": np.full(12, 0.2)}, smallest=0.05, alpha=0.05, is_rate=False)
    assert found["up"].up and found["up"].p == pytest.approx(2**-11)
    assert not found["same"].within and found["same"].to_json()["interval"] is None


def test_the_trend_is_the_slope_over_damping() -> None:
    table = {1.0: {"a": 0.0, "b": 1.0}, 0.5: {"a": 1.0, "b": 1.0}, 0.0: {"a": 2.0, "b": 1.0}}
    assert slopes(table) == pytest.approx([2.0, 0.0])


# -- the paper's tables ---------------------------------------------------------------------------


def test_no_verdict_word_of_the_papers_sweeps_follows_from_its_totals() -> None:
    found = {(one.variant, one.quantity, one.word): one for one in paper_words()}
    frozen = found["Gemma, humble, magnitude", "hedged answers", Word.FROZEN]
    assert frozen.says == "not determined" and set(frozen.states) == {State.HOLDS, State.OPEN}
    damage = found["Gemma, humble, magnitude", "right answers", Word.CONTENT_DAMAGE]
    assert damage.states == (State.OPEN,)
    wrong = found["Qwen3.5, humble, second seed", "hedged answers", Word.WRONG_DIRECTION]
    assert wrong.says == "excluded"  # it rose from 9 to 11
    assert not [one for one in found.values() if one.says == "holds"]
    assert {one.variant for one in found.values()} == {one.name for one in VARIANTS}


def test_the_papers_words_are_printed_without_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    from arcs.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["arc2", "--paper-tables", "--json"])
    assert ended.value.code == 0
    words = json.loads(capsys.readouterr().out)["words"]
    assert {one["determined"] for one in words} == {"not determined", "excluded"}
    with pytest.raises(SystemExit) as ended:
        main(["arc2", "--paper-tables", "--limit", "3"])
    assert ended.value.code == 2
    assert "--paper-tables reads no settings" in capsys.readouterr().err
