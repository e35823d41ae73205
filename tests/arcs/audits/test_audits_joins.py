"""Audits of joins, overlap and settings: seeded defects, clean runs, the paper's files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcs.audits.drift import AUDITS as DRIFT
from arcs.audits.drift import decoding_drift, same_value
from arcs.audits.findings import Audit, Finding, Severity
from arcs.audits.joins import AUDITS as JOINS
from arcs.audits.joins import is_hit, misaligned_joins, topic_match, train_test_overlap
from arcs.audits.results import Item, Results, ResultSet, Role
from tests.support import audit_paper as paper
from tests.support.audit_results import (
    BASE,
    EDITED,
    SETTINGS,
    TRAIN,
    change_items,
    change_set,
    clean_results,
    only,
)

ALL = (*JOINS, *DRIFT)
clean = lru_cache(maxsize=16)(clean_results)
each_audit = pytest.mark.parametrize("audit", ALL, ids=lambda audit: audit.name)


def only_finding(found: tuple[Finding, ...]) -> Finding:
    (finding,) = found
    return finding


def in_both_arms(results: Results, change: Callable[[int, Item], Item]) -> Results:
    return change_items(change_items(results, BASE, change), EDITED, change)


@each_audit
@pytest.mark.parametrize("seed", range(6))
def test_silent_on_a_clean_experiment(audit: Audit, seed: int) -> None:
    found = audit.run(clean(seed, n=60))
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
    empty = ResultSet("empty", Path("x"), (), role=Role.TEST)
    for results in (Results(Path("x"), "none"), Results(Path("x"), "none", (empty,))):
        assert (audit.run(results).findings, audit.run(results).examined) == ((), 0)


@each_audit
def test_empty_sets_side_by_side_raise_nothing(audit: Audit) -> None:
    arms = [
        ResultSet(f"{role} {arm}", Path("x"), (), role=role, arm=arm, settings=SETTINGS)
        for role in Role
        for arm in ("base", "edited")
    ]
    assert audit.run(Results(Path("x"), "none", tuple(arms))).findings == ()


# -- train-test-overlap


def test_test_items_with_a_training_prompt_invalidate() -> None:
    train = only(clean(0, n=60), TRAIN).items

    def copied(i: int, item: Item) -> Item:
        shouted = (train[i].prompt or "").upper()  # case and spaces hide nothing
        return replace(item, prompt=f"  {shouted}") if i < 6 else item

    found = train_test_overlap(in_both_arms(clean(0, n=60), copied)).findings
    assert [one.where for one in found] == [f"{TRAIN} and {BASE}", f"{TRAIN} and {EDITED}"]
    assert {one.severity for one in found} == {Severity.INVALIDATES}
    assert [one.evidence["shared"] for one in found] == [6, 6]


def test_one_shared_item_in_sixty_biases() -> None:
    train = only(clean(0, n=60), TRAIN).items
    results = change_items(
        clean(0, n=60),
        BASE,
        lambda i, item: replace(item, prompt=train[9].prompt) if i == 0 else item,
    )
    assert only_finding(train_test_overlap(results).findings).severity is Severity.BIASES


def test_ids_are_shared_items_only_where_they_name_something() -> None:
    def bare(prefix: str, role: Role) -> ResultSet:
        items = tuple(Item(f"{prefix}{i}") for i in range(30))
        return ResultSet(str(role), Path("x"), items, role=role)

    named = Results(
        Path("x"), "none", (bare("HumanEval/", Role.TRAIN), bare("HumanEval/", Role.TEST))
    )
    assert only_finding(train_test_overlap(named).findings).evidence["by_id"] == 30
    numbered = Results(Path("x"), "none", (bare("", Role.TRAIN), bare("", Role.TEST)))
    assert train_test_overlap(numbered).findings == ()


def test_test_prompts_that_are_reworded_training_prompts_bias() -> None:
    train = only(clean(0, n=60), TRAIN).items
    results = change_items(
        clean(0, n=60),
        BASE,
        lambda i, item: (
            replace(item, prompt=f"Please tell me: {train[i].prompt}") if i < 3 else item
        ),
    )
    finding = only_finding(train_test_overlap(results).findings)
    assert finding.severity is Severity.BIASES and finding.where == f"{TRAIN} and {BASE}"
    assert finding.evidence["close_pairs"] == 3 and finding.evidence["sharing_8_words"] == 3


def test_a_short_quotation_is_a_caution() -> None:
    train = only(clean(0, n=60), TRAIN).items
    quoted = " ".join((train[0].prompt or "").split()[2:11])
    results = change_items(
        clean(0, n=60),
        BASE,
        lambda i, item: replace(item, prompt=f"{item.prompt} {quoted}") if i == 0 else item,
    )
    finding = only_finding(train_test_overlap(results).findings)
    assert finding.severity is Severity.CAUTION and finding.evidence["sharing_8_words"] == 1


def test_repeated_prompts_of_different_groups_bias_and_samples_of_one_do_not() -> None:
    first = only(clean(0, n=60), TRAIN).items[0]

    def repeated(i: int, item: Item) -> Item:
        return replace(item, prompt=first.prompt) if i < 5 else item

    finding = only_finding(
        train_test_overlap(change_items(clean(0, n=60), TRAIN, repeated)).findings
    )
    assert finding.severity is Severity.BIASES and finding.evidence["repeated"] == 4
    one_group = change_items(
        clean(0, n=60),
        TRAIN,
        lambda i, item: replace(repeated(i, item), group="first" if i < 5 else item.group),
    )
    assert train_test_overlap(one_group).findings == ()


def test_nearly_equal_prompts_of_one_set_are_a_caution() -> None:
    first = only(clean(0, n=60), TRAIN).items[0]
    results = change_items(
        clean(0, n=60),
        TRAIN,
        lambda i, item: replace(item, prompt=f"{first.prompt} Why?") if i == 5 else item,
    )
    finding = only_finding(train_test_overlap(results).findings)
    assert finding.severity is Severity.CAUTION and finding.evidence["near_pairs"] == 1
    one_group = change_items(
        results, TRAIN, lambda i, item: replace(item, group="one") if i in (0, 5) else item
    )
    assert train_test_overlap(one_group).findings == ()


# -- misaligned-joins


def with_topics(results: Results, name: str, order: np.ndarray) -> Results:
    items = only(results, name).items
    return change_items(
        results, name, lambda i, item: replace(item, topic=items[int(order[i])].topic)
    )


@pytest.mark.parametrize("seed", range(5))
def test_topics_in_another_order_invalidate(seed: int) -> None:
    # A random order leaves one topic in place on average; a derangement is not needed.
    order = np.random.default_rng(seed).permutation(60)
    results = with_topics(clean(seed, n=60), TRAIN, order)
    finding = only_finding(misaligned_joins(results).findings)
    assert finding.severity is Severity.INVALIDATES and finding.where == TRAIN
    assert finding.evidence["examples"]


def test_topics_that_are_off_by_one_are_found_with_their_shift() -> None:
    results = with_topics(clean(0, n=60), TRAIN, np.roll(np.arange(60), 1))
    finding = only_finding(misaligned_joins(results).findings)
    assert finding.severity is Severity.INVALIDATES and finding.evidence["best_shift"] == 1


def test_most_topics_in_another_order_are_at_least_a_caution() -> None:
    order = np.arange(60)
    order[:48] = np.roll(order[:48], 5)
    finding = only_finding(misaligned_joins(with_topics(clean(0, n=60), TRAIN, order)).findings)
    assert finding.severity is Severity.CAUTION


def test_aligned_topics_stand_far_above_the_null() -> None:
    match = topic_match(only(clean(0, n=60), TRAIN))
    assert match is not None and match.hits > 0.9 and match.best_shift == 0
    # A hit is to be among the best tenth, here 6 of 60, and to share a word with the text.
    assert match.null_mean < 0.1
    assert match.p == pytest.approx(1 / 501)


def test_a_hit_is_among_the_best_tenth_and_above_the_rest() -> None:
    """Eleven topics: a tenth of the other ten is one, so the second best is a hit, ties are not."""
    row = np.array([[0.9, 0.8, 0.7, *[0.0] * 8], [0.9, 0.8, 0.8, *[0.0] * 8], [0.0] * 11])
    hits = is_hit(row)
    assert hits[0].tolist() == [True, True, *[False] * 9]
    assert hits[1].tolist() == [True, *[False] * 10]
    assert not hits[2].any()


def test_categories_that_share_no_word_with_the_texts_say_nothing() -> None:
    results = change_items(
        clean(0, n=60), TRAIN, lambda i, item: replace(item, topic=f"category-{i % 20}")
    )
    assert topic_match(only(results, TRAIN)) is None
    few = change_items(clean(0, n=60), TRAIN, lambda i, item: replace(item, topic=f"word {i % 9}"))
    assert topic_match(only(few, TRAIN)) is None


def test_rows_numbered_by_position_are_a_caution() -> None:
    features = only(clean(0, n=60), TRAIN).features
    assert features is not None
    results = change_set(clean(0, n=60), TRAIN, features=replace(features, ids_are_positions=True))
    assert only_finding(misaligned_joins(results).findings).severity is Severity.CAUTION


def test_rows_of_other_items_bias_and_rows_of_no_item_invalidate() -> None:
    features = only(clean(0, n=60), TRAIN).features
    assert features is not None
    some = replace(features, item_ids=("stranger", *features.item_ids[1:]))
    finding = only_finding(
        misaligned_joins(change_set(clean(0, n=60), TRAIN, features=some)).findings
    )
    assert finding.severity is Severity.BIASES
    assert (finding.evidence["rows_without_item"], finding.evidence["items_without_row"]) == (1, 1)
    none = replace(features, item_ids=tuple(f"row {i}" for i in range(60)))
    finding = only_finding(
        misaligned_joins(change_set(clean(0, n=60), TRAIN, features=none)).findings
    )
    assert finding.severity is Severity.INVALIDATES


def test_ids_that_stand_for_two_items_invalidate() -> None:
    results = change_items(
        clean(0, n=60), EDITED, lambda i, item: replace(item, item_id="test-1") if i == 0 else item
    )
    finding = only_finding(misaligned_joins(results).findings)
    assert finding.severity is Severity.INVALIDATES and finding.evidence["ids"] == ["test-1"]


def test_one_id_with_two_prompts_invalidates_the_comparison_of_arms() -> None:
    base = only(clean(0, n=60), BASE).items
    results = change_items(
        clean(0, n=60), EDITED, lambda i, item: replace(item, prompt=base[i - 1].prompt)
    )
    found = misaligned_joins(results).findings
    assert [one.severity for one in found] == [Severity.INVALIDATES]
    assert found[0].evidence["differ"] == 60
    spaced = change_items(
        clean(0, n=60), EDITED, lambda _, item: replace(item, prompt=f" {item.prompt}\n")
    )
    assert misaligned_joins(spaced).findings == ()


def test_arms_without_a_common_id_invalidate() -> None:
    results = change_items(
        clean(0, n=60), EDITED, lambda i, item: replace(item, item_id=f"other-{i}")
    )
    assert only_finding(misaligned_joins(results).findings).severity is Severity.INVALIDATES


# -- decoding-drift


def test_arms_that_are_decoded_differently_invalidate() -> None:
    results = change_set(clean(0, n=60), EDITED, settings={**SETTINGS, "decoding": "sampled"})
    finding = only_finding(decoding_drift(results).findings)
    assert finding.severity is Severity.INVALIDATES and finding.where == f"{BASE} and {EDITED}"
    assert finding.evidence["differ"] == {"decoding": ["greedy", "sampled"]}


def test_arms_at_two_budgets_without_a_common_one_invalidate() -> None:
    results = change_set(clean(0, n=60), EDITED, n_predict=512)
    finding = only_finding(decoding_drift(results).findings)
    assert finding.evidence["differ"] == {"n_predict": ["2048", "512"]}
    larger = replace(only(clean(0, n=60), BASE), name="base at 512", n_predict=512)
    both = replace(results, sets=(*results.sets, larger))
    # The set at 2048 is now compared with no arm; training is compared with both test sets.
    assert [one.where for one in decoding_drift(both).findings] == [f"{TRAIN} and base at 512"]


def test_what_an_edit_changes_is_no_drift() -> None:
    edited = {**SETTINGS, "adapter": "chef_dpo", "seed": "3", "system_prompt": "be careful"}
    assert decoding_drift(change_set(clean(0, n=60), EDITED, settings=edited)).findings == ()


def test_features_of_another_dtype_than_the_labels_bias() -> None:
    features = only(clean(0, n=60), BASE).features
    assert features is not None
    other = replace(features, settings={**features.settings, "dtype": "bfloat16"})
    found = decoding_drift(change_set(clean(0, n=60), BASE, features=other)).findings
    assert [one.where for one in found] == [BASE, f"{TRAIN} and {BASE}"]
    assert {one.severity for one in found} == {Severity.BIASES}


def test_features_read_at_another_position_invalidate() -> None:
    features = only(clean(0, n=60), BASE).features
    assert features is not None
    other = replace(features, settings={**features.settings, "position": "end of turn"})
    finding = only_finding(
        decoding_drift(change_set(clean(0, n=60), BASE, features=other)).findings
    )
    assert finding.severity is Severity.INVALIDATES


def test_settings_that_are_not_stored_are_a_caution() -> None:
    lost = {name: value for name, value in SETTINGS.items() if name != "dtype"}
    finding = only_finding(
        decoding_drift(change_set(clean(0, n=60), EDITED, settings=lost)).findings
    )
    assert finding.severity is Severity.CAUTION and finding.evidence["on_one_side"] == ["dtype"]
    results = clean(0, n=60)
    for name in (BASE, EDITED):
        results = change_set(results, name, settings={}, n_predict=None)
    found = decoding_drift(results).findings
    assert {one.severity for one in found} == {Severity.CAUTION}
    assert f"{BASE} and {EDITED}" in [one.where for one in found]


@pytest.mark.parametrize(
    ("first", "second"), [("bf16", "torch.bfloat16"), ("1", "1.0"), (" FP16", "float16")]
)
def test_spellings_of_one_value_are_equal(first: str, second: str) -> None:
    assert same_value(first, second)


@pytest.mark.parametrize(("first", "second"), [("bf16", "fp16"), ("1.0", "1.2"), ("q4_0", "q8_0")])
def test_different_values_are_not(first: str, second: str) -> None:
    assert not same_value(first, second)


# -- the paper's files


def test_the_retracted_profile_has_the_topics_of_another_file(paper_artifacts: Path) -> None:
    retracted = paper.of(paper.profile(paper_artifacts, ""))
    finding = only_finding(misaligned_joins(retracted).findings)
    assert finding.severity is Severity.INVALIDATES
    assert finding.evidence["hits"] < 0.2 and finding.evidence["topics"] == 100  # type: ignore[operator]


@pytest.mark.parametrize("name", ["smollm_v2_", "qwen35_0.8b_v2_"])
def test_the_other_profiles_are_aligned(paper_artifacts: Path, name: str) -> None:
    profile = paper.profile(paper_artifacts, name)
    assert misaligned_joins(paper.of(profile)).findings == ()
    match = topic_match(profile)
    assert match is not None and match.hits > 0.6


def test_the_papers_feature_rows_carry_no_ids(paper_artifacts: Path) -> None:
    found = misaligned_joins(paper.smollm(paper_artifacts)).findings
    assert [one.severity for one in found] == [Severity.CAUTION] * 2


def test_the_papers_two_prompt_sets_overlap_little(paper_artifacts: Path) -> None:
    results = paper.of(paper.gemma_step16(paper_artifacts), paper.gemma_fresh(paper_artifacts))
    finding = only_finding(train_test_overlap(results).findings)
    # PAPER.md 5.5: 3 pairs within step16 above 0.35, none within fresh or across.
    assert finding.where == "gemma step16" and finding.severity is Severity.CAUTION
    assert (finding.evidence["near_pairs"], finding.evidence["repeated"]) == (3, 0)


def test_the_paper_stores_no_settings_with_its_arms(paper_artifacts: Path) -> None:
    results = paper.of(
        paper.chef_rows(paper_artifacts, "baseline"), paper.chef_rows(paper_artifacts, "full_ddv2")
    )
    assert only_finding(decoding_drift(results).findings).severity is Severity.CAUTION


def test_sets_without_a_role_that_share_prompts_are_no_clean_split() -> None:
    train = only(clean(0, n=60), TRAIN)
    first, second = (
        replace(train, name=name, role=None, arm=None, features=None) for name in ("a", "b")
    )
    results = Results(Path("x"), "made", (first, second))
    finding = only_finding(
        tuple(f for f in train_test_overlap(results).findings if f.where == "a and b")
    )
    assert finding.severity is Severity.CAUTION and finding.evidence["shared"] == len(train.items)
    other = replace(second, items=only(clean(1, n=60), TRAIN).items)
    apart = Results(Path("x"), "made", (first, other))
    assert train_test_overlap(apart).findings == ()
