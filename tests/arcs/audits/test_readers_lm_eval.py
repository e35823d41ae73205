"""Sample files in the shape lm-evaluation-harness 0.4 writes (its evaluation_tracker)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from arcs.audits.readers import read
from arcs.audits.results import LabelKind
from models.errors import UserError

DATE = "2026-01-02T03-04-05.678901"


def generated(doc: int, text: str, filter_name: str = "none", **metrics: Any) -> dict[str, Any]:
    settings = {"until": ["\n\n"], "max_gen_toks": 128, "do_sample": False}
    return {
        "doc_id": doc,
        "doc": {"question": f"q{doc}"},
        "target": "7",
        "arguments": {"gen_args_0": {"arg_0": f"Question {doc}?", "arg_1": settings}},
        "resps": [[text]],
        "filtered_resps": [text.strip()],
        "filter": filter_name,
        "metrics": list(metrics),
        "doc_hash": f"{doc:064x}"[::-1],
        "prompt_hash": "p",
        "target_hash": "t",
        **metrics,
    }


def chosen(doc: int, **metrics: Any) -> dict[str, Any]:
    choice = [{"arg_0": f"Context {doc}", "arg_1": f" choice {k}"} for k in range(2)]
    return {
        **generated(doc, "", **metrics),
        "arguments": {f"gen_args_{k}": one for k, one in enumerate(choice)},
        "resps": [[["-1.5", "False"]], [["-0.5", "True"]]],
        "filtered_resps": [["-1.5", "False"], ["-0.5", "True"]],
    }


def write(folder: Path, task: str, rows: list[dict[str, Any]], date: str = DATE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"samples_{task}_{date}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_results(folder: Path, task: str, model_args: Any, date: str = DATE, **more: Any) -> None:
    document = {
        "results": {task: {"alias": task, "sample_len": 2, "exact_match,none": 0.5,
                           "exact_match_stderr,none": 0.35, "f1,none": 0.25,
                           "f1_stderr,none": "N/A", "exact_match,strict": 0.0}},
        "versions": {task: 3.0}, "n-shot": {task: 5},
        "config": {"model": "hf", "model_args": model_args, "gen_kwargs": {"temperature": 0.0},
                   "random_seed": 0},
        "model_source": "hf", "model_name": "org/model", "chat_template_sha": "abc",
        "lm_eval_version": "0.4.13", **more,
    }  # fmt: skip
    (folder / f"results_{date}.json").write_text(json.dumps(document))


def test_generations_become_items_with_prompts_budget_and_settings(tmp_path):
    rows = [generated(0, " 7", exact_match=1.0, f1=0.5), generated(1, "8", exact_match=0.0, f1=0.0)]
    write(tmp_path, "gsm8k", rows)
    write_results(tmp_path, "gsm8k", {"pretrained": "org/model", "dtype": "bfloat16"})
    found = read(tmp_path)
    one = found.sets[0]
    assert (one.arm, one.task, one.n_predict) == ("org/model", "gsm8k", 128)
    assert [item.response for item in one.items] == [" 7", "8"]
    assert one.items[1].prompt == "Question 1?"
    assert one.values("exact_match") == [True, False]
    assert one.instruments["exact_match"].kind is LabelKind.PASS
    assert one.values("f1") == [0.5, 0.0] and one.instruments["f1"].kind is LabelKind.SCORE
    assert all(item.finish_reason is None for item in one.items)
    assert one.settings["model_args.dtype"] == "bfloat16"
    assert one.settings["gen_kwargs.temperature"] == "0.0"
    assert one.settings["chat_template_sha"] == "abc"
    assert one.settings["versions"] == "3.0" and one.settings["n-shot"] == "5"
    assert [(r.name, r.value, r.has_interval) for r in one.reported] == [
        ("exact_match", 0.5, True), ("f1", 0.25, False),
    ]  # fmt: skip
    assert not found.skipped


def test_ids_tell_documents_of_one_number_apart(tmp_path):
    row = generated(0, "a", exact_match=1.0)
    one = read(write(tmp_path / "a", "t", [row])).sets[0]
    other = read(write(tmp_path / "b", "t", [{**row, "doc_hash": "f" * 64}])).sets[0]
    again = read(write(tmp_path / "c", "t", [row])).sets[0]
    assert one.items[0].item_id == again.items[0].item_id != other.items[0].item_id


def test_filters_become_sets_and_not_duplicate_items(tmp_path):
    rows = [generated(d, "a", name, exact_match=float(d)) for name in ("strict", "loose")
            for d in (0, 1)]  # fmt: skip
    sets = read(write(tmp_path, "gsm8k_cot", rows)).sets
    assert [one.task for one in sets] == ["gsm8k_cot, strict", "gsm8k_cot, loose"]
    assert all(one.values("exact_match") == [False, True] for one in sets)


def test_scored_choices_have_no_response_and_no_budget(tmp_path):
    one = read(write(tmp_path, "arc_easy", [chosen(0, acc=1.0), chosen(1, acc=0.0)])).sets[0]
    assert all(item.response is None for item in one.items)
    assert one.items[0].prompt == "Context 0"
    assert one.n_predict is None and one.values("acc") == [True, False]


def test_a_budget_that_was_not_stated_is_not_known(tmp_path):
    row = generated(0, "a", exact_match=1.0)
    row["arguments"]["gen_args_0"]["arg_1"] = {"until": ["\n"]}
    assert read(write(tmp_path, "t", [row])).sets[0].n_predict is None


def test_several_samples_of_one_document_leave_the_response_open(tmp_path):
    row = {**generated(0, "a", **{"pass@1": 0.5}), "resps": [["a", "b"]]}
    one = read(write(tmp_path, "humaneval", [row])).sets[0]
    assert one.items[0].response is None and one.values("pass@1") == [0.5]


def test_an_adapter_makes_another_arm(tmp_path):
    for name, args in (("base", "pretrained=org/model,dtype=float32"),
                       ("tuned", "pretrained=org/model,peft=me/adapter")):  # fmt: skip
        write(tmp_path / name, "t", [generated(0, "a", exact_match=1.0)])
        write_results(tmp_path / name, "t", args)
    assert [one.arm for one in read(tmp_path).sets] == ["org/model", "org/model + me/adapter"]


def test_older_arguments_and_missing_results_are_read_and_said(tmp_path):
    row = generated(0, "a", exact_match=1.0)
    row["arguments"] = [["Question 0?", {"max_gen_toks": 32}]]
    del row["doc_hash"], row["metrics"]
    found = read(write(tmp_path, "t", [row]))
    one = found.sets[0]
    assert (one.items[0].item_id, one.items[0].prompt, one.n_predict) == ("0", "Question 0?", 32)
    assert one.values("exact_match") == [True] and one.arm is None
    assert "settings not known" in found.skipped[0]


def test_metrics_that_are_no_number_an_item_are_said(tmp_path):
    row = generated(0, "a", acc=1.0, word_perplexity=[-12.5, 3])
    found = read(write(tmp_path, "t", [row]))
    assert set(found.sets[0].instruments) == {"acc"}
    assert any("word_perplexity" in note for note in found.skipped)


def test_damage_is_one_line_with_its_place(tmp_path):
    row = json.dumps(generated(0, "a", acc=1.0))
    path = tmp_path / f"samples_t_{DATE}.jsonl"
    path.write_text(f"{row}\n{row[:40]}\n")
    with pytest.raises(UserError, match=r"\.jsonl:2: not JSON"):
        read(path)
    path.write_text(f'{row}\n{{"x": 1}}\n')
    with pytest.raises(UserError, match=r"\.jsonl:2: no doc_id and resps"):
        read(path)
    path.write_text(f"{row}\n{row}\n")
    with pytest.raises(UserError, match="more than once"):
        read(path)
    path.write_text("")
    with pytest.raises(UserError, match="is empty"):
        read(path)
