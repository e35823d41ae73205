"""Adapters of other programs: what is read, exactly what it computes, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from backends import open_backend
from backends.adapter_files import SIDECAR_FILE, load_adapter, read_adapter, write_format
from backends.adapters.contents import CONFIG_FILE
from backends.adapters.mlx_format import MLX_WEIGHTS_FILE
from backends.adapters.peft_format import WEIGHTS_FILE
from backends.interface import LoraConfig
from backends.memory import model_size
from backends.verification import probe_ids
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.adapters import (
    LAYOUTS,
    Tiny,
    edit_json,
    edit_tensors,
    layout_directory,
    live_adapter,
    saved,
)
from tests.support.llamacpp import torch_logits, torch_model, with_random_lora
from tests.support.tolerances import tolerance

CONFIG = LoraConfig(4, 6.0)


@pytest.fixture(scope="module")
def llama(tiny_directory: Tiny) -> ModelDirectory:
    return tiny_directory("llama")


def ours(directory: ModelDirectory, adapter: Path, engine: str = "torch") -> np.ndarray:
    """Logits with the adapter as this program reads it."""
    with open_backend(engine, directory) as model:
        model.attach_lora(*load_adapter(adapter, directory))
        return model.logits(probe_ids(directory))


def largest_share(reference: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(reference - other).max() / np.ptp(reference))


def mlx_adapter(directory: ModelDirectory, path: Path, **changes: object) -> Path:
    """An mlx-lm adapter as mlx-lm leaves it: without our key and without our sidecar."""
    path.mkdir()
    weights = live_adapter(directory, CONFIG)
    write_format(
        path, "mlx", CONFIG, weights, directory, list(model_size(directory).linear_modules)
    )
    edit_json(path / CONFIG_FILE, **{"threearc": ..., **changes})
    return path


# mlx-lm ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_adapter_made_by_mlx_lm_computes_the_same_here(
    layout: str, tiny_directory: Tiny, tmp_path: Path
) -> None:
    """mlx-lm's default: every linear layer of the last layers, its own names and scale."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers

    from backends.mlx.model import open_model

    base = layout_directory(layout, tiny_directory, tmp_path)
    lora = {"rank": 4, "scale": 3.0, "dropout": 0.0}
    (tmp_path / "theirs").mkdir()
    with open_model(base) as model:
        network = model._decoder.network
        plain = model.logits(probe_ids(base))
        network.freeze()
        linear_to_lora_layers(network, 2, lora)
        mx.random.seed(0)
        for name, value in tree_flatten(network.trainable_parameters()):
            network.load_weights([(name, 0.15 * mx.random.normal(value.shape))], strict=False)
        trained = dict(tree_flatten(network.trainable_parameters()))
        mx.save_safetensors(str(tmp_path / "theirs" / MLX_WEIGHTS_FILE), trained)
        expected = model.logits(probe_ids(base))
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": lora}
    (tmp_path / "theirs" / CONFIG_FILE).write_text(json.dumps(config))

    stored = read_adapter(tmp_path / "theirs")
    assert stored.format == "mlx" and stored.contents.config.alpha == 12.0
    layers = {int(name.split(".")[2]) for name in stored.contents.weights}
    assert layers == ({1, 2} if layout in ("llama", "qwen3") else {2, 3})
    assert largest_share(expected, ours(base, tmp_path / "theirs")) < 1e-4
    assert largest_share(expected, plain) > 1e-2


