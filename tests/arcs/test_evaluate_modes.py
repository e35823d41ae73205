"""``threearc eval``'s ways to decode: samples, stop strings, a shared prefix, --fast; in process.

A tiny random model in F16, chat prompts unless said otherwise. What is killed is what a kill
leaves: whole lines, and no result.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("llama_cpp")


from arcs.arc1 import problems
from arcs.cli.evaluate import _escapes
from arcs.evaluate import command
from arcs.evaluate.config import as_begun, parse
from arcs.evaluate.fast import changed_texts, spread
from arcs.evaluate.prefix import template_prefix
from arcs.evaluate.report import report
from arcs.report.kinds import view_of
from backends.interface import Completion
from backends.llamacpp.context import describe_prefix
from evals.benchmarks import load_benchmark
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.errors import UserError
from models.store import prepare
from tests.support.printed import printed
from tests.support.report_links import check_counts
from tests.support.tiny_models import build_tiny

SAMPLED: dict[str, Any] = {"samples": 3, "temperature": 1.5, "top_p": 0.98, "seed": 5}
ESCALATED: dict[str, Any] = {**SAMPLED, "samples": 2, "limit": 6, "prompt_style": "raw"}


class Tiny:
    """One model and the runs made of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = build_tiny("llama", root / "model", max_position_embeddings=4096)
        self.encoder = ChatEncoder(prepare(str(self.model), say=lambda _: None))

    def start(self, out: str, **flags: Any) -> dict[str, Any]:
        given = {
            "model": str(self.model), "limit": 4, "n_predict": (6, 20), "threads": 1,
            "quantisations": ("f16",), "tempers": ("L0H1=0.3",), **flags,
        }  # fmt: skip
        command.start(given, out=self.root / out, run=None, as_json=True)
        return self.read(out, "metrics.json")

    def go_on(self, out: str) -> dict[str, Any]:
        command.start({}, out=None, run=self.root / out, as_json=True)
        return self.read(out, "metrics.json")

    def read(self, out: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / out / name).read_text())
        return found

    def records(self, out: str, stage: str = "f16.base.20") -> list[dict[str, Any]]:
        path = self.root / out / f"{stage}.completions.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def texts(self, out: str, stage: str = "f16.base.20") -> dict[tuple[str, int], list[int]]:
        records = self.records(out, stage)
        return {(one["item_id"], one.get("sample", 0)): one["ids"] for one in records}

    def killed(self, out: str, copy: str, keep: int = 2) -> Path:
        """What is left of ``out`` after a kill in the decode of the last arm."""
        folder = self.root / copy
        shutil.copytree(self.root / out, folder)
        (folder / "metrics.json").unlink()
        (folder / "items.jsonl").unlink()
        (last,) = folder.glob("f16.L0H1*.20.completions.jsonl")
        last.write_bytes(b"".join(last.read_bytes().splitlines(keepends=True)[:keep]))
        return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    patch = pytest.MonkeyPatch()
    root = tmp_path_factory.mktemp("modes")
    patch.setenv("THREEARC_CACHE", str(root / "cache"))
    yield Tiny(root)
    patch.undo()


@pytest.fixture(scope="module")
def plain(tiny: Tiny) -> dict[str, Any]:
    return tiny.start("plain")


@pytest.fixture(scope="module")
def sampled(tiny: Tiny) -> dict[str, Any]:
    return tiny.start("sampled", **SAMPLED)


@pytest.fixture(scope="module")
def fast(tiny: Tiny) -> dict[str, Any]:
    return tiny.start("fast", fast=True)


@pytest.fixture(scope="module")
def steps(tiny: Tiny) -> dict[str, Any]:
    """Two samples of six answers, continued from 10 tokens to 20."""
    return tiny.start("steps", **ESCALATED, n_predict=(10,), escalate=20)


# Settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"samples": 4}, "^--samples 4: greedy decoding draws nothing"),
        ({"top_p": 0.9}, "^--top-p 0.9: greedy decoding draws nothing"),
        ({"seed": 3}, "^--seed 3: greedy decoding draws nothing"),
        ({"samples": 0}, "^--samples"),
        ({"temperature": -1.0}, "temperature is -1.0: it must be at least 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p is 0.0: it must be above 0"),
        ({"stops": ("",)}, "^--stop: an empty text"),
        ({"stops": ("a", "a")}, "^--stop: a is given twice"),
        ({"fast": True, "share_prefix": True}, "^--share-prefix needs the repeatable mode"),
    ],
)
def test_what_cannot_be_is_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse(values)
    assert "\n" not in str(caught.value)


def test_a_penalty_is_for_greedy_decoding_as_well() -> None:
    assert parse({"repetition_penalty": 1.2}).sampling.greedy


def test_escapes_of_stop_texts() -> None:
    assert _escapes("\\nclass\\t\\\\x") == "\nclass\t\\x"
    for wrong in ("\\x", "end\\"):
        with pytest.raises(UserError, match=r"--stop .*: write"):
            _escapes(wrong)


# The shared prefix -----------------------------------------------------------------------------


