"""Problems that were trained on: refused before training and at evaluation, INVALID if allowed."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcs.arc1.problems import choose
from arcs.claims import ReasonCode, Verdict
from arcs.gates import load_gates
from arcs.trained_on import (
    KEY,
    Shared,
    describe,
    examine,
    recorded_overlap,
    shared_prompts,
    wordings,
)
from arcs.training_data import (
    Record,
    built_in_paths,
    built_in_preference_paths,
    load,
    load_preferences,
)
from arcs.verdicts import compare
from backends.interface import LoraConfig
from backends.lora import save_adapter
from evals.benchmarks import load_benchmark
from evals.humaneval.outcomes import ItemResult, Outcome
from evals.humaneval.problems import Problem, load_problems
from evals.humaneval.prompts import chat_instruction
from models.errors import UserError
from tests.support.arc1_bench import Bench
from tests.support.command_line import call_here

PROBLEMS = load_problems()
ASKED = wordings(PROBLEMS)


def record(name: str, prompt: str) -> Record:
    return Record(id=name, prompt=prompt, response="An answer.")


def docstring(problem: Problem) -> str:
    return ast.get_docstring(ast.parse(problem.prompt + "    pass").body[-1]) or ""  # type: ignore[arg-type]


def test_exact_and_near_prompts_are_found_however_they_are_wrapped() -> None:
    records = [
        record("shouted", PROBLEMS[7].prompt.upper()),
        record("chat", chat_instruction(PROBLEMS[3])),
        record("asked", "Please solve this in Python:\n" + PROBLEMS[11].prompt),
        record("told", "Write a function that does this. " + docstring(PROBLEMS[5])),
        record("other", "Write a function that rounds each price to the next 5 cents."),
    ]
    found = shared_prompts(records, ASKED)
    by_problem = {one.item: (one.record, one.how) for one in found}
    assert by_problem["HumanEval/7"] == ("shouted", "exact")
    assert by_problem["HumanEval/3"] == ("chat", "exact")
    assert by_problem["HumanEval/11"] == ("asked", "near")
    assert by_problem["HumanEval/5"] == ("told", "near")
    assert "other" not in {one.record for one in found}
    assert [one.item for one in found] == sorted(
        (one.item for one in found), key=lambda task: int(task.split("/")[1])
    )


def test_what_ships_shares_no_prompt_with_humaneval() -> None:
    rows = [*load(built_in_paths()), *load_preferences(built_in_preference_paths())]
    assert shared_prompts(rows, ASKED) == []


def test_a_refusal_names_the_pairs_and_the_way_out() -> None:
    said: list[str] = []
    found = [Shared(p.task_id, "exact", f"r{i}", 1.0) for i, p in enumerate(PROBLEMS[:5])]
    with pytest.raises(UserError) as caught:
        examine("the training data", found, ASKED, allowed=False, say=said.append)
    line = str(caught.value)
    assert "5 of the 164" in line and "HumanEval/0 is 'r0'; HumanEval/1 is 'r1'" in line
    assert "and 2 more" in line and "--allow-overlap" in line and "\n" not in line
    assert not said
    entry = examine("the training data", found, ASKED, allowed=True, say=said.append)
    assert len(entry["shared"]) == 5 and entry["known"] is True
    assert said[0].startswith("WARNING") and "INVALID" in said[0]
    entry = examine("--adapter x", None, ASKED, allowed=False, say=said.append)
    assert entry == {"known": False, "shared": []} and "is not known" in said[1]
    examine("--adapter x", [], ASKED, allowed=False, say=said.append)
    assert len(said) == 2  # nothing is wrong: nothing is said


@pytest.fixture
def adapter(tmp_path: Path, tiny_directory) -> Any:
    """``adapter(extra)``: a saved adapter with this in its sidecar."""
    base = tiny_directory("llama")
    name = "model.layers.0.self_attn.q_proj"
    weights = {f"{name}.lora_A": np.ones((2, 64), np.float32),
               f"{name}.lora_B": np.ones((64, 2), np.float32)}  # fmt: skip

    def make(extra: dict[str, Any]) -> Path:
        path = tmp_path / "adapter"
        save_adapter(path, LoraConfig(2, 4.0), weights, base, extra)
        return path

    return make


def test_an_adapter_tells_what_it_was_trained_on(adapter: Any) -> None:
    shared = {"HumanEval": [Shared("HumanEval/9", "near", "r", 0.5).to_json()]}
    told = describe([PROBLEMS[2].prompt.lower(), chat_instruction(PROBLEMS[4]), "Hello?"], shared)
    assert told["prompts"] == 3 and PROBLEMS[2].entry_point not in json.dumps(told)
    path = adapter({KEY: told})
    found = recorded_overlap(path, "HumanEval", ASKED)
    assert found is not None
    assert [(one.item, one.how) for one in found] == [
        ("HumanEval/2", "hash"), ("HumanEval/4", "hash"), ("HumanEval/9", "recorded"),
    ]  # fmt: skip
    # what was found is of one benchmark; what the hashes say is of any
    assert len(recorded_overlap(path, "other", ASKED) or ()) == 2
    assert recorded_overlap(path, "HumanEval", wordings(PROBLEMS[20:])) == []


def test_an_adapter_that_says_nothing_is_not_taken_for_clean(adapter: Any) -> None:
    assert recorded_overlap(adapter({}), "HumanEval", ASKED) is None
    path = adapter({})
    (path / "threearc_adapter.json").unlink()
    assert recorded_overlap(path, "HumanEval", ASKED) is None


@pytest.mark.parametrize(
    "change",
    [{"hashes": "00"}, {"schema": "other"}, {"hashes": 3}, {"shared": None}, {"prompts": None}],
)
def test_a_damaged_record_is_one_line(adapter: Any, change: dict[str, Any]) -> None:
    path = adapter({KEY: {**describe(["Hello?"], {}), **change}})
    with pytest.raises(UserError, match=r"training prompts .* is damaged") as caught:
        recorded_overlap(path, "HumanEval", ASKED)
    assert "\n" not in str(caught.value)


def test_a_claim_on_trained_items_is_invalid_whatever_the_statistic_says() -> None:
    def arm(passes: int) -> dict[int, list[ItemResult]]:
        kinds = [Outcome.PASSED] * passes + [Outcome.WRONG] * (164 - passes)
        return {512: [ItemResult(f"t{i}", kind, False, False, str(i))
                      for i, kind in enumerate(kinds)]}  # fmt: skip

    def claim(**more: Any) -> Any:
        same = {"base_settings": "s", "edited_settings": "s", **more}
        return compare(arm(20), arm(90), load_gates(), **same).claim

    assert claim().verdict is Verdict.SUPPORTED
    invalid = claim(trained_on_test=True)
    assert (invalid.verdict, invalid.reasons) == (
        Verdict.INVALID, (ReasonCode.TRAIN_TEST_OVERLAP,),
    )  # fmt: skip
    assert invalid.statistic.verdict is Verdict.SUPPORTED


# The commands -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Training data of which one record is a problem that ``--limit 3`` evaluates."""
    made = Bench(tmp_path_factory.mktemp("overlap"))
    leak = {
        "id": "leak",
        "prompt": choose(load_benchmark("humaneval"), 3)[1].prompt,
        "response": "Here it is.",
    }
    with made.data.open("a") as stream:
        stream.write(json.dumps(leak) + "\n")
    return made


