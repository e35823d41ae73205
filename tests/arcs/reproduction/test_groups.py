"""Every group against the golden values, which other code made from the same files."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcs.reproduction.artifacts import Artifacts, FileAbsent
from arcs.reproduction.groups import GROUPS, RECOMPUTE, facts_of, recompute
from arcs.reproduction.groups.labels import claims_possible
from arcs.reproduction.groups.printed import counts_fitting
from models.errors import UserError

RATE = 1e-9
"""Sums in another order differ in the last digits only."""
FITTED = 1e-6
"""Solver and BLAS versions may swap a pair of items; PAPER.md 5.9 allows this much."""
FITTED_GROUPS = ("smollm.probe", "smollm.features")
NUISANCES = "smollm.nuisance_probes_C1_cv_auc"
NUISANCE_PAIRS = {
    "truncated_at_1500_chars": 25 * 75,
    "verbal_assert": 22 * 78,
    "step16_vs_fresh": 100 * 193,
}
SWAPS = 5
"""Pairs of items that another BLAS may swap: with OpenBLAS preloaded, as `just test` does, these
single-precision fits were seen to move by 1 and by 4 pairs."""
PUBLISHED = 1e-12
"""The two AUCs of SmolLM2 that the paper's file holds come out to the last digit here."""


@pytest.fixture(scope="module")
def facts(paper_artifacts: Path) -> Callable[[str], Mapping[str, Any]]:
    return facts_of(Artifacts(paper_artifacts))


