"""The table of published files, and what becomes of absent, other and damaged ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from arcs.reproduction.artifacts import Artifacts, FileAbsent, check_sums
from arcs.reproduction.files import BY_NAME, FILES, locate
from models.errors import UserError

# First 16 hex digits of the SHA-256, typed from PAPER.md section 9.
PAPER_SUMS = {
    "smollm_step16_features.npz": "c5c4828d57108946",
    "smollm_fresh_features.npz": "b147f72a5b3f9f2d",
    "smollm_fresh_judged_gold.json": "01212013a8474152",
    "v1_full_fresh_judged_gold.json": "b1c5fc4fc54738ca",
    "smollm_factual_probe.json": "04bad28669d628f4",
    "v1_full_v2.json": "1ea333a7c639e935",
    "probe_multilayer.json": "ee9ecf0d1835428c",
    "disposition_probe_sweep.json": "206e275721828fa7",
    "judge_v4_step16.json": "24a33185010a2143",
    "judge_v4_fresh.json": "479745a549c75d6e",
    "eval_baseline.json": "7dddf80194804c8f",
    "eval_full_ddv2.json": "23be53da1e4ed7a6",
    "baseline_smollm_v2_disposition_profile.json": "d41c22958d08a1bc",
    "baseline_qwen35_0.8b_v2_disposition_profile.json": "1e7849241b246116",
    "baseline_disposition_profile.json": "1c2803199d37299e",
    "path_b_attribution_gemma4.json": "7452b458267fa77c",
    "path_b_attribution_qwen35_0.8b.json": "ac1f34a87f50cb54",
    "alpha_sweep.json": "a3745be13adeef3c",
    "pca_rank.json": "4c0b88fc17278df8",
    "phase0_audit/humaneval_baseline.json": "2977cbc7670cc7eb",
    "phase0_audit/humaneval_dd_fp16.json": "e1e89c1c9b9711c6",
    "phase0_audit/mcas_details.json": "b80c44e08cb1fc0b",
    "phase0_audit/eval_results.json": "283a56d1fcd7387a",
}


def test_the_table_holds_the_files_that_paper_md_lists_with_the_same_sums() -> None:
    sums = {file.name: file.sha256[:16] for file in FILES if file.name != "LICENSE"}
    assert sums == PAPER_SUMS
    assert all(len(file.sha256) == 64 for file in FILES)


def test_paths_in_the_repository() -> None:
    assert BY_NAME["alpha_sweep.json"].path == "eval/results/alpha_sweep.json"
    assert BY_NAME["phase0_audit/mcas_details.json"].path == (
        "phase0_audit/results/mcas_details.json"
    )
    assert BY_NAME["LICENSE"].path == "LICENSE"


def test_the_published_files_match_the_table(paper_artifacts: Path) -> None:
    assert check_sums(paper_artifacts) == []
    found = Artifacts(paper_artifacts)
    assert found.complete()
    assert found.changed == frozenset()
    sizes = {file.name: file.size for file in FILES}
    assert sizes == {name: (paper_artifacts / name).stat().st_size for name in sizes}


def test_one_other_byte_is_a_mismatch_and_still_read(paper_artifacts: Path, tmp_path: Path) -> None:
    content = (paper_artifacts / "pca_rank.json").read_bytes()
    (tmp_path / "pca_rank.json").write_bytes(content + b" ")
    problems = {one.name: one.problem for one in check_sums(tmp_path)}
    assert problems.pop("pca_rank.json") == "differs"
    assert set(problems.values()) == {"absent"}
    found = Artifacts(tmp_path)
    assert found.changed == frozenset({"pca_rank.json"})
    assert found.pca_rank.base.shape == (80, 1536)


def test_a_checkout_of_the_repository_will_do(paper_artifacts: Path, tmp_path: Path) -> None:
    for file in FILES:
        (tmp_path / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(paper_artifacts / file.name, tmp_path / file.path)
    assert check_sums(tmp_path) == []
    assert len(Artifacts(tmp_path).humaneval_base) == 164


def test_an_absent_file_is_named_and_a_directory_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "pca_rank.json").mkdir()
    with pytest.raises(FileAbsent, match=r"pca_rank\.json"):
        _ = Artifacts(tmp_path).pca_rank
    assert locate(tmp_path, "pca_rank.json") is None
    assert not Artifacts(tmp_path).complete()


def test_every_truncated_json_file_is_named(paper_artifacts: Path, tmp_path: Path) -> None:
    for name in (file.name for file in FILES if file.name.endswith(".json")):
        content = (paper_artifacts / name).read_bytes()
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(UserError) as error:
            Artifacts(tmp_path).raw(name)
        assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "attribute", "old", "new"),
    [
        ("judge_v4_step16.json", "step16", '"coverage": 0.2', '"coverage": 1.2'),
        ("judge_v4_step16.json", "step16", '"verbal": "assert"', '"verbal": "shout"'),
        ("judge_v4_fresh.json", "fresh", '"factual_accuracy": 4', '"factual_accuracy": 9'),
        ("alpha_sweep.json", "alpha_sweep", '"kl": 2.1921', '"kl": NaN'),
        ("phase0_audit/humaneval_baseline.json", "humaneval_base", "false", '"no"'),
        ("smollm_fresh_judged_gold.json", "smollm_fresh_labels", "    0\n  ]", "    2\n  ]"),
        ("v1_full_v2.json", "fresh_probe", '"thr_0.5"', '"thr_0_5"'),
    ],
)
def test_values_out_of_range_are_refused(
    paper_artifacts: Path, tmp_path: Path, name: str, attribute: str, old: str, new: str
) -> None:
    text = (paper_artifacts / name).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError, match=f"{Path(name).name}: damaged"):
        getattr(Artifacts(tmp_path), attribute)


def test_flipped_bytes_in_an_archive_give_one_line_or_other_numbers_never_a_traceback(
    paper_artifacts: Path, tmp_path: Path
) -> None:
    name = "smollm_step16_features.npz"
    original = (paper_artifacts / name).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    # Half of the flips in the headers, where every byte has a meaning.
    places = [*rng.integers(0, 400, 60), *rng.integers(0, len(original), 40)]
    for place in places:
        content = bytearray(original)
        content[place] ^= int(rng.integers(1, 256))
        (tmp_path / name).write_bytes(bytes(content))
        found = Artifacts(tmp_path)
        assert found.changed == {name}
        message = _refusal(found)
        if message is not None:
            refused += 1
            assert name in message and "\n" not in message
    assert refused > len(places) / 2


def _refusal(found: Artifacts) -> str | None:
    try:
        _ = found.smollm_step16_features
    except UserError as error:
        return str(error)
    return None


def test_labels_are_coverage_of_at_least_a_half(paper_artifacts: Path) -> None:
    found = Artifacts(paper_artifacts)
    train, fresh = found.smollm_step16(), found.smollm_fresh()
    assert train.x.shape == (100, 2048) and int(train.labels.sum()) == 56
    assert fresh.x.shape == (193, 2048) and int(fresh.labels.sum()) == 9
