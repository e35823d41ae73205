"""Audits of cut responses and of what features carry: seeded defects, clean runs, the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from arcs.audits.encoded import AUDITS as ENCODED
from arcs.audits.encoded import features_encode_membership, features_encode_truncation
from arcs.audits.ends import ran_out
from arcs.audits.findings import Audit, Finding, Severity
from arcs.audits.results import Features, Instrument, Item, LabelKind, Results, ResultSet, Role
from arcs.audits.truncation import AUDITS as TRUNCATION
from arcs.audits.truncation import find_wall, length_wall, truncated_responses
from tests.support import audit_paper as paper
from tests.support.audit_results import (
    BASE,
    EDITED,
    TRAIN,
    change_items,
    change_set,
    clean_results,
    only,
)

ALL = (*TRUNCATION, *ENCODED)
clean = lru_cache(maxsize=16)(clean_results)
each_audit = pytest.mark.parametrize("audit", ALL, ids=lambda audit: audit.name)


def cut_first(k: int, reason: str = "length") -> Callable[[int, Item], Item]:
    return lambda i, item: replace(item, finish_reason=reason) if i < k else item


def broken_off(text: str, length: int = 300) -> str:
    """Enough of a text to hold two sentences, and the beginning of a third."""
    return (text + " " + text)[:length].rstrip(".!? ") + " th"


def worst(findings: Sequence[Finding]) -> Severity:
    return min((one.severity for one in findings), key=list(Severity).index)


def without_reasons(results: Results, name: str, **changes: object) -> Results:
    return change_items(
        results,
        name,
        lambda _, item: replace(item, finish_reason=None, generated_tokens=None, **changes),  # type: ignore[arg-type]
    )


@each_audit
@pytest.mark.parametrize("seed", range(6))
def test_silent_on_a_clean_experiment(audit: Audit, seed: int) -> None:
    assert audit.run(clean(seed, n=60)).findings == ()


@each_audit
@settings(max_examples=8, deadline=None)
@given(n=st.integers(1, 50), n_train=st.integers(1, 50), seed=st.integers(100, 10_000))
def test_silent_on_clean_experiments_of_any_size(
    audit: Audit, n: int, n_train: int, seed: int
) -> None:
    assert audit.run(clean_results(seed, n=n, n_train=n_train, d=4)).findings == ()


@each_audit
def test_nothing_to_look_at_is_not_applicable(audit: Audit) -> None:
    empty = ResultSet("empty", Path("x"), (), role=Role.TEST)
    for results in (Results(Path("x"), "none"), Results(Path("x"), "none", (empty,))):
        assert audit.run(results) == audit.run(Results(Path("x"), "none"))
        assert audit.run(results).examined == 0


@each_audit
def test_items_without_texts_and_labels_raise_nothing(audit: Audit) -> None:
    bare = ResultSet("bare", Path("x"), tuple(Item(str(i)) for i in range(30)), role=Role.TRAIN)
    found = audit.run(Results(Path("x"), "none", (bare,)))
    assert all(one.severity is Severity.CAUTION for one in found.findings)


# -- truncated-responses


def test_more_than_five_percent_out_of_tokens_invalidates() -> None:
    found = truncated_responses(change_items(clean(0), TRAIN, cut_first(7)))
    (finding,) = found.findings
    assert finding.severity is Severity.INVALIDATES and finding.where == TRAIN
    assert (finding.evidence["cut"], finding.evidence["n"]) == (7, 120)
    expected = binomtest(7, 120).proportion_ci(method="wilson")
    assert finding.evidence["interval"] == pytest.approx(
        {"low": expected.low, "high": expected.high, "level": 0.95}
    )


def test_five_percent_in_both_arms_alike_is_allowed() -> None:
    results = change_items(clean(0), BASE, cut_first(6))
    assert truncated_responses(change_items(results, EDITED, cut_first(6))).findings == ()


def test_arms_that_are_cut_unequally_are_found_below_five_percent_of_each() -> None:
    results = clean(1, n=250)
    cut = change_items(results, EDITED, cut_first(12))  # 4.8 percent against none, p = 2 ** -11
    (finding,) = truncated_responses(cut).findings
    # 12 answers cannot change what is concluded about 250 items, so the claim still stands
    assert finding.severity is Severity.BIASES and finding.where == f"{BASE} and {EDITED}"
    assert finding.evidence["p"] == pytest.approx(2**-11)
    assert truncated_responses(change_items(results, EDITED, cut_first(5))).findings == ()


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length"])
def test_every_name_for_running_out_is_known(reason: str) -> None:
    assert ran_out(Item("a", finish_reason=reason), None) is True
    assert ran_out(Item("a", finish_reason="stop"), 10) is False


def test_token_counts_stand_in_for_finish_reasons() -> None:
    assert ran_out(Item("a", generated_tokens=512), 512) is True
    assert ran_out(Item("a", generated_tokens=511), 512) is False
    assert ran_out(Item("a", generated_tokens=512), None) is None


def test_reasons_that_were_never_stored_are_a_caution_even_when_texts_end_well() -> None:
    (finding,) = truncated_responses(without_reasons(clean(0), TRAIN)).findings
    assert finding.severity is Severity.CAUTION and finding.evidence["cut"] == 0


def test_texts_that_break_off_tell_where_no_reason_is_stored() -> None:
    def cut_texts(i: int, item: Item) -> Item:
        text = broken_off(item.response or "") if i < 90 else item.response
        return replace(item, response=text, finish_reason=None, generated_tokens=None)

    (finding,) = truncated_responses(change_items(clean(0), TRAIN, cut_texts)).findings
    assert finding.severity is Severity.INVALIDATES
    # Some texts of three sentences are cut inside their second and are not read as prose.
    assert 80 < finding.evidence["cut"] <= 90  # type: ignore[operator]


def test_reasons_that_say_stop_under_texts_that_break_off_contradict_them() -> None:
    cut = change_items(
        clean(0), TRAIN, lambda _, item: replace(item, response=broken_off(item.response or ""))
    )
    assert worst(truncated_responses(cut).findings) is Severity.BIASES


def test_answers_that_are_no_prose_are_not_taken_for_cut() -> None:
    letters = without_reasons(clean(0), TRAIN, response="B")
    (finding,) = truncated_responses(letters).findings
    assert finding.severity is Severity.CAUTION and finding.evidence["n"] == 0


# -- length-wall


def test_a_text_cut_for_display_is_a_wall() -> None:
    shown = change_items(
        clean(0), TRAIN, lambda _, item: replace(item, response=(item.response or "")[:500])
    )
    expected = sum(len(item.response or "") >= 500 for item in only(clean(0), TRAIN).items)
    (finding,) = length_wall(shown).findings
    assert finding.where == TRAIN and finding.severity is Severity.INVALIDATES
    assert finding.evidence["length"] == 500 and finding.evidence["at_wall"] == expected


def test_a_wall_of_tokens_is_found_without_texts() -> None:
    def counted(_: int, item: Item) -> Item:
        tokens = min(item.generated_tokens or 0, 100)
        return replace(item, response=None, generated_tokens=tokens, finish_reason=None)

    (finding,) = length_wall(change_items(clean(0), TRAIN, counted)).findings
    assert finding.evidence["unit"] == "tokens" and finding.evidence["length"] == 100


def test_one_answer_given_many_times_is_no_wall() -> None:
    same = change_items(
        clean(0), TRAIN, lambda i, item: replace(item, response="x" * 2000) if i < 60 else item
    )
    assert length_wall(change_tokens(same)).findings == ()


def change_tokens(results: Results) -> Results:
    return change_items(results, TRAIN, lambda _, item: replace(item, generated_tokens=None))


NATURAL = {
    "lognormal": lambda rng, n: rng.lognormal(6, 0.8, n),
    "normal": lambda rng, n: rng.normal(500, 15, n),
    "uniform": lambda rng, n: rng.uniform(50, 130, n),
    "bounded above": lambda rng, n: 600 * rng.beta(5, 1.2, n),
    "exponential": lambda rng, n: 40 + rng.exponential(60, n),
    "two kinds": lambda rng, n: np.where(rng.random(n) < 0.5, 60, 900) + rng.normal(0, 12, n),
}


@pytest.mark.parametrize("kind", NATURAL)
@pytest.mark.parametrize("n", [20, 200, 2000])
def test_natural_lengths_have_no_wall(kind: str, n: int) -> None:
    rng = np.random.default_rng(n)
    drawn = (np.rint(NATURAL[kind](rng, n)).astype(int).tolist() for _ in range(40))
    # Each is called a wall with p < 1e-4 at most: one in 40 x 18 draws has probability 0.07.
    assert [find_wall(lengths, "characters") for lengths in drawn] == [None] * 40


@pytest.mark.parametrize("kind", NATURAL)
def test_the_same_lengths_cut_at_their_upper_tenth_have_one(kind: str) -> None:
    rng = np.random.default_rng(5)
    lengths = np.rint(NATURAL[kind](rng, 300)).astype(int)
    wall = find_wall(np.minimum(lengths, int(np.quantile(lengths, 0.8))).tolist(), "characters")
    assert wall is not None and wall.at_wall >= 60


def test_too_few_or_too_short_ties_are_no_wall() -> None:
    assert find_wall([], "tokens") is None
    assert find_wall([1] * 100, "characters") is None  # one letter each
    short = [*range(20, 60), *[60] * 30]  # answers of a few words
    assert find_wall(short, "characters") is None
    assert find_wall([10 * length for length in short], "characters") is not None
    assert find_wall([1500, 1500], "characters") is None
    assert find_wall([1500] * 5, "characters") is not None


# -- features


def with_cut_features(seed: int, *, reads: bool, d: int = 16) -> Results:
    """A third of the training responses ran out; the features carry that, or only noise."""
    results = change_items(clean(0, n=90), TRAIN, cut_first(30))
    features = only(results, TRAIN).features
    assert features is not None
    x = np.random.default_rng(seed).normal(size=(90, d)).astype(np.float32)
    x[:30, 1] += 2.0 if reads else 0.0
    order = np.random.default_rng(seed + 1).permutation(90)  # rows in another order than items
    ids = tuple(features.item_ids[i] for i in order)
    return change_set(results, TRAIN, features=replace(features, x=x[order], item_ids=ids))


def test_features_that_carry_the_cut_are_found_by_id() -> None:
    (finding,) = features_encode_truncation(with_cut_features(0, reads=True)).findings
    assert finding.where == TRAIN
    # A shift of 2 sd in one direction has AUC 0.92; fitted on 72 rows of 16 it is a bit lower.
    assert 0.82 < finding.evidence["auc"] < 0.97  # type: ignore[operator]
    assert finding.evidence["n_positive"] == 30


def test_features_of_noise_are_not_said_to_carry_the_cut() -> None:
    found = [features_encode_truncation(with_cut_features(s, reads=False)) for s in range(12)]
    assert [one.examined for one in found] == [1] * 12
    # Lower end of a 95 percent interval above 0.6 where the truth is 0.5: well under 1 percent.
    assert sum(bool(one.findings) for one in found) == 0


def test_few_cut_items_are_not_enough_to_fit_on() -> None:
    results = change_items(clean(0), TRAIN, cut_first(9))
    assert features_encode_truncation(results).examined == 0


def test_rows_that_are_not_finite_are_a_finding_not_a_crash() -> None:
    features = only(clean(0), TRAIN).features
    assert features is not None
    x = features.x.copy()
    x[4, 2] = np.nan
    broken = change_set(clean(0), TRAIN, features=replace(features, x=x))
    (finding,) = features_encode_truncation(broken).findings
    assert finding.severity is Severity.INVALIDATES and finding.evidence["rows"] == 1
    assert features_encode_membership(broken).examined == 0


def test_features_of_another_distribution_are_told_from_training() -> None:
    features = only(clean(0), BASE).features
    assert features is not None
    shifted = change_set(clean(0), BASE, features=replace(features, x=features.x + 0.7))
    (finding,) = features_encode_membership(shifted).findings
    assert finding.where == f"{TRAIN} and {BASE}" and finding.severity is Severity.BIASES


def test_samples_of_one_prompt_do_not_make_features_tell_sets_apart() -> None:
    """Eight equal rows a prompt: ungrouped folds would look up the prompt; grouped they cannot."""
    rng = np.random.default_rng(0)
    sets = []
    for name, role in (("a", Role.TRAIN), ("b", Role.TEST)):
        rows = np.repeat(rng.normal(size=(12, 30)), 8, axis=0).astype(np.float32)
        items = tuple(Item(f"{name}{i}", group=str(i // 8)) for i in range(96))
        features = Features(rows, tuple(item.item_id for item in items))
        sets.append(ResultSet(name, Path("x"), items, role=role, features=features))
    results = Results(Path("x"), "none", tuple(sets))
    assert features_encode_membership(results).findings == ()
    loose = replace(
        results,
        sets=tuple(
            replace(one, items=tuple(replace(i, group=None) for i in one.items)) for one in sets
        ),
    )
    assert features_encode_membership(loose).findings != ()


# -- the paper's files


def test_most_of_the_papers_gemma_responses_break_off(paper_artifacts: Path) -> None:
    results = paper.of(paper.gemma_step16(paper_artifacts), paper.gemma_fresh(paper_artifacts))
    step16, fresh = truncated_responses(results).findings
    assert step16.severity is fresh.severity is Severity.INVALIDATES
    assert (step16.evidence["cut"], step16.evidence["end_a_sentence"]) == (94, 6)
    assert fresh.evidence["cut"] in (162, 163) and fresh.evidence["end_a_sentence"] == 30


def test_so_do_those_of_the_trained_chef(paper_artifacts: Path) -> None:
    ddv2 = paper.of(paper.chef_rows(paper_artifacts, "full_ddv2"))
    (finding,) = truncated_responses(ddv2).findings
    # 8 end a sentence; one more ends in a rule (---), which a finished text may do.
    assert finding.evidence["end_a_sentence"] == 8 and finding.evidence["cut"] == 91


@pytest.mark.parametrize(("name", "at_wall"), [("smollm_v2_", 25), ("qwen35_0.8b_v2_", 100)])
def test_the_papers_texts_of_1500_characters_are_a_wall(
    paper_artifacts: Path, name: str, at_wall: int
) -> None:
    (finding,) = length_wall(paper.of(paper.profile(paper_artifacts, name))).findings
    assert finding.severity is Severity.INVALIDATES
    assert (finding.evidence["length"], finding.evidence["at_wall"]) == (1500, at_wall)


def test_whole_responses_of_the_paper_have_no_wall(paper_artifacts: Path) -> None:
    results = paper.of(paper.gemma_step16(paper_artifacts), paper.gemma_fresh(paper_artifacts))
    assert length_wall(results).findings == ()


def test_the_papers_features_carry_the_cut_and_the_set(paper_artifacts: Path) -> None:
    results = paper.smollm(paper_artifacts)
    (cut,) = features_encode_truncation(results).findings
    assert cut.severity is Severity.INVALIDATES and cut.evidence["auc"] == 1.0
    (member,) = features_encode_membership(results).findings
    # PAPER.md 5.9 nuisance probes, there on float32 rows, here on float64: three of 19,300 pairs
    # change their order; ten are allowed.
    assert member.evidence["auc"] == pytest.approx(0.8527979274611399, abs=10 / 19_300)


# -- what unfinished responses could change


def arms(
    base: list[tuple[bool, str]], edited: list[tuple[bool, str]], n_predict: int = 512, **more: bool
) -> tuple[ResultSet, ResultSet]:
    """Two arms with a PASS label from (passed, finish reason) an item."""
    made = []
    for name, results in (("base", base), ("edited", edited)):
        items = tuple(
            Item(str(i), finish_reason=end, labels={"passed": passed}, **more)
            for i, (passed, end) in enumerate(results)
        )
        made.append(
            ResultSet(
                f"{name} {n_predict}",
                Path("x"),
                items,
                {"passed": Instrument("passed", LabelKind.PASS, judge="tests", prompt_sha="1")},
                arm=name,
                task="code",
                n_predict=n_predict,
            )
        )
    return made[0], made[1]


def severities(*sets: ResultSet) -> dict[str, Severity]:
    found = truncated_responses(Results(Path("x"), "made", tuple(sets))).findings
    return {one.where: one.severity for one in found}


FAILED, PASSED, CUT = (False, "stop"), (True, "stop"), (False, "length")


def test_unfinished_answers_that_could_turn_a_gain_round_invalidate_it() -> None:
    # The paper's first result: the base's answers are cut, the edited arm "gains" 30 of 100.
    pair = arms([PASSED] * 20 + [CUT] * 60 + [FAILED] * 20, [PASSED] * 50 + [FAILED] * 50)
    assert severities(*pair)["base 512 and edited 512"] is Severity.INVALIDATES


def test_unfinished_answers_that_cannot_change_the_conclusion_do_not() -> None:
    pair = arms([PASSED] * 10 + [CUT] * 12 + [FAILED] * 178, [PASSED] * 100 + [FAILED] * 100)
    assert Severity.INVALIDATES not in severities(*pair).values()
    assert severities(*pair)["base 512"] is Severity.BIASES


def test_a_larger_budget_settles_what_a_smaller_one_left_open() -> None:
    small = arms([PASSED] * 20 + [CUT] * 60 + [FAILED] * 20, [PASSED] * 50 + [FAILED] * 50)
    large = arms([PASSED] * 20 + [FAILED] * 80, [PASSED] * 50 + [FAILED] * 50, 1024)
    assert Severity.INVALIDATES not in severities(*small, *large).values()
    still_open = arms([PASSED] * 20 + [CUT] * 80, [PASSED] * 50 + [FAILED] * 50, 1024)
    assert Severity.INVALIDATES in severities(*small, *still_open).values()


def test_an_exact_loop_is_a_failure_and_not_unfinished() -> None:
    pair = arms(
        [PASSED] * 20 + [CUT] * 60 + [FAILED] * 20,
        [PASSED] * 50 + [FAILED] * 50,
        repetition_loop=True,
    )
    assert severities(*pair) == {}


@pytest.mark.parametrize(
    "reason", ["max_output_tokens", "incomplete", "FinishReason.MAX_TOKENS", "max-tokens", "cut"]
)
def test_names_of_other_tools_for_a_cut_are_known(reason: str) -> None:
    assert ran_out(Item("a", finish_reason=reason), None) is True


def test_a_reason_that_is_not_known_is_not_taken_for_a_finished_answer() -> None:
    assert ran_out(Item("a", finish_reason="2"), None) is None
    items = tuple(Item(str(i), finish_reason="2" if i < 30 else "stop") for i in range(60))
    (finding,) = truncated_responses(
        Results(Path("x"), "made", (ResultSet("strange", Path("x"), items),))
    ).findings
    assert finding.severity is Severity.CAUTION and finding.evidence["unknown_reasons"] == ["2"]


@pytest.mark.parametrize("name", ["baseline", "Original", "control"])
def test_the_base_arm_may_have_another_name(name: str) -> None:
    base, edited = arms([PASSED] * 20 + [CUT] * 60 + [FAILED] * 20, [PASSED] * 50 + [FAILED] * 50)
    found = severities(edited, replace(base, arm=name))
    assert found["base 512 and edited 512"] is Severity.INVALIDATES
