"""``threearc arc1 --escalate``: unfinished answers continued, equal to a larger budget at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("llama_cpp")

from arcs.arc1.command import start
from arcs.arc1.config import resolve
from arcs.arc1.stages import settings_sha256
from arcs.audits.readers import read
from arcs.escalation import join
from arcs.runs import RunDirectory
from backends.interface import Completion
from models.errors import UserError
from tests.support.eval_bench import Bench

ARMS = ("base", "trained")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    patch = pytest.MonkeyPatch()
    patch.setenv("THREEARC_CACHE", "")  # Bench sets it; the patch puts back what was there
    made = Bench(tmp_path_factory.mktemp("escalate"))
    patch.undo()
    return made


def run(bench: Bench, out: str, **more: Any) -> dict[str, Any]:
    """Six answers of the tiny model and its adapter, which are all unfinished."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THREEARC_CACHE", str(bench.cache))
        flags = {
            "model": str(bench.model), "adapter": bench.root / "edit", "limit": 6,
            "prompt_style": "raw", "threads": 1, "quantisation": "q8_0", "evaluations": (),
            **more,
        }  # fmt: skip
        start(flags, out=bench.root / out, run=None, as_json=True)
    found: dict[str, Any] = json.loads((bench.root / out / "metrics.json").read_text())
    return found


def again(bench: Bench, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THREEARC_CACHE", str(bench.cache))
        start({}, out=None, run=folder, as_json=True)


def records(path: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {one["item_id"]: (one["ids"], one["finish_reason"]) for one in lines}


@pytest.fixture(scope="module")
def steps(bench: Bench) -> dict[str, Any]:
    return run(bench, "steps", n_predict=(10,), escalate=40)


def test_escalation_gives_what_the_larger_budget_gives_at_once(
    bench: Bench, steps: dict[str, Any]
) -> None:
    """Every stored id, and every number at every budget, of answers continued 10, 20, 40."""
    assert steps["escalated"] == [20, 40] and steps["primary_n_predict"] == 40
    once = run(bench, "once", n_predict=(10, 20, 40))
    assert once["escalated"] == []
    for arm in ARMS:
        whole = records(bench.root / "once" / f"{arm}.completions.jsonl")
        continued = records(bench.root / "steps" / f"{arm}.40.completions.jsonl")
        assert continued and all(whole[item] == ids for item, ids in continued.items())
        # in one decode a loop runs on to the end of the budget, and here it is not continued
        loops = [item for item in whole if item not in continued and whole[item][1] == "length"]
        unseen = sum(40 - len(longest(bench.root / "steps", arm)[item]) for item in loops)
        assert steps["decoding"][arm]["tokens"] == once["decoding"][arm]["tokens"] - unseen
        assert steps["made_with"][f"engine_{arm}_40"]["context"]
    assert steps["budgets"] == once["budgets"] and steps["claim"] == once["claim"]


def test_a_continuation_generates_only_what_is_new(bench: Bench, steps: dict[str, Any]) -> None:
    timing = json.loads((bench.root / "steps" / "timing.json").read_text())["phases"]
    for arm in ARMS:
        stages = {
            n: records(bench.root / "steps" / f"{arm}.{n}.completions.jsonl") for n in (20, 40)
        }
        for n, before in ((20, 10), (40, 20)):
            new = sum(len(ids) - before for ids, _ in stages[n].values())
            assert timing[f"decode {arm} to {n}"]["counts"]["tokens"] == new > 0


def longest(folder: Path, arm: str) -> dict[str, list[int]]:
    """Ids of every answer of an arm, from the last stage that it was in."""
    found: dict[str, list[int]] = {}
    for stage in ("", ".20", ".40"):
        stored = records(folder / f"{arm}{stage}.completions.jsonl")
        found |= {item: ids for item, (ids, _) in stored.items()}
    return found


def test_a_run_killed_in_a_continuation_ends_in_the_same_bytes(
    bench: Bench, steps: dict[str, Any]
) -> None:
    whole, folder = bench.root / "steps", bench.root / "killed"
    shutil.copytree(whole, folder)
    stage = folder / "trained.40.completions.jsonl"
    lines = stage.read_bytes().splitlines(keepends=True)
    stage.write_bytes(lines[0] + lines[1][:20])
    (folder / "metrics.json").unlink()
    (folder / "items.jsonl").unlink()
    again(bench, folder)
    for name in ("metrics.json", "items.jsonl", stage.name):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_a_continuation_on_another_machine_stops_before_it_decodes(
    bench: Bench, steps: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(bench.root / "steps", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    for arm in ARMS:
        manifest[f"engine_{arm}"]["threads"] = 7
        for budget in (20, 40):
            del manifest[f"engine_{arm}_{budget}"]
            (folder / f"{arm}.{budget}.completions.jsonl").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="base was begun with threads 7 and would go on with 1"):
        again(bench, folder)
    assert not (folder / "base.20.completions.jsonl").exists()


def test_an_audit_reads_continued_answers_whole(bench: Bench, steps: dict[str, Any]) -> None:
    (base,) = (s for s in read(bench.root / "steps").sets if (s.arm, s.n_predict) == ("base", 40))
    ids = longest(bench.root / "steps", "base")
    assert {one.item_id: one.generated_tokens for one in base.items} == {
        item: len(found) for item, found in ids.items()
    }
    assert 40 in map(len, ids.values())


def test_arms_of_which_one_moved_in_a_later_stage_are_not_equal(tmp_path: Path) -> None:
    engine = {"threads": 2, "context": 256, "adapter_sha256": None}
    manifest: dict[str, Any] = {"evaluation": {}, "chat": {}, "sandbox": {}}
    for arm in ARMS:
        manifest |= {f"engine_{arm}": engine, f"engine_{arm}_20": {**engine, "context": 512}}
    with RunDirectory.create(tmp_path / "same", manifest) as same:
        assert settings_sha256(same, "base") == settings_sha256(same, "trained")
    manifest["engine_trained_20"] = {**engine, "threads": 1}
    with RunDirectory.create(tmp_path / "moved", manifest) as moved:
        assert settings_sha256(moved, "base") != settings_sha256(moved, "trained")


def test_near_ties_of_a_continued_answer_are_those_of_all_its_stages() -> None:
    def done(item: str, ids: int, ties: int | None) -> Completion:
        return Completion(item, (1,), tuple(range(ids)), "length", 0.0, near_ties=ties)

    found = {"a": done("a", 10, 2), "b": done("b", 10, None), "c": done("c", 10, 1)}
    join(found, {"a": done("a", 20, 3), "b": done("b", 20, 4), "new": done("new", 20, 5)})
    assert {key: (len(one.ids), one.near_ties) for key, one in found.items()} == {
        "a": (20, 5), "b": (20, None), "c": (10, 1), "new": (20, 5),
    }  # fmt: skip


@pytest.mark.parametrize("cap", [512, 1024])
def test_a_cap_that_leaves_no_room_is_one_line(cap: int) -> None:
    with pytest.raises(UserError, match=f"escalate: {cap} is not above the largest n_predict 1024"):
        resolve({"escalate": cap})


def test_a_cap_beyond_the_models_context_is_found_before_anything_is_decoded(
    bench: Bench,
) -> None:
    with pytest.raises(UserError, match=r"--escalate 9000: .* has 4096; lower --escalate"):
        run(bench, "mistake", n_predict=(10,), escalate=9000)
    assert not (bench.root / "mistake").exists()
