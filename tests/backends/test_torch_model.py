"""Opening models with torch: logits, wrappers, damage, precision, description."""

# ruff: noqa: E402 (without torch the module is skipped before it imports any of it)
from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import backends
from backends.interface import AdamWConfig, LoraConfig, Prompt
from backends.lora import initial_weights, load_adapter, save_adapter, select_modules
from backends.torch.attention import plain_attention
from backends.torch.model import open_model
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.devices import DEVICE
from tests.support.tiny_models import ARCHITECTURES, randomise, tiny_config
from tests.support.training_data import example

Tiny = Callable[..., ModelDirectory]
IDS = list(example(5, 70).ids)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_logits_equal_transformers_own(tiny_directory: Tiny, arch: str) -> None:
    """Bit for bit: the same operations, soft-capping included, and the same attention."""
    from transformers import AutoModelForCausalLM

    directory = tiny_directory(arch)
    plain = AutoModelForCausalLM.from_pretrained(directory.path, dtype=torch.float32)
    with torch.no_grad():
        ids = torch.tensor([IDS], device=DEVICE)
        expected = plain.eval().to(DEVICE)(input_ids=ids).logits[0].cpu().numpy()
    with open_model(directory, device=DEVICE) as model, plain_attention(model.config):
        found = model.logits(IDS)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found[:, 1:] - found[:, :-1]).max() > 0.1


def multimodal(arch: str, folder: Path) -> ModelDirectory:
    """A tiny ForConditionalGeneration directory, the layout of the hub's Gemma 4 and Qwen3.5."""
    import transformers as T

    text = tiny_config(arch)
    if arch == "gemma4":
        vision = T.Gemma4VisionConfig(
            hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, head_dim=16,
        )  # fmt: skip
        config = T.Gemma4Config(text_config=text, vision_config=vision, audio_config=None)
        model = T.Gemma4ForConditionalGeneration(config)
    else:
        vision = T.Qwen3_5VisionConfig(
            depth=1, hidden_size=32, intermediate_size=32, num_heads=2, out_hidden_size=96
        )
        config = T.Qwen3_5Config(text_config=text, vision_config=vision)
        model = T.Qwen3_5ForConditionalGeneration(config)
    randomise(model, 0)
    model.save_pretrained(folder)
    return ModelDirectory(folder, f"{arch}-multimodal", arch, arch.ljust(64, "0"), "here")


@pytest.mark.parametrize("arch", ["gemma4", "qwen3_5"])
def test_multimodal_directories_adapt_the_language_model_only(tmp_path: Path, arch: str) -> None:
    """B36: q_proj is the name of layers in the vision tower, too."""
    import peft
    from transformers import AutoModelForCausalLM

    directory = multimodal(arch, tmp_path / "model")
    lora = LoraConfig(4, 8.0, targets="all")
    with open_model(directory, device=DEVICE) as model:
        linear = model.linear_modules()
        assert all(name.startswith("model.layers.") for name in linear)
        weights = initial_weights(lora, linear, 0)
        for name in weights:
            weights[name] = weights[name] + np.float32(0.02)
        model.attach_lora(lora, weights)
        model.configure_optimizer(AdamWConfig())
        adapted = {
            name.split(".lora_A")[0]
            for name, _ in model.model.named_parameters()
            if "lora_A" in name
        }
        assert not any("vision" in name or "visual" in name for name in adapted)
        assert len(adapted) == len(select_modules(linear, "all"))
        save_adapter(tmp_path / "adapter", lora, model.lora_weights(), directory)
        ours = model.logits(IDS)
    plain = AutoModelForCausalLM.from_pretrained(directory.path, dtype=torch.float32)
    loaded = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval().to(DEVICE)
    with torch.no_grad():
        theirs = loaded(input_ids=torch.tensor([IDS], device=DEVICE)).logits[0].cpu().numpy()
    # the wrapper builds its own attention mask, so sdpa may take another kernel (seen: 0)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    _, again = load_adapter(tmp_path / "adapter", directory)
    assert all(np.array_equal(again[name], weights[name]) for name in weights)