def test_the_prefix_is_the_templates_and_every_prompt_begins_with_it(
    smollm_directory: ModelDirectory, tiny: Tiny
) -> None:
    for encoder in (ChatEncoder(smollm_directory), tiny.encoder):
        prefix = template_prefix(encoder, "chat")
        assert len(prefix) > 30
        for problem in problems.choose(load_benchmark("humaneval"), 30):
            assert problems.encode(encoder, problem, "chat").prompt.ids[: len(prefix)] == prefix
        assert template_prefix(encoder, "raw") == ()


def test_texts_behind_it_do_not_depend_on_the_limit(tiny: Tiny, plain: Mapping[str, Any]) -> None:
    tiny.start("fewer", limit=2)
    fewer, more = tiny.texts("fewer"), tiny.texts("plain")
    assert len(fewer) == 2 and fewer == {key: more[key] for key in fewer}


def test_it_is_recorded_where_it_is_and_where_it_is_not(
    tiny: Tiny, plain: Mapping[str, Any]
) -> None:
    prefix = describe_prefix(template_prefix(tiny.encoder, "chat"))
    made = tiny.read("plain", "manifest.json")
    assert made["shared_prefix"] == made["engine.f16.base.20"]["shared_prefix"] == prefix
    for name, flags in (("unshared", {"share_prefix": False}), ("raw", {"prompt_style": "raw"})):
        tiny.start(name, limit=1, **flags)
        made = tiny.read(name, "manifest.json")
        assert made["shared_prefix"] is None
        assert "shared_prefix" not in made["engine.f16.base.20"]


