from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from arcs.audits.findings import Outcome, Severity
from arcs.audits.probes import AUDITS
from arcs.audits.results import Features, Item, ProbeResult, Reported, Results, ResultSet
from tests.support.audit_probes import (
    OTHER,
    audit,
    change_probe,
    clean_experiment,
    load,
    paper_gemma,
    paper_smollm,
    passes,
)
from tests.support.audit_results import (
    BASE,
    SOURCE,
    TRAIN,
    change_items,
    change_set,
    only,
)


def run(name: str, results: Results) -> Outcome:
    return audit(AUDITS, name, results)


# training-cv-gate


def test_a_probe_below_its_training_gate_is_found_and_worse_where_it_was_tested() -> None:
    results = change_probe(clean_experiment(), train_auc=0.64)
    (tested,) = run("training-cv-gate", results).findings
    (untested,) = run("training-cv-gate", change_probe(results, test_auc=None)).findings
    assert (tested.severity, untested.severity) == (Severity.INVALIDATES, Severity.CAUTION)
    assert tested.evidence["gate_is"] == "the probe's own"
    assert run("training-cv-gate", change_probe(results, train_auc_gate=0.6)).findings == ()


def test_without_a_gate_the_papers_is_taken_and_said() -> None:
    results = change_probe(clean_experiment(), train_auc=0.64, train_auc_gate=None)
    (found,) = run("training-cv-gate", results).findings
    assert found.evidence["gate"] == 0.65
    assert "the paper's gate 0.65" in found.message


def shifted(results: Results, shift: float) -> Results:
    """The training set with random features, of which one column is shifted by the label."""
    one = only(results, TRAIN)
    rng = np.random.default_rng(2)
    x = rng.normal(size=(len(one.items), 16)).astype(np.float32)
    x[:, 0] += shift * np.array(passes(one), dtype=np.float32)
    features = Features(x, tuple(item.item_id for item in one.items))
    return change_set(results, TRAIN, features=features)


def test_a_training_result_that_was_not_reported_is_computed() -> None:
    results = change_probe(clean_experiment(), train_auc=None)
    (noise,) = run("training-cv-gate", shifted(results, 0.0)).findings
    assert noise.severity is Severity.INVALIDATES
    # Sampling error of an AUC of 80 items in two halves: 0.065.
    assert noise.evidence["mean_auc"] == pytest.approx(0.5, abs=0.15)
    assert run("training-cv-gate", shifted(results, 4.0)) == Outcome((), 1)


def test_items_of_one_group_are_never_on_both_sides_of_a_fold() -> None:
    # Every item twice: a copy in the training part gives the label of the other away.
    results = shifted(change_probe(clean_experiment(), train_auc=None), 0.0)
    one = only(results, TRAIN)
    assert one.features is not None
    copies = tuple(replace(item, item_id=f"{item.item_id} again") for item in one.items)
    features = Features(
        np.tile(one.features.x, (2, 4)),
        tuple(item.item_id for item in one.items + copies),
    )
    twice = change_set(results, TRAIN, items=one.items + copies, features=features)
    (grouped,) = run("training-cv-gate", twice).findings
    assert grouped.evidence["mean_auc"] < 0.6
    ungrouped = change_items(twice, TRAIN, lambda i, item: replace(item, group=None))
    found = run("training-cv-gate", ungrouped).findings
    assert not found or found[0].evidence["mean_auc"] > grouped.evidence["mean_auc"] + 0.05


def test_where_nothing_can_be_computed_that_is_a_caution_with_the_reason() -> None:
    results = change_probe(clean_experiment(), train_auc=None)
    (no_c,) = run("training-cv-gate", change_probe(results, configuration="MLP")).findings
    assert no_c.severity is Severity.CAUTION
    few = set_of(only(results, TRAIN), positives=3)
    (too_few,) = run("training-cv-gate", change_set(results, TRAIN, items=few)).findings
    assert too_few.severity is Severity.CAUTION
    assert "5 folds" in too_few.evidence["not_computed"]


