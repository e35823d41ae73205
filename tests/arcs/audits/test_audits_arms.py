from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from arcs.audits.arms import AUDITS
from arcs.audits.findings import Outcome, Severity
from arcs.audits.results import Claim, Instrument, Item, LabelKind, Results, ResultSet, Role
from tests.support.audit_probes import (
    audit,
    change_probe,
    clean_experiment,
    load,
    paper_gemma,
    paper_smollm,
)
from tests.support.audit_results import BASE, EDITED, SOURCE, change_items, only, with_labels


def run(name: str, results: Results) -> Outcome:
    return audit(AUDITS, name, results)


Passes = Sequence[bool | None]


def arm(
    name: str, values: Passes, n_predict: int | None = None, cut: Sequence[bool] = ()
) -> ResultSet:
    reasons = ["length" if c else "stop" for c in cut] or [None] * len(values)
    return ResultSet(
        f"{name} {n_predict}",
        SOURCE,
        tuple(
            Item(str(i), finish_reason=reason, labels={"passed": value})
            for i, (value, reason) in enumerate(zip(values, reasons, strict=True))
        ),
        {"passed": Instrument("passed", LabelKind.PASS)},
        arm=name,
        task="HumanEval",
        n_predict=n_predict,
    )


def arms(*sets: ResultSet, claims: Sequence[Claim] = ()) -> Results:
    return Results(SOURCE, "made", sets=sets, claims=tuple(claims))