def test_a_run_older_than_the_prefix_goes_on_without_one(tiny: Tiny) -> None:
    expected = tiny.start("older", share_prefix=False)
    folder = tiny.killed("older", "older_killed")
    manifest = tiny.read("older_killed", "manifest.json")
    new = ("share_prefix", "fast", "samples", "temperature", "stops", "logprobs", "seed")
    for key in new:
        del manifest["config"][key]
    del manifest["shared_prefix"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert parse(as_begun(manifest["config"])).shares_prefix is False
    assert tiny.go_on("older_killed") == expected
    assert tiny.texts("older_killed") == tiny.texts("older")


# Samples ---------------------------------------------------------------------------------------


def test_samples_are_kept_apart_and_judged_by_item(tiny: Tiny, sampled: Mapping[str, Any]) -> None:
    texts = tiny.texts("sampled")
    assert {sample for _, sample in texts} == {0, 1, 2} and len(texts) == 12
    assert len(set(map(tuple, texts.values()))) == 12
    found = sampled["quantisations"]["f16"]["L0H1=0.3"]
    at_20 = found["budgets"]["20"]
    assert (sampled["n_items"], at_20["n_items"], at_20["samples"]) == (4, 4, 3)
    assert set(at_20["pass_at_k"]) == {"1", "2", "3"}
    assert found["comparison"]["claim"]["null"].startswith("an item's difference")
    items = [json.loads(line) for line in (tiny.root / "sampled/items.jsonl").open()]
    assert len(items) == 3 * 2 * 4 * 3  # conditions, budgets, problems, samples
    assert {one.get("sample", 0) for one in items} == {0, 1, 2}
    view = view_of(tiny.root / "sampled")
    assert len(view.items) == 12 and check_counts(view, differences=False) >= 6


def test_a_first_sample_is_what_one_sample_draws(tiny: Tiny, sampled: Mapping[str, Any]) -> None:
    tiny.start("one", **{**SAMPLED, "samples": 1}, limit=2, tempers=())
    several = tiny.texts("sampled")
    assert tiny.texts("one") == {key: several[key] for key in tiny.texts("one")}
    tiny.start("other_seed", **{**SAMPLED, "samples": 1, "seed": 6}, limit=2, tempers=())
    assert tiny.texts("other_seed") != tiny.texts("one")


def test_killed_samples_go_on_to_the_same_result(tiny: Tiny, sampled: Mapping[str, Any]) -> None:
    folder = tiny.killed("sampled", "sampled_killed", keep=5)
    assert tiny.go_on("sampled_killed") == sampled
    (stage,) = folder.glob("f16.L0H1*.20.completions.jsonl")
    name = stage.name.removesuffix(".completions.jsonl")
    assert tiny.texts("sampled_killed", name) == tiny.texts("sampled", name)


def test_escalated_samples_are_what_the_larger_budget_gives_at_once(
    tiny: Tiny, steps: Mapping[str, Any]
) -> None:
    assert steps["escalated"] == [20]
    tiny.start("once", **ESCALATED, n_predict=(10, 20))
    whole, continued = tiny.texts("once"), tiny.texts("steps")
    assert continued == {key: whole[key] for key in continued}
    assert {sample for _, sample in continued} == {0, 1}


def test_the_report_of_samples_is_whole_on_an_ordinary_terminal(
    sampled: Mapping[str, Any],
) -> None:
    text = printed(report(sampled))
    assert "pass@3" in text and "over problems" in text.replace("\n", " ")


# Stop strings and log-probabilities ------------------------------------------------------------


def test_a_text_ends_before_the_stop_that_begins_first(
    tiny: Tiny, plain: Mapping[str, Any]
) -> None:
    def answers(out: str) -> dict[str, str]:
        lines = [json.loads(line) for line in (tiny.root / out / "items.jsonl").open()]
        return {
            one["item_id"]: one["text"]
            for one in lines
            if one["arm"] == "f16.base" and one["n_predict"] == 20
        }

    free = answers("plain")
    item, text = max(free.items(), key=lambda pair: len(pair[1]))
    first, second = text[8:10], text[14:17]
    tiny.start("stopped", stops=(second, first))
    found = answers("stopped")
    for one, whole in free.items():
        places = [whole.find(stop) for stop in (first, second) if stop in whole]
        assert found[one] == whole[: min(places, default=len(whole))]
    assert len(found[item]) < len(text)
    ended = {one["item_id"]: one for one in tiny.records("stopped")}[item]
    assert ended["finish_reason"] == "stop" and len(ended["ids"]) < 20
    assert tiny.read("stopped", "metrics.json")["config"]["stops"] == [second, first]


def test_logprobs_are_in_the_records_and_change_nothing(
    tiny: Tiny, plain: Mapping[str, Any]
) -> None:
    tiny.start("logprobs", logprobs=True, limit=2, tempers=())
    for one in tiny.records("logprobs"):
        assert len(one["logprobs"]) == len(one["ids"]) == 20
        # the shortest digits of a float32
        assert all(
            value < 0 and value == float(str(np.float32(value))) for value in one["logprobs"]
        )
        assert tiny.texts("plain")[one["item_id"], 0] == one["ids"]
    assert all("logprobs" not in one for one in tiny.records("plain"))


# --fast ----------------------------------------------------------------------------------------


def done(item: str, *ids: int) -> Completion:
    return Completion(item, (1,), ids, "length", 0.0)


def test_changed_texts_are_counted_over_their_first_ids() -> None:
    repeatable = {"a": done("a", 1, 2, 3), "b": done("b", 1, 2, 3), "c": done("c", 4, 5, 6)}
    fast = {"a": done("a", 1, 2, 3, 9), "b": done("b", 1, 7, 3, 9), "c": done("c", 4, 5, 6, 7)}
    found = changed_texts(repeatable, fast, 3)
    assert (found["compared"], found["changed"], found["tokens"]) == (3, 1, 3)
    assert found["first_difference"] == {"b": 1}
    assert found["interval"]["low"] < 1 / 3 < found["interval"]["high"]


def test_the_sample_is_spread_evenly() -> None:
    assert spread(range(160)) == tuple(range(0, 160, 10))
    assert spread(range(5)) == tuple(range(5))
    assert len(set(spread(range(164)))) == 16


def test_fast_is_measured_recorded_and_said(
    tiny: Tiny, fast: Mapping[str, Any], plain: Mapping[str, Any]
) -> None:
    metrics = fast
    made = tiny.read("fast", "manifest.json")
    assert made["engine.f16.base.20"]["kv_unified"] is True
    assert made["engine.f16.base.repeatable"]["kv_unified"] is False
    assert made["shared_prefix"] is None
    for name, found in metrics["quantisations"]["f16"].items():
        cost = found["fast"]
        assert (cost["compared"], cost["tokens"], cost["continued"]) == (4, 20, False), name
        assert 0 <= cost["share"] <= 1 and cost["sittings"] == 1
    repeatable = tiny.texts("fast", "f16.base.repeatable")
    differing = sum(ids != repeatable[key] for key, ids in tiny.texts("fast").items())
    assert metrics["quantisations"]["f16"]["base"]["fast"]["changed"] == differing
    said = " ".join(printed(report(metrics)).split())
    assert "texts depend on what is decoded beside them; of 4 texts" in said
    assert all(one["fast"] is None for one in plain["quantisations"]["f16"].values())


def test_a_continued_fast_run_says_so(tiny: Tiny, fast: Mapping[str, Any]) -> None:
    kept = tiny.texts("fast")
    tiny.killed("fast", "fast_killed")
    metrics = tiny.go_on("fast_killed")
    assert tiny.texts("fast_killed") == kept
    edited = metrics["quantisations"]["f16"]["L0H1=0.3"]["fast"]
    assert edited["sittings"] == 2 and edited["continued"]
    assert not metrics["quantisations"]["f16"]["base"]["fast"]["continued"]
    assert "It was continued" in " ".join(printed(report(metrics)).split())


# Room ------------------------------------------------------------------------------------------


def test_the_context_is_the_longest_prompt_and_the_budget_of_the_stage(
    tiny: Tiny, steps: Mapping[str, Any]
) -> None:
    """Escalation takes no memory before it comes to it."""
    longest = max(
        len(problems.encode(tiny.encoder, one, "raw").prompt.ids)
        for one in problems.choose(load_benchmark("humaneval"), None)
    )
    made = tiny.read("steps", "manifest.json")
    for budget in (10, 20):
        context = made[f"engine.f16.base.{budget}"]["context"]
        assert 0 <= context - (longest + budget) < problems.CONTEXT_STEP
