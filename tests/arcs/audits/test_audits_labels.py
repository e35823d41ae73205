"""Audits of labels and of the decisions made from them: seeded defects, clean runs, the paper."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, fisher_exact
from sklearn.metrics import cohen_kappa_score

from arcs.audits.decisions import AUDITS as DECISIONS
from arcs.audits.decisions import (
    claim_of,
    judge_disagreement,
    needed,
    recovered_parts,
    threshold_quantisation,
)
from arcs.audits.defaults import AUDITS as DEFAULTS
from arcs.audits.defaults import error_text, silent_defaults
from arcs.audits.findings import Audit, Finding, Severity
from arcs.audits.labels import AUDITS as LABELS
from arcs.audits.labels import constant_class, missing_labels, mixed_instruments
from arcs.audits.results import Instrument, Item, LabelKind, Results, ResultSet, Role
from tests.support import audit_paper as paper
from tests.support.audit_results import (
    BASE,
    EDITED,
    TRAIN,
    change_instrument,
    change_items,
    change_set,
    clean_results,
    only,
    with_labels,
)

ALL = (*LABELS, *DEFAULTS, *DECISIONS)
EVERY_SET = (TRAIN, BASE, EDITED)
clean = lru_cache(maxsize=16)(clean_results)
each_audit = pytest.mark.parametrize("audit", ALL, ids=lambda audit: audit.name)


def in_all_sets(results: Results, **labels: object) -> Results:
    for name in EVERY_SET:
        results = change_items(results, name, lambda _, item: with_labels(item, **labels))  # type: ignore[arg-type]
    return results


def one_set(items: tuple[Item, ...], *instruments: Instrument, role: Role | None = None) -> Results:
    known = {one.name: one for one in instruments}
    return Results(Path("x"), "none", (ResultSet("set", Path("x"), items, known, role),))


def only_finding(found: tuple[Finding, ...]) -> Finding:
    (finding,) = found
    return finding


@each_audit
@pytest.mark.parametrize("seed", range(6))
def test_silent_on_a_clean_experiment(audit: Audit, seed: int) -> None:
    found = audit.run(clean(seed, n=80))
    assert found.findings == () and found.examined > 0


@each_audit
@settings(max_examples=8, deadline=None)
@given(n=st.integers(1, 60), n_train=st.integers(1, 60), seed=st.integers(100, 10_000))
def test_silent_on_clean_experiments_of_any_size(
    audit: Audit, n: int, n_train: int, seed: int
) -> None:
    assert audit.run(clean_results(seed, n=n, n_train=n_train, d=2)).findings == ()


@each_audit
def test_nothing_to_look_at_is_not_applicable(audit: Audit) -> None:
    bare = ResultSet("bare", Path("x"), (), clean(0, n=80).sets[0].instruments, Role.TRAIN)
    for results in (Results(Path("x"), "none"), Results(Path("x"), "none", (bare,))):
        assert (audit.run(results).findings, audit.run(results).examined) == ((), 0)


@each_audit
def test_labels_that_are_all_missing_are_missing_and_nothing_else(audit: Audit) -> None:
    gone = dict.fromkeys(only(clean(0, n=80), TRAIN).instruments)
    found = audit.run(in_all_sets(clean(0, n=80), **gone)).findings
    assert len(found) == (15 if audit.name == "missing-labels" else 0)


# -- constant-class


def test_a_class_that_is_always_returned_invalidates() -> None:
    finding = only_finding(constant_class(in_all_sets(clean(0, n=80), verbal="assert")).findings)
    assert finding.severity is Severity.INVALIDATES and finding.where.endswith(": verbal")
    assert finding.evidence["n"] == 240 and finding.evidence["never"] == ["hedge", "mixed"]


def test_one_arm_that_always_gets_one_class_is_a_result_and_no_defect() -> None:
    results = change_items(clean(0, n=80), EDITED, lambda _, i: with_labels(i, verbal="hedge"))
    assert constant_class(results).findings == ()


def test_a_class_that_is_never_returned_is_a_caution() -> None:
    def spoken(_: int, item: Item) -> Item:
        verbal = item.labels["verbal"]
        return with_labels(item, verbal="hedge" if verbal == "mixed" else verbal)

    results = clean(0, n=80)
    for name in EVERY_SET:
        results = change_items(results, name, spoken)
    finding = only_finding(constant_class(results).findings)
    assert finding.severity is Severity.CAUTION and finding.evidence["never"] == ["mixed"]


def test_scores_and_passes_that_never_vary_bias() -> None:
    results = in_all_sets(clean(0, n=80), factual_accuracy=5.0, ends_politely=True)
    found = constant_class(results).findings
    assert [one.severity for one in found] == [Severity.BIASES] * 2


def test_nineteen_equal_labels_are_too_few() -> None:
    cert = Instrument("cert", LabelKind.CLASS, classes=("yes", "no"))
    items = tuple(Item(str(i), labels={"cert": "yes"}) for i in range(20))
    assert constant_class(one_set(items, cert)).findings
    assert constant_class(one_set(items[:19], cert)).examined == 0


# -- mixed-instruments


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"judge": "another 2.0"}, "judge"),
        ({"prompt_sha": "ffff"}, "prompt_sha"),
        ({"classes": ("assert", "hedge")}, "classes"),
    ],
)
@pytest.mark.parametrize("where", [BASE, TRAIN])
def test_one_name_for_two_instruments_invalidates(
    change: dict[str, object], part: str, where: str
) -> None:
    results = change_instrument(clean(0, n=80), where, "verbal", **change)
    finding = only_finding(mixed_instruments(results).findings)
    assert finding.severity is Severity.INVALIDATES and finding.evidence["differ"] == [part]


def test_two_cuts_of_the_response_are_two_instruments() -> None:
    results = clean(0, n=80)
    for name, cut in ((TRAIN, 1500), (BASE, 2500), (EDITED, 2500)):
        results = change_instrument(results, name, "verbal", response_cut=cut)
    finding = only_finding(mixed_instruments(results).findings)
    assert finding.severity is Severity.INVALIDATES
    assert finding.evidence["differ"] == ["response_cut"]


@pytest.mark.parametrize("part", ["judge", "prompt_sha"])
def test_an_instrument_that_is_not_stored_is_a_caution(part: str) -> None:
    results = change_instrument(clean(0, n=80), BASE, "verbal", **{part: None})
    finding = only_finding(mixed_instruments(results).findings)
    assert finding.severity is Severity.CAUTION and finding.evidence["not_stored"] == [part]


def test_a_cut_that_one_set_stores_and_another_does_not_is_a_caution() -> None:
    results = change_instrument(clean(0, n=80), BASE, "verbal", response_cut=1500)
    finding = only_finding(mixed_instruments(results).findings)
    assert finding.severity is Severity.CAUTION
    assert finding.evidence["not_stored"] == ["response_cut"]


def test_the_order_of_classes_makes_no_instrument() -> None:
    results = change_instrument(
        clean(0, n=80), BASE, "verbal", classes=("mixed", "assert", "hedge")
    )
    assert mixed_instruments(results).findings == ()


def test_benchmarks_and_families_may_have_judges_of_their_own() -> None:
    other = change_instrument(clean(0, n=80), BASE, "verbal", judge="another 2.0")
    apart = change_set(other, BASE, family="another")
    assert mixed_instruments(apart).findings == ()
    arms = replace(other, sets=other.sets[1:])  # two test sets, nothing trained
    assert mixed_instruments(arms).findings
    assert mixed_instruments(change_set(arms, BASE, task="baking")).findings == ()
    assert mixed_instruments(change_set(arms, BASE, family="another")).findings == ()


# -- missing-labels


def test_more_than_two_percent_missing_invalidates_and_two_do_not() -> None:
    def lose(k: int) -> Results:
        return change_items(
            clean(1, n=100), BASE, lambda i, item: with_labels(item, verbal=None) if i < k else item
        )

    finding = only_finding(missing_labels(lose(3)).findings)
    assert finding.severity is Severity.INVALIDATES and finding.where == f"{BASE}: verbal"
    expected = binomtest(3, 100).proportion_ci(method="wilson")
    assert finding.evidence["interval"] == pytest.approx(
        {"low": expected.low, "high": expected.high, "level": 0.95}
    )
    assert missing_labels(lose(2)).findings == ()


def test_a_label_without_an_instrument_is_counted_too() -> None:
    items = tuple(Item(str(i), labels={"extra": None if i < 5 else "x"}) for i in range(10))
    assert only_finding(missing_labels(one_set(items)).findings).evidence["missing"] == 5


# -- silent-defaults


def test_a_default_with_nothing_missing_hides_failures() -> None:
    results = change_instrument(clean(0, n=80), BASE, "verbal", default="assert")
    finding = only_finding(silent_defaults(results).findings)
    given_it = sum(value == "assert" for value in only(results, BASE).values("verbal"))
    assert finding.severity is Severity.BIASES and finding.evidence["given"] == given_it
    lost = change_items(
        results, BASE, lambda i, item: with_labels(item, verbal=None) if i == 0 else item
    )
    assert silent_defaults(lost).findings == ()


def test_labels_that_stand_without_their_share_are_found() -> None:
    results = change_items(
        clean(0, n=80), BASE, lambda i, item: with_labels(item, coverage=None) if i < 4 else item
    )
    finding = only_finding(silent_defaults(results).findings)
    assert finding.where == f"{BASE}: correct" and finding.evidence["without"] == 4


def test_labels_missing_in_one_arm_only_are_found() -> None:
    results = change_items(
        clean(0, n=80), EDITED, lambda i, item: with_labels(item, verbal=None) if i < 9 else item
    )
    finding = only_finding(silent_defaults(results).findings)
    assert finding.evidence["p"] == pytest.approx(fisher_exact([[0, 80], [9, 71]]).pvalue)
    both = change_items(
        results, BASE, lambda i, item: with_labels(item, verbal=None) if i < 7 else item
    )
    assert silent_defaults(both).findings == ()


@pytest.mark.parametrize(
    "text",
    [
        "Error: 429",
        "Traceback (most recent call last):\n  ...",
        '{"error": "no_json"}',
        "HTTP 503 server error",
        "openai.RateLimitError: slow down",
        "Request timed out.",
        "Connection reset by peer",
        "nan",
        "None",
        "no_json",
    ],
)
def test_error_texts_are_known(text: str) -> None:
    assert error_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "Error bars show the spread of the mean.",
        "Errors in the dough come from cold butter.",
        "Time out the oven: bake for 20 minutes.",
        "Nonetheless, whisk again.",
        "Limited salt is best.",
        "",
        "500 grams of flour",
    ],
)
def test_answers_that_begin_alike_are_no_errors(text: str) -> None:
    assert not error_text(text)


def test_error_texts_as_responses_and_labels_are_found() -> None:
    responses = change_items(
        clean(0, n=80),
        BASE,
        lambda i, item: replace(item, response="Error: 429") if i < 2 else item,
    )
    assert only_finding(silent_defaults(responses).findings).evidence["errors"] == 2
    labels = change_items(
        clean(0, n=80),
        BASE,
        lambda i, item: with_labels(item, verbal="API error: 500") if i < 2 else item,
    )
    assert only_finding(silent_defaults(labels).findings).evidence["impossible"] == 2


@pytest.mark.parametrize("value", [-1.0, 6.0, float("nan"), "n/a"])
def test_scores_outside_their_scale_are_not_values(value: float | str) -> None:
    results = change_items(
        clean(0, n=80),
        BASE,
        lambda i, item: with_labels(item, factual_accuracy=value) if i == 0 else item,
    )
    assert only_finding(silent_defaults(results).findings).evidence["impossible"] == 1


def test_an_empty_response_with_labels_is_a_caution() -> None:
    results = change_items(
        clean(0, n=80), BASE, lambda i, item: replace(item, response=" ") if i < 3 else item
    )
    finding = only_finding(silent_defaults(results).findings)
    assert finding.severity is Severity.CAUTION and finding.evidence["empty"] == 3


# -- threshold-quantisation


def claims(n: int, parts: int, rate: float, seed: int, start: int = 0) -> tuple[Item, ...]:
    hits = np.random.default_rng(seed).binomial(parts, rate, size=n)
    return tuple(
        Item(str(start + i), n_parts=parts, labels={"coverage": hit / parts})
        for i, hit in enumerate(hits)
    )


SHARE = Instrument("coverage", LabelKind.SHARE, threshold=0.5, threshold_label="correct")


def test_a_half_of_four_and_of_five_parts_is_not_the_same() -> None:
    items = claims(66, 4, 0.45, 0) + claims(34, 5, 0.45, 1, start=66)
    finding = only_finding(threshold_quantisation(one_set(items, SHARE)).findings)
    assert finding.severity is Severity.BIASES
    four, five = finding.evidence["by_parts"]  # type: ignore[misc]
    assert (four["needed"], five["needed"]) == (2, 3)
    shares = [item.labels["coverage"] for item in items]
    assert finding.evidence["positives"] == sum(s >= 0.5 for s in shares)  # type: ignore[operator]
    assert finding.evidence["positives_at_equal_cut"] == sum(s >= 0.6 for s in shares)  # type: ignore[operator]


def test_the_rate_by_the_cut_alone_is_what_simulated_claims_give() -> None:
    """Hand computation at one half: P(2 or more of 4) = 11/16, P(3 or more of 5) = 1/2."""
    halves = [
        Item(str(i), n_parts=4 if i < 10 else 5, labels={"coverage": share})
        for i, share in enumerate([0.5] * 10 + [0.4, 0.6] * 5)
    ]
    finding = only_finding(threshold_quantisation(one_set(tuple(halves), SHARE)).findings)
    rates = [row["rate_by_cut_alone"] for row in finding.evidence["by_parts"]]  # type: ignore[union-attr]
    assert rates == pytest.approx([11 / 16, 1 / 2])


def test_four_and_eight_parts_are_asked_the_same_share() -> None:
    items = claims(40, 4, 0.5, 0) + claims(40, 8, 0.5, 1, start=40)
    assert threshold_quantisation(one_set(items, SHARE)).findings == ()


def test_a_handful_of_odd_items_does_not_count() -> None:
    items = claims(90, 4, 0.5, 0) + claims(4, 5, 0.5, 1, start=90)
    assert threshold_quantisation(one_set(items, SHARE)).findings == ()


def test_train_and_test_with_other_numbers_of_parts_invalidate() -> None:
    train = one_set(claims(80, 4, 0.45, 0), SHARE, role=Role.TRAIN).sets[0]
    test = one_set(claims(80, 5, 0.45, 1), SHARE, role=Role.TEST).sets[0]
    results = Results(Path("x"), "none", (train, replace(test, name="test")))
    finding = only_finding(threshold_quantisation(results).findings)
    assert finding.severity is Severity.INVALIDATES and finding.where == "set and test: coverage"
    same = replace(test, name="test", items=claims(80, 4, 0.25, 1))  # a real fall is no artifact
    assert threshold_quantisation(Results(Path("x"), "none", (train, same))).findings == ()


@pytest.mark.parametrize("parts", range(1, 12))
@pytest.mark.parametrize("threshold", [0.2, 0.25, 0.4, 0.5, 0.6, 1.0])
def test_needed_is_the_fewest_parts_that_reach_the_threshold(parts: int, threshold: float) -> None:
    reach = [k for k in range(parts + 1) if k / parts >= threshold - 1e-12]
    assert needed(parts, threshold) == reach[0]


def test_rounding_does_not_ask_one_part_more() -> None:
    assert 0.28 * 25 > 7 and needed(25, 0.28) == 7
    assert needed(25, 0.281) == 8


def test_parts_are_read_off_shares_only_where_they_can_be() -> None:
    read = [recovered_parts(share) for share in (0.5, 0.25, 0.6, 1 / 3, 5 / 6, 0.0, 1.0, 0.123)]
    assert read == [4, 4, 5, 3, 6, None, None, None]


# -- judge-disagreement


def test_two_judges_of_correctness_that_do_not_agree_are_found() -> None:
    rng = np.random.default_rng(0)
    results = change_items(
        clean(0, n=80),
        BASE,
        lambda _, item: with_labels(item, factual_accuracy=float(rng.integers(1, 6))),
    )
    finding = only_finding(judge_disagreement(results).findings)
    items = only(results, BASE).items
    kappa = cohen_kappa_score(
        [item.labels["correct"] for item in items],
        [item.labels["factual_accuracy"] >= 4 for item in items],  # type: ignore[operator]
    )
    assert finding.severity is Severity.BIASES
    assert finding.evidence["kappa"] == pytest.approx(kappa)


def test_a_low_kappa_whose_interval_reaches_far_up_says_nothing_yet() -> None:
    """21 of 30 agree where chance gives half: kappa is just below 0.4, the interval is not."""
    first, second = (
        [True] * 15 + [False] * 15,
        [True] * 11 + [False] * 4 + [True] * 5 + [False] * 10,
    )
    items = tuple(
        Item(str(i), labels={"correct": a, "accurate": b})
        for i, (a, b) in enumerate(zip(first, second, strict=True))
    )
    both = Instrument("correct", LabelKind.PASS), Instrument("accurate", LabelKind.PASS)
    found = judge_disagreement(one_set(items, *both))
    assert (found.findings, found.examined) == ((), 1)
    against = tuple(with_labels(item, accurate=i % 2 == 0) for i, item in enumerate(items))
    assert judge_disagreement(one_set(against, *both)).findings


def test_labels_that_claim_different_things_may_differ() -> None:
    assert claim_of("verbal") is None and claim_of("hedging_appropriateness") is None
    assert claim_of("incorrect_technique") is None and claim_of("completeness") is None
    for name in ("correct", "factual_accuracy", "Answer accuracy", "passed", "coverage"):
        assert claim_of(name) == "the answer is correct"


def test_a_share_is_not_compared_with_its_own_cut() -> None:
    items = claims(60, 4, 0.5, 0)
    contrary = tuple(
        with_labels(item, correct=not (item.labels["coverage"] >= 0.5))  # type: ignore[operator]
        for item in items
    )
    correct = Instrument("correct", LabelKind.PASS)
    assert judge_disagreement(one_set(contrary, SHARE, correct)).examined == 0
    alone = replace(SHARE, threshold_label=None)
    assert judge_disagreement(one_set(contrary, alone, correct)).findings


# -- the paper's files


def gemma(folder: Path) -> Results:
    return paper.of(paper.gemma_step16(folder), paper.gemma_fresh(folder))


def test_the_papers_certainty_judge_never_said_uncertain(paper_artifacts: Path) -> None:
    found = constant_class(gemma(paper_artifacts)).findings
    finding = only_finding(found)
    assert finding.severity is Severity.INVALIDATES
    assert finding.evidence["n_by_set"] == {"gemma step16": 100, "gemma fresh": 193}
    assert "UNCERTAIN" in finding.evidence["never"]  # type: ignore[operator]


def test_the_papers_clean_technique_counter_never_varies(paper_artifacts: Path) -> None:
    results = paper.of(
        paper.chef_rows(paper_artifacts, "baseline"), paper.chef_rows(paper_artifacts, "full_ddv2")
    )
    finding = only_finding(constant_class(results).findings)
    assert finding.where == "baseline, full_ddv2: technique_clean" and finding.evidence["n"] == 200


def test_the_papers_rubric_and_checklist_hardly_agree(paper_artifacts: Path) -> None:
    found = judge_disagreement(gemma(paper_artifacts)).findings
    # PAPER.md 5.9 judge_agreement.*
    kappas = [one.evidence["kappa"] for one in found]
    assert kappas == pytest.approx([0.07212713936430326, 0.18479991508332438], abs=1e-9)


def test_the_papers_cut_asks_more_of_five_claims_than_of_four(paper_artifacts: Path) -> None:
    within, between = threshold_quantisation(gemma(paper_artifacts)).findings
    # PAPER.md 5.5: 58 items reach 0.5, 27 reach 0.6.
    assert within.evidence["positives"] == 58 and within.evidence["positives_at_equal_cut"] == 27
    assert between.severity is Severity.INVALIDATES and between.evidence["positives"] == [58, 55]


@pytest.mark.parametrize(
    ("name", "four", "five"),
    [("gemma", 43, 13), ("smollm_v2_", 39, 14), ("qwen35_0.8b_v2_", 48, 24)],
)
def test_with_claim_counts_the_papers_rates_by_count_come_out(
    paper_artifacts: Path, name: str, four: int, five: int
) -> None:
    """Counts that fit every published coverage of a checklist (PAPER.md 5.5: 66 and 31 of 100).

    The retracted profile's responses were scored with the same 100 checklists, 8 times each.
    """
    sets = [
        paper.gemma_step16(paper_artifacts),
        paper.profile(paper_artifacts, "smollm_v2_"),
        paper.profile(paper_artifacts, "qwen35_0.8b_v2_"),
    ]
    retracted = paper.profile(paper_artifacts, "").values("coverage")
    shares = np.array([one.values("coverage") for one in sets], float)  # [3, 100]
    shares = np.vstack([shares, np.array(retracted, float).reshape(100, 8).T])
    fits = [np.abs(shares * k - np.rint(shares * k)).max(axis=0) < 0.01 for k in (2, 4, 5, 6)]
    parts = np.select([fits[0], *fits[1:]], [2, 4, 5, 6])
    chosen = sets[[one.name.startswith(name) for one in sets].index(True)]
    items = tuple(
        replace(item, n_parts=int(k)) for item, k in zip(chosen.items, parts, strict=True)
    )
    results = Results(paper_artifacts, "none", (replace(chosen, items=items),))
    rows = only_finding(threshold_quantisation(results).findings).evidence["by_parts"]
    by_parts = {row["parts"]: row for row in rows}  # type: ignore[union-attr]
    assert (by_parts[5]["n"], by_parts[5]["positives"]) == (31, five)
    assert (by_parts[4]["n"], by_parts[4]["positives"]) == (66, four)


def test_the_papers_verbal_judge_never_failed(paper_artifacts: Path) -> None:
    found = silent_defaults(gemma(paper_artifacts)).findings
    assert only_finding(found).evidence["given"] == 91


def test_the_paper_stores_no_judge_with_its_checklist_labels(paper_artifacts: Path) -> None:
    found = mixed_instruments(gemma(paper_artifacts)).findings
    assert {one.severity for one in found} == {Severity.CAUTION}
    assert any("coverage" in one.where for one in found)


def test_the_papers_one_missing_rubric_in_a_hundred_is_allowed(paper_artifacts: Path) -> None:
    found = missing_labels(gemma(paper_artifacts))
    assert found.findings == () and found.examined == 17