@pytest.mark.slow  # mlx compiles its training step with a C++ compiler on a CPU: 25 s
def test_mlx_lm_trains_an_adapter_that_is_read(llama: ModelDirectory, tmp_path: Path) -> None:
    """The real command and the files it leaves, beside mlx-lm's own logits."""
    import mlx.core as mx
    import mlx_lm

    (tmp_path / "data").mkdir()
    row = json.dumps({"text": "def add(a, b): return a + b " * 4}) + "\n"
    for split in ("train", "valid"):
        (tmp_path / "data" / f"{split}.jsonl").write_text(row * 4)
    subprocess.run(
        [sys.executable, "-m", "mlx_lm", "lora", "--model", str(llama.path), "--train", "--data",
         str(tmp_path / "data"), "--iters", "3", "--batch-size", "1", "--num-layers", "2",
         "--learning-rate", "0.01", "--val-batches", "1", "--adapter-path", str(tmp_path / "a")],
        check=True, capture_output=True,
    )  # fmt: skip
    network, _ = mlx_lm.load(str(llama.path), adapter_path=str(tmp_path / "a"))
    expected = np.array(network(mx.array([probe_ids(llama)]))[0])
    plain = torch_logits(torch_model(llama), probe_ids(llama))
    assert largest_share(expected, ours(llama, tmp_path / "a")) < 1e-4
    assert largest_share(expected, plain) > 1e-3
    declared = read_adapter(tmp_path / "a").contents.declared_base
    assert declared == str(llama.path)


@pytest.mark.parametrize("scale", [20.0, 0.1, 1 / 3, -2.0, 1e-3])
@pytest.mark.parametrize("rank", [1, 3, 7, 8, 96])
def test_mlx_lm_scales_come_back(scale: float, rank: int) -> None:
    """To the last bit of a double where some alpha gives it (0.1 * 3 / 3 is not 0.1)."""
    from backends.adapters.mlx_format import _alpha_for

    found = LoraConfig(rank, _alpha_for(scale, rank)).scale
    assert found == pytest.approx(scale, rel=2.3e-16, abs=0)
    assert np.float32(found) == np.float32(scale)
    if rank in (1, 8) or scale in (20.0, -2.0):
        assert found == scale


def test_a_scale_that_was_edited_wins_over_what_we_kept(
    llama: ModelDirectory, tmp_path: Path
) -> None:
    path = mlx_adapter(llama, tmp_path / "a", threearc={"alpha": 6.0, "rslora": False})
    assert read_adapter(path).contents.config.alpha == 6.0
    lora = json.loads((path / CONFIG_FILE).read_text())["lora_parameters"]
    edit_json(path / CONFIG_FILE, lora_parameters=lora | {"scale": 5.0})
    assert read_adapter(path).contents.config.scale == 5.0


def test_arc1_takes_an_mlx_lm_adapter(llama: ModelDirectory, tmp_path: Path) -> None:
    """What arc1 --adapter does with it: check, hash, convert to GGUF."""
    from types import SimpleNamespace

    from arcs.arc1.training import Trained, Trainer, train_or_take
    from backends.adapter_files import adapter_sha256
    from backends.llamacpp.adapter import convert_adapter

    path = mlx_adapter(llama, tmp_path / "a")
    config: Any = SimpleNamespace(adapter=path)
    nothing: Any = None
    trainer = Trainer(config, nothing, llama, "torch", nothing, nothing)
    assert train_or_take(trainer, [], []) == Trained(path, None, None)
    assert len(adapter_sha256(path)) == 64
    assert convert_adapter(path, llama, tmp_path / "a.gguf").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fine_tune_type": "dora"}, "fine_tune_type dora, not LoRA: make it a model with mlx_lm"),
        ({"fine_tune_type": "full"}, "fine_tune_type full, not LoRA"),
        ({"fine_tune_type": "other"}, "unknown fine_tune_type 'other'"),
        ({"lora_parameters": ...}, "no lora_parameters"),
        ({"lora_parameters": {"rank": 4}}, "lora_parameters.scale is None"),
        ({"lora_parameters": {"rank": "4", "scale": 1.0}}, "the rank is '4'"),
        ({"lora_parameters": {"rank": 4, "scale": float("inf")}}, "finite"),
        ({"lora_parameters": {"rank": 2, "scale": 1.0}}, "expected rank 2"),
        ({"lora_parameters": {"rank": 4, "scale": 1.0, "dropout": 1.5}}, "dropout is 1.5"),
        ({"model": "someone/else"}, "made for someone/else.*correct model in"),
    ],
)
def test_what_is_no_plain_mlx_lm_lora_is_one_line(
    llama: ModelDirectory, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = mlx_adapter(llama, tmp_path / "a", **changes)
    with pytest.raises(UserError, match=message) as caught:
        load_adapter(path, llama)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("model.layers.0.self_attn.q_proj.m", (96,), "no DoRA"),
        ("model.embed_tokens.lora_a", (512, 4), "no embeddings"),
        ("model.layers.0.mlp.switch.lora_a", (2, 4, 96), "3 dimensions"),
        ("model.model.layers.0.x.weight", (4, 4), "only LoRA on linear layers"),
        ("language_model.model.layers.0.self_attn.q_proj.lora_a", (96, 4), "two spellings"),
    ],
)
def test_tensors_that_are_no_linear_lora_are_one_line(
    llama: ModelDirectory, tmp_path: Path, name: str, shape: tuple[int, ...], message: str
) -> None:
    path = mlx_adapter(llama, tmp_path / "a")
    edit_tensors(
        path / MLX_WEIGHTS_FILE, lambda t: t.update({name: np.zeros(shape, np.float32)})
    )  # fmt: skip
    with pytest.raises(UserError, match=message) as caught:
        load_adapter(path, llama)
    assert "\n" not in str(caught.value)