def test_missing_weights_are_refused_and_not_made_up(tiny_directory: Tiny, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = tiny_directory("llama")
    shutil.copytree(source.path, tmp_path / "m")
    broken = replace(source, path=tmp_path / "m")
    (file,) = broken.path.glob("*.safetensors")
    tensors = load_file(file)
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({n: t for n, t in tensors.items() if n != name}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"missing .*layers\.1\.mlp\.up_proj") as caught:
        open_model(broken, device=DEVICE)
    assert "\n" not in str(caught.value)
    save_file(tensors | {name: tensors[name][:-1]}, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"up_proj|mismatch"):
        open_model(broken, device=DEVICE)


@pytest.mark.parametrize("content", [b"", b"not json", b'{"model_type": "unheard-of"}'])
def test_a_damaged_config_gets_one_line(
    tiny_directory: Tiny, tmp_path: Path, content: bytes
) -> None:
    source = tiny_directory("llama")
    shutil.copytree(source.path, tmp_path / "m")
    (tmp_path / "m" / "config.json").write_bytes(content)
    with pytest.raises(
        UserError, match=r"torch cannot open model|cannot be read as JSON"
    ) as caught:
        open_model(replace(source, path=tmp_path / "m"), device=DEVICE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_opens_and_gives_float32_logits(tiny_directory: Tiny, dtype: Any) -> None:
    directory = tiny_directory("qwen3")
    with open_model(directory, device=DEVICE) as model:
        exact = model.logits(IDS)
    with open_model(directory, dtype=dtype, device=DEVICE) as model:
        found = model.logits(IDS)
        assert model.generate([Prompt("a", tuple(IDS))], max_tokens=3, stop_ids=[])[0].ids
        assert model.describe()["dtype"] == dtype
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


def test_the_description_is_complete_and_json(tiny_directory: Tiny) -> None:
    directory = tiny_directory("llama")
    with open_model(directory, device=DEVICE) as model:
        described = json.loads(json.dumps(model.describe()))
    assert described["engine"] == "torch"
    assert described["device"].split(":")[0] == torch.device(DEVICE).type
    assert described["model_fingerprint"] == directory.fingerprint
    assert (
        described["versions"]["torch"] == torch.__version__.split("+")[0] or described["versions"]
    )
    assert described["tf32"] is False
    assert described["threads"] == torch.get_num_threads()


def test_backends_are_listed_and_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(backends.available_backends()) == {"mlx", "torch"}
    assert backends.available_backends()["torch"] is None
    with pytest.raises(UserError, match="unknown backend 'jax': choose one of auto, mlx, torch"):
        backends.choose_backend("jax")
    find = backends.importlib.util.find_spec
    absent = {"mlx", "mlx_lm"}
    monkeypatch.setattr(
        backends.importlib.util, "find_spec", lambda name: None if name in absent else find(name)
    )
    reason = backends.available_backends()["mlx"]
    assert reason == 'mlx and mlx-lm are not installed: pip install "threearc[mlx]"'
    with pytest.raises(UserError, match=r"backend mlx cannot be used: .*threearc\[mlx\]"):
        backends.choose_backend("mlx")
    monkeypatch.setattr(backends, "_apple_silicon", lambda: True)
    assert backends.choose_backend("auto") == "torch"
    absent.clear()
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: name)
    assert backends.choose_backend("auto") == "mlx"
    monkeypatch.setattr(backends, "_apple_silicon", lambda: False)
    assert backends.choose_backend("auto") == "torch"
    absent.update({"torch", "mlx"})
    monkeypatch.setattr(
        backends.importlib.util, "find_spec", lambda name: None if name in absent else name
    )
    with pytest.raises(UserError, match="no backend can be used"):
        backends.choose_backend("auto")


def test_listing_backends_imports_no_engine() -> None:
    import subprocess
    import sys

    code = (
        "import sys, backends, backends.lora, backends.training, backends.memory;"
        "backends.available_backends();"
        "print([m for m in ('torch', 'mlx', 'mlx.core', 'transformers') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert out.stdout.strip() == "[]"