def set_of(one: ResultSet, positives: int) -> tuple[Item, ...]:
    right = [item for item in one.items if item.labels["correct"]]
    wrong = [item for item in one.items if not item.labels["correct"]]
    return (*right[:positives], *wrong)


def test_smollm_fails_inside_its_own_training_set(paper_artifacts) -> None:
    # PAPER.md 5.7: seed 0 and twenty seeds (mean 0.5747, sd 0.0311 with n, range to 0.630).
    one, tenth = run("training-cv-gate", paper_smollm(paper_artifacts)).findings
    assert {one.severity, tenth.severity} == {Severity.INVALIDATES}
    assert one.evidence["out_of_fold_auc_seed_0"] == pytest.approx(0.5239448, abs=1e-6)
    assert one.evidence["fold_mean_auc_seed_0"] == pytest.approx(0.5443182, abs=1e-6)
    assert tenth.evidence["out_of_fold_auc_seed_0"] == pytest.approx(0.5178571, abs=1e-6)
    assert tenth.evidence["mean_auc"] == pytest.approx(0.5747, abs=5e-4)
    assert tenth.evidence["sd_over_seeds"] == pytest.approx(0.0311 * np.sqrt(20 / 19), abs=3e-4)
    assert tenth.evidence["largest"] == pytest.approx(0.630, abs=5e-4)
    assert max(f.evidence["largest"] for f in (one, tenth)) < 0.65


# impossible-auc


def reported_auc(value: float, positive: int, negative: int) -> Outcome:
    probe = ProbeResult(
        "p", SOURCE, "C=1", "r", test_auc=value, n_positive=positive, n_negative=negative
    )
    return run("impossible-auc", Results(SOURCE, "made", probes=(probe,)))


@settings(max_examples=60)
@given(st.data(), st.integers(1, 40), st.integers(1, 40))
def test_every_ranking_is_possible_and_a_quarter_of_a_pair_is_not(data, positive, negative) -> None:
    n = positive + negative
    scores = data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
    value = float(roc_auc_score([1] * positive + [0] * negative, scores))
    assert reported_auc(value, positive, negative).findings == ()
    off = value - 0.25 / (positive * negative)
    if off > 0:
        made = reported_auc(off, positive, negative)
        # A number that happens to be short, like 0.375, cannot be told from a rounded one.
        assert made.findings or not made.examined


def test_a_rounded_auc_is_not_held_to_more_digits_than_it_has() -> None:
    assert reported_auc(0.519, 9, 184) == Outcome((), 0)
    assert reported_auc(0.51872, 9, 184) == Outcome((), 1)
    (found,) = reported_auc(0.51851, 9, 184).findings  # 858.65 pairs
    assert found.severity is Severity.INVALIDATES


def test_an_auc_beyond_one_is_impossible_however_it_is_rounded() -> None:
    assert len(reported_auc(1.1, 9, 184).findings) == 1


def test_every_published_auc_is_possible(paper_artifacts) -> None:
    # PAPER.md 9.1-12; and none is with one positive more.
    sweep = load(paper_artifacts, "disposition_probe_sweep.json")["axes"]
    axes = tuple(
        ProbeResult(
            name,
            SOURCE,
            "C=0.1",
            "sweep",
            test_auc=found["transfer_auc_fresh"],
            n_positive=found["n_pos_fresh"],
            n_negative=found["n_neg_fresh"],
        )
        for name, found in sweep.items()
    )
    probes = (
        *axes,
        *paper_gemma(paper_artifacts).probes,
        *paper_smollm(paper_artifacts).probes,
    )
    assert run("impossible-auc", Results(SOURCE, "made", probes=probes)) == Outcome((), 11)
    more = tuple(replace(p, n_positive=(p.n_positive or 0) + 1) for p in probes)
    assert len(run("impossible-auc", Results(SOURCE, "made", probes=more)).findings) == 11


