"""Falsify on results of other tools, read as the audits read them, joined to NPZ rows by id."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcs.falsification.evidence import Evidence
from arcs.falsification.own import Files, Own
from models.errors import UserError
from tests.support.falsify_bench import SETS, Made, made, write_lines

SHUFFLE = 7
"""Files hold the items in another order than the rows, so that a join by position is seen."""
TASKS = {"train": [f"HumanEval/{k}" for k in range(12)],
         "fresh": [f"HumanEval/{k}" for k in range(12, 24)]}  # fmt: skip


def renamed(folder: Path, ids: Mapping[str, Sequence[str]]) -> Made:
    """Rows of both sets under the ids that a tool's items get."""
    found = made(folder, n=len(ids["train"]), cut=0.3)
    folder.mkdir()
    for name in SETS:
        for row, item_id in zip(found.rows[name], ids[name], strict=True):
            row["item_id"] = item_id
        found.write_features(name)
    return found


def shuffled(found: Made, name: str) -> list[dict[str, Any]]:
    order = np.random.default_rng(SHUFFLE).permutation(len(found.rows[name]))
    return [found.rows[name][at] for at in order]


def joined(found: Made, axis: str | None = None, **files: Path) -> tuple[Evidence, Evidence, Own]:
    """Both sets as falsify sees them, held to what the rows were written with."""
    source = Own(Files(found.path("train"), found.path("fresh"), **files), axis)
    both = source.train(), source.fresh()
    for name, one in zip(SETS, both, strict=True):
        rows = found.rows[name]
        assert one.item_ids == tuple(row["item_id"] for row in rows)
        assert one.labels[source.axis()] == tuple(row["right"] for row in rows)
        assert one.responses == tuple(row["response"] for row in rows)
    assert source.faults() == ()
    return *both, source


def test_a_log_of_inspect_ai(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalSample,
        EvalSpec,
        write_eval_log,
    )
    from inspect_ai.model import ChatMessageAssistant, ModelOutput, ModelUsage
    from inspect_ai.model._model_output import ChatCompletionChoice
    from inspect_ai.scorer import Score

    found = renamed(tmp_path / "rows", {"train": [f"q{k}" for k in range(12)],
                                        "fresh": [str(k) for k in range(12)]})  # fmt: skip

    def sample(row: Mapping[str, Any]) -> EvalSample:
        cut = row["finish_reason"] == "length"
        message = ChatMessageAssistant(content=row["response"])
        choice = ChatCompletionChoice(message=message,
                                      stop_reason="max_tokens" if cut else "stop")  # fmt: skip
        output = ModelOutput(model="m", choices=[choice],
                             usage=ModelUsage(input_tokens=3, output_tokens=5))  # fmt: skip
        name = int(row["item_id"]) if row["item_id"].isdigit() else row["item_id"]
        return EvalSample(id=name, epoch=1, input=row["prompt"], target="t", output=output,
                          scores={"match": Score(value="C" if row["right"] else "I")})  # fmt: skip

    paths = {}
    for name in SETS:
        paths[name] = tmp_path / f"{name}.json"
        spec = EvalSpec(created="2026-01-01T00:00:00+00:00", task="quiz", model="hf/small",
                        dataset=EvalDataset(name=name), config=EvalConfig())  # fmt: skip
        samples = [sample(row) for row in shuffled(found, name)]
        write_eval_log(EvalLog(eval=spec, status="success", samples=samples), str(paths[name]))
    train, fresh, source = joined(found, labels=paths["train"], fresh_labels=paths["fresh"])
    assert source.axis() == "match"
    for name, one in zip(SETS, (train, fresh), strict=True):
        assert one.prompts == tuple(row["prompt"] for row in found.rows[name])
        assert one.ends_known and one.cut.any()
        assert one.cut.tolist() == [row["finish_reason"] == "length" for row in found.rows[name]]
        assert one.lengths is not None and set(one.lengths) == {5} and one.length_unit == "tokens"


