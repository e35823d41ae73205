from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arcs.audits.findings import Outcome, Severity
from arcs.audits.results import (
    Effect,
    EffectRanking,
    Intervention,
    OperatingPoint,
    ProbeResult,
    Results,
    Role,
)
from arcs.audits.selection import AUDITS
from tests.support.audit_probes import (
    audit,
    change_probe,
    clean_experiment,
    clean_ranking,
    paper_gemma,
    paper_rankings,
    paper_smollm,
    passes,
)
from tests.support.audit_results import BASE, EDITED, SOURCE, change_items, only, with_labels


def run(name: str, results: Results) -> Outcome:
    return audit(AUDITS, name, results)


def with_point(results: Results, **changes: object) -> Results:
    point = results.probes[0].operating_point
    assert point is not None
    return change_probe(results, operating_point=replace(point, **changes))


def test_a_threshold_chosen_on_test_labels_is_found_with_the_null_of_its_gate() -> None:
    results = with_point(clean_experiment(), chosen_on=Role.TEST)
    (found,) = run("threshold-on-test-labels", change_probe(results, null_reported=False)).findings
    assert found.severity is Severity.BIASES
    # The probe was fitted by the very same procedure, so its reported AUC comes out again.
    assert found.evidence["refitted_test_auc"] == results.probes[0].test_auc
    assert 0 <= found.evidence["null_pass_rate_own_scores"] < 0.2
    (with_null,) = run("threshold-on-test-labels", results).findings
    assert with_null.severity is Severity.CAUTION


def test_a_threshold_of_unknown_origin_is_a_caution() -> None:
    (found,) = run(
        "threshold-on-test-labels", with_point(clean_experiment(), chosen_on=None)
    ).findings
    assert found.severity is Severity.CAUTION


def test_the_null_of_a_gate_is_that_of_the_operating_point_found() -> None:
    # Without a gate the observed value stands in for it; without the paper's condition on
    # correct items there are more thresholds to choose from, so noise does better.
    results = with_point(clean_experiment(), chosen_on=Role.TEST, asymmetry=-0.12)
    results = change_probe(results, asymmetry_gate=None)
    (balanced,) = run("threshold-on-test-labels", results).findings
    (free,) = run("threshold-on-test-labels", with_point(results, p_assert_correct=0.4)).findings
    assert balanced.evidence["gate"] == -0.12 and balanced.evidence["min_p_correct"] == 0.7
    rate = "null_pass_rate_uniform_scores"
    assert free.evidence["min_p_correct"] == 0.0
    assert free.evidence[rate] > balanced.evidence[rate]


def test_uniform_scores_pass_the_gate_as_often_as_a_plain_simulation_says() -> None:
    results = with_point(clean_experiment(), chosen_on=Role.TEST)
    results = change_probe(results, n_positive=12, n_negative=90)
    (found,) = run("threshold-on-test-labels", results).findings
    rng, grid = np.random.default_rng(5), np.linspace(0.05, 0.95, 91)
    p_correct = (rng.random((1500, 12, 1)) >= grid).mean(1)
    p_wrong = (rng.random((1500, 90, 1)) >= grid).mean(1)
    best = np.where(p_correct >= 0.7, p_wrong - p_correct, np.inf).min(1)
    # Both are simulated, 1500 and 2000 draws of a rate near 0.35: standard error 0.016.
    assert found.evidence["null_pass_rate_uniform_scores"] == pytest.approx(
        (best <= -0.15).mean(), abs=0.05
    )
    # These counts belong to no label of the clean run, so its features are not used.
    assert "null_pass_rate_own_scores" not in found.evidence


def test_the_papers_gate_passes_noise_as_often_as_stated(paper_artifacts) -> None:
    # PAPER.md 5.3, 9.1-8: about 6 percent at 55 of 193; 42 with uniform scores and 37 with
    # SmolLM2's own at 9 of 193. 2000 draws: standard error 0.011, and C=0.1 has other scores.
    gemma = run("threshold-on-test-labels", paper_gemma(paper_artifacts))
    smollm = run("threshold-on-test-labels", paper_smollm(paper_artifacts))
    assert (gemma.examined, len(gemma.findings)) == (4, 4)
    for found in gemma.findings:
        assert found.evidence["null_pass_rate_uniform_scores"] == pytest.approx(0.062, abs=0.02)
        assert "null_pass_rate_own_scores" not in found.evidence
    for found in smollm.findings:
        assert found.evidence["null_pass_rate_uniform_scores"] == pytest.approx(0.42, abs=0.04)
        assert found.evidence["null_pass_rate_own_scores"] == pytest.approx(0.385, abs=0.035)
    assert smollm.findings[0].evidence["refitted_test_auc"] == pytest.approx(
        0.518719806763285, abs=1e-6
    )


def test_of_two_arms_with_the_same_counts_the_one_with_features_is_the_probes() -> None:
    results = with_point(clean_experiment(), chosen_on=Role.TEST)
    right = passes(only(results, BASE))
    turned = {right.index(True): False, right.index(False): True}
    results = change_items(
        results, EDITED, lambda i, item: with_labels(item, correct=turned.get(i, right[i]))
    )
    (found,) = run("threshold-on-test-labels", results).findings
    assert found.evidence["refitted_test_auc"] == results.probes[0].test_auc


