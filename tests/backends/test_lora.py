"""Adapters outside the engines: selection, start values, files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from backends.adapter_files import CONFIG_FILE, SIDECAR_FILE, WEIGHTS_FILE
from backends.interface import LoraConfig
from backends.lora import (
    adapter_sha256,
    check_weights,
    initial_weights,
    load_adapter,
    save_adapter,
    select_modules,
    weights_sha256,
)
from models.directory import ModelDirectory
from models.errors import UserError

LINEAR = {
    f"model.layers.{layer}.{name}": shape
    for layer in (10, 2)
    for name, shape in {
        "mlp.down_proj": (8, 16),
        "mlp.gate_proj": (16, 8),
        "mlp.up_proj": (16, 8),
        "self_attn.o_proj": (8, 12),
        "self_attn.q_proj": (12, 8),
        "self_attn.k_proj": (4, 8),
        "self_attn.v_proj": (4, 8),
        "per_layer_input_gate": (2, 8),
    }.items()
} | {
    "model.layers.3.linear_attn.out_proj": (8, 8),
    "model.layers.3.linear_attn.in_proj_qkv": (24, 8),
    "model.layers.3.mlp.gate_proj": (16, 8),
}
CONFIG = LoraConfig(rank=2, alpha=4.0)


@pytest.fixture
def base(tmp_path: Path) -> ModelDirectory:
    return make_base(tmp_path / "base", {"model_type": "llama"})


def make_base(path: Path, config: dict[str, object], fingerprint: str = "a" * 64) -> ModelDirectory:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return ModelDirectory(path, "tiny", "llama", fingerprint, "here")


def trained(config: LoraConfig = CONFIG) -> dict[str, np.ndarray]:
    """Start weights with B moved away from zero."""
    rng = np.random.default_rng(0)
    weights = initial_weights(config, LINEAR, 0)
    moved = {n: w + rng.normal(size=w.shape).astype(np.float32) for n, w in weights.items()}
    return moved


def test_modules_are_ordered_by_layer_then_role() -> None:
    names = select_modules(LINEAR, "attention")
    assert names == [
        f"model.layers.{layer}.self_attn.{role}_proj" for layer in (2, 10) for role in "qkvo"
    ]
    assert names == select_modules(dict(reversed(LINEAR.items())), "attention")


def test_all_adds_the_mlp_of_every_layer_and_nothing_else() -> None:
    extra = set(select_modules(LINEAR, "all")) - set(select_modules(LINEAR, "attention"))
    assert extra == {name for name in LINEAR if ".mlp." in name}
    assert "model.layers.3.mlp.gate_proj" in extra  # a Gated DeltaNet layer has an MLP as well


def test_no_match_is_an_error() -> None:
    with pytest.raises(UserError, match="match none"):
        select_modules({"model.layers.3.linear_attn.out_proj": (8, 8)}, "attention")
    with pytest.raises(UserError, match="choose attention or all"):
        select_modules(LINEAR, "everything")


def test_start_values_depend_on_seed_and_name_only() -> None:
    weights = initial_weights(CONFIG, LINEAR, 7)
    alone = initial_weights(CONFIG, {"model.layers.2.self_attn.q_proj": (12, 8)}, 7)
    name = "model.layers.2.self_attn.q_proj.lora_A"
    assert np.array_equal(weights[name], alone[name])
    assert not np.array_equal(weights[name], initial_weights(CONFIG, LINEAR, 8)[name])
    other = "model.layers.10.self_attn.q_proj.lora_A"
    assert not np.array_equal(weights[name], weights[other])


def test_start_values_are_uniform_in_the_bound_and_b_is_zero() -> None:
    weights = initial_weights(LoraConfig(64, 64), {"model.layers.0.self_attn.q_proj": (8, 100)}, 0)
    a = weights["model.layers.0.self_attn.q_proj.lora_A"]
    assert a.dtype == np.float32
    assert 0.099 < np.abs(a).max() <= 0.1
    # 6400 draws: the standard error of the mean is 0.1/sqrt(3)/80 = 7e-4, of the deviation 4e-4
    assert abs(a.mean()) < 3e-3
    assert a.std() == pytest.approx(0.1 / np.sqrt(3), abs=2e-3)
    assert not weights["model.layers.0.self_attn.q_proj.lora_B"].any()


def test_start_values_are_these_numbers() -> None:
    """A change of the stream would silently make every run irreproducible."""
    weights = initial_weights(LoraConfig(1, 1), {"model.layers.0.self_attn.q_proj": (1, 4)}, 0)
    assert weights_sha256(weights)[:16] == "1531b583b625f6a5"


@pytest.mark.parametrize("rslora", [False, True])
def test_a_saved_adapter_comes_back_exactly(
    tmp_path: Path, base: ModelDirectory, rslora: bool
) -> None:
    config = LoraConfig(rank=2, alpha=3.5, targets="all", dropout=0.25, rslora=rslora)
    weights = trained(config)
    digest = save_adapter(tmp_path / "adapter", config, weights, base, {"run": 1})
    loaded_config, loaded = load_adapter(tmp_path / "adapter", base)
    assert loaded_config == config
    assert loaded.keys() == weights.keys()
    assert all(np.array_equal(loaded[name], weights[name]) for name in weights)
    assert adapter_sha256(tmp_path / "adapter") == digest


def test_the_hash_tells_weights_and_scaling_apart(tmp_path: Path, base: ModelDirectory) -> None:
    weights = trained()
    digests = {save_adapter(tmp_path / "a", CONFIG, weights, base)}
    digests.add(save_adapter(tmp_path / "a", LoraConfig(rank=2, alpha=5.0), weights, base))
    digests.add(save_adapter(tmp_path / "a", LoraConfig(rank=2, alpha=4.0, rslora=True),
                             weights, base))  # fmt: skip
    name = next(iter(weights))
    weights[name] = weights[name] + np.float32(1e-3)
    digests.add(save_adapter(tmp_path / "a", CONFIG, weights, base))
    assert len(digests) == 4


def test_saving_again_gives_the_same_bytes(tmp_path: Path, base: ModelDirectory) -> None:
    for name in ("a", "b"):
        save_adapter(tmp_path / name, CONFIG, trained(), base)
    for file in (CONFIG_FILE, WEIGHTS_FILE, SIDECAR_FILE):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_gemma_4_wrapper_names_are_written_and_read(tmp_path: Path) -> None:
    config = {"model_type": "gemma4", "text_config": {}}
    base = make_base(tmp_path / "wrapped", config)
    save_adapter(tmp_path / "adapter", CONFIG, trained(), base)
    peft = json.loads((tmp_path / "adapter" / CONFIG_FILE).read_text())
    assert all(n.startswith("model.language_model.layers.") for n in peft["target_modules"])
    assert load_adapter(tmp_path / "adapter", base)[1].keys() == trained().keys()


def test_a_failed_save_leaves_the_old_adapter(tmp_path: Path, base: ModelDirectory) -> None:
    digest = save_adapter(tmp_path / "adapter", CONFIG, trained(), base)
    with pytest.raises(TypeError):
        save_adapter(tmp_path / "adapter", CONFIG, trained(), base, {"bad": object()})
    assert adapter_sha256(tmp_path / "adapter") == digest
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_adapter_for_another_model_is_refused(tmp_path: Path, base: ModelDirectory) -> None:
    save_adapter(tmp_path / "adapter", CONFIG, trained(), base)
    other = make_base(tmp_path / "other", {"model_type": "llama"}, "b" * 64)
    with pytest.raises(UserError, match="was trained on tiny") as caught:
        load_adapter(tmp_path / "adapter", other)
    assert "\n" not in str(caught.value)


def test_changed_weights_are_noticed(tmp_path: Path, base: ModelDirectory) -> None:
    save_adapter(tmp_path / "adapter", CONFIG, trained(), base)
    file = tmp_path / "adapter" / WEIGHTS_FILE
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load_adapter(tmp_path / "adapter", base)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_dora", True),
        ("bias", "all"),
        ("modules_to_save", ["lm_head"]),
        ("init_lora_weights", "pissa"),
        ("peft_type", "IA3"),
        ("r", "many"),
    ],
)
def test_unsupported_peft_features_get_one_line(
    tmp_path: Path, base: ModelDirectory, key: str, value: object
) -> None:
    save_adapter(tmp_path / "adapter", CONFIG, trained(), base)
    file = tmp_path / "adapter" / CONFIG_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(UserError) as caught:
        load_adapter(tmp_path / "adapter", base)
    assert "\n" not in str(caught.value)
    assert str(value) in str(caught.value) or key in str(caught.value)


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE, SIDECAR_FILE])
@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 64, b"[1]"])
def test_damaged_files_get_one_line(
    tmp_path: Path, base: ModelDirectory, file: str, content: bytes
) -> None:
    save_adapter(tmp_path / "adapter", CONFIG, trained(), base)
    (tmp_path / "adapter" / file).write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_adapter(tmp_path / "adapter", base)
    assert "\n" not in str(caught.value)


def test_a_missing_adapter_gets_one_line(tmp_path: Path, base: ModelDirectory) -> None:
    with pytest.raises(UserError, match="is not a LoRA adapter"):
        load_adapter(tmp_path, base)


def test_bfloat16_weights_are_read(tmp_path: Path, base: ModelDirectory) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    weights = trained()
    save_adapter(tmp_path / "adapter", CONFIG, weights, base)
    (tmp_path / "adapter" / SIDECAR_FILE).unlink()  # as another tool would have written it
    file = tmp_path / "adapter" / WEIGHTS_FILE
    save_file({n: t.to(torch.bfloat16) for n, t in load_file(file).items()}, file)
    _, loaded = load_adapter(tmp_path / "adapter", base)
    for name, weight in weights.items():
        expected = torch.from_numpy(weight).to(torch.bfloat16).float().numpy()
        assert np.array_equal(loaded[name], expected)


def test_weights_are_checked_against_the_model() -> None:
    weights = trained()
    assert check_weights(CONFIG, weights, LINEAR) == select_modules(LINEAR, "attention")
    name = "model.layers.2.self_attn.q_proj"
    with pytest.raises(UserError, match="does not have"):
        check_weights(CONFIG, weights, {k: v for k, v in LINEAR.items() if k != name})
    with pytest.raises(UserError, match="does not fit"):
        check_weights(CONFIG, weights, LINEAR | {name: (12, 9)})
    del weights[f"{name}.lora_B"]
    with pytest.raises(UserError, match=r"q_proj\.lora_B is nothing"):
        check_weights(CONFIG, weights, LINEAR)


@pytest.mark.parametrize(
    ("declared", "taken"),
    [("org/tiny", True), ("org/tiny@3f2a", True), ("/a@b/tiny", True), ("org/other@3f2a", False)],
)
def test_a_revision_in_the_declared_base_is_no_other_model(
    tmp_path: Path, base: ModelDirectory, declared: str, taken: bool
) -> None:
    save_adapter(tmp_path / "adapter", CONFIG, trained(), base)
    (tmp_path / "adapter" / SIDECAR_FILE).unlink()
    file = tmp_path / "adapter" / CONFIG_FILE
    content = json.loads(file.read_text()) | {"base_model_name_or_path": declared}
    file.write_text(json.dumps(content))
    if taken:
        load_adapter(tmp_path / "adapter", base)
    else:
        with pytest.raises(UserError, match="made for org/other"):
            load_adapter(tmp_path / "adapter", base)
