"""``threearc paper``: recipes and their numbers, plans on all architectures, table, mistakes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from arcs.measure.config import parse as parse_measure
from arcs.paper.config import PaperConfig, resolve
from arcs.paper.forecast import forecast
from arcs.paper.pipeline import on_disk, prepare_paper
from arcs.paper.plan import UNKNOWN_YET, Plan, Stage, plan
from arcs.paper.reading import READERS
from arcs.paper.recipe import FOLDER, PARTS, Published, Recipe, Row, recipes
from arcs.paper.report import report
from arcs.paper.table import NOT_MEASURED, OUTSIDE, WITHIN, rows
from arcs.progress import Reporter
from arcs.reproduction.artifacts import Artifacts
from backends.memory import model_size
from models.directory import ModelDirectory
from models.errors import UserError
from models.hub import NotOnDiskError
from models.registry import MODELS
from tests.support.command_line import call_here
from tests.support.printed import printed

ARCHITECTURE = {
    "SmolLM2-1.7B-Instruct": "llama", "Qwen3-0.6B": "qwen3", "Qwen3-1.7B": "qwen3",
    "Qwen3.5-0.8B": "qwen3_5", "Gemma-4-E2B": "gemma4",
}  # fmt: skip
BUDGETS = (512, 1024, 2048, 4096)


def config_of(model: str, recipe: str, **more: Any) -> PaperConfig:
    return PaperConfig(model=model, recipe=recipe, **more)


# -- recipes ---------------------------------------------------------------------------------------


def test_every_model_of_the_paper_has_a_recipe():
    assert set(recipes()) == {one.name for one in MODELS if not one.embedded} == set(ARCHITECTURE)


def test_no_row_joins_checkpoints():
    """What is read of one stage and arm belongs to one checkpoint; an edit is never the base."""
    for recipe in recipes().values():
        names = [(row.name, row.checkpoint) for row in recipe.rows]
        assert len(set(names)) == len(names)
        whose = defaultdict(set)
        trained = defaultdict(set)
        for row in recipe.rows:
            if row.stage is None or row.read is None:
                continue
            arm = row.read.get("arm", "base")
            scale = float(row.read.get("scale", 1.0))
            is_base = arm == "base" and scale == 1.0
            assert (row.checkpoint == "base") == is_base, row
            whose[row.stage, arm, scale].add(row.checkpoint)
            if not is_base:
                trained[row.checkpoint].add(recipe.stage(row.stage).adapter_of or row.stage)
        assert all(len(found) == 1 for found in whose.values()), recipe.model
        assert all(len(found) == 1 for found in trained.values()), trained


def test_every_row_can_be_read():
    for recipe in recipes().values():
        for row in recipe.rows:
            if row.read is None or row.stage is None:
                continue
            assert row.read["from"] in READERS
            settings = recipe.stage(row.stage).settings
            if row.read["from"] == "pass":
                assert row.read["n_predict"] in settings["n_predict"]
            if row.read["from"] in ("sweep", "axis"):
                assert row.read["scale"] in settings["scales"]


def test_published_numbers_are_those_of_the_published_files(paper_artifacts: Path):
    artifacts, checked = Artifacts(paper_artifacts), 0
    for recipe in recipes().values():
        for row in recipe.rows:
            if row.paper is not None and row.paper.file is not None:
                value, whole = in_file(row.paper, artifacts)
                assert value == pytest.approx(row.paper.number, abs=5e-4), row
                assert whole in (None, row.paper.n), row
                checked += 1
    assert checked > 20


def in_file(one: Published, artifacts: Artifacts) -> tuple[float, int | None]:
    """The figure as it stands in the file, and of how many."""
    assert one.file is not None
    content = artifacts.raw(one.file)
    if one.count is not None:
        key, _, wanted = one.count.partition("=")
        content = content.get("items", content) if isinstance(content, dict) else content
        held = content[key] if isinstance(content, dict) else [row[key] for row in content]
        hits = sum(value == wanted if wanted else bool(value) for value in held)
        return hits / len(held), len(held)
    value = at(content, str(one.at)) / (100 if one.percent else 1)
    if one.whole is not None:
        whole = at(content, one.whole)
        return value / whole, whole
    return value, None


def at(content: Any, path: str) -> Any:
    for key in path.split("/"):
        content = content[int(key)] if isinstance(content, list) else content[key]
    return content


def test_independent_figures_stand_where_the_brief_has_them():
    found = {
        recipe.model: {round(row.independent.number, 3) for row in recipe.rows if row.independent}
        for recipe in recipes().values()
    }
    assert found["Qwen3-0.6B"] == {0.317} and found["Qwen3-1.7B"] == {0.616}
    assert found["SmolLM2-1.7B-Instruct"] == {0.281}


def test_a_recipe_that_leans_on_a_later_stage_is_refused():
    text = (FOLDER / "smollm2-1.7b.toml").read_text().replace('source = "arc3"', 'source = "arc4"')
    import tomllib

    with pytest.raises(ValueError, match="arc4 does not come before it"):
        Recipe.model_validate(tomllib.loads(text))


# -- plans -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tiny_directory: Callable[..., ModelDirectory]) -> Callable[[str], ModelDirectory]:
    return lambda arch: tiny_directory(arch, max_position_embeddings=8192)


@pytest.mark.parametrize("model", list(ARCHITECTURE))
def test_every_recipe_resolves_on_its_architecture(
    model: str, tiny: Callable[[str], ModelDirectory]
):
    directory, recipe = tiny(ARCHITECTURE[model]), recipes()[model]
    for profile in ("paper", "quick"):
        found = plan(
            config_of(directory.source, model, profile=profile), recipe, directory, "torch"
        )
        # a tiny model has no thinking mode: what is nothing without it is left out, and said
        needs = {one.name for one in recipe.stages if one.only_thinking or one.needs_judge}
        assert set(found.left_out) == needs
        for stage in found.stages:
            assert stage.substituted[0].endswith(f" for {model}")
            check(stage, profile)


def check(stage: Stage, profile: str) -> None:
    """The settings that the paper states, where the profile is its own."""
    config, recipe = stage.config, stage.recipe
    if recipe.kind in ("arc1", "eval") and "HumanEval" not in stage.name:
        budgets = recipe.settings["n_predict"]
        assert [stage.budget(one) for one in budgets] == list(config.n_predict)
        assert (tuple(budgets) == config.n_predict) == (profile == "paper")
    if recipe.kind == "arc1":
        assert config.trains == () if recipe.adapter_of else config.trains
        assert config.adapter == (UNKNOWN_YET if recipe.adapter_of else None)
        assert not config.thinking
    if recipe.kind == "arc2":
        assert config.scales[0] == 1.0 and config.rank_by == "magnitude"
        assert config.labels == ("judge:lexical" if profile == "paper" else "exact-match")
    if profile == "paper":
        assert not any(" not all" in one for one in stage.substituted)


SAID_QUICK = {
    "Gemma-4-E2B": {
        "chef": ("4 items, not 20", "1 epoch(s) for 3", "1 DPO epoch(s) for 2",
                 "records cut at 512 ids for 2048", "pairs cut at 512 ids for 1280",
                 "batches of 8 for 32", "DPO batches of 4 for 16", "16 training records, not all",
                 "8 pairs, not all", "n_predict 96 for 512 in evaluations", "float32 for bfloat16",
                 "12 items of each evaluation, not all", "4 held-out records, not all"),
        "prompts-step16": ("24 items, not all", "n_predict 96 for 512", "float32 for bfloat16",
                           "unpacked weights for its 4 bits"),
        "arc2-humble": ("60 items, not all", "12 prompts at each lambda, not all",
                        "lambda 1, 0.5 for 1, 0.9, 0.8, 0.5", "200 permutations for 2000",
                        "1 set(s) of random heads for 3",
                        "controls at the strongest lambda for all", "8 meter items, not all"),
        "arc3": ("100 items, not all", "n_predict 48 for 512", "float32 for bfloat16"),
        "falsify": ("100 items, not all", "n_predict 48 for 512", "float32 for bfloat16"),
    },
    "Qwen3-0.6B": dict.fromkeys(
        ("all-modules", "all-modules-thinking", "attention-thinking"),
        ("8 items, not all", "q8_0 for f16", "1 epoch(s) for 3", "batches of 8 for 32",
         "16 training records, not all", "records cut at 512 ids for 4096"),
    ),
    "Qwen3-1.7B": {
        "v4-low-rank": ("batches of 8 for 32", "records cut at 512 ids for 2048", "q8_0 for f16"),
    },
    "Qwen3.5-0.8B": {"humaneval": ("12 items, not all", "q8_0 for f16")},
    "SmolLM2-1.7B-Instruct": {"falsify": ("n_predict 48 for 512", "float32 for bfloat16")},
}  # fmt: skip


def test_every_change_of_the_quick_profile_is_said_where_it_counts(monkeypatch: Any, tiny: Any):
    monkeypatch.setattr("arcs.paper.plan.ChatEncoder", lambda _: type("E", (), {
        "thinking_switch": True}))  # fmt: skip
    monkeypatch.setattr("arcs.paper.plan.default_dtype", lambda _: "float32")
    for model, stages in SAID_QUICK.items():
        config = config_of("x", model, profile="quick")
        found = plan(config, recipes()[model], tiny(ARCHITECTURE[model]), "torch")
        for name, wanted in stages.items():
            stage = found.stage(name)
            assert stage is not None
            assert set(wanted) <= set(stage.substituted), (model, name, stage.substituted)
            assert len(set(stage.substituted)) == len(stage.substituted)
        for stage in found.stages:  # nothing is compared with a value the paper did not have
            assert not any(" for all" in one for one in stage.substituted if "lambda" not in one)
    v4 = plan(config_of("x", "Qwen3-1.7B", profile="quick"), recipes()["Qwen3-1.7B"],
              tiny("qwen3"), "torch").stage("v4-low-rank")  # fmt: skip
    assert v4 is not None and not any("epoch" in one for one in v4.substituted)  # 1 as the paper


def test_thinking_models_are_asked_in_both_modes(monkeypatch: Any, tiny: Any):
    monkeypatch.setattr("arcs.paper.plan.ChatEncoder", lambda _: type("E", (), {
        "thinking_switch": True}))  # fmt: skip
    directory = tiny("qwen3")
    found = plan(config_of("x", "Qwen3-0.6B"), recipes()["Qwen3-0.6B"], directory, "torch")
    assert set(found.left_out) == {"mcas"}  # no judge is named
    modes = {stage.name: stage.config.thinking for stage in found.stages}
    assert modes == {"all-modules": False, "all-modules-thinking": True, "attention": False,
                     "attention-thinking": True}  # fmt: skip
    assert all(stage.config.n_predict == BUDGETS for stage in found.stages)
    trained = found.stages[0].config
    assert (trained.targets, trained.rank, trained.epochs) == ("all", 64, 3)


def test_only_brings_what_its_stages_rest_on(tiny: Any):
    recipe = recipes()["SmolLM2-1.7B-Instruct"]
    found = plan(config_of("x", recipe.model, only=("falsify",)), recipe, tiny("llama"), "torch")
    assert [stage.name for stage in found.stages] == ["arc3", "falsify"]
    assert "--only falsify" in found.left_out["humaneval"]


# -- the table -------------------------------------------------------------------------------------


def table_of(row: dict[str, Any], metrics: dict[str, Any], **more: Any) -> dict[str, Any]:
    recipe = Recipe.model_validate({
        "model": "M", "says": "s",
        "stage": [{"name": "s", "kind": "eval", "part": "arc1",
                   "settings": {"n_predict": [512, 1024]}}],
        "row": [{"quantity": "q", "checkpoint": "base", "stage": "s", **row}],
    })  # fmt: skip
    config = type("C", (), {"n_predict": (64, 128), "evaluation_n_predict": (64, 96)})()
    training = more.get("training", ())
    stages = (Stage(recipe.stages[0], config, ("a for b", *training), training),)
    made = Plan(() if more.get("left_out") else stages, more.get("left_out", {}))
    (found,) = rows(recipe, made, {"s": metrics}, more.get("refused", {}))
    return found


def passed(value: float, low: float, high: float) -> dict[str, Any]:
    arm = {"pass_at_1": value, "interval": {"low": low, "high": high, "level": 0.95},
           "n_items": 12, "missing": 2}  # fmt: skip
    return {"quantisations": {"q8_0": {"base": {"budgets": {"64": arm, "128": arm}}}}}


PASS = {"from": "pass", "n_predict": 512}


def test_the_word_says_where_the_papers_number_lies():
    row = {"read": PASS, "paper": {"k": 3, "n": 10, "place": "p"},
           "independent": {"value": 0.6, "place": "q"}}  # fmt: skip
    found = table_of(row, passed(0.4, 0.2, 0.5))
    assert (found["word"], found["independent_word"]) == (WITHIN, OUTSIDE)
    assert found["ours"] == {
        "value": 0.4, "n": 10, "interval": {"low": 0.2, "high": 0.5, "level": 0.95}
    }  # fmt: skip
    # at the ends it is within; beyond, by however little, it is not
    assert table_of(row, passed(0.4, 0.3, 0.5))["word"] == WITHIN
    assert table_of(row, passed(0.4, 0.3000001, 0.5))["word"] == OUTSIDE
    assert "n_predict 64 for 512" in found["substituted"] and "a for b" in found["substituted"]


def test_what_is_not_measured_says_why():
    row = {"read": PASS, "paper": {"k": 3, "n": 10, "place": "p"}}
    for more, why in (
        ({"left_out": {"s": "no thinking mode"}}, "no thinking mode"),
        ({"refused": {"s": "too few answers"}}, "too few answers"),
    ):
        found = table_of(row, {}, **more)
        assert (found["word"], found["why_not"], found["ours"]) == (NOT_MEASURED, why, None)
        assert found["substituted"] == []
    no_interval = passed(0.4, 0.2, 0.5)
    no_interval["quantisations"]["q8_0"]["base"]["budgets"]["64"]["interval"] = None
    assert table_of(row, no_interval)["word"] == NOT_MEASURED


def test_a_judge_below_its_bar_decides_nothing():
    rate = {"value": 0.5, "n": 10, "successes": 5, "interval": {"low": 0.2, "high": 0.8,
                                                                "level": 0.95}}  # fmt: skip
    metrics: dict[str, Any] = {
        "conditions": {"base": {"result": {"budgets": {"96": {"all": {"assertion_rate": rate}}}}}},
        "judge": {"validity": {"delivery": {"passes": True}}},
    }
    row = {"read": {"from": "asserted"}, "paper": {"k": 3, "n": 10, "place": "p"}}
    assert table_of(row, metrics)["word"] == WITHIN
    metrics["judge"]["validity"]["delivery"]["passes"] = False
    found = table_of(row, metrics)
    assert (found["word"], found["why_not"]) == (NOT_MEASURED, "the judge is below its bar")
    assert found["ours"]["value"] == 0.5  # shown all the same


def test_how_an_edit_was_trained_says_nothing_of_the_base():
    arm = passed(0.4, 0.2, 0.5)
    arm["quantisations"]["q8_0"]["trained"] = arm["quantisations"]["q8_0"]["base"]
    for name, said in (("base", ["a for b"]), ("trained", ["a for b", "1 epoch(s) for 3"])):
        row = {"read": {**PASS, "arm": name}, "paper": {"k": 3, "n": 10, "place": "p"}}
        found = table_of(row, arm, training=("1 epoch(s) for 3",))
        assert found["substituted"] == [*said, "n_predict 64 for 512"]


def test_rows_of_recovery_say_how_it_was_asked():
    cell = {"value": 0.5, "n": 10, "interval": {"low": 0.2, "high": 0.8, "level": 0.95}}
    metrics = {"table": [{"of": "run", "name": one, "cells": {"svr": cell, "recovery": cell}}
                         for one in ("base", "sft")]}  # fmt: skip
    said = {
        (row.quantity, note)
        for recipe in recipes().values() for row in recipe.rows
        if row.read is not None and row.read.get("cell") in ("svr", "recovery")
        for note in table_of({"read": row.read, "substituted": row.substituted}, metrics,
                             )["substituted"]
    }  # fmt: skip
    for quantity in ("recovered after feedback", "answers that verify themselves"):
        assert (quantity, "answered without thinking") in said
        assert (quantity, "answered at n_predict 96") in said
    assert ("answers that verify themselves", "of recovery answers") in said


def test_an_invalid_claim_or_judge_decides_nothing_in_arc3_and_falsify():
    interval = {"low": 0.2, "high": 0.8, "level": 0.95}
    rate = {"value": 0.5, "n": 10, "interval": interval}
    claim: dict[str, Any] = {"verdict": "SUPPORTED", "reasons": []}
    delivery = {"passes": True}
    fresh = {"auc": 0.5, "interval": interval, "n_right": 5, "n_wrong": 5}
    metrics: dict[str, Any] = {
        "decoupling": {"fresh": {"all": {"accuracy": rate, "asymmetry": rate, "n": 10}}},
        "probes": [{"features": "h", "probe": "p", "fresh": fresh}],
        "steps": [{"step": "fresh", "state": "run", "gates": [{"gate": "g", "estimate": rate}]}],
        "made_with": {"delivery": delivery},
        "claims": {"transfer": claim, "this_model": claim},
    }
    answers = {"from": "answers", "set": "fresh"}
    reads = ({**answers, "rate": "accuracy"}, {**answers, "rate": "asymmetry"},
             {"from": "probe", "features": "h", "probe": "p"},
             {"from": "step", "step": "fresh", "gate": "g"})  # fmt: skip

    def words() -> list[str]:
        paper = {"k": 3, "n": 10, "place": "p"}
        return [table_of({"read": read, "paper": paper}, metrics)["word"] for read in reads]

    assert words() == [WITHIN] * 4
    delivery["passes"] = False
    assert words() == [WITHIN, NOT_MEASURED, WITHIN, WITHIN]
    claim.update(verdict="INVALID", reasons=["judge_not_valid"])
    assert words() == [NOT_MEASURED] * 4


def test_only_a_model_that_is_not_here_is_said_to_be_absent(monkeypatch: Any):
    def damaged(*_: Any, **__: Any) -> ModelDirectory:
        raise UserError("its config.json is damaged")

    monkeypatch.setattr("arcs.paper.pipeline.prepare", damaged)
    with pytest.raises(UserError, match=r"^its config\.json is damaged$"):
        on_disk("qwen3-0.6b", Reporter())


def test_the_sandbox_is_asked_for_last_and_not_for_a_dry_run(monkeypatch: Any, tiny: Any):
    def none(**_: Any) -> None:
        raise UserError("no sandbox")

    monkeypatch.setattr("arcs.paper.pipeline.detect_level", none)
    monkeypatch.setattr("backends.llamacpp.require_installed", lambda: None)
    recipe = recipes()["SmolLM2-1.7B-Instruct"]
    monkeypatch.setattr("arcs.paper.pipeline.prepare", lambda *_, **__: tiny("llama"))
    config = config_of("smollm2-1.7b", recipe.model, backend="torch")
    assert prepare_paper(config, recipe, Reporter(), runs=False).plan.stages
    with pytest.raises(UserError, match="no sandbox"):
        prepare_paper(config, recipe, Reporter())

    def absent(*_: Any, **__: Any) -> ModelDirectory:
        raise NotOnDiskError("not here")

    monkeypatch.setattr("arcs.paper.pipeline.prepare", absent)
    with pytest.raises(UserError, match="hf download HuggingFaceTB/SmolLM2"):
        prepare_paper(config, recipe, Reporter())


def test_the_report_shows_every_row_and_that_a_model_stands_in():
    row = table_of({"read": PASS, "paper": {"k": 3, "n": 10, "place": "p"}}, passed(0.4, 0.2, 0.5))
    refused = table_of(
        {"read": PASS, "paper": {"k": 9, "n": 10, "place": "p"}}, {}, refused={"s": "too few"}
    )
    metrics = {
        "rows": [row, refused, refused], "model": {"name": "Small"},
        "recipe": {"of": "Large", "stands_in": True},
        "config": {"profile": "quick"},
        "stages": [{"name": "s", "state": "refused", "why": "w", "claims": []}],
    }  # fmt: skip
    text = " ".join(printed(report(metrics)).split())
    for said in ("40.0%", "[20.0, 50.0]", "3/10", "within the", "a for b",
                 "no row says anything of Large", "could not be run: w", "not measured", "(a)",
                 "a: too few", "1 lie within our interval and 0 outside; 2 of 3 rows"):  # fmt: skip
        assert said in text, said


def test_no_word_of_the_table_is_cut_on_a_narrow_terminal():
    notes = [f"substitute {n}" for n in range(40)]
    row = table_of(
        {"read": PASS, "quantity": "answers that check themselves (adversarial-self)",
         "paper": {"k": 100, "n": 193, "place": "p"}}, passed(0.4, 0.2, 0.5),
    ) | {"substituted": notes, "independent": {"value": 0.317, "k": 101, "n": 164},
         "independent_word": "within the interval"}  # fmt: skip
    row["ours"] = row["ours"] | {
        "interval": {"low": -100.0, "high": -100.0}
    }  # as wide as they come
    refused = row | {"word": "not measured", "why_not": "too few"}
    metrics = {
        "rows": [row, refused], "model": {"name": "S"}, "recipe": {"of": "L", "stands_in": True},
        "config": {"profile": "quick"}, "stages": [],
    }  # fmt: skip
    console = Console(width=80)
    with console.capture() as captured:
        console.print(report(metrics))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    ends = [line.rsplit("  ", 1)[-1].strip() for line in lines]
    for whole in ("not measured", "(a)", "i: within", "the interval"):
        assert whole in ends, whole


# -- mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({}, "say which model"),
        ({"model": "gpt-9"}, "say whose recipe it stands in for with --as"),
        ({"model": "smollm2-135m", "recipe": "gpt-9"}, "--as gpt-9: the paper ran"),
        ({"model": "qwen3-0.6b", "only": ("arc2",)}, "ran none of it on Qwen3-0.6B"),
        ({"model": "qwen3-0.6b", "only": ("arc4",)}, f"choose from {','.join(PARTS)}"),
        ({"model": "qwen3-0.6b", "profile": "standard"}, "--profile"),
    ],
)
def test_a_wrong_flag_is_one_line(flags: dict[str, Any], said: str):
    with pytest.raises(UserError) as error:
        resolve(flags)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_embedded_model_stands_in_for_its_own_family():
    assert resolve({"model": "smollm2-135m"})[1].model == "SmolLM2-1.7B-Instruct"
    assert resolve({"model": "smollm2-135m", "recipe": "qwen3-0.6b"})[1].model == "Qwen3-0.6B"


def test_absent_weights_and_files_are_said_before_any_work(tmp_path: Path):
    out = tmp_path / "out"
    here = {"cwd": tmp_path, "THREEARC_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path)}
    done = call_here("paper", "qwen3-0.6b", "--out", out, **here)
    assert done.returncode == 2 and not out.exists()
    assert done.stderr.count("\n") == 1 and "hf download Qwen/Qwen3-0.6B" in done.stderr
    done = call_here("paper", "smollm2-135m", "--artifacts", tmp_path / "no", "--out", out, **here)
    assert done.returncode == 2 and "no such folder" in done.stderr and not out.exists()
    done = call_here("paper", "--run", tmp_path, **here)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_a_dry_run_says_what_it_needs_and_writes_nothing(tiny: Any, tmp_path: Path):
    directory = tiny("llama")
    done = call_here(
        "paper", directory.source, "--as", "qwen3-0.6b", "--dry-run", "--json", cwd=tmp_path,
        THREEARC_CACHE=str(directory.path.parent.parent),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["memory_bytes"] > 0 and found["seconds_at_most"] > 0
    assert found["seconds_from"] == "scaled by parameters"
    assert "no thinking mode" in found["left_out"]["all-modules-thinking"]
    assert list(tmp_path.iterdir()) == []


def test_weights_that_do_not_fit_are_refused_and_a_tight_fit_is_said(monkeypatch: Any, tiny: Any):
    directory, recipe = tiny("llama"), recipes()["SmolLM2-1.7B-Instruct"]
    made = plan(config_of("x", recipe.model), recipe, directory, "torch")
    weights = model_size(directory).parameters * 2  # bfloat16, as the paper
    monkeypatch.setattr("arcs.paper.forecast.free_memory", lambda _: weights)
    assert "does NOT fit" in forecast(made, directory, "torch").lines()[0]
    monkeypatch.setattr("arcs.paper.forecast.free_memory", lambda _: weights - 1)
    with pytest.raises(UserError, match="its weights alone need"):
        forecast(made, directory, "torch")


def test_time_grows_with_the_work(monkeypatch: Any, tiny: Any):
    monkeypatch.setattr("arcs.paper.forecast.ANALYSIS", defaultdict(int))
    directory = tiny("llama")
    for recipe in recipes().values():
        quick, paper = (
            forecast(
                plan(config_of("x", recipe.model, profile=name), recipe, directory, "torch"),
                directory, "torch",
            ).seconds
            for name in ("quick", "paper")
        )  # fmt: skip
        assert 0 < 5 * quick < paper, recipe.model


def test_delivery_is_measured_on_prompts_of_ones_own_only():
    for given, said in (
        ({"instrument": "delivery"}, "--items"),
        ({"instrument": "chef", "items": Path("x.jsonl")}, "--items: chef asks items of its own"),
    ):
        with pytest.raises(UserError, match=said):
            parse_measure(given)


def test_a_row_is_measured_or_says_why_not():
    with pytest.raises(ValueError, match="give stage and read, or why_not"):
        Row(quantity="q", checkpoint="base")
    with pytest.raises(ValueError, match="give value, or k and n"):
        Published(place="p")