@pytest.fixture(scope="module")
def golden(paper_artifacts: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((paper_artifacts / "golden.json").read_text())
    return loaded


def differences(found: Any, expected: Any, tolerance: float, path: str = "") -> Iterator[str]:
    """Paths at which two values differ: counts and structure exactly, floats by tolerance."""
    if isinstance(expected, dict):
        if not isinstance(found, Mapping) or set(found) != set(expected):
            yield f"{path}: keys"
            return
        for key in expected:
            yield from differences(found[key], expected[key], tolerance, f"{path}/{key}")
    elif isinstance(expected, list):
        if not isinstance(found, list | tuple) or len(found) != len(expected):
            yield f"{path}: length"
            return
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from differences(one, other, tolerance, f"{path}/{i}")
    elif isinstance(expected, float) and isinstance(found, float):
        if not abs(found - expected) <= tolerance:
            yield f"{path}: {found} for {expected}"
    elif found != expected or isinstance(found, float) or isinstance(expected, float):
        yield f"{path}: {found!r} for {expected!r}"


def test_all_36_groups_are_recomputed(golden: dict[str, Any]) -> None:
    assert len(golden) == 36
    assert set(golden) <= set(RECOMPUTE) == set(GROUPS)


def test_every_golden_value_comes_out(
    facts: Callable[[str], Mapping[str, Any]], golden: dict[str, Any]
) -> None:
    wrong = [
        f"{key}{where}"
        for key, expected in golden.items()
        if key != NUISANCES
        for where in differences(
            facts(key), expected, FITTED if key.startswith(FITTED_GROUPS) else RATE
        )
    ]
    assert wrong == []


def test_nuisance_probes_come_out_but_for_swapped_pairs(
    facts: Callable[[str], Mapping[str, Any]], golden: dict[str, Any]
) -> None:
    assert set(facts(NUISANCES)) == set(golden[NUISANCES]) == set(NUISANCE_PAIRS)
    for name, pairs in NUISANCE_PAIRS.items():
        swapped = abs(facts(NUISANCES)[name] - golden[NUISANCES][name]) * pairs
        assert swapped <= SWAPS + 1e-6, name


def test_the_published_aucs_come_out_to_the_last_digit(
    facts: Callable[[str], Mapping[str, Any]],
) -> None:
    assert facts("smollm.probe.C=1.0")["fresh_auc"] == pytest.approx(0.518719806763285, PUBLISHED)
    assert facts("smollm.probe.C=0.1")["fresh_auc"] == pytest.approx(0.5048309178743962, PUBLISHED)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, one in items:
        if isinstance(one, dict | list):
            yield from _leaves(one, (*path, key))
        else:
            yield (*path, key)


def test_the_comparison_notices_every_single_changed_value(golden: dict[str, Any]) -> None:
    for group in golden.values():
        for path in _leaves(group):
            changed = copy.deepcopy(group)
            parent = changed
            for key in path[:-1]:
                parent = parent[key]
            old = parent[path[-1]]
            parent[path[-1]] = old + 2 * FITTED if isinstance(old, float) else str(old) + "1"
            assert len(list(differences(changed, group, FITTED))) == 1


def _changed(paper: Path, folder: Path, name: str, change: Callable[[Any], None]) -> Artifacts:
    """Folder with the files of ``paper``, one of them changed."""
    shutil.copytree(paper, folder, dirs_exist_ok=True)
    target = folder / name
    target.chmod(0o644)
    content = json.loads(target.read_text())
    change(content)
    target.write_text(json.dumps(content))
    return Artifacts(folder)


def _flip_pass(tasks: Any) -> None:
    tasks[7]["passed"] = not tasks[7]["passed"]


def _flip_verbal(content: Any) -> None:
    content["items"][3]["verbal"] = "hedge"


def _end_the_sentence(content: Any) -> None:
    content["items"][0]["response"] += "."


def _flip_label(content: Any) -> None:
    content["labels"][content["labels"].index(0)] = 1


def _one_more_invented(content: Any) -> None:
    content["rows"][0]["invented_count"] += 1


def _nudge_head(content: Any) -> None:
    content["all_heads_ranked_by_cohen_d"][100]["mean_cw"] += 1e-3


@pytest.mark.parametrize(
    ("name", "change", "group"),
    [
        ("phase0_audit/humaneval_baseline.json", _flip_pass, "arc1.he"),
        ("judge_v4_step16.json", _flip_verbal, "2x2.gemma"),
        ("judge_v4_step16.json", _end_the_sentence, "truncation.sentence_terminated"),
        ("smollm_fresh_judged_gold.json", _flip_label, "smollm.probe.C=1.0"),
        ("eval_full_ddv2.json", _one_more_invented, "verifier.full_ddv2"),
        ("path_b_attribution_gemma4.json", _nudge_head, "attr.gemma"),
    ],
)
def test_a_changed_item_changes_its_group(
    paper_artifacts: Path,
    tmp_path: Path,
    golden: dict[str, Any],
    name: str,
    change: Callable[[Any], None],
    group: str,
) -> None:
    found = _changed(paper_artifacts, tmp_path / "copy", name, change)
    assert list(differences(recompute(found, group), golden[group], FITTED))


# From PAPER.md, where they are printed with the digits given here; not in the golden values.
PRINTED = [
    ("arc1.mcas.difference", "points/value", "33.9"),
    ("smollm.folds", "mean", "0.5747"),
    ("smollm.folds", "sd", "0.0311"),
    ("smollm.folds", "min", "0.506"),
    ("smollm.folds", "max", "0.630"),
    ("smollm.higher_cut.C=1.0", "n_pos", "32"),
    ("smollm.higher_cut.C=1.0", "fresh/value", "0.379"),
    ("smollm.higher_cut.C=0.1", "fresh/value", "0.376"),
    ("smollm.higher_cut.C=1.0", "cv/value", "0.598"),
    ("smollm.higher_cut.C=0.1", "cv/value", "0.602"),
    ("printed.aucs", "step1_bf16/interval/0", "0.580"),
    ("printed.aucs", "step1_bf16/interval/1", "0.786"),
    ("printed.aucs", "step1_4bit/interval/0", "0.557"),
    ("printed.aucs", "step1_4bit/interval/1", "0.769"),
    ("probe.gemma_multilayer", "interval/0", "0.466"),
    ("probe.gemma_multilayer", "interval/1", "0.648"),
    ("probe.step2", "C=1.0/u", "3862"),
    ("probe.step2", "C=0.1/u", "3919"),
    ("probe.step2", "C=0.1/balanced/asserted_wrong", "127"),
    ("probe.step2", "C=0.1/balanced/asserted_correct", "53"),
    ("labels.by_claim_count", "gemma_step16/4", [43, 66]),
    ("labels.by_claim_count", "gemma_step16/5", [13, 31]),
    ("labels.by_claim_count", "smollm_step16/4", [39, 66]),
    ("labels.by_claim_count", "smollm_step16/5", [14, 31]),
    ("labels.by_claim_count", "qwen35_step16/4", [48, 66]),
    ("labels.by_claim_count", "qwen35_step16/5", [24, 31]),
    ("labels.by_claim_count", "gemma_fresh/5", [54, 189]),
    ("labels.by_claim_count", "smollm_fresh/5", [9, 189]),
    ("labels.lengths", "fresh/5", "162"),
    ("labels.lengths", "fresh/open", "27"),
    ("labels.coverage_by_claim_count", "4", "0.458"),
    ("labels.coverage_by_claim_count", "5", "0.439"),
    ("labels.at_the_cut", "gemma_step16", "31"),
    ("labels.at_the_cut", "smollm_step16", "24"),
    ("labels.drop", "smollm.0.6/times/value", "6.9"),
    ("labels.by_claim_count.intervals", "gemma.drop/p", "0.14"),
    ("truncation.correct", "finished_count", [5, 30]),
    ("truncation.correct", "cut_count", [50, 163]),
    ("texts.overlap", "between/max", "0.247"),
    ("texts.overlap", "inside_fresh/max", "0.309"),
    ("texts.overlap", "inside_step16/max", "0.410"),
    ("texts.overlap", "inside_step16/above_0.35", "3"),
    ("texts.openers", "fresh: It sounds like", "58"),
    ("texts.openers", "fresh: It's a common", "23"),
    ("texts.openers", "fresh: That's a common", "21"),
    ("texts.openers", "step16: This is a", "36"),
    ("texts.openers", "step16: It's a common", "24"),
    ("texts.surface_baselines", "prompt.transfer/value", "0.57"),
    ("texts.surface_baselines", "prompt.cv/value", "0.58"),
    ("texts.surface_baselines", "response.transfer/value", "0.47"),
    ("texts.surface_baselines", "response.cv/value", "0.51"),
    ("texts.same_responses", "same", "100"),
    ("texts.mean_lengths", "gemma_full_ddv2/value", "2098"),
    ("texts.mean_lengths", "gemma_step16/value", "2202"),
    ("attr.gemma.null", "t", "2.82"),
    ("attr.gemma.null", "p", "0.0048"),
    ("attr.gemma.null", "expected_maximum", "2.86"),
    ("attr.gemma.null", "standard_error", "0.2126"),
    ("attr.qwen35.null", "t", "2.09"),
    ("attr.qwen35.null", "p", "0.037"),
    ("attr.qwen35.null", "expected_maximum", "2.23"),
    ("attr.gemma.consistency", "largest_relative_change_top5", "0.078"),
    ("printed.differences", "humaneval_corrected/p", "0.155"),
    ("printed.differences", "larger_v2/p", "0.0012"),
    ("printed.differences", "recovery/p", "0.48"),
    ("printed.differences", "tempering_accuracy/p", "0.38"),
    ("2x2.qwen35.intervals", "asymmetry/p", "0.14"),
    ("2x2.gemma.intervals", "asymmetry/p", "1.0"),
    ("v4.fresh.correlations", "factual_accuracy__completeness", "0.773"),
    ("v4.fresh.correlations", "factual_accuracy__pedagogical_framing", "0.695"),
    ("v4.fresh.correlations", "factual_accuracy__self_verification", "0.618"),
    ("v4.step16.correlations", "factual_accuracy__completeness", "0.604"),
    ("v4.step16.correlations", "factual_accuracy__pedagogical_framing", "0.517"),
    ("v4.step16.correlations", "factual_accuracy__self_verification", "0.442"),
    ("verifier.paired.intervals", "t", "-1.35"),
    ("printed.tempering", "gemma_humble_1_0/asymmetry", "-0.0561"),
    ("printed.tempering", "gemma_humble_0_5/asymmetry", "-0.1104"),
    ("printed.tempering", "qwen_replicate_0_5/asymmetry", "-0.038"),
    ("arc1.svr", "base", "479"),
]


@pytest.mark.parametrize(("group", "path", "printed"), PRINTED)
def test_what_paper_md_recomputes_besides(
    facts: Callable[[str], Mapping[str, Any]], group: str, path: str, printed: str | list[int]
) -> None:
    value: Any = facts(group)
    for part in path.split("/"):
        value = value[int(part)] if isinstance(value, list) else value[part]
    if isinstance(printed, list):
        assert value == printed
        return
    digits = len(printed.partition(".")[2])
    assert abs(value - float(printed)) <= 0.5 * 10**-digits + 1e-9


def test_the_bootstrap_of_smollm_agrees_with_another_one(
    facts: Callable[[str], Mapping[str, Any]],
) -> None:
    # PAPER.md 5.7 has 0.343 to 0.700 from 2,000 other resamples; 9 positives move the ends by
    # some 0.01 from seed to seed.
    low, high = facts("smollm.probe.C=1.0.intervals")["fresh_auc_bootstrap"]["interval"]
    assert low == pytest.approx(0.343, abs=0.02)
    assert high == pytest.approx(0.700, abs=0.02)


def test_the_ratio_of_rates_has_a_score_interval_near_that_of_the_log(
    facts: Callable[[str], Mapping[str, Any]],
) -> None:
    # Katz 1978 by hand: the logarithm of the ratio has variance 1/56 - 1/100 + 1/9 - 1/193.
    times = facts("labels.drop")["smollm.0.5"]["times"]
    half = 1.96 * (1 / 56 - 1 / 100 + 1 / 9 - 1 / 193) ** 0.5
    by_hand = [times["value"] * np.exp(-half), times["value"] * np.exp(half)]
    assert times["value"] == pytest.approx(0.56 / (9 / 193))
    assert times["interval"] == pytest.approx(by_hand, rel=0.05)  # both are approximate


def test_chance_passes_the_asymmetry_gate_as_often_as_paper_md_says(
    facts: Callable[[str], Mapping[str, Any]],
) -> None:
    # 4,000 draws each here and there: standard errors below 0.008, so 4 of them.
    chance = facts("probe.gate_by_chance")
    assert chance["fresh"] == pytest.approx(0.062, abs=0.02)
    assert chance["step16"] == pytest.approx(0.135, abs=0.03)
    permuted = facts("smollm.probe.C=1.0.intervals")["oracle_balanced"]["gate_pass_by_chance"]
    assert permuted == pytest.approx(0.37, abs=0.04)


def test_every_published_auc_is_a_whole_number_of_pairs(
    facts: Callable[[str], Mapping[str, Any]],
) -> None:
    sweep = facts("probe.sweep")
    assert all(axis["whole"] and axis["cv"]["whole"] for axis in sweep.values())
    for step in ("probe.step2", "probe.step4"):
        assert all(config["auc"]["whole"] for config in facts(step).values())
        assert all(config["balanced"]["consistent"] for config in facts(step).values())


def test_an_auc_that_no_data_can_give_is_noticed(paper_artifacts: Path, tmp_path: Path) -> None:
    def change(content: Any) -> None:
        content["evaluation"]["configs"]["C=1.0"]["auc"] += 0.5 / (55 * 138)  # half a pair: a tie
        content["evaluation"]["configs"]["C=0.1"]["min"]["p_assert_wrong"] += 0.001

    found = recompute(
        _changed(paper_artifacts, tmp_path / "copy", "v1_full_v2.json", change), "probe.step2"
    )
    assert not found["C=1.0"]["auc"]["whole"] and found["C=0.1"]["auc"]["whole"]
    assert not found["C=0.1"]["min"]["consistent"] and found["C=1.0"]["min"]["consistent"]


def test_a_file_out_of_order_is_noticed(paper_artifacts: Path, tmp_path: Path) -> None:
    def change(content: Any) -> None:
        heads = content["all_heads_ranked_by_cohen_d"]
        heads[0], heads[1] = heads[1], heads[0]
        heads[5]["overconf_score"] += 1e-3

    found = _changed(paper_artifacts, tmp_path / "copy", "path_b_attribution_gemma4.json", change)
    checks = recompute(found, "attr.gemma.consistency")
    assert not checks["in_order"] and not checks["top20_is_a_slice"]
    assert not checks["delta_identity"]
    assert checks["rank1"] == "L16H5"  # ranked by the values, not by the file's order


def test_each_group_needs_exactly_the_files_it_names(
    paper_artifacts: Path, facts: Callable[[str], Mapping[str, Any]], tmp_path: Path
) -> None:
    for key, group in GROUPS.items():
        folder = tmp_path / key.replace("/", "_")
        for name in group.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(paper_artifacts / name)
        folder.mkdir(exist_ok=True)
        # The group itself, past the check of its files: it must find all that it reads.
        if not key.startswith("smollm."):  # fitted: the next loop shows what they need
            assert group.compute(Artifacts(folder)) == facts(key)
        for name in group.files:
            (folder / name).unlink()
            with pytest.raises(FileAbsent):
                group.compute(Artifacts(folder))
            (folder / name).symlink_to(paper_artifacts / name)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileAbsent, match=r"humaneval_baseline\.json"):
        recompute(Artifacts(tmp_path), "arc1.he")


