"""``threearc paper``: recipes on a tiny model of their architecture, and on the embedded one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from arcs.paper.recipe import recipes
from backends import open_backend
from backends.interface import Head
from evals.items.load import built_in
from evals.items.records import ShortAnswer
from models.chat import ChatEncoder
from tests.support.answering import Answering
from tests.support.arc3_bench import SMALL
from tests.support.paper_bench import quick, run
from tests.support.qwen_template import QWEN
from tests.support.tiny_models import build_tiny

pytestmark = pytest.mark.slow
TRAINED = {"limit": 1, "n_predict": [3, 4, 5, 6], "train_limit": 2, "held_out_limit": 2,
           "accumulation": 1, "max_length": 256, "evaluation_limit": 1,
           "evaluation_n_predict": [4]}  # fmt: skip
SIZES: Mapping[str, dict[str, Any]] = {
    "arc1": TRAINED,
    "eval": {"limit": 1, "n_predict": [3, 4]},
    "measure": {"limit": 2, "n_predict": [4]},
    "arc2": {"limit": 60, "sweep_limit": 30, "axis_items": 2, "n_predict": 24,
             "permutations": 100},
    "arc3": {"limit": 20, "n_predict": 24},
    "falsify": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture
def short_answers() -> dict[str, str]:
    """Item -> an accepted answer."""
    return {one.id: one.answers[0] for one in built_in("short_answers", ShortAnswer)}


def shrunk(patch: pytest.MonkeyPatch, recipe: str, **more: Any) -> None:
    """The quick profile of a recipe at the smallest sizes that still go through everything."""
    for stage in recipes()[recipe].stages:
        for key, value in {**SIZES[stage.kind], **more}.items():
            if key in stage.quick:
                patch.setitem(stage.quick, key, value)


def answering(patch: pytest.MonkeyPatch, answers: Mapping[str, str]) -> None:
    """Tiny models answer short questions in words: half are right, half checked.

    A random model answers nothing right and hedges nothing, so that no cohort could be formed.
    Heads, states and log-probabilities are its own.
    """
    order = {name: place for place, name in enumerate(answers)}

    def says(item_id: str, _: Mapping[Head, float], __: int) -> str:
        place = order[item_id]
        said = answers[item_id] if place % 2 == 0 else "purple"
        return f"Let me check. {said}" if place % 4 < 2 else said

    def opened(backend: str, directory: Any, **more: Any) -> Any:
        return Answering(open_backend(backend, directory, **more), ChatEncoder(directory), says)

    @contextmanager
    def closing(backend: str, directory: Any, **more: Any) -> Iterator[Any]:
        with open_backend(backend, directory, **more) as model:
            yield Answering(model, ChatEncoder(directory), says)

    patch.setattr("arcs.arc2.pipeline.open_backend", opened)
    patch.setattr("arcs.arc3.engine.open_backend", closing)
    patch.setattr("arcs.arc3.config.Arc3Config.sizes", property(lambda _: SMALL))
    patch.setattr("evals.probing.probes.MLP_ITERATIONS", 5)


def values(found: dict[str, Any], stage: str) -> dict[tuple[str, str], float | None]:
    """Ours of a stage, by quantity and checkpoint."""
    return {
        (row["quantity"], row["checkpoint"]): (row["ours"] or {}).get("value")
        for row in found["rows"]
        if row["stage"] == stage
    }


def test_all_of_gemma_4_on_a_tiny_model_of_its_architecture(
    root: Path, monkeypatch: pytest.MonkeyPatch, short_answers: dict[str, str]
) -> None:
    shrunk(monkeypatch, "Gemma-4-E2B", pairs_limit=2, micro_batch_size=1, dpo_accumulation=1,
           dpo_max_length=1024)  # fmt: skip
    answering(monkeypatch, short_answers)
    model = build_tiny("gemma4", root / "gemma4", max_position_embeddings=4096)
    out = root / "gemma"
    found = run(root, quick(model, "gemma-4-e2b", out))
    states = {one["name"]: (one["state"], one["why"]) for one in found["stages"]}
    assert set(states.values()) == {("finished", None)}, states
    assert len(states) == 7
    coverage = values(found, "chef")
    assert {checkpoint for _, checkpoint in coverage} == {"base", "Chef SFT", "Chef SFT, then DPO"}
    assert all(value is not None and 0 <= value <= 1 for value in coverage.values())
    humble = values(found, "arc2-humble")
    asked = [row for row in found["rows"] if row["stage"] == "arc2-humble"]
    unchanged = humble["right answers, lambda 1", "base"]
    assert unchanged is not None and 0.3 < unchanged < 0.7, asked
    assert humble["right answers, lambda 0.5", "5 heads (humble) at 0.5"] == unchanged  # in words
    assert humble["answers asserted, lambda 1", "base"] == 1
    assert humble["first head by size: effect d", "base"] is not None
    heads = json.loads((out / "stages/arc2-humble/metrics.json").read_text())["selection"]
    assert len(heads["arms"]["top"]) == 5
    checked = values(found, "arc2-adversarial-self")
    assert checked["first head by size (adversarial-self): effect d", "base"] is not None
    itself = checked["answers that check themselves, lambda 1", "base"]
    assert itself is not None and 0.3 < itself < 0.7
    right = values(found, "arc3")
    for name in ("training", "fresh"):
        assert 0.2 < (right[f"right answers, {name} set", "base"] or 0) < 0.8
    probes = values(found, "falsify")
    assert None not in (probes["step 1: AUC, out of fold", "base"],
                        probes["step 2: AUC on fresh items", "base"])  # fmt: skip
    assert all("gemma4 for Gemma-4-E2B" in row["substituted"] for row in found["rows"]
               if row["ours"])  # fmt: skip


def test_sampled_arc2_on_a_tiny_qwen3_5(
    root: Path, monkeypatch: pytest.MonkeyPatch, short_answers: dict[str, str]
) -> None:
    """Of three layers in four no head can be damped; three seeds are decoded."""
    shrunk(monkeypatch, "Qwen3.5-0.8B")
    answering(monkeypatch, short_answers)
    model = build_tiny("qwen3_5", root / "qwen3_5", max_position_embeddings=4096,
                       num_attention_heads=12)  # fmt: skip
    out = root / "arc2"
    found = run(root, quick(model, "qwen3.5-0.8b", out, "--only", "arc2"))
    (stage,) = [one for one in found["stages"] if one["name"] == "arc2-humble"]
    assert stage["state"] == "finished", stage["why"]
    rows = values(found, "arc2-humble")
    assert rows["right answers, lambda 1", "base"] is not None
    made = json.loads((out / "stages/arc2-humble/metrics.json").read_text())
    assert {layer for layer, _ in made["selection"]["arms"]["top"]} == {3}
    assert made["config"]["seeds"] == [1000, 2000, 3000]


def test_four_variants_of_qwen3_1_7b_are_four_adapters(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrunk(monkeypatch, "Qwen3-1.7B")
    model = build_tiny("qwen3", root / "qwen3", max_position_embeddings=8192, template=QWEN)
    found = run(root, quick(model, "qwen3-1.7b", root / "variants"))
    names = [one["name"] for one in found["stages"]]
    assert names == ["v2-attention", "v2-all-modules", "v3-rslora", "v4-low-rank"]
    assert {one["state"] for one in found["stages"]} == {"finished"}, found["stages"]
    stages = root / "variants/stages"
    configs = {name: json.loads((stages / name / "adapter/adapter_config.json").read_text())
               for name in names}  # fmt: skip
    assert [configs[name]["r"] for name in names] == [64, 64, 64, 32]
    assert [configs[name]["use_rslora"] for name in names] == [False, False, True, False]
    modules = [len({one.rsplit(".")[-1] for one in configs[name]["target_modules"]})
               for name in names]  # fmt: skip
    assert modules == [4, 7, 4, 4]
    for name in names[1:]:  # the base answers once for all
        assert (stages / name / "base.completions.jsonl").read_bytes() == (
            stages / "v2-attention" / "base.completions.jsonl"
        ).read_bytes()
    measured = {(row["checkpoint"], row["stage"]) for row in found["rows"] if row["ours"]}
    trained = ("V2, attention", "V2, all modules", "V3, rsLoRA", "V4, r 32, 1 epoch")
    assert set(zip(trained, names, strict=True)) <= measured


@pytest.mark.parametrize(
    ("recipe", "name", "only"),
    [("smollm2-1.7b", "SmolLM2-1.7B-Instruct", "arc1"), ("gemma-4-e2b", "Gemma-4-E2B", "arc3"),
     ("qwen3.5-0.8b", "Qwen3.5-0.8B", "arc3")],
)  # fmt: skip
def test_the_embedded_model_under_a_recipe(
    root: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, name: str, only: str
) -> None:
    """The real SmolLM2-135M, at sizes that say nothing of it: answers of a few tokens.

    Parts that train are not among them: the first adapter of ``qwen3-0.6b`` alone takes 45 CPU
    seconds.
    """
    few = {"n_predict": [2]} if only == "arc3" else {"n_predict": [2, 3, 4, 5]}
    shrunk(monkeypatch, name, **few)
    for stage in recipes()[name].stages:
        if stage.kind == "arc3":
            monkeypatch.setitem(stage.quick, "n_predict", 2)
            monkeypatch.setitem(stage.quick, "limit", 10)
    monkeypatch.setattr("arcs.arc3.config.Arc3Config.sizes", property(lambda _: SMALL))
    monkeypatch.setattr("evals.probing.probes.MLP_ITERATIONS", 5)
    out = root / f"embedded-{recipe}"
    found = run(root, quick("smollm2-135m", recipe, out, "--only", only), own_cache=False)
    wanted = {one.name for one in recipes()[name].stages
              if one.part == only and not one.only_thinking}  # fmt: skip
    states = {one["name"]: one["state"] for one in found["stages"]}
    assert {one for one, state in states.items() if state == "finished"} == wanted, found["stages"]
    assert {state for one, state in states.items() if one not in wanted} <= {"left out"}
    assert found["recipe"] == {"of": name, "stands_in": True}
    rows = [row for row in found["rows"] if row["stage"] in wanted]
    assert any((row["ours"] or {}).get("value") is not None for row in rows)
    assert all(f"SmolLM2-135M-Instruct for {name}" in row["substituted"] for row in rows
               if row["ours"])  # fmt: skip