def two_probes(**second: object) -> Results:
    results = clean_experiment()
    probe = replace(results.probes[0], train_auc=None)
    return replace(results, probes=(probe, replace(probe, **second)))


def test_several_configurations_on_the_test_set_are_found_unless_training_could_choose() -> None:
    results = two_probes(configuration="C=0.1", test_auc=0.58)
    (found,) = run("configuration-on-test", results).findings
    assert found.evidence["configurations"] == ["C=0.1", "C=1.0"]
    assert run("configuration-on-test", change_probe(results, train_auc=0.7)).findings == ()
    assert run("configuration-on-test", two_probes()).findings == ()  # one, reported twice
    elsewhere = two_probes(configuration="C=0.1", family="another")
    assert run("configuration-on-test", elsewhere) == Outcome((), 2)


def test_two_configurations_of_one_paper_step_are_found(paper_artifacts) -> None:
    (found,) = run("configuration-on-test", paper_smollm(paper_artifacts)).findings
    assert found.evidence["test_auc"] == {"C=1.0": 0.518719806763285, "C=0.1": 0.5048309178743962}


def test_the_papers_first_step_joins_two_runs() -> None:
    # PAPER.md, fact 9: 0.683 is the bf16 run, -0.341 the 4-bit one, whose AUC is 0.663.
    bf16 = ProbeResult("h_last", SOURCE, "C=1.0", "bf16", train_auc=0.683, family="step 1")
    four_bit = replace(
        bf16,
        configuration="C=0.1",
        run="4-bit",
        train_auc=0.663,
        operating_point=OperatingPoint(0.5, -0.341, chosen_on=Role.TRAIN),
    )
    (found,) = run("different-runs", Results(SOURCE, "made", probes=(bf16, four_bit))).findings
    assert found.severity is Severity.INVALIDATES
    assert found.evidence["auc_from"]["run"] == "bf16"
    assert found.evidence["asymmetry_from"]["run"] == "4-bit"
    # With the AUC of the run that has the asymmetry at the top there is nothing to say.
    better = replace(four_bit, train_auc=0.69)
    assert run("different-runs", Results(SOURCE, "made", probes=(bf16, better))).findings == ()


def test_the_best_auc_is_that_on_the_test_set_where_there_is_one() -> None:
    point = OperatingPoint(0.5, -0.1, chosen_on=Role.TRAIN)
    first = ProbeResult("a", SOURCE, "C=1", "r", train_auc=0.8, test_auc=0.55)
    second = replace(first, configuration="C=0.1", train_auc=0.7, test_auc=0.65)
    results = Results(SOURCE, "made", probes=(first, replace(second, operating_point=point)))
    assert run("different-runs", results) == Outcome((), 1)
    results = Results(SOURCE, "made", probes=(replace(first, operating_point=point), second))
    assert len(run("different-runs", results).findings) == 1


def test_smollms_pair_joins_two_configurations_of_one_run(paper_artifacts) -> None:
    # PAPER.md 7, step 5 gives 0.519 and -0.188.
    (found,) = run("different-runs", paper_smollm(paper_artifacts)).findings
    assert found.severity is Severity.BIASES
    assert found.evidence["auc"] == pytest.approx(0.519, abs=5e-4)
    assert found.evidence["asymmetry"] == pytest.approx(-0.188, abs=5e-4)


def test_both_published_attributions_are_at_their_null_expectation(paper_artifacts) -> None:
    # PAPER.md 4.4.
    gemma, qwen = run("selection-without-null", paper_rankings(paper_artifacts)).findings
    assert {gemma.severity, qwen.severity} == {Severity.INVALIDATES}
    assert gemma.evidence["candidates"] == 280 and qwen.evidence["candidates"] == 48
    assert gemma.evidence["statistic"] == pytest.approx(2.82, abs=0.005)
    assert qwen.evidence["statistic"] == pytest.approx(2.09, abs=0.005)
    assert gemma.evidence["expected_maximum"] == pytest.approx(2.86, abs=0.005)
    assert qwen.evidence["expected_maximum"] == pytest.approx(2.23, abs=0.005)
    assert qwen.evidence["mean_effect"] == pytest.approx(0.1426496, abs=1e-6)
    assert min(f.evidence["p_of_maximum_if_independent"] for f in (gemma, qwen)) > 0.5


def ranking(effects: list[float], **rest: object) -> Results:
    named = tuple(Effect(f"head {i}", e) for i, e in enumerate(effects))
    made = EffectRanking("heads", SOURCE, named, 50, 50, **rest)  # type: ignore[arg-type]
    return Results(SOURCE, "made", rankings=(made,))


