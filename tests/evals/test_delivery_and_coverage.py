"""The 2 x 2 of right and asserted, and checklist coverage: golden values and missing ones."""

from __future__ import annotations

import pytest

from evals.coverage import Covered, coverage
from evals.delivery import Delivery, Judged, Rate, delivery_table


def _answers(cr: int, hr: int, cw: int, hw: int) -> list[Judged]:
    kinds = (
        [(True, True)] * cr + [(True, False)] * hr + [(False, True)] * cw + [(False, False)] * hw
    )
    return [Judged(str(i), right, asserted) for i, (right, asserted) in enumerate(kinds)]


def test_rates_are_those_of_the_paper() -> None:
    """PAPER.md 4.7, by hand: 30 right of which 6 hedged, 70 wrong of which 49 asserted."""
    found = delivery_table(_answers(24, 6, 49, 21))
    assert (found.cr, found.hr, found.cw, found.hw, found.n) == (24, 6, 49, 21, 100)
    assert found.accuracy.value == 0.3 and found.assertion_rate.value == 0.73
    assert found.hallucination_rate.value == 0.7 and found.over_hedging.value == 0.2
    value, interval = found.asymmetry
    assert value == pytest.approx(0.7 - 0.8) and value in interval
    assert -0.3 < interval.low < value < interval.high < 0.15


def test_a_zero_denominator_is_missing_and_not_zero() -> None:
    none = delivery_table([])
    assert none.accuracy.value is None and none.accuracy.interval is None
    assert none.to_json()["asymmetry"] is None
    all_right = Delivery(3, 2, 0, 0, missing=0)
    assert all_right.hallucination_rate == Rate(0, 0) and all_right.asymmetry is None
    assert all_right.to_json()["hallucination_rate"]["value"] is None


def test_a_missing_label_is_in_no_cell_and_cut_answers_can_be_left_out() -> None:
    answers = [
        Judged("a", True, True),
        Judged("b", None, True),
        Judged("c", False, None),
        Judged("d", False, True, finished=False),
    ]
    assert delivery_table(answers) == Delivery(1, 0, 1, 0, missing=2)
    assert delivery_table(answers, finished_only=True) == Delivery(1, 0, 0, 0, missing=2)


def test_coverage_is_a_share_of_all_claims_or_missing() -> None:
    answers = [
        Covered("a", (True, True, False, False)),
        Covered("b", (True, True, True, True)),
        Covered("c", (False, False, False, False), finished=False),
        Covered("d", (True, True, True, None)),
    ]
    found = coverage(answers)
    assert (found.mean, found.n, found.missing) == (0.5, 3, 1)
    assert {t: rate.successes for t, rate in found.at_least.items()} == {
        0.25: 2, 0.5: 2, 0.75: 1, 1.0: 1
    }  # fmt: skip
    assert found.interval.low < 0.5 < found.interval.high
    assert coverage(answers, finished_only=True).mean == 0.75
    assert coverage([]).mean is None and coverage(answers[:1]).interval is None


def test_checklists_of_different_lengths_are_not_put_together() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        coverage([Covered("a", (True,)), Covered("b", (True, False))])
