"""The paper's files become sets, probes, rankings and claims, and nothing they do not say."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from arcs.audits.readers import read
from arcs.audits.readers.paper_files import claim_count, common_denominator
from arcs.audits.results import LabelKind, Results, ResultSet, Role
from models.errors import UserError


@pytest.fixture(scope="module")
def results(paper_artifacts: Path) -> Results:
    return read(paper_artifacts)


@pytest.fixture(scope="module")
def sets(results: Results) -> dict[str, ResultSet]:
    return {one.name: one for one in results.sets}


def cells(one: ResultSet) -> dict[str, int]:
    names = {(True, "assert"): "cr", (True, "hedge"): "hr", (False, "assert"): "cw"}
    pairs = zip(one.values("correct"), one.values("verbal"), strict=True)
    return dict(Counter(names.get((bool(c), str(v)), "hw") for c, v in pairs))


@pytest.mark.parametrize(
    ("name", "golden"),
    [
        ("gemma step16", "2x2.gemma"),
        ("smollm step16", "2x2.smollm"),
        ("qwen35 step16", "2x2.qwen35"),
        ("gemma step16, 800 samples (retracted)", "2x2.gemma_retracted_800"),
    ],
)
def test_the_two_by_two_tables_are_those_recomputed_elsewhere(sets, paper_artifacts, name, golden):
    stated = json.loads((paper_artifacts / "golden.json").read_text())[golden]
    assert cells(sets[name]) == {cell: stated[cell] for cell in ("cr", "hr", "cw", "hw")}
    coverage = np.array(sets[name].values("coverage"), float)
    if "mean_coverage" in stated:
        assert coverage.mean() == pytest.approx(stated["mean_coverage"], abs=1e-9)


def test_families_and_roles_are_the_experiments_of_the_paper(results):
    trained = {one.family for one in results.sets if one.role is Role.TRAIN}
    tested = {one.family for one in results.sets if one.role is Role.TEST}
    assert trained == {"gemma", "smollm", "qwen35"}
    assert tested == {"gemma", "smollm"}
    assert len(results.families()["gemma"]) == 2


def test_the_checklist_lengths_are_recovered_from_the_shares(sets):
    """PAPER.md 5.5: 4 claims 66, 5 claims 31, 6 claims 1, and 2 that stay open; fresh >= 162."""
    step16 = Counter(item.n_parts for item in sets["gemma step16"].items)
    assert step16 == {4: 66, 5: 31, 6: 1, None: 2}
    fresh = Counter(item.n_parts for item in sets["gemma fresh"].items)
    assert fresh[5] == 162 and fresh[None] == 27
    assert [i.n_parts for i in sets["gemma fresh"].items] == [
        i.n_parts for i in sets["smollm fresh"].items
    ]


def test_a_share_alone_says_how_many_claims_only_where_one_number_fits():
    assert claim_count([0.2]) == 5
    assert claim_count([0.25]) == 4
    assert claim_count([0.6667]) is None  # 2 of 3 or 4 of 6
    assert claim_count([0.6667, 0.8333]) == 6
    assert claim_count([0.0]) is claim_count([1.0]) is claim_count([0.5]) is None
    assert claim_count([0.2, 0.25]) is None


def test_class_sizes_come_from_the_denominators_of_rates():
    assert common_denominator([111 / 138, 100 / 138]) == 138
    assert common_denominator([51 / 55, 47 / 55]) == 55
    with pytest.raises(ValueError, match="no common number"):
        common_denominator([1 / 997, 1 / 991])


def test_the_rubric_keeps_its_error_missing_and_its_declared_classes(sets):
    rubric = sets["gemma step16"]
    assert rubric.by_id["step16/21"].labels["factual_accuracy"] is None
    assert sum(v is None for v in rubric.values("factual_accuracy")) == 1
    assert sum(v >= 4 for v in rubric.values("factual_accuracy") if v is not None) == 49
    assert rubric.instruments["cert"].classes == ("CERTAIN", "UNCERTAIN", "AMBIGUOUS")
    assert set(rubric.values("cert")) == {"CERTAIN"}
    assert rubric.instruments["cert"].judge == "deepseek/deepseek-v3.2-exp"
    assert rubric.instruments["coverage"].judge is None
    assert rubric.instruments["verbal"].default == "assert"
    assert rubric.instruments["factual_accuracy"].default is None


def test_the_coverage_cut_names_the_correct_label_and_gives_it(sets):
    for name in ("gemma step16", "gemma fresh", "smollm fresh", "qwen35 step16"):
        instrument = sets[name].instruments["coverage"]
        assert (instrument.threshold, instrument.threshold_label) == (0.5, "correct")
        shares = zip(sets[name].values("coverage"), sets[name].values("correct"), strict=True)
        assert all((share >= 0.5) == correct for share, correct in shares)


def test_features_are_joined_by_position_and_say_so(sets, paper_artifacts):
    features = sets["smollm fresh"].features
    assert features.ids_are_positions
    assert features.item_ids == tuple(item.item_id for item in sets["smollm fresh"].items)
    stored = np.load(paper_artifacts / "smollm_fresh_features.npz")["X"]
    assert np.array_equal(features.x, stored)
    assert sum(map(bool, sets["smollm fresh"].values("correct"))) == 9
    assert sets["smollm step16"].features.x.shape == (100, 2048)
    assert sets["gemma step16"].features is None


def test_training_and_test_items_never_share_an_id(sets):
    train = {item.item_id for item in sets["gemma step16"].items}
    assert not train & {item.item_id for item in sets["gemma fresh"].items}
    assert train == {item.item_id for item in sets["smollm step16"].items}


def test_the_retracted_profile_keeps_topics_and_takes_no_prompts(sets):
    one = sets["gemma step16, 800 samples (retracted)"]
    assert len(one.items) == 800 and len({item.group for item in one.items}) == 100
    assert all(item.topic and item.prompt is None for item in one.items)
    assert one.instruments["correct"].judge == "deepseek/deepseek-v3.2-exp"
    assert all(item.prompt for item in sets["smollm step16"].items)


def test_arc_1_files_become_two_arms_without_finish_reasons(sets):
    base, edited = sets["HumanEval base"], sets["HumanEval dd_fp16"]
    assert (sum(map(bool, base.values("passed"))), sum(map(bool, edited.values("passed")))) == (
        21,
        50,
    )
    assert base.n_predict == edited.n_predict == 512
    assert not base.stores_finish_reasons()
    assert [r.name for r in base.reported] == ["baseline_humaneval", "baseline_svr"]
    mcas = sets["MCAS dd_fp16"]
    assert Counter(mcas.values("mcas")) == {0: 12, 1: 106, 2: 382}
    assert mcas.arm == edited.arm and mcas.task == "MCAS" and mcas.n_predict is None


def test_a_failed_mcas_call_is_missing_and_not_a_score(tmp_path, paper_artifacts):
    document = json.loads((paper_artifacts / "phase0_audit" / "mcas_details.json").read_text())
    document["baseline_scores"][3] = -1
    (tmp_path / "renamed.json").write_text(json.dumps(document))
    found = {one.name: one for one in read(tmp_path).sets}
    assert found["MCAS base"].values("mcas")[3] is None
    assert found["MCAS dd_fp16"].values("mcas")[3] is not None
    assert read(tmp_path).claims[0].n == 499


def test_the_verifier_arms_hold_their_constant_counters(sets):
    base, edited = sets["chef verifier base"], sets["chef verifier full_ddv2"]
    assert set(base.values("incorrect_technique")) == {0.0}
    assert np.mean(base.values("score")) == pytest.approx(0.27910586635586637, abs=1e-9)
    assert np.mean(edited.values("score")) == pytest.approx(0.24117875180375184, abs=1e-9)
    assert sum(map(bool, edited.values("passed"))) == 5
    assert [i.item_id for i in base.items] == [i.item_id for i in edited.items]


def test_every_auc_and_class_count_gives_a_whole_number_of_pairs(results):
    """PAPER.md 9.1, 12: a wrong class count would not."""
    for probe in results.probes:
        pairs = probe.test_auc * probe.n_positive * probe.n_negative
        # SmolLM2's AUC has half pairs only if scores tie; the published ones are whole
        assert pairs == pytest.approx(round(pairs), abs=1e-6), probe
    assert len(results.probes) == 11


def test_probes_carry_gates_points_and_runs(results):
    by_key = {(p.run, p.configuration): p for p in results.probes}
    last = by_key["v1_full_v2", "C=0.1"]
    assert (last.auc_gate, last.asymmetry_gate) == (0.63, -0.15)
    assert last.operating_point.chosen_on is Role.TEST
    assert last.operating_point.asymmetry == pytest.approx(127 / 138 - 53 / 55, abs=1e-12)
    pooled = by_key["probe_multilayer", "last 4 layers, C=0.1"]
    assert pooled.auc_gate == 0.6 and pooled.train_auc is None
    assert (pooled.n_positive, pooled.n_negative) == (55, 138)
    smollm = by_key["smollm_factual_probe", "C=1.0"]
    assert smollm.operating_point.p_assert_wrong is None
    assert by_key["disposition_probe_sweep", "self_verification, C=0.1"].train_auc == pytest.approx(
        1127 / (26 * 73), abs=1e-12
    )


def test_rankings_hold_every_head_and_the_cohorts(results):
    gemma, qwen = results.rankings
    assert (len(gemma.effects), gemma.n_first, gemma.n_second) == (280, 38, 53)
    assert (len(qwen.effects), qwen.n_first, qwen.n_second) == (48, 18, 64)
    assert gemma.effects[0].name == "layer 16 head 5" and gemma.signed
    assert gemma.effects[0].effect == max(e.effect for e in gemma.effects)


def test_claims_are_computed_from_the_files(results):
    effects = [claim.effect for claim in results.claims]
    expected = [29 / 164, 0.339, 38 / 42 - 53 / 58, 33 / 44 - 45 / 56, 18 / 25 - 64 / 75]
    assert effects[:5] == pytest.approx(expected, abs=1e-12)
    assert results.claims[0].kind == "paired rate" and results.claims[0].n == 164


def test_the_alpha_sweep_has_its_control_and_no_seed(results, sets):
    assert [(one.strength, one.is_control) for one in results.interventions][:2] == [
        (0.0, True),
        (0.25, False),
    ]
    assert all(one.seed is None for one in results.interventions)
    tokens = [item.generated_tokens for item in sets["alpha sweep, alpha 0"].items]
    assert sum(tokens) == 4640 and tokens.count(400) == 11


def test_any_file_is_read_alone_and_known_by_content(tmp_path, paper_artifacts):
    shutil.copy(paper_artifacts / "judge_v4_fresh.json", tmp_path / "mine.json")
    found = read(tmp_path / "mine.json")
    assert [one.name for one in found.sets] == ["gemma fresh"]
    assert "coverage" not in found.sets[0].instruments
    assert found.sets[0].instruments["completeness"].kind is LabelKind.SCORE
    assert not found.probes and not found.claims


def test_what_is_not_read_is_said(results):
    names = {note.split(":")[0].rsplit("/", 1)[-1] for note in results.skipped}
    assert names == {"LICENSE", "golden.json", "pca_rank.json"}


def test_rows_that_differ_in_number_are_an_error(tmp_path, paper_artifacts):
    shutil.copy(paper_artifacts / "judge_v4_fresh.json", tmp_path)
    gold = json.loads((paper_artifacts / "v1_full_fresh_judged_gold.json").read_text())
    gold = {name: values[:-1] for name, values in gold.items()}
    (tmp_path / "v1_full_fresh_judged_gold.json").write_text(json.dumps(gold))
    with pytest.raises(UserError, match="items 193, gold labels 192"):
        read(tmp_path)


def test_features_in_another_order_than_the_items_are_an_error(tmp_path, paper_artifacts):
    shutil.copy(paper_artifacts / "baseline_smollm_v2_disposition_profile.json", tmp_path)
    stored = np.load(paper_artifacts / "smollm_step16_features.npz")
    np.savez(
        tmp_path / "smollm_step16_features.npz",
        X=stored["X"][::-1],
        coverage=stored["coverage"][::-1],
    )
    with pytest.raises(UserError, match="coverage of row"):
        read(tmp_path)


def test_a_file_of_another_shape_is_one_line(tmp_path, paper_artifacts):
    document = json.loads((paper_artifacts / "v1_full_v2.json").read_text())
    del document["evaluation"]["configs"]["C=1.0"]["auc"]
    (tmp_path / "v1_full_v2.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"v1_full_v2\.json: not the shape.*'auc'"):
        read(tmp_path)


def test_a_broken_file_beside_good_ones_is_named(tmp_path, paper_artifacts):
    shutil.copy(paper_artifacts / "v1_full_v2.json", tmp_path)
    (tmp_path / "judge_v4_fresh.json").write_text('{"params": {},\n "items": [')
    assert any("judge_v4_fresh.json:2: not JSON" in note for note in read(tmp_path).skipped)


def test_one_file_twice_is_an_error(tmp_path, paper_artifacts):
    for name in ("a.json", "b.json"):
        shutil.copy(paper_artifacts / "v1_full_v2.json", tmp_path / name)
    with pytest.raises(UserError, match="the same file of the paper"):
        read(tmp_path)
