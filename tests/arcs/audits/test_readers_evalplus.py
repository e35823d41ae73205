"""Result files in the shape evalplus 0.3 writes, with raw and sanitised samples beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from arcs.audits.readers import read
from models.errors import UserError

STEM = "org--model_vllm_temp_0.0"


def entry(task: str, base: str, plus: str | None, code: str = "def f(): ...") -> dict[str, Any]:
    return {
        "task_id": task,
        "solution": code,
        "base_status": base,
        "plus_status": plus,
        "base_fail_tests": [],
        "plus_fail_tests": [],
    }


def write(folder: Path, entries: list[dict[str, Any]], name: str = f"{STEM}_eval_results.json"):
    evaluated: dict[str, list[dict[str, Any]]] = {}
    for one in entries:
        evaluated.setdefault(one["task_id"], []).append(one)
    document = {"date": "2026-01-02 03:04", "hash": "abc", "eval": evaluated}
    (folder / name).write_text(json.dumps(document))
    return folder / name


def write_samples(path: Path, rows: list[tuple[str, str]], key: str = "solution") -> Path:
    lines = [json.dumps({"task_id": task, key: text}) + "\n" for task, text in rows]
    path.write_text("".join(lines))
    return path


ENTRIES = [
    entry("HumanEval/0", "pass", "pass"),
    entry("HumanEval/1", "pass", "fail"),
    entry("HumanEval/2", "fail", "pass"),
    entry("HumanEval/3", "timeout", "timeout"),
]


def test_statuses_become_labels_as_evalplus_counts_them(tmp_path):
    one = read(write(tmp_path, ENTRIES)).sets[0]
    assert one.values("passed_base") == [True, True, False, False]
    # evalplus: base and plus must both pass
    assert one.values("passed_plus") == [True, False, False, False]
    assert one.values("base_status") == ["pass", "pass", "fail", "timeout"]
    assert one.instruments["base_status"].classes == ("pass", "fail", "timeout")
    assert (one.arm, one.task) == ("org/model", "HumanEval")
    assert one.settings["temperature"] == "0.0" and one.settings["backend"] == "vllm"
    assert one.settings["data_set_hash"] == "abc"
    assert all(item.finish_reason is None and item.group is None for item in one.items)
    assert one.n_predict is None


def test_base_only_results_leave_plus_missing(tmp_path):
    one = read(write(tmp_path, [entry("Mbpp/2", "pass", None)])).sets[0]
    assert one.values("passed_base") == [True]
    assert one.values("passed_plus") == one.values("plus_status") == [None]
    assert one.task == "Mbpp"


def test_raw_outputs_are_the_responses_where_they_are_kept(tmp_path):
    path = write(tmp_path, [*ENTRIES[:1], entry("HumanEval/0", "fail", "fail")])
    assert read(path).sets[0].items[0].response == "def f(): ..."
    assert read(path).sets[0].settings["response"] == "sanitised program"
    rows = [("HumanEval/0", "Sure! first"), ("HumanEval/0", "Sure! second")]
    write_samples(tmp_path / f"{STEM}.raw.jsonl", rows)
    write_samples(tmp_path / f"{STEM}.jsonl", rows)
    found = read(tmp_path)
    assert len(found.sets) == 1 and not found.skipped
    one = found.sets[0]
    assert [item.response for item in one.items] == ["Sure! first", "Sure! second"]
    assert one.settings["response"] == "raw output"


def test_several_samples_of_a_task_are_one_group(tmp_path):
    entries = [*ENTRIES[:2], entry("HumanEval/0", "fail", "fail")]
    one = read(write(tmp_path, entries)).sets[0]
    assert [item.item_id for item in one.items] == [
        "HumanEval/0 sample 0", "HumanEval/0 sample 1", "HumanEval/1",
    ]  # fmt: skip
    assert [item.group for item in one.items] == ["HumanEval/0", "HumanEval/0", None]


def test_older_results_are_read(tmp_path):
    evaluated = {"HumanEval/0": {"nfiles": 1, "base": [["pass", [True]]], "plus": [["fail", []]]}}
    path = tmp_path / "eval_results.json"
    path.write_text(json.dumps({"hash": "abc", "eval": evaluated}))
    one = read(path).sets[0]
    assert one.values("passed_base") == [True] and one.values("passed_plus") == [False]
    assert one.items[0].response is None


def test_samples_without_results_have_texts_and_no_labels(tmp_path):
    rows = [("HumanEval/0", "    return 1"), ("HumanEval/1", "    return 2")]
    one = read(write_samples(tmp_path / "samples.jsonl", rows, "completion")).sets[0]
    assert [item.response for item in one.items] == ["    return 1", "    return 2"]
    assert not one.instruments and one.arm == "samples"


def test_two_models_become_two_arms_of_one_task(tmp_path):
    write(tmp_path, ENTRIES)
    write(tmp_path, ENTRIES, "other_hf_temp_0.8_eval_results.json")
    sets = read(tmp_path).sets
    assert [one.arm for one in sets] == ["org/model", "other"]
    assert sets[0].task == sets[1].task


def test_another_shape_is_one_line(tmp_path):
    path = tmp_path / "eval_results.json"
    path.write_text(json.dumps({"eval": {"HumanEval/0": [{"task_id": "HumanEval/0"}]}}))
    with pytest.raises(UserError, match="not the shape of evalplus results"):
        read(path)
    path.write_text(json.dumps({"eval": {}}))
    with pytest.raises(UserError, match="no samples in it"):
        read(path)
    path.write_text('{"eval": \n{,')
    with pytest.raises(UserError, match=r"eval_results\.json:2: not JSON"):
        read(path)