def split(gained: int, lost: int, both: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Results of the base and of the edited arm with these counts."""
    base = [False] * gained + [True] * lost + [True] * both + [False] * neither
    return base, [True] * gained + [False] * lost + [True] * both + [False] * neither


# sign-flip-over-budgets


def over_budgets(*tables: tuple[int, tuple[int, int, int, int]]) -> Outcome:
    sets = [
        arm(name, values, n_predict)
        for n_predict, table in tables
        for name, values in zip(("base", "edited"), split(*table), strict=True)
    ]
    return run("sign-flip-over-budgets", arms(*sets))


def test_a_gain_that_becomes_a_loss_with_more_tokens_is_found() -> None:
    # The paper's 512 run (35 against 6 of 164) and the counts it gives at 1024 (59 against 46).
    made = over_budgets((512, (35, 6, 15, 108)), (1024, (10, 23, 36, 95)))
    (found,) = made.findings
    assert (made.examined, found.severity) == (1, Severity.INVALIDATES)
    assert found.evidence["sign_turns"] is True
    assert found.evidence["interaction_p"] < 1e-4
    assert found.evidence["small"]["difference"] == pytest.approx(29 / 164)
    assert found.evidence["large"]["mcnemar_p"] == pytest.approx(
        float(mcnemar([[0, 10], [23, 0]], exact=True).pvalue)
    )


def test_a_gain_that_only_shrinks_is_found_without_a_turned_sign() -> None:
    (found,) = over_budgets((512, (40, 0, 20, 104)), (1024, (6, 0, 60, 98))).findings
    assert (found.severity, found.evidence["sign_turns"]) == (Severity.INVALIDATES, False)
    assert "changes with the budget" in found.message


def test_every_smaller_budget_is_held_to_the_largest() -> None:
    table = (8, 4, 60, 92)
    same = over_budgets((256, table), (512, table), (1024, table))
    assert same == Outcome((), 2)
    (found,) = over_budgets((256, (40, 0, 20, 104)), (512, table), (1024, table)).findings
    assert found.evidence["small"]["n_predict"] == 256


def test_a_turned_sign_too_small_to_be_shown_is_a_caution_and_near_zero_nothing() -> None:
    # Of 40 items: +3 and -3 points of 40 are 7.5 points each; +1 and -1 are 2.5.
    (found,) = over_budgets((512, (3, 0, 17, 20)), (1024, (0, 3, 17, 20))).findings
    assert found.severity is Severity.CAUTION
    assert over_budgets((512, (1, 0, 19, 20)), (1024, (0, 1, 19, 20))).findings == ()


def test_noise_over_four_budgets_is_rarely_called_an_interaction() -> None:
    # 60 tasks at four budgets: level 0.05 for all 180 comparisons together.
    rng = np.random.default_rng(0)
    sets = [
        replace(arm(name, (rng.random(100) < 0.4).tolist(), n), task=f"task {task}")
        for task in range(60)
        for n in (128, 256, 512, 1024)
        for name in ("base", "edited")
    ]
    made = run("sign-flip-over-budgets", arms(*sets))
    assert made.examined == 180
    assert all(f.severity is Severity.CAUTION for f in made.findings)
    for found in made.findings:  # what is left are turned signs of differences that matter
        differences = [found.evidence[size]["difference"] for size in ("small", "large")]
        assert found.evidence["sign_turns"] and min(map(abs, differences)) >= 0.05
    smallest = min(f.evidence["interaction_p"] for f in made.findings)
    assert smallest < 0.05  # uncorrected, some would have been called so


def test_one_significant_budget_of_three_is_corrected_for_the_others() -> None:
    # 10 against 2 items: p = 0.039 alone, three times that among three.
    noisy, none = (10, 2, 60, 92), (0, 0, 62, 102)
    assert len(over_budgets((128, noisy), (1024, none)).findings) == 1
    made = over_budgets((128, noisy), (256, none), (512, none), (1024, none))
    assert made == Outcome((), 3)


def test_arms_of_another_task_or_family_are_not_compared() -> None:
    base, edited = split(40, 0, 20, 104)
    other = replace(arm("edited", edited, 512), task="MBPP")
    elsewhere = replace(arm("edited", edited, 512), family="other")
    for name in ("sign-flip-over-budgets", "floor", "weak-test"):
        assert run(name, arms(arm("base", base, 512), other, elsewhere)) == Outcome((), 0)


# floor


@pytest.mark.parametrize(
    ("table", "at"),
    [((3, 1, 2, 158), "floor"), ((3, 1, 158, 2), "ceiling"), ((3, 1, 8, 152), None)],
)
def test_arms_without_room_for_an_effect_are_found(table, at) -> None:
    base, edited = split(*table)
    made = run("floor", arms(arm("base", base), arm("edited", edited)))
    assert [f.evidence["at"] for f in made.findings] == ([at] if at else [])
    assert made.examined == 1


def test_a_test_set_with_a_rare_class_is_found() -> None:
    few = change_probe(clean_experiment(), n_positive=29, n_negative=200)
    (found,) = run("floor", few).findings
    assert (found.severity, "train_n" in found.evidence) == (Severity.BIASES, False)
    assert run("floor", change_probe(few, n_positive=30)).findings == ()
    assert len(run("floor", change_probe(few, n_positive=200, n_negative=29)).findings) == 1


def test_a_rare_class_without_a_reported_probe_is_a_caution() -> None:
    results = replace(clean_experiment(), probes=())
    assert run("floor", results).findings == ()
    rare = change_items(results, BASE, lambda i, item: with_labels(item, ends_politely=i < 9))
    where = [f.where for f in run("floor", rare).findings if f.severity is Severity.CAUTION]
    assert where == [f"{BASE}, label ends_politely"]


def test_smollms_nine_positives_are_found_once_with_the_training_rate(paper_artifacts) -> None:
    (found,) = run("floor", paper_smollm(paper_artifacts)).findings
    assert (found.evidence["n_positive"], found.evidence["train_positive"]) == (9, 56)
    assert found.evidence["difference_of_rates"] == pytest.approx(9 / 193 - 0.56)
    assert found.evidence["fisher_p"] < 1e-7
    assert run("floor", paper_gemma(paper_artifacts)).findings == ()


# truncation-explains


def cut_arms(base_cut: Sequence[bool], edited_cut: Sequence[bool], table=(35, 6, 15, 108)):
    base, edited = split(*table)
    return arms(arm("base", base, 512, base_cut), arm("edited", edited, 512, edited_cut))


def flags(n: int, true: range) -> list[bool]:
    return [i in true for i in range(n)]


def test_gains_on_items_that_the_base_did_not_finish_are_found() -> None:
    results = cut_arms(flags(164, range(33)), flags(164, range(40, 44)))
    (found,) = run("truncation-explains", results).findings
    assert found.severity is Severity.INVALIDATES
    assert found.evidence["deciding_items"] == 35
    assert found.evidence["deciding_items_cut_off_in_the_losing_arm"] == 33
    # Left are two gained items, and five of the six lost ones and one that both arms pass.
    rest = found.evidence["both_finished"]
    assert (rest["n"], rest["gained"], rest["lost"]) == (127, 2, 5)


def test_losses_on_items_that_the_edited_arm_did_not_finish_are_found() -> None:
    results = cut_arms(flags(164, range(0)), flags(164, range(6, 38)), (6, 35, 15, 108))
    (found,) = run("truncation-explains", results).findings
    assert "in the arm that fails them (edited)" in found.message
    assert found.evidence["deciding_items_cut_off_in_the_losing_arm"] == 32


def test_a_difference_that_outlives_the_finished_items_is_biased_only() -> None:
    # Left are 17 gained items against 1 lost.
    results = cut_arms(flags(164, range(18)), flags(164, range(0)), (35, 1, 20, 108))
    (found,) = run("truncation-explains", results).findings
    assert found.severity is Severity.BIASES
    assert found.evidence["both_finished"]["mcnemar_p"] < 0.05


def test_cut_answers_elsewhere_or_in_both_arms_alike_explain_nothing() -> None:
    elsewhere = cut_arms(flags(164, range(60, 100)), flags(164, range(0)))
    alike = cut_arms(flags(164, range(40)), flags(164, range(40)))
    for results in (elsewhere, alike):
        assert run("truncation-explains", results) == Outcome((), 1)


def test_without_finish_reasons_nothing_is_examined() -> None:
    base, edited = split(35, 6, 15, 108)
    results = arms(arm("base", base), arm("edited", edited))
    assert run("truncation-explains", results) == Outcome((), 0)


# weak-test


def weak(table: tuple[int, int, int, int], *claims: Claim) -> Outcome:
    base, edited = split(*table)
    return run("weak-test", arms(arm("base", base), arm("edited", edited), claims=claims))


def test_a_difference_that_is_neither_shown_nor_excluded_is_found() -> None:
    # The loss that the paper states at 1024, 59 against 46 of 164, if 45 items changed.
    (found,) = weak((16, 29, 30, 89)).findings
    assert found.severity is Severity.CAUTION
    reference = mcnemar([[0, 16], [29, 0]], exact=True).pvalue
    assert found.evidence["mcnemar_p"] == pytest.approx(float(reference))
    assert found.evidence["difference"] == pytest.approx(-13 / 164)
    assert found.evidence["minimum_detectable_effect"] > 13 / 164
    assert found.evidence["n_to_settle"] > 164
    # With three items less the other way it is significant, and nothing is to be said.
    assert weak((13, 32, 30, 89)).findings == ()


def test_the_papers_run_at_512_is_significant_and_no_weak_test(paper_artifacts) -> None:
    values = [
        [row["passed"] for row in load(paper_artifacts, f"phase0_audit/humaneval_{name}.json")]
        for name in ("baseline", "dd_fp16")
    ]
    results = arms(arm("base", values[0], 512), arm("edited", values[1], 512))
    assert run("weak-test", results) == Outcome((), 1)
    last_thirty = arms(arm("base", values[0][-30:], 512), arm("edited", values[1][-30:], 512))
    (found,) = run("weak-test", last_thirty).findings
    assert found.evidence["mcnemar_p"] >= 0.05
    assert found.evidence["tango_interval"]["high"] > 0.05


def test_an_excluded_effect_is_no_weak_test() -> None:
    assert weak((1, 1, 100, 98)) == Outcome((), 1)
    assert len(weak((1, 1, 10, 8)).findings) == 1


def test_a_claim_about_the_arms_is_judged_by_their_items() -> None:
    claim = Claim("it gains", SOURCE, 4 / 164, "paired rate", 164)
    (found,) = weak((12, 8, 40, 104), claim).findings
    assert (found.severity, found.evidence["claim"]) == (Severity.BIASES, "it gains")
    assert weak((35, 6, 15, 108), replace(claim, effect=29 / 164)).findings == ()


def claimed(effect: float, kind: str, n: int, n_positive: int | None = None) -> Outcome:
    claim = Claim("claim", SOURCE, effect, kind, n, n_positive)
    return run("weak-test", Results(SOURCE, "made", claims=(claim,)))


def test_the_papers_claims_of_pass_rates_rest_on_too_few_items() -> None:
    # 36.0 to 28.0, 36.0 to 35.4 (one item): ANCHORS E2 gives 8 points of 164 a power of 0.15
    # to 0.45 and of 974 a power of 0.78, at the same discordance of 0.2 that is assumed here.
    (eight,) = claimed(-0.08, "paired rate", 164).findings
    (nothing,) = claimed(-0.006, "paired rate", 164).findings
    assert eight.evidence["power"] < 0.6
    assert nothing.evidence["effect_to_show"] == 0.05  # the smallest that matters
    assert eight.evidence["n_to_settle"] < nothing.evidence["n_to_settle"] < 1100
    assert claimed(-0.158, "paired rate", 164) == Outcome((), 1)
    assert claimed(-0.08, "paired rate", 974) == Outcome((), 1)


def test_the_n_that_would_do_really_does() -> None:
    for kind, split_at in (("paired rate", None), ("rate", None), ("auc", 20)):
        (found,) = claimed(0.12, kind, 60, split_at).findings
        needed = found.evidence["n_to_settle"]
        share = None if split_at is None else round(needed * split_at / 60)
        assert claimed(0.12, kind, round(needed * 1.02), share).findings == ()
        less = None if split_at is None else round(share * 0.7)
        assert len(claimed(0.12, kind, round(needed * 0.7), less).findings) == 1


def test_a_claim_of_a_rate_is_weaker_with_groups_of_unequal_size() -> None:
    (even,) = claimed(-0.13, "rate", 100, 50).findings
    (uneven,) = claimed(-0.13, "rate", 100, 75).findings
    assert even.evidence["group_sizes"] == [50, 50]
    key = "minimum_detectable_effect"
    assert uneven.evidence[key] > even.evidence[key] > 0.13


@pytest.mark.parametrize(("share", "enough"), [(0.05, 840), (0.15, 310), (0.30, 190), (0.50, 160)])
def test_an_auc_of_063_needs_as_many_items_as_stated(share, enough) -> None:
    # ANCHORS E2; its figures are rounded and take the variance under the effect only.
    few, many = round(enough * 0.8), round(enough * 1.2)
    assert len(claimed(0.13, "auc", few, round(share * few)).findings) == 1
    assert claimed(0.13, "auc", many, round(share * many)).findings == ()


def test_smollms_test_set_cannot_tell_the_gate_from_chance(paper_artifacts) -> None:
    # ANCHORS E2: half width 0.194 for 9 of 193. One finding for both configurations.
    (found,) = run("weak-test", paper_smollm(paper_artifacts)).findings
    assert found.evidence["half_width_at_chance"] == pytest.approx(0.194, abs=5e-4)
    assert found.evidence["minimum_detectable_auc"] > 0.75
    assert found.evidence["n_to_settle"] == pytest.approx(840, rel=0.1)
    assert run("weak-test", paper_gemma(paper_artifacts)) == Outcome((), 2)


def test_roles_do_not_matter_for_arms() -> None:
    base, edited = split(10, 14, 30, 110)
    sets = [replace(arm(n, v), role=Role.TEST) for n, v in (("base", base), ("edited", edited))]
    assert len(run("weak-test", arms(*sets)).findings) == 1


@pytest.mark.parametrize("reason", ["max_tokens", "FinishReason.MAX_TOKENS", "max_output_tokens"])
def test_an_explaining_cut_is_seen_under_every_name_it_has(reason) -> None:
    results = clean_experiment(0)
    length, other = (_gain_from_cuts(results, name) for name in ("length", reason))
    assert [f.evidence for f in length.findings] == [f.evidence for f in other.findings]
    assert length.findings and length.findings[0].severity is not Severity.CAUTION


def _gain_from_cuts(results: Results, reason: str) -> Outcome:
    """Answers that only the edited arm passes were cut in the base arm."""
    passed = {i.item_id: i.labels["correct"] for i in only(results, EDITED).items}

    def cut(i: int, item: Item) -> Item:
        gained = i < 40
        labels = {**item.labels, "correct": passed[item.item_id] and not gained}
        return replace(item, finish_reason=reason if gained else "stop", labels=labels)

    return run("truncation-explains", change_items(results, BASE, cut))


def test_several_samples_of_one_prompt_are_said_to_be_no_independent_items() -> None:
    def grouped(i: int, item: Item) -> Item:
        return replace(item, group=f"prompt {i // 10}")

    results = clean_experiment(0)
    assert run("grouped-pairs", results).findings == ()
    in_groups = change_items(results, BASE, grouped)
    found = run("grouped-pairs", in_groups).findings
    assert found and found[0].severity is Severity.CAUTION
    assert found[0].evidence["groups"] == found[0].evidence["n"] / 10
    interval = found[0].evidence["interval_over_groups"]
    assert interval["low"] <= found[0].evidence["difference"] <= interval["high"]
