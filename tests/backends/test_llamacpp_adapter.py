"""PEFT adapters as LoRA GGUF: what is kept, what is checked, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from backends.interface import Prompt
from backends.llamacpp.adapter import convert_adapter
from backends.llamacpp.model import open_gguf
from models.directory import ModelDirectory
from models.errors import UserError
from models.gguf.export import export_gguf
from tests.support.llamacpp import torch_logits, torch_model, with_random_lora
from tests.support.tiny_models import build_tiny

IDS = tuple(int(n) for n in np.random.default_rng(11).integers(0, 512, 24))
TOLERANCE = 3e-4
"""Absolute, logits of size 10, float32 on both sides; 4e-5 measured."""


@pytest.fixture(scope="module")
def directory(tiny_directory: Callable[..., ModelDirectory]) -> ModelDirectory:
    return tiny_directory("llama")


@pytest.fixture(scope="module")
def model_gguf(directory: ModelDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return export_gguf(directory, out, dtype="f32")


@pytest.fixture
def peft(directory: ModelDirectory, tmp_path: Path) -> Path:
    with_random_lora(torch_model(directory), tmp_path / "peft", size=0.2)
    return tmp_path / "peft"


def _logits(model: Path, adapter: Path | None) -> np.ndarray:
    with open_gguf(model, adapter=adapter, context=64, width=1, kv_dtype="f32", threads=1) as m:
        return m.logits(IDS)


def _edit_config(peft: Path, **changes: object) -> None:
    path = peft / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _edit_weights(peft: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    path = peft / "adapter_model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file({name: np.ascontiguousarray(w) for name, w in weights.items()}, path)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
        {"r": 4, "lora_alpha": 3},
        {"r": 16, "lora_alpha": 8, "use_rslora": True},
        {"r": 96, "lora_alpha": 96},
    ],
    ids=["all", "attention", "small", "rslora", "rank equals width"],
)
def test_an_adapted_model_equals_peft(
    config: dict[str, Any], directory: ModelDirectory, model_gguf: Path, tmp_path: Path
) -> None:
    """``rank equals width`` gives square factors, which would load transposed (ANCHORS B12)."""
    base = torch_model(directory)
    plain = torch_logits(base, IDS)
    adapted = with_random_lora(base, tmp_path / "peft", size=0.1, **config)
    expected = torch_logits(adapted, IDS)
    adapter = convert_adapter(tmp_path / "peft", directory, tmp_path / "adapter.gguf")
    ours = _logits(model_gguf, adapter)
    assert np.abs(ours - expected).max() < TOLERANCE
    assert np.abs(ours - plain).max() > 100 * TOLERANCE


def test_a_transposed_square_factor_shows(
    directory: ModelDirectory, model_gguf: Path, tmp_path: Path
) -> None:
    adapted = with_random_lora(torch_model(directory), tmp_path / "peft", size=0.1, r=96)
    expected = torch_logits(adapted, IDS)

    def transpose(weights: dict[str, np.ndarray]) -> None:
        name = "base_model.model.model.layers.1.self_attn.o_proj.lora_A.weight"
        weights[name] = weights[name].T

    _edit_weights(tmp_path / "peft", transpose)
    adapter = convert_adapter(tmp_path / "peft", directory, tmp_path / "adapter.gguf")
    assert np.abs(_logits(model_gguf, adapter) - expected).max() > 100 * TOLERANCE


def test_the_file_holds_exact_float32_factors_and_says_what_it_is(
    directory: ModelDirectory, peft: Path, tmp_path: Path
) -> None:
    reader = gguf.GGUFReader(convert_adapter(peft, directory, tmp_path / "adapter.gguf"))
    weights = load_file(peft / "adapter_model.safetensors")
    assert len(reader.tensors) == len(weights) == 2 * 3 * 7
    written = {t.name: np.array(t.data) for t in reader.tensors}
    assert {t.tensor_type.name for t in reader.tensors} == {"F32"}
    part = "base_model.model.model.layers.2."
    assert np.array_equal(
        written["blk.2.ffn_up.weight.lora_b"], weights[f"{part}mlp.up_proj.lora_B.weight"]
    )
    assert np.array_equal(
        written["blk.2.attn_q.weight.lora_a"], weights[f"{part}self_attn.q_proj.lora_A.weight"]
    )
    assert reader.fields["adapter.type"].contents() == "lora"
    assert reader.fields["adapter.lora.alpha"].contents() == 16


def test_generation_with_the_adapter_differs_from_the_base(
    directory: ModelDirectory, model_gguf: Path, peft: Path, tmp_path: Path
) -> None:
    adapter = convert_adapter(peft, directory, tmp_path / "adapter.gguf")
    prompts = [Prompt(str(n), IDS[n : n + 8]) for n in range(6)]
    found = {}
    for name, its in (("base", None), ("adapted", adapter), ("again", adapter)):
        with open_gguf(model_gguf, adapter=its, context=64, threads=1) as model:
            done = model.generate(prompts, max_tokens=12, stop_ids=[])
            found[name] = [c.ids for c in done]
            assert (model.describe()["adapter_sha256"] is None) == (its is None)
    assert found["base"] != found["adapted"] == found["again"]


def name_no_base(folder: Path) -> None:
    """Leave nothing but the shapes to tell the models apart by."""
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps({**config, "base_model_name_or_path": None})
    )


def test_an_adapter_for_another_shape_is_refused(directory: ModelDirectory, tmp_path: Path) -> None:
    path = build_tiny("llama", tmp_path / "wider", num_key_value_heads=6)
    wider = ModelDirectory(path, "wider", "llama", "0" * 64, "test")
    with_random_lora(torch_model(wider), tmp_path / "peft", size=0.1)
    name_no_base(tmp_path / "peft")
    message = r"adapter for another model: .*k_proj is 96 x 96 there and 32 x 96"
    with pytest.raises(UserError, match=message) as caught:
        convert_adapter(tmp_path / "peft", directory, tmp_path / "out.gguf")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.gguf").exists()


def test_an_adapter_for_a_deeper_model_is_refused_and_its_modules_listed(
    directory: ModelDirectory, tmp_path: Path
) -> None:
    path = build_tiny("llama", tmp_path / "deeper", num_hidden_layers=5)
    deeper = ModelDirectory(path, "deeper", "llama", "0" * 64, "test")
    with_random_lora(torch_model(deeper), tmp_path / "peft", size=0.1, target_modules=["v_proj"])
    name_no_base(tmp_path / "peft")
    message = (
        r"2 adapted modules have no place in the model \(model\.layers\.3\.self_attn\.v_proj, "
        r"model\.layers\.4\.self_attn\.v_proj\)"
    )
    with pytest.raises(UserError, match=message):
        convert_adapter(tmp_path / "peft", directory, tmp_path / "out.gguf")


def _rename(weights: dict[str, np.ndarray], old: str, new: str) -> None:
    for name in [n for n in weights if old in n]:
        weights[name.replace(old, new)] = weights.pop(name)


def _drop_one_b(weights: dict[str, np.ndarray]) -> None:
    del weights["base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"]


def _poison(weights: dict[str, np.ndarray]) -> None:
    weights["base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"][0, 0] = np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: _rename(w, "layers.0.mlp.up_proj", "layers.0.mlp.other"), r"0\.mlp\.other\)"),
        (lambda w: _rename(w, "layers.0.mlp.up_proj", "lm_head"), "no place in the model"),
        (lambda w: _rename(w, "lora_A", "lora_embedding_A"), "lora_embedding_A"),
        (_drop_one_b, r"0\.mlp\.up_proj lack one of the two factors"),
        (_poison, r"0\.mlp\.up_proj\.lora_B hold numbers that are not finite"),
    ],
    ids=["unknown module", "head", "embedding", "half a pair", "infinite"],
)
def test_tensors_without_a_place_are_refused_in_one_line(
    change: Callable[[dict[str, np.ndarray]], None],
    message: str,
    directory: ModelDirectory,
    peft: Path,
    tmp_path: Path,
) -> None:
    _edit_weights(peft, change)
    with pytest.raises(UserError, match=message) as caught:
        convert_adapter(peft, directory, tmp_path / "out.gguf")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"lora_alpha": 0}, "lora_alpha is 0"),
        ({"r": 4}, "expected rank 4"),
    ],
)
def test_settings_that_cannot_be_carried_over_are_refused(
    changes: dict[str, object],
    message: str,
    directory: ModelDirectory,
    peft: Path,
    tmp_path: Path,
) -> None:
    _edit_config(peft, **changes)
    with pytest.raises(UserError, match=message):
        convert_adapter(peft, directory, tmp_path / "out.gguf")


def test_llama_cpp_refuses_an_adapter_of_another_model_at_run_time(
    directory: ModelDirectory, peft: Path, tmp_path: Path
) -> None:
    adapter = convert_adapter(peft, directory, tmp_path / "adapter.gguf")
    path = build_tiny("llama", tmp_path / "other", intermediate_size=64)
    other = ModelDirectory(path, "other", "llama", "0" * 64, "test")
    gguf_file = export_gguf(other, tmp_path / "other.gguf", dtype="f32")
    with pytest.raises(UserError, match=r"cannot apply .*adapter\.gguf to .*is the adapter for"):
        open_gguf(gguf_file, adapter=adapter, context=64)


def test_a_model_is_not_taken_for_an_adapter(model_gguf: Path) -> None:
    with pytest.raises(UserError, match="of type model; give one of type adapter"):
        open_gguf(model_gguf, adapter=model_gguf, context=64)
