"""The paper's files as records: its own numbers come out of them again (PAPER.md 5, 9)."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from arcs.data import paper_command
from arcs.data.paper import Imported, import_paper
from arcs.data.sets import generator_not_independent, open_set
from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.download import download
from evals.items.recorded import RecordedLabel, prompt_sha256
from models.errors import UserError


@pytest.fixture(scope="module")
def made(paper_artifacts: Path) -> Imported:
    return import_paper(Artifacts(paper_artifacts))


def values(made: Imported, instrument: str, condition: str = "") -> dict[str, object]:
    """Item id -> value, of one instrument and arm."""
    return {
        one.item_id: one.value
        for one in made.labels
        if one.instrument == f"paper:{instrument}" and one.condition == condition
    }


def test_counts_and_ids(made: Imported) -> None:
    assert {name: len(found) for name, found in made.prompts.items()} == {
        "step16": 100, "fresh": 193, "mcas": 500,
    }  # fmt: skip
    assert Counter(one.category for one in made.prompts["mcas"]) == {
        "tricky": 250, "straightforward": 250,
    }  # fmt: skip
    assert made.prompts["fresh"][192].id == "paper-fresh-192"
    assert len(made.responses) == 100 + 193 + 100 + 100 + 100 + 100 + 800
    rubric, retracted = 100 * 9 + 193 * 6, 800 * 3
    verifier, profiles, gold = 200 * 7, 200 * 3, 193 * 4
    assert len(made.labels) == rubric + retracted + verifier + profiles + gold + 1000 + 328
    for records in (*made.prompts.values(), made.responses, made.labels):
        assert len({one.id for one in records}) == len(records)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("judge_v4_step16", (53, 5, 38, 4)),
        ("baseline_smollm_v2_disposition_profile", (45, 11, 33, 11)),
        ("baseline_qwen35_0.8b_v2_disposition_profile", (64, 11, 18, 7)),
    ],
)
def test_the_papers_two_by_two_tables_come_out(
    made: Imported, name: str, cells: tuple[int, ...]
) -> None:
    correct, verbal = values(made, f"{name}:correct"), values(made, f"{name}:verbal")
    assert correct.keys() == verbal.keys() and len(correct) == 100
    counts = Counter((correct[key], verbal[key]) for key in correct)
    kinds = [(True, "assert"), (True, "hedge"), (False, "assert"), (False, "hedge")]
    assert tuple(counts[kind] for kind in kinds) == cells


def test_the_papers_scores_come_out(made: Imported) -> None:
    base, trained = values(made, "mcas_details:score"), values(made, "mcas_details:score", "dd")
    assert Counter(base.values()) == {0: 36, 1: 397, 2: 67}
    assert Counter(trained.values()) == {0: 12, 1: 106, 2: 382}
    before = values(made, "phase0_humaneval:passed_at_512")
    after = values(made, "phase0_humaneval:passed_at_512", "dd")
    assert (sum(before.values()), sum(after.values())) == (21, 50)  # type: ignore[call-overload]
    assert sum(after[key] and not before[key] for key in before) == 35
    assert sum(values(made, "v1_full_fresh_judged_gold:correct").values()) == 55  # type: ignore[call-overload]
    assert sum(values(made, "smollm_fresh_judged_gold:correct").values()) == 9  # type: ignore[call-overload]
    scores = values(made, "chef_verifier:score")
    assert sum(scores.values()) / 100 == pytest.approx(0.27910586635586637)  # type: ignore[call-overload]


def test_what_no_judge_could_parse_is_kept_without_a_value(made: Imported) -> None:
    without = [one for one in made.labels if one.status != "ok"]
    assert Counter((one.item_id, one.status) for one in without) == {
        ("paper-step16-021", "unparsed"): 5, ("paper-fresh-149", "unparsed"): 5,
    }  # fmt: skip
    assert all(one.value is None and one.detail == "no_json" for one in without)
    axis = values(made, "judge_v4_step16:factual_accuracy")
    graded = [value for value in axis.values() if value is not None]
    assert len(axis) == 100 and len(graded) == 99
    assert sum(graded) / 99 == pytest.approx(3.3838383838)  # type: ignore[arg-type]


def test_everything_says_where_it_was_read(made: Imported, paper_artifacts: Path) -> None:
    """Prompt hashes join labels to prompts, and indices lead back to the rows."""
    prompts = {one.id: one.prompt for found in made.prompts.values() for one in found}
    for one in [*made.responses, *made.labels]:
        assert one.source is not None
        assert one.source.sha256 == made.sources[one.source.file]
        hashed = one.prompt_sha256
        assert hashed == (prompt_sha256(prompts[one.item_id]) if one.item_id in prompts else None)
    rows = json.loads((paper_artifacts / "eval_full_ddv2.json").read_text())["rows"]
    answers = [one for one in made.responses if one.condition == "dd"]
    for one in answers:
        assert one.source is not None and one.response == rows[one.source.index]["response"]
    by = {one.instrument: (one.judge, one.rubric_version) for one in made.labels}
    judge = "deepseek/deepseek-v3.2-exp"
    assert by["paper:judge_v4_fresh:cert"] == (judge, "two_pass_response_blind_v4_5axis")
    assert by["paper:judge_v4_step16:verbal"] == (None, None)  # made before the rubric run
    assert by["paper:baseline_disposition_profile:verbal"] == (judge, None)


def test_nobody_can_take_the_retracted_samples_for_answers_to_a_prompt(made: Imported) -> None:
    retracted = [one for one in made.responses if "retracted" in one.flags]
    assert len(retracted) == 800
    assert {one.prompt_sha256 for one in retracted} == {None}
    assert not {one.item_id for one in retracted} & {one.id for one in made.prompts["step16"]}
    labels = [one for one in made.labels if one.item_id.startswith("paper-retracted")]
    assert all("misaligned" in one.flags for one in labels) and len(labels) == 2400


def test_cut_texts_say_so(made: Imported) -> None:
    cut = Counter(one.model for one in made.responses if one.cut_at and not one.flags)
    assert cut == {"SmolLM2-1.7B-Instruct": 25, "Qwen3.5-0.8B": 100}  # PAPER.md 9.1
    assert {one.finish_reason for one in made.responses} == {"unknown"}


def test_files_are_whole_repeatable_and_described(
    paper_artifacts: Path, tmp_path: Path, capsys
) -> None:
    out, again = tmp_path / "paper", tmp_path / "again"
    for folder in (out, again):
        paper_command.start(paper_artifacts, download=False, out=folder, as_json=True)
    document = json.loads(capsys.readouterr().out.split("\n{")[0])
    assert {one.name: one.read_bytes() for one in out.iterdir()} == {
        one.name: one.read_bytes() for one in again.iterdir()
    }
    assert (out / "LICENSE").read_bytes() == (paper_artifacts / "LICENSE").read_bytes()
    assert document["duplicate_prompts"] == {"step16": 0, "fresh": 0, "mcas": 0}
    near = {name: len(found) for name, found in document["near_duplicate_prompts"].items()}
    assert near == {"step16": 3, "fresh": 0, "mcas": 3}
    # the base's 100 Chef answers are in two files; 793 of the retracted 800 differ
    assert document["repeated_responses"] == 107
    assert len(document["labels_without_value"]) == 10 and document["changed_files"] == []
    found = open_set(str(out / "paper_labels.jsonl"))
    assert found.kind.name == "label" and len(found.records) == document["counts"]["labels"]
    first, second = out / "paper_step16.jsonl", out / "paper_fresh.jsonl"
    assert generator_not_independent(str(first), str(second)) is False
    assert generator_not_independent(str(first), "chef_train") is False


def test_a_damaged_or_absent_file_is_one_line(paper_artifacts: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(paper_artifacts, copy)
    rows = json.loads((copy / "eval_baseline.json").read_text())
    rows["rows"][3]["prompt"] = "Another one?"
    (copy / "eval_baseline.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match=r"eval_baseline.json: not the published file .*row 4"):
        import_paper(Artifacts(copy))
    (copy / "eval_baseline.json").unlink()
    with pytest.raises(UserError, match=r"eval_baseline.json is not there; fetch") as caught:
        import_paper(Artifacts(copy))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="one of them"):
        paper_command.start(None, download=False, out=tmp_path / "o", as_json=True)


def test_a_download_that_fails_says_what_else_can_be_done(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("THREEARC_CACHE", str(tmp_path / "cache"))
    # nothing listens on the discard port
    monkeypatch.setattr(paper_command, "fetch", partial(download, base_url="http://127.0.0.1:9"))
    with pytest.raises(UserError, match=r"cannot be fetched .*, or give the folder of the files"):
        paper_command.start(None, download=True, out=tmp_path / "o", as_json=True)
    assert not (tmp_path / "o").exists()


def test_a_file_with_other_labels_is_named(paper_artifacts: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(paper_artifacts, copy)
    details = copy / "phase0_audit" / "mcas_details.json"
    document = json.loads(details.read_text())
    document["baseline_scores"][7] = -1  # what its harness stores for a failed call
    details.write_text(json.dumps(document))
    made = import_paper(Artifacts(copy))
    found = paper_command.findings(made)
    assert found["changed_files"] == ["phase0_audit/mcas_details.json"]
    (label,) = [one for one in made.labels if one.status == "error"]
    assert (label.item_id, label.value, label.detail) == ("paper-mcas-007", None, "-1")


@pytest.mark.parametrize("more", [{"status": "ok"}, {"status": "missing", "value": 1}])
def test_a_label_has_a_value_if_and_only_if_it_is_ok(more: dict) -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        RecordedLabel(id="a", item_id="b", instrument="c", **more)
