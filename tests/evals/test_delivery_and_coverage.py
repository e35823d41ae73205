"""The 2 x 2 of right and asserted, and checklist coverage: golden values and missing ones."""

from __future__ import annotations

import numpy as np
import pytest

from evals.coverage import Covered, coverage
from evals.delivery import (
    DERIVED,
    Delivery,
    Judged,
    Rate,
    delivery_shifts,
    delivery_table,
)


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


def test_differences_of_derived_rates_are_paired_and_missing_where_undefined() -> None:
    rng = np.random.default_rng(3)
    right = rng.random(150) < 0.5
    base = [Judged(str(i), bool(r), True) for i, r in enumerate(right)]
    # the edit hedges most wrong answers and few right ones
    hedges = np.where(right, rng.random(150) < 0.1, rng.random(150) < 0.8)
    edited = [
        Judged(str(i), bool(r), not h) for i, (r, h) in enumerate(zip(right, hedges, strict=True))
    ]
    found = delivery_shifts(base, edited)
    tables = [delivery_table(side) for side in (base, edited)]
    for name in DERIVED:
        shift = found[name]
        assert shift is not None
        values = [getattr(table, name) for table in tables]
        numbers = [v[0] if isinstance(v, tuple) else v.value for v in values]
        assert shift.value == pytest.approx(numbers[1] - numbers[0])
        assert shift.interval.low <= shift.value <= shift.interval.high
    asymmetry = found["asymmetry"]
    assert asymmetry is not None and asymmetry.interval.high < -0.4
    same = found["accuracy"]
    assert same is not None and same.interval.low == same.interval.high == 0  # the same items
    all_right = [Judged(str(i), True, True) for i in range(20)]
    none = delivery_shifts(all_right, all_right)
    assert none["asymmetry"] is None and none["hallucination_rate"] is None
    assert none["over_hedging"] is not None
    unlabelled = [Judged(one.item_id, None, True) for one in all_right]
    assert delivery_shifts(all_right, unlabelled)["accuracy"] is None
    with pytest.raises(ValueError, match="different items"):
        delivery_shifts(all_right, all_right[::-1])
