"""``threearc paper`` end to end on tiny models: stages are runs, a kill changes nothing."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from arcs.paper.recipe import recipes
from tests.support.command_line import call_here
from tests.support.kills import kill_in
from tests.support.paper_bench import quick, run
from tests.support.qwen_template import QWEN
from tests.support.tiny_models import build_tiny

pytestmark = pytest.mark.slow
THREEARC = str(Path(sys.executable).parent / "threearc")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("paper")


def test_arc3_recipe_whole_and_after_a_kill(root: Path, paper_artifacts: Path):
    model = build_tiny("llama", root / "llama", max_position_embeddings=4096)
    more = ("--only", "arc3,falsify", "--artifacts", str(paper_artifacts))
    whole = run(root, quick(model, "smollm2-1.7b", root / "whole", *more))
    states = {one["name"]: one["state"] for one in whole["stages"]}
    assert states.pop("humaneval") == "left out"
    assert states == dict.fromkeys(("prompts-step16", "prompts-fresh", "arc3", "falsify"),
                                   "finished")  # fmt: skip
    asserted = next(row for row in whole["rows"] if row["stage"] == "prompts-step16")
    assert "n_predict 96 for 512" in asserted["substituted"]
    assert not any("questions that ship for its prompts (" in one for row in whole["rows"]
                   if row["stage"] == "prompts-step16" for one in row["substituted"])  # fmt: skip
    prompts = (root / "whole/prompts/paper_step16.jsonl").read_text().splitlines()
    assert len(prompts) == 100
    right = next(row for row in whole["rows"] if row["quantity"] == "right answers, training set")
    assert right["ours"]["value"] == 0 and right["word"] == "outside"
    probe = next(row for row in whole["rows"] if row["quantity"].startswith("probe h_last"))
    assert probe["word"] == "not measured" and "no probe could be fitted" in probe["why_not"]

    environment = {**os.environ, "THREEARC_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1"}
    killed = root / "killed"
    command = [THREEARC, *quick(model, "smollm2-1.7b", killed, *more)]
    assert kill_in("arc3", command, environment, killed, delay=0.5)
    assert not (killed / "metrics.json").exists()
    moved = root / "moved"
    killed.rename(moved)  # paths into the run are found anew
    run(root, ["paper", "--run", str(moved), "--json"])
    assert (moved / "metrics.json").read_bytes() == (root / "whole/metrics.json").read_bytes()

    done = call_here("paper", "--run", moved, "--profile", "paper", cwd=root,
                     THREEARC_CACHE=str(root / "cache"))  # fmt: skip
    assert done.returncode == 2 and "--profile is quick in this run, not paper" in done.stderr


def test_arc1_recipe_trains_once_for_both_modes(root: Path, monkeypatch: Any):
    small = {"limit": 2, "n_predict": [4, 6, 8, 12], "train_limit": 4, "evaluation_limit": 1,
             "evaluation_n_predict": [8], "rank": 4, "max_length": 128}  # fmt: skip
    for stage in recipes()["Qwen3-0.6B"].stages:
        for key in small.keys() & {*stage.quick, *(() if stage.adapter_of else ("rank",))}:
            monkeypatch.setitem(stage.quick, key, small[key])
    model = build_tiny("qwen3", root / "qwen3", max_position_embeddings=8192, template=QWEN)
    found = run(root, quick(model, "qwen3-0.6b", root / "arc1"))
    states = {one["name"]: one["state"] for one in found["stages"]}
    assert states.pop("mcas") == "left out"  # no judge is named
    assert set(states.values()) == {"finished"}, found["stages"]
    stages = root / "arc1/stages"
    manifests = {path.name: json.loads((path / "manifest.json").read_text())
                 for path in stages.iterdir()}  # fmt: skip
    for name in ("all-modules", "attention"):
        assert manifests[name]["adapter"] == manifests[f"{name}-thinking"]["adapter"], name
        assert not (stages / f"{name}-thinking" / "train").exists()
    answers = {name: (stages / name / "base.completions.jsonl").read_bytes() for name in manifests}
    assert answers["all-modules"] == answers["attention"]
    assert answers["all-modules-thinking"] == answers["attention-thinking"]
    assert answers["all-modules"] != answers["all-modules-thinking"]
    rows = {(row["checkpoint"], row["stage"]) for row in found["rows"] if row["ours"]}
    assert ("SFT, all modules", "all-modules-thinking") in rows
    assert all("qwen3 for Qwen3-0.6B" in row["substituted"] for row in found["rows"]
               if row["ours"])  # fmt: skip


def test_a_stage_that_is_refused_is_said_and_tried_again(root: Path):
    """Arc 2 on a model that never asserts two things alike has no cohorts."""
    model = build_tiny("qwen3_5", root / "qwen3_5", max_position_embeddings=4096)
    out = root / "refused"
    found = run(root, quick(model, "qwen3.5-0.8b", out, "--only", "arc2"))
    (stage,) = [one for one in found["stages"] if one["name"] == "arc2-humble"]
    assert stage["state"] == "refused" and "cohorts" in stage["why"]
    rows = [row for row in found["rows"] if row["stage"] == "arc2-humble"]
    assert {row["word"] for row in rows} == {"not measured"}
    assert all("cohorts" in row["why_not"] for row in rows)
    again = run(root, ["paper", "--run", str(out), "--json"])
    assert again == found
