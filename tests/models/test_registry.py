from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from models.directory import ModelDirectory
from models.errors import UserError
from models.geometry import FAMILIES, read_geometry
from models.listing import listing
from models.registry import MODELS, find, lookup
from models.store import prepare
from tests.support.tiny_models import build_tiny

NAMES = ["SmolLM2-135M-Instruct", "SmolLM2-1.7B-Instruct", "Qwen3-0.6B", "Qwen3-1.7B",
         "Qwen3.5-0.8B", "Gemma-4-E2B", "Gemma-3-270M"]  # fmt: skip


def test_the_papers_five_models_and_the_embedded_ones_are_known() -> None:
    assert [spec.name for spec in MODELS] == NAMES
    assert [spec.name for spec in MODELS if spec.embedded] == [NAMES[0], NAMES[-1]]
    assert all(spec.family in FAMILIES.values() for spec in MODELS)


@pytest.mark.parametrize(
    ("said", "name"),
    [(n, n) for n in NAMES] + [(n.upper(), n) for n in NAMES] + [
        ("gemma 4 e2b", "Gemma-4-E2B"), ("Qwen/Qwen3-0.6B", "Qwen3-0.6B"),
        ("unsloth/gemma-4-E2B-it", "Gemma-4-E2B"), ("smollm2_135m", "SmolLM2-135M-Instruct"),
        ("gemma3-270m", "Gemma-3-270M"),
    ],
)  # fmt: skip
def test_names_ids_and_aliases_are_found_in_any_case(said: str, name: str) -> None:
    assert find(said).name == name


def test_no_two_models_share_a_name() -> None:
    known = [n.casefold() for s in MODELS for n in (s.name, s.hub_id, *s.aliases)]
    assert len(known) == len(set(known))


@pytest.mark.parametrize(("said", "close"), [("Qwen3-0.6", "Qwen3-0.6B"), ("gema4", "Gemma-4-E2B")])
def test_an_unknown_name_lists_close_matches(said: str, close: str) -> None:
    assert lookup(said) is None
    with pytest.raises(UserError, match=f"did you mean .*{close}.*known names"):
        find(said)


def test_a_far_name_suggests_nothing() -> None:
    with pytest.raises(UserError) as caught:
        find("zzzzzz")
    assert "did you mean" not in str(caught.value)


def test_attention_facts() -> None:
    assert find("Qwen3.5-0.8B").o_proj_layers == (3, 7, 11, 15, 19, 23)  # PAPER.md section 1
    assert len(find("Gemma-4-E2B").o_proj_layers) == find("Gemma-4-E2B").n_layers == 35
    with pytest.raises(FrozenInstanceError):
        find("Qwen3-0.6B").gated = True  # type: ignore[misc]


def test_the_registrys_facts_are_those_of_the_embedded_file(
    smollm_directory: ModelDirectory,
) -> None:
    spec, shape = find("SmolLM2-135M-Instruct"), read_geometry(smollm_directory.path)
    assert (spec.n_layers, spec.o_proj_layers) == (shape.n_layers, shape.o_proj_layers)
    assert spec.head_dims == tuple({layer.head_dim for layer in shape.layers})
    assert spec.family == shape.family == smollm_directory.family


def test_listing_shows_the_registry_and_own_prepared_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    before = {row.name: row for row in listing(tmp_path / "c")}
    assert list(before) == NAMES
    assert before["SmolLM2-135M-Instruct"].state == "embedded"
    assert before["SmolLM2-135M-Instruct"].size > 50_000_000
    assert before["Qwen3-0.6B"].state == "not on disk"
    made = prepare(str(build_tiny("qwen3", tmp_path / "mine")), cache=tmp_path / "c")
    own = listing(tmp_path / "c")[-1]
    assert (own.name, own.family, own.state) == ("mine", "qwen3", "prepared")
    assert own.size >= (made.path / "model.safetensors").stat().st_size


def test_listing_shows_the_embedded_model_as_prepared(
    smollm_directory: ModelDirectory, tiny_directory: Callable[..., ModelDirectory]
) -> None:
    row = next(r for r in listing() if r.name == "SmolLM2-135M-Instruct")
    assert row.state == "prepared"
    assert row.size > 500_000_000
