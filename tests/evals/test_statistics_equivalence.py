from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.statistics.equivalence import Equivalence, equivalence
from evals.statistics.rates import Interval

intervals = st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(
    lambda ends: Interval(min(ends), max(ends), 0.95)
)
effects = st.floats(0.01, 0.5)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.04, 0.04, Equivalence.EQUIVALENT),
        (0.01, 0.04, Equivalence.EQUIVALENT),  # significant, and yet too small to matter
        (-0.01, 0.06, Equivalence.UNDECIDED),
        (0.01, 0.06, Equivalence.UNDECIDED),
        (-0.2, 0.2, Equivalence.UNDECIDED),
        (0.06, 0.2, Equivalence.DIFFERENT),
        (-0.2, -0.06, Equivalence.DIFFERENT),
        (0.05, 0.2, Equivalence.DIFFERENT),  # the smallest effect that matters does matter
        (0.0, 0.05, Equivalence.UNDECIDED),
        (-0.2, -0.05, Equivalence.DIFFERENT),
    ],
)
def test_the_three_answers(low, high, expected) -> None:
    assert equivalence(Interval(low, high, 0.95), 0.05) is expected


def test_the_papers_fresh_probe_excludes_the_auc_it_claimed() -> None:
    # ANCHORS E3: 0.516 +- 0.091 excludes 0.63 but not 0.60; SmolLM's 0.34 to 0.70 does neither.
    gemma = Interval(0.425, 0.607, 0.95)
    assert equivalence(gemma, 0.13, null=0.5) is Equivalence.EQUIVALENT
    assert equivalence(gemma, 0.10, null=0.5) is Equivalence.UNDECIDED
    assert equivalence(Interval(0.343, 0.7, 0.95), 0.13, null=0.5) is Equivalence.UNDECIDED


@given(intervals, effects)
def test_equivalence_is_the_rule_that_intervals_state_themselves(interval, effect) -> None:
    found = equivalence(interval, effect)
    assert (found is Equivalence.EQUIVALENT) == interval.excludes_effect(effect)
    assert equivalence(interval.negated(), effect) is found


@given(intervals, effects, st.floats(-1, 1))
def test_an_answer_says_where_the_truth_may_lie(interval, effect, null) -> None:
    found = equivalence(interval, effect, null)
    distances = [interval.low - null, interval.high - null]
    if found is Equivalence.EQUIVALENT:
        # Sums and differences of floats: one rounding of slack.
        assert max(map(abs, distances)) <= effect + 1e-12
    if found is Equivalence.DIFFERENT:
        assert min(map(abs, distances)) >= effect - 1e-12
        assert distances[0] * distances[1] > 0


@pytest.mark.parametrize("effect", [0.0, -0.1, float("nan")])
def test_an_effect_of_no_size_is_refused(effect) -> None:
    with pytest.raises(ValueError, match="above 0"):
        equivalence(Interval(-0.1, 0.1, 0.95), effect)
