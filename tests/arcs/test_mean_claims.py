"""Claims about mean scores: the same rule as for pass@1, and what makes them INVALID."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from arcs.claims import ReasonCode, paired_statistic
from arcs.gates import load_gates
from arcs.mean_claims import Scored, mean_claims, mean_difference
from arcs.measure.answers import View
from arcs.measure.asking import assertion_scores
from arcs.measure.judged import view_record
from evals.statistics import paired_counts

GATES = load_gates()
RNG = np.random.default_rng(7)
BASE = [int(value) for value in RNG.binomial(4, 0.5, 200)]


def scored(values: list[int | None], unfinished: set[int] = frozenset(), **more: Any) -> Scored:  # type: ignore[assignment]
    return Scored.of(values, [i in unfinished for i in range(len(values))], 4, **more)


def claim(base: Scored, edited: Scored, **more: Any) -> dict[str, Any]:
    (found,) = mean_claims(({512: base}, {512: edited}), 4, "coverage", GATES, **more)
    document = found.to_json()
    json.dumps(document, allow_nan=False)
    return document


def test_yes_and_no_give_the_paired_statistic_of_pass_at_1() -> None:
    base = [int(value) for value in RNG.integers(0, 2, 120)]
    edited = [int(value) for value in RNG.integers(0, 2, 120)]
    mine = mean_difference(base, edited, 1, GATES)
    other = paired_statistic(
        paired_counts([bool(b) for b in base], [bool(e) for e in edited]), GATES,
        GATES.smallest_effect.rate,
    )  # fmt: skip
    assert mine is not None
    assert mine.p_value == pytest.approx(other.p_value, rel=1e-9)
    assert (mine.delta, mine.interval) == (pytest.approx(other.counts.delta), other.interval)
    assert (mine.verdict, mine.reason) == (other.verdict, other.reason)


def test_a_shift_is_supported_none_is_refuted_and_few_items_tell_nothing() -> None:
    up = [min(4, value + 1) for value in BASE]
    found = claim(scored(BASE), scored(up))
    assert found["verdict"] == "SUPPORTED" and found["delta"] > 0.15 and found["p_value"] < 1e-9
    assert claim(scored(up), scored(BASE))["delta"] == -found["delta"]
    same = claim(scored(BASE), scored(BASE[:198] + BASE[199:] + [BASE[198]]))
    assert same["verdict"] == "REFUTED"
    few = claim(scored([0, 4, 2, 1, 3, 2]), scored([1, 3, 2, 4, 0, 2]))
    assert few["verdict"] == "INCONCLUSIVE" and few["reasons"] == ["underpowered"]
    assert few["n_to_settle"] > 6 and "items would show" in few["explanation"]
    floor = claim(scored([0] * 100), scored([0] * 99 + [1]))
    assert floor["reasons"] == ["floor"]


def test_a_failed_judge_makes_it_invalid_whatever_the_numbers_say() -> None:
    up = [min(4, value + 1) for value in BASE]
    found = claim(scored(BASE), scored(up), faults=(ReasonCode.JUDGE_NOT_VALID,))
    assert found["verdict"] == "INVALID" and found["reasons"] == ["judge_not_valid"]
    assert found["statistic_verdict"] == "SUPPORTED" and "fails its bar" in found["explanation"]


def test_missing_labels_leave_the_item_out_and_too_many_are_a_fault() -> None:
    holes: list[int | None] = [None if i in (3, 4) else value for i, value in enumerate(BASE)]
    assert claim(scored(holes), scored(BASE))["n_items"] == 198  # 1 percent
    many: list[int | None] = [None if i < 10 else value for i, value in enumerate(BASE)]
    found = claim(scored(BASE), scored(many))
    assert found["verdict"] == "INVALID" and found["reasons"] == ["infrastructure"]
    assert found["missing_share"] == pytest.approx(0.05)
    none = claim(scored([None] * 5), scored([None] * 5))
    assert none["verdict"] == "INVALID" and none["delta"] is None


def test_unfinished_answers_bound_the_claim() -> None:
    up = [min(4, value + 1) for value in BASE]
    all_open = set(range(200))
    found = claim(scored(BASE, all_open), scored(up))
    assert found["verdict"] == "INVALID" and found["reasons"] == ["truncated"]
    assert len(found["bounds"]) == 4
    # what was said stays said: the edited arm's open answers can only gain, so the claim stands
    kept = claim(scored(BASE), scored(up, all_open, keeps=True))
    assert kept["verdict"] == "SUPPORTED"
    lost = claim(scored(BASE), scored(up, all_open))
    assert lost["reasons"] == ["truncated"]
    nearly = claim(scored(BASE), scored(BASE, set(range(60))))
    assert nearly["verdict"] in ("INCONCLUSIVE", "INVALID")


def test_a_smaller_budget_that_makes_the_difference_is_an_artifact() -> None:
    short = [max(0, value - 2) for value in BASE]
    arms = ({256: scored(short), 512: scored(BASE)}, {256: scored(BASE), 512: scored(BASE)})
    small, primary = mean_claims(arms, 4, "coverage", GATES)
    assert small.verdict.value == "INVALID"
    assert [one.value for one in small.reasons] == ["truncation_artifact"]
    assert primary.interaction_p is None and primary.verdict.value == "REFUTED"
    with pytest.raises(ValueError, match="different n_predict"):
        mean_claims(({256: scored(BASE)}, {512: scored(BASE)}), 4, "coverage", GATES)


def test_so_few_items_that_no_p_could_be_small_exclude_nothing() -> None:
    """Five items have p >= 1/16 whatever they are, and a bootstrap of near ones has no width."""
    base, edited = [200] * 6, [201, 199, 201, 199, 201, 199]
    found = [mean_difference(base[:n], edited[:n], 400, load_gates()) for n in (5, 6)]
    assert [one.verdict.value for one in found if one] == ["INCONCLUSIVE", "REFUTED"]


def test_an_answer_without_a_label_neither_asserts_nor_hedges() -> None:
    def record(asserted: bool | None, finished: bool, loop: bool) -> dict[str, Any]:
        view = View("q", 64, 64, "so", "so", False, finished, loop)
        return {"item_id": "q", "views": {"64": {**view_record(view), "asserted": asserted}}}

    found = assertion_scores(
        [record(True, True, False), record(None, False, False), record(False, False, False),
         record(False, False, True)], 64,
    )  # fmt: skip
    assert found.as_read == (1, None, 0, 0)
    assert found.low == (1, None, 0, 0)
    assert found.high == (1, None, 1, 0)  # the one that a budget cut, but not in a loop