def test_neither_format_is_one_line(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text('{"rank": 4}')
    with pytest.raises(UserError, match="neither a PEFT nor an mlx-lm adapter"):
        read_adapter(tmp_path)
    (tmp_path / CONFIG_FILE).write_text('{"fine_tune_type": "lora", "lora_parameters": '
                                        '{"rank": 1, "scale": 1}}')  # fmt: skip
    with pytest.raises(UserError, match=f"has no {MLX_WEIGHTS_FILE}"):
        read_adapter(tmp_path)


# PEFT --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(
    ("patterns", "rank", "notes"),
    [
        ({"alpha_pattern": {"v_proj": 3, r"layers\.0\.self_attn\.q_proj": 5}}, 4, 1),
        ({"rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 6}}, 6, 2),
        ({"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 4}}, 4, None),
        ({"rank_pattern": {"_proj": 4}}, 4, 0),
        ({"alpha_pattern": {".*_proj": 3}}, 4, 0),
    ],
    ids=["alpha", "rank", "both", "rank of none", "alpha of all"],
)
def test_patterns_are_unfolded_to_what_peft_computes(
    llama: ModelDirectory,
    tmp_path: Path,
    rslora: bool,
    patterns: dict[str, Any],
    rank: int,
    notes: int | None,
) -> None:
    adapted = with_random_lora(
        torch_model(llama), tmp_path / "a", size=0.1, r=4, lora_alpha=8, use_rslora=rslora,
        **patterns,
    )  # fmt: skip
    expected = torch_logits(adapted, probe_ids(llama))
    contents = read_adapter(tmp_path / "a").contents
    assert contents.config.rank == rank
    if notes is not None:
        assert len(contents.notes) == notes, contents.notes
    for engine in ("torch", "mlx"):
        assert np.abs(ours(llama, tmp_path / "a", engine) - expected).max() < tolerance("logits")
    # ignoring the patterns' scales would be seen
    if contents.notes:
        scales = {n: c for n, c in contents.weights.items() if n.endswith("lora_A")}
        with open_backend("torch", llama) as model:
            raw = {n: v * np.float32(1.0 if n in scales else 1.5)
                   for n, v in contents.weights.items()}  # fmt: skip
            model.attach_lora(contents.config, raw)
            assert np.abs(model.logits(probe_ids(llama)) - expected).max() > 0.05


def test_folding_by_a_power_of_two_and_padding_are_exact(
    llama: ModelDirectory, tmp_path: Path
) -> None:
    with_random_lora(
        torch_model(llama), tmp_path / "a", size=0.1, r=4, lora_alpha=8,
        rank_pattern={"q_proj": 2}, target_modules=["q_proj", "k_proj", "v_proj"],
    )  # fmt: skip
    raw = load_file(tmp_path / "a" / WEIGHTS_FILE)
    found = read_adapter(tmp_path / "a").contents.weights
    name = "model.layers.0.self_attn.q_proj"
    b = raw[f"base_model.model.{name}.lora_B.weight"]
    assert np.array_equal(found[f"{name}.lora_B"][:, :2], 2 * b)  # alpha / rank: 4 against 2
    assert not found[f"{name}.lora_B"][:, 2:].any() and not found[f"{name}.lora_A"][2:].any()
    other = "model.layers.0.self_attn.k_proj"
    assert np.array_equal(
        found[f"{other}.lora_B"], raw[f"base_model.model.{other}.lora_B.weight"]
    )  # fmt: skip


def test_a_subset_of_layers_of_peft_is_read(llama: ModelDirectory, tmp_path: Path) -> None:
    adapted = with_random_lora(
        torch_model(llama), tmp_path / "a", size=0.3, layers_to_transform=[1],
        target_modules=["o_proj"],
    )  # fmt: skip
    assert set(read_adapter(tmp_path / "a").contents.weights) == {
        f"model.layers.1.self_attn.o_proj.lora_{part}" for part in "AB"
    }
    expected = torch_logits(adapted, probe_ids(llama))
    assert np.abs(ours(llama, tmp_path / "a") - expected).max() < tolerance("logits")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank_pattern": {"(": 2}}, "no regular expression"),
        ({"rank_pattern": {"q_proj": 0}}, "q_proj is 0, which cannot be"),
        ({"rank_pattern": {"q_proj": 3}}, "expected rank 3"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"r": 0}, "greater than or equal to 1"),
        ({"lora_alpha": float("nan")}, "finite"),
        ({"init_lora_weights": "lora_ga"}, "changes the base weights"),
    ],
)
def test_peft_settings_that_cannot_be_read_are_one_line(
    llama: ModelDirectory, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = saved(tmp_path / "a", llama, CONFIG, live_adapter(llama, CONFIG))
    edit_json(path / CONFIG_FILE, **changes)
    with pytest.raises(UserError, match=message) as caught:
        load_adapter(path, llama)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("older", [{}, {"enable_lora": None, "merge_weights": False}])
def test_settings_as_peft_wrote_them_in_its_first_year_are_read(
    llama: ModelDirectory, tmp_path: Path, older: dict[str, object]
) -> None:
    path = saved(tmp_path / "a", llama, CONFIG, live_adapter(llama, CONFIG))
    now = load_adapter(path, llama)
    whole = json.loads((path / CONFIG_FILE).read_text())
    first = ("base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "lora_alpha",
             "init_lora_weights", "lora_dropout", "modules_to_save", "peft_type", "r",
             "target_modules", "task_type")  # fmt: skip
    settings = {**{key: whole[key] for key in first if key in whole}, **older}
    (path / CONFIG_FILE).write_text(json.dumps(settings))
    then = load_adapter(path, llama)
    assert then[0] == now[0] and then[1].keys() == now[1].keys()


def test_pickled_weights_are_not_read_and_said(llama: ModelDirectory, tmp_path: Path) -> None:
    path = saved(tmp_path / "a", llama, CONFIG, live_adapter(llama, CONFIG))
    (path / WEIGHTS_FILE).rename(path / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.bin is not read: save it again"):
        load_adapter(path, llama)


def test_an_edited_scale_is_noticed_by_the_hash(llama: ModelDirectory, tmp_path: Path) -> None:
    path = saved(tmp_path / "a", llama, CONFIG, live_adapter(llama, CONFIG))
    edit_json(path / CONFIG_FILE, lora_alpha=12)
    with pytest.raises(UserError, match="weights or their scale differ"):
        load_adapter(path, llama)


# Anything at all ---------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
KEYS = (
    "peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern",
    "base_model_name_or_path", "init_lora_weights", "bias", "fine_tune_type", "lora_parameters",
    "threearc", "model", "num_layers", "target_modules",
)  # fmt: skip
LORA_KEYS = ("rank", "scale", "dropout", "keys")


@pytest.fixture(scope="module")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A two-module adapter in each format, for no real model."""
    root = tmp_path_factory.mktemp("files")
    (root / "base").mkdir()
    (root / "base" / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 2}')
    base = ModelDirectory(root / "base", "tiny", "llama", "a" * 64, "here")
    weights = {
        f"model.layers.{layer}.self_attn.q_proj.lora_{part}": np.ones((2, 2), np.float32)
        for layer in (0, 1)
        for part in "AB"
    }
    for kind in ("peft", "mlx"):
        (root / kind).mkdir()
        write_format(root / kind, kind, LoraConfig(2, 4.0), weights, base, [])
    return {kind: root / kind for kind in ("peft", "mlx")}


def _read_or_one_line(path: Path) -> None:
    refused = None
    try:
        found = read_adapter(path).contents
    except UserError as error:
        refused = str(error)
    if refused is not None:
        assert refused and "\n" not in refused
        return
    assert all(value.ndim == 2 for value in found.weights.values())
    assert np.isfinite(found.config.scale)


@pytest.mark.parametrize("kind", ["peft", "mlx"])
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_settings_are_read_or_refused_in_one_line(
    kind: str, tiny_files: dict[str, Path], tmp_path: Path, data: st.DataObject
) -> None:
    path = _copy(tiny_files[kind], tmp_path / "a")
    changes = data.draw(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3))
    lora = data.draw(st.dictionaries(st.sampled_from(LORA_KEYS), JSON, max_size=2))
    settings_ = json.loads((path / CONFIG_FILE).read_text()) | changes
    if isinstance(settings_.get("lora_parameters"), dict):
        settings_["lora_parameters"] |= lora
    (path / CONFIG_FILE).write_text(json.dumps(settings_))
    _read_or_one_line(path)


@pytest.mark.parametrize("kind", ["peft", "mlx"])
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_bytes_are_read_or_refused_in_one_line(
    kind: str, tiny_files: dict[str, Path], tmp_path: Path, data: st.DataObject
) -> None:
    path = _copy(tiny_files[kind], tmp_path / "a")
    weights = WEIGHTS_FILE if kind == "peft" else MLX_WEIGHTS_FILE
    file = path / data.draw(st.sampled_from([CONFIG_FILE, weights, SIDECAR_FILE]))
    content = bytearray(file.read_bytes() if file.exists() else b"{}")
    place = data.draw(st.integers(0, len(content)))
    content[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=12))
    file.write_bytes(bytes(content))
    _read_or_one_line(path)


def _copy(source: Path, target: Path) -> Path:
    import shutil

    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))


def test_the_property_tests_start_from_files_that_are_read(tiny_files: dict[str, Path]) -> None:
    for path in tiny_files.values():
        assert read_adapter(path).contents.config == LoraConfig(2, 4.0)
    first, second = (read_adapter(tiny_files[kind]) for kind in ("peft", "mlx"))
    assert first.sha256 == second.sha256


def test_half_precision_mlx_weights_are_read(llama: ModelDirectory, tmp_path: Path) -> None:
    path = mlx_adapter(llama, tmp_path / "a")
    exact = read_adapter(path).contents.weights
    half = {n: t.astype(np.float16) for n, t in load_file(path / MLX_WEIGHTS_FILE).items()}
    save_file(half, path / MLX_WEIGHTS_FILE)
    for name, value in read_adapter(path).contents.weights.items():
        assert np.array_equal(value, exact[name].astype(np.float16).astype(np.float32))
