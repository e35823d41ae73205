"""``threearc paper --judge``: who is asked, what it may cost, and what its rows say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from arcs.judging.opening import JudgeOptions
from arcs.measure.judged import JudgeSettings
from arcs.paper import runners
from arcs.paper.command import _judging
from arcs.paper.config import PaperConfig, resolve
from arcs.paper.forecast import forecast
from arcs.paper.plan import UNKNOWN_YET, Plan, plan
from arcs.paper.recipe import recipes
from arcs.paper.runners import run_stage
from arcs.paper.table import NOT_MEASURED, OUTSIDE, WITHIN, rows
from arcs.progress import Reporter
from arcs.runs import RunDirectory
from evals.mcas import AXES
from models.errors import UserError
from tests.support.chat_server import said, serving
from tests.support.command_line import call_here
from tests.support.measure_bench import MeasureBench

MODEL, JUDGE = "Qwen3-0.6B", "api:http://h/v1#m"
RECIPE = recipes()[MODEL]
NAMES = ("mcas.holistic", "delivery", *AXES)


def planned(tiny_directory: Any, **more: Any) -> tuple[Plan, Any]:
    directory = tiny_directory("qwen3", max_position_embeddings=8192)
    config = PaperConfig(model=directory.source, recipe=MODEL, **more)
    return plan(config, RECIPE, directory, "torch"), directory


def test_mcas_is_a_stage_where_a_judge_is_named_and_only_there(tiny_directory: Any):
    without, _ = planned(tiny_directory)
    assert "name one with --judge" in without.left_out["mcas"]
    found, directory = planned(tiny_directory, judge=JUDGE, judge_max_tokens=900)
    stage = found.stage("mcas")
    assert stage is not None and "mcas" not in found.left_out
    assert (stage.config.judge, stage.config.judge_max_tokens) == (JUDGE, 900)
    assert (stage.config.adapters, stage.config.budgets) == ((UNKNOWN_YET,), (1024,))
    assert all(one.config.judge is None for one in found.stages if one.name != "mcas")
    assert set(found.stage("all-modules").training) <= set(stage.training)  # type: ignore[union-attr]
    more = forecast(found, directory, "torch").seconds - forecast(
        without, directory, "torch").seconds  # fmt: skip
    assert more > 0
    with pytest.raises(UserError, match="the lexical judge cannot apply MCAS"):
        planned(tiny_directory, judge="lexical")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"model": "smollm2-1.7b", "judge": JUDGE},
         "--judge: nothing that is run here needs one (arc1 of qwen3-0.6b does)"),
        ({"model": "qwen3-0.6b", "judge": "oracle"}, "--judge oracle: give lexical, gguf"),
        ({"model": "qwen3-0.6b", "judge_threads": 2}, "--judge-threads: it is of a --judge"),
        ({"model": "qwen3-0.6b", "judge": JUDGE, "judge_max_tokens": 0}, "--judge-max-tokens"),
    ],
)  # fmt: skip
def test_a_judge_that_nobody_asks_is_one_line(flags: dict[str, Any], said: str):
    with pytest.raises(UserError) as error:
        resolve(flags)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_options_of_a_judge_that_is_not_named_are_one_line(tiny_directory: Any):
    without, _ = planned(tiny_directory)
    assert _judging(without, None, None) is None
    for options, cache, flag in (
        (JudgeOptions(below_bar=True), None, "--judge-below-bar"),
        (None, Path("labels"), "--judge-cache"),
    ):
        with pytest.raises(UserError, match=f"{flag}: it is of a --judge; name one"):
            _judging(without, options, cache)
    found, _ = planned(tiny_directory, judge=JUDGE, judge_max_tokens=900)
    asked = _judging(found, JudgeOptions(tries=2), Path("labels"))
    assert asked == JudgeSettings(JUDGE, JudgeOptions(tries=2, max_tokens=900), Path("labels"))
    recorded, _ = planned(tiny_directory, judge="recorded:labels.jsonl")
    with pytest.raises(UserError, match="--judge-cache: no api or gguf judge"):
        _judging(recorded, None, Path("labels"))


def measured(failing: str = "") -> dict[str, Any]:
    """What ``measure mcas`` found of both conditions, as far as it is read."""
    interval = {"low": 40.0, "high": 60.0, "level": 0.95}
    scores = {"original_percent": {"value": 50.0, "n": 8, "interval": interval},
              "penalised_percent": {"value": 40.0, "n": 8, "interval": interval},
              "out_of_25": {"value": 12.0, "n": 8,
                            "interval": {"low": 11.0, "high": 13.0, "level": 0.95}}}  # fmt: skip
    verified = {"all": {"precise": {"value": 0.5, "n": 8, "interval": None}}}
    small = {"all": {"all": {one: {"value": 0.0, "n": 1, "interval": None} for one in scores}},
             "self_verification": verified}  # fmt: skip
    at = {"512": small, "1024": {"all": {"all": scores}, "self_verification": verified}}
    return {"conditions": {one: {"result": {"budgets": at}} for one in ("base", "adapter")},
            "judge": {"validity": {one: {"passes": one != failing} for one in NAMES}},
            "self_verification": None}  # fmt: skip


@pytest.mark.parametrize(
    ("failing", "words"),
    [
        ("", {"MCAS as first scored": [WITHIN, OUTSIDE], "MCAS of 25": [WITHIN]}),
        ("mcas.holistic", {"MCAS as first scored": [NOT_MEASURED] * 2, "MCAS of 25": [WITHIN]}),
        (AXES[0], {"MCAS as first scored": [WITHIN, OUTSIDE], "MCAS of 25": [NOT_MEASURED]}),
    ],
)
def test_rows_of_mcas_hold_a_judge_to_its_bar(
    failing: str, words: dict[str, list[str]], tiny_directory: Any
):
    found, _ = planned(tiny_directory, judge=JUDGE)
    refused = {one.name: "not here" for one in found.stages if one.name != "mcas"}
    made = [one for one in rows(RECIPE, found, {"mcas": measured(failing)}, refused)
            if one["stage"] == "mcas"]  # fmt: skip
    for quantity, wanted in words.items():
        assert [one["word"] for one in made if one["quantity"] == quantity] == wanted
    first, edited, of_25 = (one["ours"] for one in made)
    assert (
        first == edited
    )  # whichever is read, it is the condition's own; a share, not a percentage
    assert first == {"value": 0.5, "n": 8, "interval": {"low": 0.4, "high": 0.6, "level": 0.95}}
    assert of_25["value"] == 12.0
    assert "answered without thinking" in made[0]["substituted"]
    assert "AdamW for APOLLO-Mini" not in made[0]["substituted"]  # of the base
    assert "AdamW for APOLLO-Mini" in made[1]["substituted"]


@pytest.mark.parametrize("lacking", [False, True])
def test_the_judge_reaches_its_stage_with_what_is_left_of_the_budget(
    lacking: bool, tiny_directory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from arcs.measure import pipeline

    asked: list[Any] = []

    def measure(config: Any, run: RunDirectory, _: Any, judging: Any) -> None:
        asked.append((config.adapters, judging))
        statuses = {"statuses": {"ok": 2, "error": int(lacking)}}
        run.write_json("metrics.json", {"judge": None, "conditions": {
            "base": {"labels": {"delivery": statuses}}}})  # fmt: skip

    monkeypatch.setattr(pipeline, "run_measure", measure)
    found, _ = planned(tiny_directory, judge=JUDGE)
    stage = found.stage("mcas")
    assert stage is not None
    judging = JudgeSettings(JUDGE, JudgeOptions(budget_usd=1.0))
    with RunDirectory.create(tmp_path / "run", {}) as run:
        run_stage(stage, run, Reporter(quiet=True), judging)
        adapter = run.path.absolute() / "stages" / "all-modules" / "adapter"
        assert asked == [((adapter,), judging)]
        paid = {"phases": {"judge base": {"counts": {"usd": 0.25}}}}
        (run.path / "stages" / "mcas" / "timing.json").write_text(json.dumps(paid))
        run_stage(stage, run, Reporter(quiet=True), judging)  # labels that failed are asked again
        left = [one.options.budget_usd for _, one in asked]
        assert left == ([1.0, 0.75] if lacking else [1.0])


@pytest.mark.slow
def test_a_judge_below_its_bar_stops_its_stage_alone_and_may_be_paid_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The training is another test's: its stage is handed an adapter."""
    pytest.importorskip("openai")
    bench = MeasureBench(tmp_path, context=2048)

    def train(_: Any, run: RunDirectory, __: Any) -> None:
        shutil.copytree(bench.live, run.path / "adapter")
        run.write_json("metrics.json", {})

    monkeypatch.setitem(runners._RUN, "arc1", train)
    stages = tuple(one for one in RECIPE.stages if one.name in ("all-modules", "mcas"))
    mcas = tuple(one for one in RECIPE.rows if one.stage == "mcas")
    small = RECIPE.model_copy(update={"stages": stages, "rows": mcas})
    monkeypatch.setitem(recipes(), MODEL, small)  # type: ignore[misc]
    monkeypatch.setitem(small.stage("mcas").quick, "n_predict", [8])
    out, here = tmp_path / "out", {"cwd": tmp_path, "THREEARC_CACHE": str(tmp_path / "cache")}
    with serving(lambda *_: said("1")) as (url, requests):  # whatever is asked
        (tmp_path / "s.toml").write_text(
            f'model = "{bench.model}"\nas = "qwen3-0.6b"\nprofile = "quick"\n'
            f'backend = "torch"\njudge = "api:{url}#m"\njudge_tries = 1\nout = "elsewhere"\n'
        )
        done = call_here("paper", "--config", "s.toml", "--out", out, "--json", **here)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert [one["state"] for one in found["stages"]] == ["finished", "refused"]
        assert len(found["rows"]) == 3
        assert all("continue with --judge-below-bar" in row["why_not"] for row in found["rows"])
        saved = json.loads((out / "manifest.json").read_text())["config"]
        assert (saved["judge"], saved["profile"]) == (f"api:{url}#m", "quick")
        asked = len(requests)
        again = ("paper", "--run", out, "--json")
        done = call_here(*again, "--judge-below-bar", **here)
        found = json.loads(done.stdout)
        assert [one["state"] for one in found["stages"]] == ["finished"] * 2, done.stderr
        assert {row["why_not"] for row in found["rows"]} == {
            "the rule or judge behind it is below its bar"}  # fmt: skip
        paid = len(requests)
        assert 0 < paid - asked <= 2 * 4 * len(NAMES)  # no reference is asked twice
        assert json.loads(call_here(*again, **here).stdout) == found  # kept with the run
        assert len(requests) == paid
    done = call_here(*again, "--judge", "gguf", **here)
    assert done.returncode == 2 and f"--judge is api:{url}#m in this run, not gguf" in done.stderr