def test_samples_of_lm_evaluation_harness(tmp_path: Path) -> None:
    hashes = {name: [f"{k:02x}{name}".ljust(64, "0") for k in range(12)] for name in SETS}
    found = renamed(tmp_path / "rows", {name: [f"{k}:{hashes[name][k][:16]}" for k in range(12)]
                                        for name in SETS})  # fmt: skip
    paths, settings = {}, {"until": ["\n"], "max_gen_toks": 64}
    for name in SETS:
        paths[name] = tmp_path / f"samples_{name}_2026-01-02T03-04-05.678901.jsonl"
        write_lines(paths[name], [
            {
                "doc_id": (k := int(row["item_id"].partition(":")[0])), "doc": {"question": k},
                "target": "7", "doc_hash": hashes[name][k], "filter": "none",
                "arguments": {"gen_args_0": {"arg_0": row["prompt"], "arg_1": settings}},
                "resps": [[row["response"]]], "filtered_resps": [row["response"]],
                "metrics": ["exact_match", "f1"], "exact_match": float(row["right"]), "f1": 0.25,
            }
            for row in shuffled(found, name)
        ])  # fmt: skip
    files = {"labels": paths["train"], "fresh_labels": paths["fresh"]}
    train, fresh, source = joined(found, **files)
    assert source.axis() == "exact_match"
    for name, one in zip(SETS, (train, fresh), strict=True):
        assert one.prompts == tuple(row["prompt"] for row in found.rows[name])
        assert not one.ends_known  # the harness does not say how an answer ended
    with pytest.raises(UserError, match=r"--axis right: .* has exact_match"):
        joined(found, "right", **files)


def test_results_of_evalplus(tmp_path: Path) -> None:
    found = renamed(tmp_path / "rows", TASKS)
    evaluated = {
        row["item_id"]: [{
            "task_id": row["item_id"], "solution": row["response"], "base_status": "pass",
            "plus_status": "pass" if row["right"] else "fail", "base_fail_tests": [],
            "plus_fail_tests": [],
        }]
        for name in SETS for row in shuffled(found, name)
    }  # fmt: skip
    path = tmp_path / "org--model_vllm_temp_0.0_eval_results.json"
    path.write_text(json.dumps({"date": "2026-01-02 03:04", "hash": "abc", "eval": evaluated}))
    train, _, source = joined(found, "passed_plus", labels=path)
    assert source.axis() == "passed_plus" and set(train.labels["passed_base"]) == {True}
    assert not train.ends_known and train.prompts is None
    with pytest.raises(UserError, match=r"several labels \(passed_base, passed_plus\); say --axis"):
        joined(found, labels=path)


def test_samples_of_evalplus_are_responses_of_a_table_of_labels(tmp_path: Path) -> None:
    found = renamed(tmp_path / "rows", TASKS)
    rows = [row for name in SETS for row in shuffled(found, name)]
    labels, samples = tmp_path / "labels.jsonl", tmp_path / "samples.jsonl"
    write_lines(labels, [{"item_id": row["item_id"], "right": row["right"]} for row in rows])
    write_lines(samples, [{"task_id": row["item_id"], "solution": row["response"]} for row in rows])
    joined(found, labels=labels, responses=samples)


def test_a_row_that_the_tool_did_not_score_is_named(tmp_path: Path) -> None:
    found = renamed(tmp_path / "rows", {"train": ["HumanEval/0", "HumanEval/1"],
                                        "fresh": ["HumanEval/2", "HumanEval/3"]})  # fmt: skip
    path = tmp_path / "m_hf_temp_0.0_eval_results.json"
    path.write_text(json.dumps({"date": "d", "hash": "h", "eval": {"HumanEval/0": [
        {"task_id": "HumanEval/0", "solution": "", "base_status": "pass", "plus_status": None}
    ]}}))  # fmt: skip
    with pytest.raises(UserError, match=r"--features .*: HumanEval/1 not labelled \(passed_base\)"):
        joined(found, "passed_base", labels=path)