def call(bench: Bench, *argv: str) -> subprocess.CompletedProcess[str]:
    return call_here(*argv, THREEARC_CACHE=str(bench.root / "cache"))


def test_a_leak_is_refused_before_training_and_at_every_later_evaluation(bench: Bench) -> None:
    """One run of the real commands, since what they hand to each other is what is tested."""
    pytest.importorskip("torch")
    pytest.importorskip("llama_cpp")
    task = choose(load_benchmark("humaneval"), 3)[1].task_id
    out, arc1 = bench.root / "run", bench.fresh(bench.root / "run")[1:]
    refused = call(bench, *arc1)
    assert refused.returncode == 2 and not refused.stdout and not out.exists()
    assert f"1 of the 3 problems that are evaluated are among the training prompts ({task} is " in (
        refused.stderr
    )
    assert "'leak'" in refused.stderr.splitlines()[-1]

    allowed = call(bench, *arc1, "--epochs", "1", "--allow-overlap")
    assert allowed.returncode == 0, allowed.stderr
    assert "WARNING: the training data: 1 of the 3" in allowed.stderr
    metrics = json.loads(allowed.stdout)
    assert metrics["claim"]["verdict"] == "INVALID"
    assert "train_test_overlap" in metrics["claim"]["reasons"]
    assert metrics["made_with"]["overlap"]["shared"][0]["record"] == "leak"
    carried = json.loads((out / "adapter" / "threearc_adapter.json").read_text())["extra"][KEY]
    assert carried["prompts"] == 7  # held-out prompts are not trained on
    assert carried["shared"] == {"HumanEval": [task]}

    eval_ = ("eval", "humaneval", "--adapter", str(out / "adapter"), "--model", str(bench.model),
             "--limit", "3", "--prompt-style", "raw", "--threads", "1", "--json",
             "--n-predict", "6", "--out", str(bench.root / "eval"))  # fmt: skip
    again = call(bench, *eval_)
    assert again.returncode == 2 and f"({task})" in again.stderr and not again.stdout
    again = call(bench, *eval_, "--allow-overlap")
    assert again.returncode == 0, again.stderr
    edit = json.loads(again.stdout)["quantisations"]["q8_0"]["adapter"]
    assert edit["comparison"]["claim"]["reasons"] == ["train_test_overlap"]

    shown = call(bench, "adapters", "show", str(out / "adapter"))
    assert "hashes of 7 prompts" in shown.stdout and carried["hashes"] not in shown.stdout
