"""A merge is the base plus the adapter, to the last bit of the dtype, in a complete directory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from backends import open_backend
from backends.adapter_files import load_adapter, read_adapter
from backends.adapters.merge import MERGE_FILE, merge_adapter
from backends.adapters.usage import plain_mlx_lm_loads
from backends.interface import Dtype, LoraConfig
from backends.verification import probe_ids
from models.directory import ModelDirectory
from models.errors import UserError
from models.fingerprint import fingerprint
from models.store import prepare
from tests.support.adapters import (
    LAYOUTS,
    Tiny,
    layout_directory,
    live_adapter,
    saved,
    silent,
)
from tests.support.tiny_models import build_tiny

CONFIG = LoraConfig(4, 7.0, targets="all", rslora=True)


@pytest.fixture(scope="module")
def llama(tiny_directory: Tiny) -> ModelDirectory:
    return tiny_directory("llama")


def adapter_for(base: ModelDirectory, folder: Path) -> Path:
    return saved(folder / "adapter", base, CONFIG, live_adapter(base, CONFIG))


def adapted_logits(base: ModelDirectory, adapter: Path) -> np.ndarray:
    with open_backend("torch", base) as model:
        model.attach_lora(*load_adapter(adapter, base))
        return model.logits(probe_ids(base))


def share(reference: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(reference - other).max() / np.ptp(reference))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_float32_merge_opens_everywhere_and_computes_what_the_adapter_does(
    layout: str, tiny_directory: Tiny, tmp_path: Path
) -> None:
    import mlx.core as mx
    import mlx_lm
    from transformers import AutoModelForCausalLM

    base = layout_directory(layout, tiny_directory, tmp_path)
    adapter = adapter_for(base, tmp_path)
    out = tmp_path / "merged"
    found = merge_adapter(read_adapter(adapter), out, base, None, silent)
    assert found.proof.status == "proven", found.proof.reason
    assert found.dtype == "float32" and found.fingerprint == fingerprint(out)
    expected, ids = adapted_logits(base, adapter), probe_ids(base)
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(out)(input_ids=torch.tensor([ids]))
    assert share(expected, theirs.logits[0].float().numpy()) < 1e-4
    # mlx-lm knows the text-only directory of Qwen3.5 neither merged nor not
    assert plain_mlx_lm_loads(base) == (layout != "qwen3_5")
    if plain_mlx_lm_loads(base):
        network, _ = mlx_lm.load(str(out))
        bound = 1e-3 if layout == "gemma3" else 1e-4  # mlx-lm rounds Gemma 3's embedding scale
        assert share(expected, np.array(network(mx.array([ids]))[0])) < bound
    again = prepare(str(out), cache=tmp_path / "cache")
    assert again.family == base.family
    with open_backend("mlx", again) as model:
        assert share(expected, model.logits(ids)) < 1e-4


@pytest.mark.parametrize(
    ("dtype", "kept"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
@pytest.mark.parametrize("layout", ["llama", "gemma4 multimodal"])
def test_a_rounded_merge_holds_what_torch_rounds(
    layout: str, tiny_directory: Tiny, tmp_path: Path, dtype: Dtype, kept: torch.dtype
) -> None:
    """Every tensor, vision tower included: the float32 sum, rounded to nearest, ties to even."""
    base = layout_directory(layout, tiny_directory, tmp_path)
    adapter = adapter_for(base, tmp_path)
    found = merge_adapter(read_adapter(adapter), tmp_path / "merged", base, dtype, silent)
    assert found.proof.status == "proven", found.proof.reason
    config, weights = load_adapter(adapter, base)
    written = load_file(tmp_path / "merged" / "model.safetensors")
    changed = 0
    for name, before in load_file(base.path / "model.safetensors").items():
        module = name.removesuffix(".weight").replace("model.language_model.", "model.")
        after = before.float()
        if f"{module}.lora_A" in weights:
            a, b = (torch.from_numpy(weights[f"{module}.lora_{part}"]) for part in "AB")
            after, changed = after + np.float32(config.scale) * (b @ a), changed + 1
            # numpy and torch may sum a product of 4 terms in another order
            difference = (written[name].float() - after.to(kept).float()).abs().max()
            assert difference <= 2.0**-7 * after.abs().max()
            assert (written[name] != after.to(kept)).float().mean() < 1e-3
        else:
            assert torch.equal(written[name], after.to(kept)), name
        assert written[name].dtype == kept
    assert changed == len(weights) // 2 == found.modules
    settings = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert settings["dtype"] == dtype
    assert any("moves the logits by" in note for note in found.proof.notes)
    whole = found.proof.comparisons[2]
    assert 1e-4 < whole.difference <= whole.bound < 0.2


def test_bases_keep_their_own_dtype_and_untouched_tensors_their_bytes(
    llama: ModelDirectory, tmp_path: Path
) -> None:
    source = build_tiny("llama", tmp_path / "source")
    file = source / "model.safetensors"
    half = {
        name: value.to(torch.bfloat16) if name.endswith("_proj.weight") else value
        for name, value in load_file(file).items()
    }
    save_file(half, file, metadata={"format": "pt"})
    base = prepare(str(source), cache=tmp_path / "cache")
    adapter = adapter_for(base, tmp_path)
    found = merge_adapter(read_adapter(adapter), tmp_path / "merged", base, None, silent)
    assert found.dtype == "bfloat16" and found.proof.status == "proven"
    written = load_file(tmp_path / "merged" / "model.safetensors")
    assert set(written) == set(half) and "lm_head.weight" not in written  # tied
    for name, value in written.items():
        adapted = name.endswith("_proj.weight")
        assert torch.equal(value, half[name]) != adapted, name
    assert written["model.norm.weight"].dtype == torch.float32
    kept = load_file(file)  # the base is untouched
    assert all(torch.equal(kept[name], value) for name, value in half.items())


def test_a_sharded_base_gives_a_sharded_merge(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    source = build_tiny("qwen3", tmp_path / "source")
    model = AutoModelForCausalLM.from_pretrained(source)
    (source / "model.safetensors").unlink()
    model.save_pretrained(source, max_shard_size="400KB")
    base = prepare(str(source), cache=tmp_path / "cache")
    adapter = adapter_for(base, tmp_path)
    found = merge_adapter(read_adapter(adapter), tmp_path / "merged", base, "bfloat16", silent)
    assert found.proof.status == "proven"
    shards = sorted(path.name for path in (tmp_path / "merged").glob("*.safetensors"))
    assert len(shards) > 1 and shards == sorted(p.name for p in source.glob("*.safetensors"))
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    sizes = [
        t.numel() * 2 for shard in shards for t in load_file(tmp_path / "merged" / shard).values()
    ]
    assert index["metadata"]["total_size"] == sum(sizes)


def test_the_record_says_what_was_merged(llama: ModelDirectory, tmp_path: Path) -> None:
    adapter = adapter_for(llama, tmp_path)
    merge_adapter(read_adapter(adapter), tmp_path / "merged", llama, "float32", silent)
    record = json.loads((tmp_path / "merged" / MERGE_FILE).read_text())
    assert record["base_fingerprint"] == llama.fingerprint
    assert record["adapter_sha256"] == read_adapter(adapter).sha256
    assert record["adapter_extra"] == {"steps": 12}
    assert (record["scale"], record["modules"], record["dtype"]) == (3.5, 21, "float32")
    assert record["proof"]["status"] == "proven"
    assert record["fingerprint"] == fingerprint(tmp_path / "merged")


def test_a_wrong_merge_leaves_nothing(
    llama: ModelDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One module of 21 merged with the plain LoRA scale instead of rsLoRA's."""
    import backends.adapters.merge as module

    def wrong(config: LoraConfig, weights: object, name: str) -> object:
        used = LoraConfig(4, 7.0) if name == "model.layers.1.mlp.down_proj" else config
        return real(used, weights, name)  # type: ignore[arg-type]

    real = module._adding
    monkeypatch.setattr(module, "_adding", wrong)
    adapter = adapter_for(llama, tmp_path)
    with pytest.raises(UserError, match="the written directory does not compute") as caught:
        merge_adapter(read_adapter(adapter), tmp_path / "merged", llama, None, silent)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_wrong_rounding_leaves_nothing(
    llama: ModelDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 by cutting bits off, within the dtype's precision and yet not what was asked."""
    import models.rewrite as module

    def cut(values: np.ndarray, part: object) -> bytes:
        return (np.ascontiguousarray(values).view(np.uint32) >> 16).astype("<u2").tobytes()

    monkeypatch.setattr(module, "_stored", cut)
    adapter = adapter_for(llama, tmp_path)
    with pytest.raises(UserError, match="the written directory does not compute"):
        merge_adapter(read_adapter(adapter), tmp_path / "merged", llama, "bfloat16", silent)


def test_without_torch_a_merge_is_unproven_and_says_so(
    llama: ModelDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import backends.adapters.proof as proof

    monkeypatch.setattr(proof, "available_backends", lambda: {"torch": "torch is not installed"})
    adapter = adapter_for(llama, tmp_path)
    found = merge_adapter(read_adapter(adapter), tmp_path / "merged", llama, None, silent)
    assert found.proof.status == "unproven" and found.proof.reason == "torch is not installed"
    record = json.loads((tmp_path / "merged" / MERGE_FILE).read_text())
    assert record["proof"]["status"] == "unproven"


def test_values_outside_float16_are_refused_by_name(llama: ModelDirectory, tmp_path: Path) -> None:
    weights = live_adapter(llama, CONFIG)
    weights["model.layers.2.mlp.up_proj.lora_B"][:] = 3e5
    adapter = saved(tmp_path / "adapter", llama, CONFIG, weights)
    with pytest.raises(UserError, match=r"layers\.2\.mlp\.up_proj\.weight has values up to"):
        merge_adapter(read_adapter(adapter), tmp_path / "merged", llama, "float16", silent)
    assert not (tmp_path / "merged").exists()


def test_mixed_dtypes_need_a_choice(tmp_path: Path) -> None:
    source = build_tiny("llama", tmp_path / "source")
    file = source / "model.safetensors"
    mixed = load_file(file)
    name = "model.layers.0.mlp.up_proj.weight"
    mixed[name] = mixed[name].to(torch.bfloat16)
    save_file(mixed, file, metadata={"format": "pt"})
    base = prepare(str(source), cache=tmp_path / "cache")
    adapter = adapter_for(base, tmp_path)
    with pytest.raises(UserError, match="stored as BF16 and F32: say what to store with --dtype"):
        merge_adapter(read_adapter(adapter), tmp_path / "merged", base, None, silent)


def test_an_existing_directory_is_never_touched(llama: ModelDirectory, tmp_path: Path) -> None:
    adapter = adapter_for(llama, tmp_path)
    with pytest.raises(UserError, match="exists already"):
        merge_adapter(read_adapter(adapter), adapter, llama, None, silent)
    assert read_adapter(adapter).sidecar is not None
