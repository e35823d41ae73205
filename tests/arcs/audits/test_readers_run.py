"""Our own runs, written by Arc 1's own writers, read as sets."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from arcs.arc1 import evaluation, problems
from arcs.arc1.config import Arc1Config, resolve
from arcs.arc1.metrics import Found, build
from arcs.arc1.pipeline import ITEMS
from arcs.audits.readers import read
from arcs.audits.results import Results, Role
from arcs.gates import load_gates
from arcs.runs import METRICS, RunDirectory
from arcs.verdicts import compare
from backends.interface import Completion, Prompt
from evals.humaneval.execution import Execution
from evals.humaneval.problems import dataset_sha256, load_problems
from models.errors import UserError

ENCODER = SimpleNamespace(decode=lambda ids: "".join(map(chr, ids)))
STOP = 3
"""A generated id that is decoded to a control character, as if it ended the answer."""
CODE = "```python\ndef f():\n    return 1\n```"


def answer_texts(arm: str) -> list[str]:
    """Finished at 64 and passing, finished and failing, infrastructure error, cut at every n."""
    return [CODE, CODE + " ", CODE + "  ", ("so " if arm == "base" else "a ") * 200]


def manifest(config: Arc1Config) -> dict:
    engine = {"engine": "llamacpp", "file_type": "Q8_0", "threads": 2}
    return {
        "arc": "arc1",
        "config": config.model_dump(mode="json"),
        "model": {"name": "tiny", "fingerprint": "abc"},
        "chat": {"template_sha256": "t", "thinking": None},
        "evaluation": {"dataset": "HumanEval", "dataset_sha256": dataset_sha256(),
                       "prompt_style": "chat", "prompts_sha256": "p", "quantisation": "q8_0"},
        "sandbox": {"level": "bubblewrap"},
        "engine_base": {**engine, "adapter_sha256": None},
        "engine_trained": {**engine, "adapter_sha256": "a"},
    }  # fmt: skip


def write_run(path: Path) -> Path:
    config = resolve({"n_predict": (64, 128)})
    chosen = [
        problems.Item(p, Prompt(p.task_id, (1, 2)), think_open=False, prompt_sha=p.task_id)
        for p in load_problems()[:4]
    ]
    with RunDirectory.create(path, manifest(config)) as run:
        given = []
        for arm in evaluation.ARMS:
            store = evaluation.store_of(run, arm)
            for item, text in zip(chosen, answer_texts(arm), strict=True):
                cut = len(text) > 128
                ids = tuple(map(ord, text))[:128] if cut else (*map(ord, text), STOP)
                reason = "length" if cut else "stop"
                completion = Completion(item.problem.task_id, (1, 2), ids, reason, 0.0)
                store.append(evaluation._to_record(completion, item.prompt_sha))
            done = evaluation.completions(store, chosen, config)
            given.extend(evaluation.answers(arm, done, chosen, ENCODER, config))
        finish(run, config, given)
    return path


def finish(run: RunDirectory, config: Arc1Config, given: list[evaluation.Answer]) -> None:
    statuses = ("passed", "wrong", "infrastructure_error", "wrong")
    of_task = dict(zip((p.task_id for p in load_problems()[:4]), statuses, strict=True))
    executions = {
        (a.item.problem.task_id, a.code_sha): Execution(of_task[a.item.problem.task_id], "")
        for a in given
        if a.code_sha is not None
    }
    table = evaluation.results(given, executions)
    records = evaluation.item_records(given, executions, table)
    evaluation.write_items(run.path / ITEMS, records)
    compared = compare(table["base"], table["trained"], load_gates(),
                       base_settings="s", edited_settings="s")  # fmt: skip
    metrics = build(config, run.manifest(), Found(compared, {}), None)
    run.write_json(METRICS, metrics.model_dump(mode="json"))


@pytest.fixture
def results(tmp_path) -> Results:
    return read(write_run(tmp_path / "runs" / "one"))


def test_a_set_an_arm_and_budget(results):
    assert results.format == "threearc run"
    assert [(s.arm, s.n_predict, s.task, s.role, s.family) for s in results.sets] == [
        (arm, n, "HumanEval", Role.TEST, None) for arm in ("base", "trained") for n in (64, 128)
    ]


def test_finish_reasons_and_tokens_are_those_at_each_budget(results):
    for one in results.sets:
        assert [i.finish_reason for i in one.items] == ["stop", "stop", "stop", "length"]
        assert one.stores_finish_reasons()
        length = len(CODE) + 1
        assert [i.generated_tokens for i in one.items] == [
            length, length + 1, length + 2, one.n_predict,
        ]  # fmt: skip


def test_an_infrastructure_error_is_missing_and_the_tests_are_the_instrument(results):
    one = results.sets[0]
    assert one.values("passed") == [True, False, None, False]
    assert one.values("outcome")[:3] == ["passed", "wrong", None]
    # a run without a time-out is nothing to look into, so no outcome is declared
    assert one.instruments["outcome"].classes is None
    assert one.instruments["passed"].prompt_sha is not None
    assert "bubblewrap" in one.instruments["passed"].judge


def test_prompts_come_from_the_data_set_only_where_it_is_the_same(results, tmp_path):
    assert results.sets[0].items[0].prompt == load_problems()[0].prompt
    path = write_run(tmp_path / "other")
    stated = json.loads((path / "manifest.json").read_text())
    stated["evaluation"]["dataset_sha256"] = "another"
    (path / "manifest.json").write_text(json.dumps(stated))
    assert read(path).sets[0].items[0].prompt is None


def test_settings_are_the_same_in_both_arms_but_for_the_edit(results):
    base, trained = results.sets[0], results.sets[2]
    assert base.settings == trained.settings
    assert base.settings["engine.file_type"] == "Q8_0"
    assert not any("adapter" in name for name in base.settings)


def test_reported_rates_have_intervals_and_no_claim_repeats_the_comparison(results):
    (rate,) = results.sets[0].reported
    assert (rate.name, rate.has_interval) == ("pass@1", True)
    assert rate.value == pytest.approx(1 / 3)  # the infrastructure error is in no rate
    assert results.claims == ()


def test_a_folder_of_runs_makes_a_family_a_run_and_names_the_unfinished(tmp_path):
    write_run(tmp_path / "one")
    write_run(tmp_path / "two")
    RunDirectory.create(tmp_path / "three", manifest(resolve({}))).close()
    found = read(tmp_path)
    assert set(found.families()) == {"one", "two"}
    assert len(found.sets) == 8
    assert found.skipped == (f"{tmp_path / 'three'}: no items.jsonl, the run is not finished",)


def test_a_run_of_arc2_with_seeds_is_finished_and_one_without_answers_is_damaged(tmp_path):
    config = {"temperature": 0.7, "seeds": [1000, 1001, 1002]}
    RunDirectory.create(tmp_path / "x", {"arc": "arc2", "config": config}).close()
    with pytest.raises(UserError, match=r"no metrics.json yet; finish it with threearc arc2 --run"):
        read(tmp_path / "x")
    metrics = {"sweep": [{"point": "base", "lambda": 1.0, "arm": "base"}], "rankings": {},
               "cohorts": {"lacking": 1, "having": 1}}  # fmt: skip
    (tmp_path / "x" / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(UserError, match=r"no answers of the unchanged model .*damaged"):
        read(tmp_path / "x")
    row = json.dumps({"item_id": "a", "finish_reason": "stop", "ids": [1, 2]}) + "\n"
    for seed in config["seeds"]:
        (tmp_path / "x" / f"answers.base.seed{seed}.jsonl").write_text(row)
    found = read(tmp_path / "x")
    assert [one.name for one in found.sets] == [f"x base (seed {s})" for s in config["seeds"]]
    assert [len(one.items) for one in found.sets] == [1, 1, 1] and len(found.interventions) == 3


def test_an_unfinished_run_says_how_to_finish_it(tmp_path):
    RunDirectory.create(tmp_path / "x", manifest(resolve({}))).close()
    with pytest.raises(UserError, match="finish it with threearc arc1 --run"):
        read(tmp_path / "x")


def test_damage_is_one_line_with_its_place(tmp_path):
    path = write_run(tmp_path / "x")
    text = (path / ITEMS).read_text().splitlines()
    (path / ITEMS).write_text("\n".join([text[0], text[1][:50], *text[2:]]))
    with pytest.raises(UserError, match=r"items\.jsonl:2: not JSON"):
        read(path)
    (path / ITEMS).write_text("\n".join([*text, text[0]]))
    with pytest.raises(UserError, match=r"\(base, n_predict 64\): 1 item ids"):
        read(path)
    record = json.loads(text[0])
    del record["truncated"]
    (path / ITEMS).write_text(json.dumps(record))
    with pytest.raises(UserError, match="lacks 'truncated'"):
        read(path)


def test_without_the_decodes_only_a_cut_is_known(tmp_path):
    path = write_run(tmp_path / "x")
    (path / "base.completions.jsonl").unlink()
    one = read(path).sets[0]
    assert [i.finish_reason for i in one.items] == [None, None, None, "length"]
    assert all(i.generated_tokens is None for i in one.items)


def test_records_that_contradict_one_another_give_no_reason(tmp_path):
    path = write_run(tmp_path / "x")
    records = [json.loads(line) for line in (path / ITEMS).read_text().splitlines()]
    for record in records:
        record["truncated"] = False  # though the decode itself ran out of its budget
    (path / ITEMS).write_text("".join(json.dumps(record) + "\n" for record in records))
    assert [i.finish_reason for i in read(path).sets[0].items] == ["stop", "stop", "stop", None]
