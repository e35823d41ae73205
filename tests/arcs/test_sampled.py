"""Verdicts from several samples an item, on made-up answers whose right verdict is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest

from arcs.claims import ReasonCode, Verdict
from arcs.gates import load_gates
from arcs.sampled import SampledComparison, compare_sampled
from arcs.sampled_arms import summarise_sampled
from arcs.verdicts import compare
from evals.humaneval.outcomes import ItemResult, Outcome
from models.errors import UserError

GATES = load_gates()
KINDS = {"+": Outcome.PASSED, "-": Outcome.WRONG, "?": Outcome.INFRASTRUCTURE_ERROR}
"""``u``: cut by the budget; ``o``: in a loop."""


def rows(texts: Sequence[str]) -> list[ItemResult]:
    """One string an item, one letter a sample; answers in the order of a run."""
    found = []
    for sample in range(len(texts[0])):
        for item, text in enumerate(texts):
            kind = text[sample]
            cut = kind in "uo"
            name = f"i{item}#{sample}" if sample else f"i{item}"
            outcome = KINDS.get(kind, Outcome.TRUNCATED)
            found.append(ItemResult(name, outcome, cut, kind == "o", f"{name}{kind}"))
    return found


def items(answers: Sequence[ItemResult]) -> dict[str, str]:
    return {row.item_id: row.item_id.partition("#")[0] for row in answers}


def against(
    base: Sequence[str], edited: Sequence[str], *more: tuple[Sequence[str], Sequence[str]],
    settings: str = "same",
) -> SampledComparison:  # fmt: skip
    """At one budget, or at several, the largest last."""
    arms = [(rows(one), rows(other)) for one, other in ((base, edited), *more)]
    return compare_sampled(
        {n: one for n, (one, _) in enumerate(arms, start=1)},
        {n: other for n, (_, other) in enumerate(arms, start=1)},
        items(arms[0][0]),
        GATES,
        base_settings="same",
        edited_settings=settings,
    )


def verdict(found: SampledComparison) -> tuple[str, list[str]]:
    claim = found.claim.to_json()
    return claim["verdict"], claim["reasons"]


def drawn(rates: Sequence[float], samples: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join("+-"[int(rng.random() > rate)] for _ in range(samples)) for rate in rates]


def test_pass_at_1_is_the_mean_over_items_and_pass_at_k_the_estimator() -> None:
    answers = rows(["++++", "+---", "----", "++??"])
    found = summarise_sampled({8: answers}, items(answers), GATES)[8]
    assert found["pass_at_1"] == pytest.approx((1 + 0.25 + 0 + 1) / 4)
    assert (found["n_items"], found["samples"], found["answers"]) == (4, 4, 16)
    assert (found["passed"], found["missing"]) == (7, 2)
    # of 2 drawn from 4 with 1 pass: 1 - C(3,2)/C(4,2) = 1/2; at 4, the last item has no 4 results
    assert found["pass_at_k"]["2"]["value"] == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert found["pass_at_k"]["4"]["value"] == pytest.approx(2 / 3)
    assert found["pass_at_k"]["4"]["n_items"] == 3
    assert set(found["pass_at_k"]) == {"1", "2", "4"}
    assert found["outcomes"]["passed"] == 7


def test_the_interval_is_as_wide_as_the_items_are_few() -> None:
    """Eight equal samples of ten items are ten observations, not eighty."""
    one, eight = rows(["+", "-"] * 5), rows(["+" * 8, "-" * 8] * 5)
    widths = []
    for answers in (one, eight):
        interval = summarise_sampled({8: answers}, items(answers), GATES)[8]["interval"]
        widths.append(interval["high"] - interval["low"])
    assert widths[0] == pytest.approx(widths[1])


@pytest.mark.parametrize("same", ["++++", "----"])
def test_where_nothing_varies_the_interval_is_no_point(same: str) -> None:
    answers = rows([same] * 12)
    interval = summarise_sampled({8: answers}, items(answers), GATES)[8]["interval"]
    assert interval["high"] - interval["low"] > 0.1
    claim = against([same] * 12, [same] * 12).claim.to_json()
    assert claim["interval"]["low"] < 0 < claim["interval"]["high"] and claim["p_value"] == 1


def test_one_sample_an_item_has_mcnemars_p_value() -> None:
    base, edited = ["+"] * 30 + ["-"] * 30, ["+"] * 25 + ["-"] * 20 + ["+"] * 15
    found = against(base, edited).budgets[0].difference
    plain = compare(
        {1: rows(base)}, {1: rows(edited)}, GATES, base_settings="a", edited_settings="a"
    ).primary.statistic
    assert found is not None and plain is not None
    assert (found.gained, found.lost) == (plain.counts.gained, plain.counts.lost)
    assert found.p_value == pytest.approx(plain.p_value)
    assert found.delta == pytest.approx(plain.counts.delta)
    assert found.interval.low == pytest.approx(plain.interval.low, abs=0.03)


def test_a_planted_effect_is_supported_and_none_is_refuted_with_enough_items() -> None:
    rng = np.random.default_rng(0)
    rates = rng.beta(2, 2, 300)
    better = np.clip(rates + 0.15, 0, 1)
    base = drawn(rates, 8, seed=1)
    assert verdict(against(base, drawn(better, 8, seed=2))) == ("SUPPORTED", ["effect_shown"])
    assert verdict(against(base, drawn(rates, 8, seed=3))) == ("REFUTED", ["effect_excluded"])
    few = against(base[:12], drawn(rates[:12], 8, seed=4))
    assert verdict(few) == ("INCONCLUSIVE", ["underpowered"])


def test_samples_are_not_items() -> None:
    """Ten items that differ by chance in all of 50 equal samples show nothing: p is that of 10."""
    base = ["+" * 50] * 5 + ["-" * 50] * 5
    edited = ["+" * 50] * 8 + ["-" * 50] * 2
    found = against(base, edited).budgets[0].difference
    assert found is not None and found.p_value == pytest.approx(0.25)


def test_how_far_an_item_moves_counts_not_only_where_to() -> None:
    """Three items up by all four samples, four down by one: signs alone would give p = 1."""
    base, edited = ["----"] * 3 + ["+---"] * 4, ["++++"] * 3 + ["----"] * 4
    found = against(base, edited).budgets[0].difference
    assert found is not None and (found.gained, found.lost) == (3, 4)
    flips = product((-1, 1), repeat=7)
    steps = (4, 4, 4, -1, -1, -1, -1)
    extreme = [abs(sum(a * b for a, b in zip(one, steps, strict=True))) >= 8 for one in flips]
    assert found.p_value == pytest.approx(sum(extreme) / 128)


def test_floor_and_ceiling_decide_nothing() -> None:
    assert verdict(against(["----"] * 40, ["----"] * 40)) == ("INCONCLUSIVE", ["floor"])
    assert verdict(against(["++++"] * 40, ["++++"] * 40)) == ("INCONCLUSIVE", ["ceiling"])


def _shown(swap: Callable[[str], str]) -> SampledComparison:
    return against(["+---"] * 40, [swap("++++")] * 40)


def test_a_conclusion_that_unfinished_answers_could_change_is_invalid() -> None:
    assert verdict(_shown(lambda text: text)) == ("SUPPORTED", ["effect_shown"])
    cut = against(["+uuu"] * 40, ["++++"] * 40)
    assert verdict(cut) == ("INVALID", ["truncated"])
    assert len(cut.budgets[0].bounds) == 4
    # an exact loop is a failure, not an unfinished answer
    assert verdict(against(["+ooo"] * 40, ["++++"] * 40)) == ("SUPPORTED", ["effect_shown"])


def test_a_difference_that_the_budget_makes_is_invalid_there_alone() -> None:
    small = (["----"] * 40, ["++++"] * 40)
    large = (["++--"] * 40, ["++--"] * 40)
    found = against(*small, large)
    at_small = found.to_json()["budgets"][0]
    assert at_small["claim"]["reasons"] == ["truncation_artifact"]
    assert at_small["interaction_p"] < 1e-6
    assert found.to_json()["budgets"][1]["interaction_p"] is None
    assert "truncation_artifact" not in found.claim.to_json()["reasons"]


def test_the_same_difference_at_both_budgets_is_no_interaction() -> None:
    arms = (["+---"] * 40, ["++++"] * 40)
    at_small = against(*arms, arms).to_json()["budgets"][0]
    assert at_small["interaction_p"] == 1 and at_small["claim"]["verdict"] == "SUPPORTED"


def test_an_answer_that_a_larger_budget_finished_is_not_bounded() -> None:
    edited = ["++++"] * 40
    at_small = against(["+uuu"] * 40, edited, (["+---"] * 40, edited)).budgets[0]
    assert ReasonCode.TRUNCATED not in at_small.reasons
    assert {one.delta for one in at_small.bounds} == {0.75}


def test_instrument_faults_come_first() -> None:
    good = ["+---"] * 40
    assert verdict(against(good, ["++++"] * 40, settings="other"))[1] == ["instrument_differs"]
    seen = compare_sampled(
        {1: rows(good)}, {1: rows(["++++"] * 40)}, items(rows(good)), GATES,
        base_settings="same", edited_settings="same", trained_on_test=True,
    )  # fmt: skip
    assert verdict(seen) == ("INVALID", ["train_test_overlap"])
    missing = ["++++"] * 38 + ["+++?"] * 2
    found = against(good, missing)
    assert verdict(found) == ("INVALID", ["infrastructure"])
    assert found.budgets[0].missing_share == pytest.approx(2 / 40)
    assert found.budgets[0].difference is not None
    assert found.budgets[0].difference.n_items == 38
    nothing = against(["??"] * 3, ["??"] * 3)
    assert nothing.claim.reasons == (ReasonCode.INFRASTRUCTURE,)
    assert nothing.budgets[0].verdict is Verdict.INVALID
    assert nothing.claim.to_json()["delta"] is None


def test_refuted_as_the_answers_stand_but_not_at_every_bound_is_inconclusive() -> None:
    """Did they all pass, the difference would be 4.75 points, and 5 inside its interval."""
    base = ["++--"] * 400
    found = against(base, ["++--"] * 324 + ["++-u"] * 76)
    assert found.budgets[0].difference is not None
    assert found.budgets[0].difference.verdict is Verdict.REFUTED
    assert verdict(found) == ("INCONCLUSIVE", ["unfinished_answers"])
    assert verdict(against(base, ["++--"] * 390 + ["++-u"] * 10))[0] == "REFUTED"


def test_other_answers_are_refused() -> None:
    one = rows(["++", "--"])
    for other in (rows(["++"]), one[::-1]):
        with pytest.raises(UserError, match="the arms hold different"):
            compare_sampled(
                {1: one}, {1: other}, items(one), GATES, base_settings="", edited_settings=""
            )