# missing-intervals


def reported_number(name: str, value: float, n: int) -> dict[str, object]:
    items = tuple(Item(str(i)) for i in range(n))
    one = ResultSet("set", SOURCE, items, reported=(Reported(name, value, has_interval=False),))
    (found,) = run("missing-intervals", Results(SOURCE, "made", sets=(one,))).findings
    assert found.severity is Severity.CAUTION
    return found.evidence["numbers"][name]


def test_a_rate_without_an_interval_gets_wilsons(paper_artifacts) -> None:
    published = load(paper_artifacts, "phase0_audit/eval_results.json")["baseline_humaneval"]
    number = reported_number("baseline_humaneval", published, 164)
    low, high = proportion_confint(21, 164, method="wilson")
    assert (number["count"], number["read_as"]) == (21, "percentage")
    assert number["interval"]["low"] == pytest.approx(low, abs=1e-9)
    assert number["interval"]["high"] == pytest.approx(high, abs=1e-9)
    assert reported_number("pass", 0.128, 164)["count"] == 21  # as rounded in a text


@pytest.mark.parametrize(
    ("name", "value"),
    [("mean coverage", 0.4518333), ("test AUC", 62 / 164), ("mcas", 153.0), ("gain", -0.5)],
)
def test_a_number_that_is_no_count_of_the_items_gets_none(name, value) -> None:
    assert "interval" not in reported_number(name, value, 164)


def test_an_auc_without_interval_gets_hanley_and_mcneils(paper_artifacts) -> None:
    # PAPER.md 5.7: 0.516 (0.425 to 0.607), multi-layer 0.557 (0.466 to 0.648).
    findings = run("missing-intervals", paper_gemma(paper_artifacts)).findings
    intervals = [f.evidence["interval"] for f in findings]
    assert len(intervals) == 4
    assert [intervals[1]["low"], intervals[1]["high"]] == pytest.approx([0.425, 0.607], abs=1e-3)
    assert [intervals[3]["low"], intervals[3]["high"]] == pytest.approx([0.466, 0.648], abs=1e-3)


# difficulty-baseline


def other_knows(results: Results, agreement: float) -> Results:
    rng = np.random.default_rng(4)
    right = passes(only(results, BASE))

    def relabel(i: int, item: Item) -> Item:
        agrees = rng.random() < agreement
        return replace(item, labels={"coverage": 0.75 if bool(right[i]) == agrees else 0.25})

    return change_items(results, OTHER, relabel)


def test_another_models_labels_that_beat_the_probe_are_found() -> None:
    (found,) = run("difficulty-baseline", other_knows(clean_experiment(), 0.85)).findings
    assert found.severity is Severity.CAUTION
    # A share a of agreement is an AUC of about a.
    assert found.evidence["baseline_auc"] == pytest.approx(0.85, abs=0.07)
    assert found.evidence["prompts_compared"] == 120


def test_a_probe_that_is_better_than_the_other_models_labels_passes() -> None:
    results = change_probe(other_knows(clean_experiment(), 0.85), test_auc=0.97)
    assert run("difficulty-baseline", results) == Outcome((), 1)


def test_other_prompts_and_other_labels_of_the_same_answers_are_no_other_model() -> None:
    results = other_knows(clean_experiment(), 0.85)
    elsewhere = change_items(results, OTHER, lambda i, item: replace(item, prompt=f"Other {i}?"))
    assert run("difficulty-baseline", elsewhere) == Outcome((), 0)
    base = only(results, BASE).items
    twice = change_items(results, OTHER, lambda i, item: replace(item, response=base[i].response))
    assert run("difficulty-baseline", twice) == Outcome((), 0)