def test_an_effect_far_beyond_noise_is_only_cautioned_about_and_silent_with_a_null() -> None:
    effects = [2.0, *np.random.default_rng(0).normal(0, 0.2, 47)]
    (found,) = run("selection-without-null", ranking(effects)).findings
    assert found.severity is Severity.CAUTION
    assert run("selection-without-null", ranking(effects, null_reported=True)).findings == ()


def test_a_large_negative_effect_counts_only_where_size_was_ranked() -> None:
    effects = [-2.0, *np.random.default_rng(0).normal(0, 0.2, 47)]
    (signed,) = run("selection-without-null", ranking(effects)).findings
    (by_size,) = run("selection-without-null", ranking(effects, signed=False)).findings
    assert signed.severity is Severity.INVALIDATES
    assert (by_size.severity, by_size.evidence["largest"]) == (Severity.CAUTION, "head 0")


def test_the_p_value_of_the_maximum_is_right_for_two_groups_of_noise() -> None:
    # 400 rankings of 48 independent heads, 18 against 64 items, effects from the raw data.
    x = np.random.default_rng(3).normal(size=(400, 48, 82))
    first, second = x[..., :18], x[..., 18:]
    pooled = np.sqrt((17 * first.var(-1, ddof=1) + 63 * second.var(-1, ddof=1)) / 80)
    effects = (first.mean(-1) - second.mean(-1)) / pooled
    rankings = tuple(
        EffectRanking(
            "r", SOURCE, tuple(Effect(str(j), float(e)) for j, e in enumerate(row)), 18, 64
        )
        for row in effects
    )
    findings = run("selection-without-null", Results(SOURCE, "made", rankings=rankings)).findings
    p_values = np.array([f.evidence["p_of_maximum_if_independent"] for f in findings])
    for level in (0.05, 0.25, 0.5):
        # Three standard errors of a share of 400.
        assert (p_values <= level).mean() == pytest.approx(
            level, abs=0.075 if level > 0.1 else 0.033
        )


def test_a_direction_scored_on_its_own_items_is_found_with_what_noise_gives() -> None:
    # PAPER.md 4.3: top d 1.73 of 18 against 64; noise 4.38 (+- simulation) in 256 dimensions,
    # 1.76 in 42 effective ones.
    effects = (Effect("L11H3", 1.73), Effect("L19H0", 1.29))
    published = EffectRanking(
        "directional", SOURCE, effects, 18, 64, signed=False, direction_dimension=256
    )
    results = Results(SOURCE, "made", rankings=(published,))
    (found,) = run("in-sample-direction", results).findings
    assert found.severity is Severity.INVALIDATES
    assert found.evidence["expected_without_effect"] == pytest.approx(4.38, abs=0.15)
    assert found.evidence["dimensions_that_explain_it"] == pytest.approx(41, abs=3)
    # Its null is not that of a plain maximum, so the other audit keeps away.
    assert run("selection-without-null", results) == Outcome((), 0)
    crossed = replace(results, rankings=(replace(published, cross_fitted=True),))
    assert run("in-sample-direction", crossed) == Outcome((), 1)


def test_an_effect_larger_than_noise_in_all_dimensions_is_not_explained_by_them() -> None:
    huge = replace(clean_ranking(0), effects=(Effect("a", 30.0),), cross_fitted=False)
    (found,) = run("in-sample-direction", Results(SOURCE, "made", rankings=(huge,))).findings
    assert found.evidence["dimensions_that_explain_it"] is None


def setting(strength: float, seed: int | None, **settings: str) -> Intervention:
    named = f"lambda {strength} seed {seed}"
    return Intervention(named, SOURCE, "qwen", strength, strength == 1.0, seed, settings)


def sweep(*ones: Intervention) -> Outcome:
    return run("missing-control", Results(SOURCE, "made", interventions=ones))


def test_a_replicate_without_a_control_at_its_seed_is_found() -> None:
    # PAPER.md 4.6: the replicate ran lambda 0.5 only, at another seed.
    (found,) = sweep(setting(1.0, 1000), setting(0.5, 1000), setting(0.5, 2000)).findings
    assert found.severity is Severity.BIASES
    assert found.evidence["seeds"] == ["2000"]
    assert found.evidence["treatments"] == ["lambda 0.5 seed 2000"]
    (none,) = sweep(setting(0.5, 1000), setting(0.5, None)).findings
    assert none.severity is Severity.INVALIDATES
    assert none.evidence["seeds"] == ["1000", "not stated"]


def test_a_control_with_other_decoding_is_found_but_not_one_that_says_less() -> None:
    control = setting(1.0, 1, repetition_penalty="1.2", top_k="20")
    (found,) = sweep(control, setting(0.5, 1, repetition_penalty="1.0", top_k="20")).findings
    assert found.evidence["settings"] == {
        "repetition_penalty": {"treatment": "1.0", "control": "1.2"}
    }
    assert sweep(control, setting(0.5, 1, dtype="bf16")) == Outcome((), 1)


def test_sweeps_are_not_controls_of_one_another() -> None:
    other = replace(setting(1.0, 1), sweep="gemma")
    (found,) = sweep(setting(0.5, 1), other).findings
    assert found.where.startswith("qwen")