def test_files_that_do_not_fit_together_are_named(paper_artifacts: Path, tmp_path: Path) -> None:
    def change(content: Any) -> None:
        content["labels"].pop()

    found = _changed(paper_artifacts, tmp_path / "copy", "v1_full_fresh_judged_gold.json", change)
    with pytest.raises(UserError, match=r"v1_full_fresh_judged_gold\.json") as error:
        recompute(found, "length_auc")
    assert "\n" not in str(error.value)


def test_tasks_are_joined_by_id_not_by_position(
    paper_artifacts: Path, tmp_path: Path, golden: dict[str, Any]
) -> None:
    def change(content: Any) -> None:
        content.reverse()

    name = "phase0_audit/humaneval_dd_fp16.json"
    found = _changed(paper_artifacts, tmp_path / "copy", name, change)
    assert list(differences(recompute(found, "arc1.he"), golden["arc1.he"], RATE)) == []


def test_claims_possible_by_hand() -> None:
    assert claims_possible([0.25, 0.5]) == [4]
    assert claims_possible([0.5]) == [2, 4, 6]
    assert claims_possible([0.2, 1.0]) == [5]
    assert claims_possible([0.6667]) == [3, 6]
    assert claims_possible([0.25, 0.2]) == []
    assert claims_possible([0.0]) == [2, 3, 4, 5, 6]


def test_counts_that_print_as_a_percentage_by_hand() -> None:
    assert counts_fitting("36.0", 164) == [59]
    assert counts_fitting("36.1", 164) == []  # 59 is 35.98, 60 is 36.59
    assert counts_fitting("95.8", 500) == [479]
    assert counts_fitting("50", 3) == []


def test_a_group_is_computed_once(paper_artifacts: Path) -> None:
    lookup = facts_of(Artifacts(paper_artifacts))
    assert lookup("2x2.gemma") is lookup("2x2.gemma")


def test_groups_do_not_depend_on_the_order_of_calls(
    paper_artifacts: Path, facts: Callable[[str], Mapping[str, Any]]
) -> None:
    keys = [key for key in GROUPS if not key.startswith("smollm.")]
    np.random.default_rng(0).shuffle(keys)
    again = facts_of(Artifacts(paper_artifacts))
    assert all(again(key) == facts(key) for key in keys)