def test_smollms_coverage_predicts_gemmas_label_and_the_other_way_round(paper_artifacts) -> None:
    # PAPER.md 5.5: 0.751 and 0.847 on the fresh prompts.
    gemma, smollm = paper_gemma(paper_artifacts), paper_smollm(paper_artifacts)
    both = replace(gemma, sets=gemma.sets + smollm.sets, probes=gemma.probes + smollm.probes)
    found = {f.where: f.evidence for f in run("difficulty-baseline", both).findings}
    ours = found["Gemma fresh, label correct"]
    assert ours["baseline_auc"] == pytest.approx(0.7513175230566534, abs=1e-9)
    assert ours["probe_auc"] == pytest.approx(0.557, abs=5e-4)
    theirs = found["SmolLM2 fresh, label correct"]
    assert theirs["baseline_auc"] == pytest.approx(0.8466183574879226, abs=1e-9)


# surface-baseline


def longer_when_right(results: Results, name: str, share: float = 1.0, *, sign: int = 1) -> Results:
    right = passes(only(results, name))

    def rewrite(i: int, item: Item) -> Item:
        told = i < share * len(right)
        length = 40 + (30 if told and bool(right[i]) == (sign > 0) else 0) + i % 29
        return replace(item, response="x" * length)

    return change_items(results, name, rewrite)


def test_a_label_that_the_length_gives_away_is_found() -> None:
    results = longer_when_right(longer_when_right(clean_experiment(), TRAIN), BASE)
    found = run("surface-baseline", results).findings
    length = next(f for f in found if f.evidence["baseline"] == "response length")
    right = passes(only(results, BASE))
    lengths = [len(item.response or "") for item in only(results, BASE).items]
    assert length.evidence["baseline_auc"] == pytest.approx(roc_auc_score(right, lengths))
    assert length.evidence["sign_chosen_on"] == "the training set"
    assert length.severity is Severity.CAUTION


def test_a_length_that_turns_round_between_the_sets_is_no_baseline() -> None:
    results = longer_when_right(clean_experiment(), TRAIN)
    results = longer_when_right(results, BASE, sign=-1)
    names = [f.evidence["baseline"] for f in run("surface-baseline", results).findings]
    assert "response length" not in names


def test_features_that_are_better_than_the_length_pass() -> None:
    results = longer_when_right(longer_when_right(clean_experiment(), TRAIN), BASE, share=0.45)
    weak = run("surface-baseline", results).findings
    assert "response length" in [f.evidence["baseline"] for f in weak]
    for name in (TRAIN, BASE):
        one = only(results, name)
        x = np.array(passes(one), dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
        ids = tuple(item.item_id for item in one.items)
        results = change_set(results, name, features=Features(x, ids))
    assert run("surface-baseline", results) == Outcome((), 1)


def test_a_word_that_gives_the_label_away_is_found() -> None:
    results = clean_experiment()
    for name in (TRAIN, BASE):
        right = passes(only(results, name))
        word = ["indeed" if r else "perhaps" for r in right]
        results = change_items(
            results,
            name,
            lambda i, item, word=word: replace(item, response=f"{item.response} {word[i]}"),
        )
    found = run("surface-baseline", results).findings
    words = [f for f in found if f.evidence["baseline"].startswith("words")]
    assert len(words) == 1
    assert words[0].evidence["baseline_auc"] > 0.8


def test_features_without_a_reported_probe_are_cross_validated() -> None:
    results = shifted(longer_when_right(clean_experiment(), TRAIN), 4.0)
    results = replace(results, probes=(), sets=(only(results, TRAIN),))
    (found,) = run("surface-baseline", results).findings
    assert found.where == "train, label correct"
    assert found.evidence["sign_chosen_on"] == "the same items"
    assert found.evidence["features_auc"] > 0.9  # a shift of 4 standard deviations


def test_the_length_of_gemmas_answers_is_no_better_than_its_probe(paper_artifacts) -> None:
    # PAPER.md 5.5: length AUC 0.395 on the fresh set against 0.509 in training.
    assert run("surface-baseline", paper_gemma(paper_artifacts)) == Outcome((), 1)
