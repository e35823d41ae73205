"""Every family's GGUF in llama.cpp against torch: weights, adapters, heads; what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")
pytest.importorskip("llama_cpp")

from safetensors.numpy import load_file, save_file

import models.gguf.gemma as gemma_module
import models.gguf.qwen as qwen_module
from backends.interface import Head, HiddenPoint, LoraConfig
from backends.llamacpp.adapter import convert_adapter
from backends.llamacpp.exact import open_exact
from backends.llamacpp.model import open_gguf
from backends.lora import save_adapter
from backends.torch.model import open_model
from models.directory import ModelDirectory
from models.errors import CapabilityError, UserError
from models.geometry import read_geometry
from models.gguf.export import export_gguf
from models.gguf.layout import layout_of
from models.gguf_file import read_gguf
from tests.support.tiny_models import GEMMA3_OF_LLAMACPP

Tiny = Callable[..., ModelDirectory]
Logits = list[NDArray[np.float32]]

MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen3": ("qwen3", {}),
    "qwen3, untied": ("qwen3", {"tie_word_embeddings": False}),
    "qwen3_5": ("qwen3_5", {}),
    # two value heads share a key head: llama.cpp keeps them in another order
    "qwen3_5, shared keys": ("qwen3_5", {"linear_num_key_heads": 2}),
    "gemma3": ("gemma3", GEMMA3_OF_LLAMACPP),
    "gemma4": ("gemma4", {}),
}
SUMS = 2e-5
"""Of the range: float32 sums in another order; measured 7e-7 (llama) to 1.2e-5 (DeltaNet)."""
GELU = 1e-3
"""Of the range: ggml looks GELU up in a table of float16; measured 5e-5 (3) and 7e-4 (4)."""
BOUND = {"gemma3": GELU, "gemma4": GELU}
LORA = LoraConfig(4, 8.0, targets="all")


@pytest.fixture(params=list(MODELS))
def directory(request: pytest.FixtureRequest, tiny_directory: Tiny) -> ModelDirectory:
    family, overrides = MODELS[request.param]
    return tiny_directory(family, **overrides)


@pytest.fixture
def sequences() -> list[list[int]]:
    """Longer and shorter than the sliding window of 8."""
    rng = np.random.default_rng(0)
    return [rng.integers(3, 500, n).tolist() for n in (40, 5)]


def apart(found: Logits, expected: Logits) -> float:
    """Largest difference over the range."""
    return max(float(np.abs(a - b).max() / np.ptp(b)) for a, b in zip(found, expected, strict=True))


def bound_of(directory: ModelDirectory) -> float:
    return BOUND.get(directory.family, SUMS)


def live_lora(modules: Mapping[str, tuple[int, int]]) -> dict[str, NDArray[np.float32]]:
    """Both factors random, for every linear layer of the decoder."""
    rng = np.random.default_rng(1)
    weights = {}
    for name, (out, into) in modules.items():
        weights[f"{name}.lora_A"] = 0.1 * rng.normal(size=(LORA.rank, into)).astype(np.float32)
        weights[f"{name}.lora_B"] = 0.1 * rng.normal(size=(out, LORA.rank)).astype(np.float32)
    return weights


def test_logits_and_states_are_torchs(
    directory: ModelDirectory, sequences: list[list[int]], tmp_path: Path
) -> None:
    point = HiddenPoint(read_geometry(directory.path).n_layers, True)
    last = [len(ids) - 1 for ids in sequences]
    with open_model(directory, device="cpu") as torch:
        logits = [torch.logits(ids) for ids in sequences]
        states = torch.hidden_states(sequences, last, [point])
        heads = torch.attention_heads()
    with open_exact(directory, tmp_path) as model:
        assert apart([model.logits(ids) for ids in sequences], logits) < bound_of(directory)
        found = model.hidden_states(sequences, last, [point])
        assert apart([found], [states]) < bound_of(directory)
        assert model.attention_heads() == heads


def test_an_adapter_on_every_linear_layer_and_scaled_heads(
    directory: ModelDirectory, sequences: list[list[int]], tmp_path: Path
) -> None:
    with open_model(directory, device="cpu") as torch:
        base = torch.logits(sequences[0])
        weights = live_lora(torch.linear_modules())
        torch.attach_lora(LORA, weights)
        adapted = torch.logits(sequences[0])
        layers = sorted(torch.attention_heads())
        scales = {Head(layers[0], 1): 0.0, Head(layers[-1], 0): 0.5}
        with torch.tempered(scales):
            tempered = torch.logits(sequences[0])
    assert apart([adapted], [base]) > 0.05 and apart([tempered], [adapted]) > 0.005
    save_adapter(tmp_path / "peft", LORA, weights, directory, {})
    for heads, expected in (({}, adapted), (scales, tempered)):
        with open_exact(directory, tmp_path, peft_dir=tmp_path / "peft", scales=heads) as model:
            assert apart([model.logits(sequences[0])], [expected]) < bound_of(directory)


@pytest.mark.parametrize(
    ("name", "module", "what", "wrong"),
    [
        ("qwen3_5", qwen_module, "is_norm", lambda name: False),
        ("gemma3", gemma_module, "is_norm", lambda name: False),
        ("gemma4", gemma_module, "_frequency_divisors", lambda dim, _: np.ones(dim // 2, "f4")),
    ],
)
def test_what_a_family_does_besides_matters(
    tiny_directory: Tiny,
    sequences: list[list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    module: Any,
    what: str,
    wrong: Any,
) -> None:
    """Norms without their 1, and global layers that rotate all of a head, are far off."""
    family, overrides = MODELS[name]
    directory = tiny_directory(family, **overrides)
    with open_model(directory, device="cpu") as torch:
        expected = [torch.logits(ids) for ids in sequences]
    monkeypatch.setattr(module, what, wrong)
    with open_exact(directory, tmp_path) as model:
        assert apart([model.logits(ids) for ids in sequences], expected) > 10 * bound_of(directory)


@pytest.mark.parametrize("family", ["gemma3", "gemma4", "qwen3_5"])
def test_a_multimodal_models_language_part_is_written_alone(
    tiny_directory: Tiny, tmp_path: Path, family: str
) -> None:
    plain = tiny_directory(family, **(GEMMA3_OF_LLAMACPP if family == "gemma3" else {}))
    folder = tmp_path / "wrapped"
    folder.mkdir()
    tensors = load_file(plain.path / "model.safetensors")
    wrapped = {
        "model.language_model." + name.removeprefix("model."): value
        for name, value in tensors.items()
    }
    wrapped["model.vision_tower.encoder.layers.0.mlp.fc1.weight"] = np.ones((4, 4), np.float32)
    wrapped["model.audio_tower.layers.0.norm.weight"] = np.ones(4, np.float32)
    wrapped["mtp.layers.0.mlp.down_proj.weight"] = np.ones((4, 4), np.float32)
    save_file(wrapped, folder / "model.safetensors")
    config = json.loads((plain.path / "config.json").read_text())
    outer = {"model_type": family, "text_config": config}
    (folder / "config.json").write_text(json.dumps(outer))
    other = ModelDirectory(folder, "wrapped", family, plain.fingerprint, str(folder))
    made = read_gguf(export_gguf(other, tmp_path / "wrapped.gguf", dtype="f32"))
    expected = read_gguf(export_gguf(plain, tmp_path / "plain.gguf", dtype="f32"))
    assert {n: t.shape for n, t in made.tensors.items()} == {
        n: t.shape for n, t in expected.tensors.items()
    }
    left_out = {"general.name"}
    assert {k: v for k, v in made.metadata.items() if k not in left_out} == {
        k: v for k, v in expected.metadata.items() if k not in left_out
    }


def test_half_precision_files_load_and_stay_near(
    directory: ModelDirectory, sequences: list[list[int]], tmp_path: Path
) -> None:
    with open_model(directory, device="cpu") as torch:
        expected = torch.logits(sequences[0])
    path = export_gguf(directory, tmp_path / "f16.gguf", dtype="f16")
    with open_gguf(path, context=64, kv_dtype="f32", gpu_layers=0, threads=1) as model:
        # 11 bits of weight, a few layers deep: measured 4e-4 to 3e-3
        assert 1e-6 < apart([model.logits(sequences[0])], [expected]) < 1e-2


def edited(plain: ModelDirectory, folder: Path, **changes: Any) -> ModelDirectory:
    """A copy whose config.json differs; weights are shared."""
    folder.mkdir()
    for file in plain.path.iterdir():
        if file.is_file() and file.name != "config.json":
            (folder / file.name).symlink_to(file)
    config = json.loads((plain.path / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return ModelDirectory(folder, "edited", plain.family, "0" * 64, str(folder))


ROPE = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}
GEMMA_ROPES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
}


def _gemma4_ropes(**changes: Any) -> dict[str, Any]:
    full = {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25}
    return {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": full | changes,
    }


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen3", {"rope_parameters": ROPE}, "RoPE type 'yarn'"),
        ("qwen3", {"use_sliding_window": True}, "sliding-window layers"),
        ("qwen3_5", {"rope_parameters": ROPE}, "RoPE type 'yarn'"),
        (
            "qwen3_5",
            {"layer_types": ["full_attention", "linear_attention"] * 2},
            "full attention at irregular layers",
        ),
        (
            "gemma3",
            {"layer_types": ["full_attention"] * 7},
            "global layers other than every sixth",
        ),
        ("gemma3", {"rope_parameters": GEMMA_ROPES}, "RoPE type 'linear'"),
        ("gemma3", {"query_pre_attn_scalar": 100}, "query_pre_attn_scalar 100 beside head_dim 32"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0"),
        ("gemma4", {"enable_moe_block": True}, "experts"),
        ("gemma4", {"attention_k_eq_v": True}, "values that are the keys"),
        ("gemma4", {"rope_parameters": GEMMA_ROPES}, "global RoPE type 'linear'"),
        (
            "gemma4",
            {"rope_parameters": _gemma4_ropes(rope_type="default")},
            "rotated share of 0.25",
        ),
        ("gemma4", {"rope_parameters": _gemma4_ropes(factor=4.0)}, "a RoPE factor of 4.0"),
        ("gemma4", {"use_bidirectional_attention": "all"}, "bidirectional attention"),
        (
            "gemma4",
            {"layer_types": ["full_attention", "sliding_attention"] * 2},
            "do not come from a sliding and a global layer",
        ),
        ("gemma4", {"hidden_activation": "silu"}, "activation 'silu'"),
        ("gemma3", {"hidden_activation": "silu"}, "activation 'silu'"),
        ("qwen3", {"hidden_act": "gelu"}, "activation 'gelu'"),
        ("qwen3", {"attention_bias": True}, "biases in attention"),
        ("qwen3_5", {"attention_bias": True}, "biases in attention"),
        ("gemma3", {"attention_bias": True}, "biases in attention"),
    ],
)
def test_what_llamacpp_would_compute_differently_is_refused(
    tiny_directory: Tiny, tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    family, overrides = MODELS[name]
    directory = edited(tiny_directory(family, **overrides), tmp_path / "edited", **changes)
    with pytest.raises(CapabilityError, match=message) as caught:
        export_gguf(directory, tmp_path / "out.gguf", dtype="f32")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("qwen3", "intermediate_size"),
        ("gemma3", "sliding_window"),
        ("gemma3", "rms_norm_eps"),
        ("gemma4", "sliding_window"),
        ("qwen3_5", "linear_conv_kernel_dim"),
    ],
)
def test_a_key_that_is_missing_is_named_before_anything_is_written(
    tiny_directory: Tiny, tmp_path: Path, name: str, key: str
) -> None:
    family, overrides = MODELS[name]
    directory = edited(tiny_directory(family, **overrides), tmp_path / "edited")
    config = json.loads((directory.path / "config.json").read_text())
    del config[key]
    (directory.path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"config.json has no {key}"):
        layout_of(directory, doing="a test")


def test_a_wrappers_own_word_on_tying_decides(tiny_directory: Tiny, tmp_path: Path) -> None:
    """transformers goes by the outer key: an untied head must not be left out of the file."""
    plain = tiny_directory("gemma3", **GEMMA3_OF_LLAMACPP)
    text = json.loads((plain.path / "config.json").read_text())
    outer = {"model_type": "gemma3", "text_config": text}
    directory = edited(plain, tmp_path / "edited")
    for tied in (True, False):
        config = outer | {"tie_word_embeddings": tied}
        (directory.path / "config.json").write_text(json.dumps(config))
        layout = layout_of(directory, doing="a test")
        assert layout.tied is tied and ("output.weight" in layout.required) is not tied


def test_every_missing_tensor_is_named(directory: ModelDirectory, tmp_path: Path) -> None:
    """Whatever one tensor is left out, the export says so; llama.cpp would abort or guess."""
    plain = load_file(directory.path / "model.safetensors")
    folder = edited(directory, tmp_path / "edited").path
    rng = np.random.default_rng(0)
    for name in rng.choice(sorted(plain), 12, replace=False):
        if name == "lm_head.weight":
            continue  # without it the head is tied
        (folder / "model.safetensors").unlink()
        save_file({k: v for k, v in plain.items() if k != name}, folder / "model.safetensors")
        less = ModelDirectory(folder, "less", directory.family, "0" * 64, str(folder))
        with pytest.raises(UserError, match="the weights lack"):
            export_gguf(less, tmp_path / "out.gguf", dtype="f32")


def test_an_adapter_for_what_the_model_lacks_is_refused(
    tiny_directory: Tiny, tmp_path: Path
) -> None:
    directory = tiny_directory("qwen3_5")

    def adapter(modules: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        return live_lora(dict.fromkeys(modules, (96, 96)))

    for number, module in enumerate(
        (
            "model.layers.0.self_attn.q_proj",
            "model.layers.3.linear_attn.out_proj",
            "model.layers.9.mlp.up_proj",
        )
    ):
        peft = tmp_path / f"peft{number}"
        save_adapter(peft, LORA, adapter([module]), directory, {})
        with pytest.raises(UserError, match=r"1 adapted modules have no place in the model"):
            convert_adapter(peft, directory, tmp_path / "out.gguf")
    save_adapter(
        tmp_path / "sizes", LORA, adapter(["model.layers.3.self_attn.q_proj"]), directory, {}
    )
    with pytest.raises(UserError, match="is 96 x 96 there and 256 x 96"):
        convert_adapter(tmp_path / "sizes", directory, tmp_path / "out.gguf")
