"""Adapters travel: PEFT -> MLX -> PEFT exactly, and every engine computes what the source does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from backends import open_backend
from backends.adapter_files import SIDECAR_FILE, load_adapter, read_adapter
from backends.adapters.contents import CONFIG_FILE
from backends.adapters.export import export_adapter
from backends.adapters.mlx_format import MLX_WEIGHTS_FILE
from backends.adapters.peft_format import WEIGHTS_FILE
from backends.adapters.proof import prove_export
from backends.interface import Completion, LoraConfig, Prompt
from backends.verification import probe_ids
from models.directory import ModelDirectory
from models.errors import CapabilityError, UserError
from tests.support.adapters import (
    LAYOUTS,
    Tiny,
    edit_tensors,
    layout_directory,
    live_adapter,
    saved,
    silent,
)
from tests.support.llamacpp import torch_logits, torch_model
from tests.support.tiny_models import ARCHITECTURES, GEMMA3_OF_LLAMACPP

CONFIG = LoraConfig(4, 7.0, targets="all", dropout=0.25, rslora=True)
"""alpha / sqrt(4): a scale of 3.5, which alone would come back as alpha 14 without rsLoRA."""


@pytest.fixture(scope="module")
def llama(tiny_directory: Tiny) -> ModelDirectory:
    return tiny_directory("llama")


def _ours(base: ModelDirectory, adapter: Path) -> np.ndarray:
    with open_backend("torch", base) as model:
        model.attach_lora(*load_adapter(adapter, base))
        return model.logits(probe_ids(base))


def _plain_peft(base: ModelDirectory, adapter: Path) -> np.ndarray:
    """As a user of peft would load it, none of our code between."""
    import peft

    return torch_logits(
        peft.PeftModel.from_pretrained(torch_model(base), adapter).eval(), probe_ids(base)
    )


def _share(reference: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(reference - other).max() / np.ptp(reference))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_peft_to_mlx_to_peft_is_exact_and_proven_on_the_way(
    layout: str, tiny_directory: Tiny, tmp_path: Path
) -> None:
    base = layout_directory(layout, tiny_directory, tmp_path)
    weights = live_adapter(base, CONFIG)
    first = saved(tmp_path / "first", base, CONFIG, weights)
    over = export_adapter(read_adapter(first), "mlx", tmp_path / "mlx", base, silent)
    assert over.proof.status == "proven", over.proof.reason
    assert over.proof.comparisons[0].engines == ("torch", "mlx-lm")
    assert over.proof.effect is not None and over.proof.effect > 0.05
    back = export_adapter(read_adapter(tmp_path / "mlx"), "peft", tmp_path / "back", base, silent)
    assert back.proof.status == "proven", back.proof.reason
    for file in (WEIGHTS_FILE, CONFIG_FILE):
        assert (tmp_path / "back" / file).read_bytes() == (first / file).read_bytes()
    assert _share(_ours(base, first), _plain_peft(base, tmp_path / "back")) < 1e-5
    sidecars = [
        json.loads((folder / SIDECAR_FILE).read_text())
        for folder in (first, tmp_path / "mlx", tmp_path / "back")
    ]
    for key in ("base_fingerprint", "base_name", "adapter_sha256", "extra"):
        assert sidecars[0][key] == sidecars[1][key] == sidecars[2][key]
    assert sidecars[1]["proof"]["status"] == "proven"


@pytest.mark.parametrize("arch", ["gemma4", "qwen3_5"])
def test_wrapped_names_are_those_that_each_library_has(
    arch: str, tiny_directory: Tiny, tmp_path: Path
) -> None:
    """Gemma 4 multimodal: ``model.language_model`` in torch, ``language_model.model`` in mlx-lm."""
    base = layout_directory(f"{arch} multimodal", tiny_directory, tmp_path)
    config = LoraConfig(2, 4.0)
    first = saved(tmp_path / "first", base, config, live_adapter(base, config, kinds=("q_proj",)))
    export_adapter(read_adapter(first), "mlx", tmp_path / "mlx", base, silent)
    in_peft = set(load_file(first / WEIGHTS_FILE))
    in_mlx = set(load_file(tmp_path / "mlx" / MLX_WEIGHTS_FILE))
    wrapper = "model.language_model" if arch == "gemma4" else "model"
    assert f"base_model.model.{wrapper}.layers.3.self_attn.q_proj.lora_A.weight" in in_peft
    assert "language_model.model.layers.3.self_attn.q_proj.lora_a" in in_mlx


@pytest.mark.parametrize(
    ("layers", "kinds", "num_layers", "keys"),
    [
        ((1, 2), ("q_proj", "v_proj"), 2, ["self_attn.q_proj", "self_attn.v_proj"]),
        ((0, 2), ("o_proj",), 3, [f"model.layers.{n}.self_attn.o_proj" for n in (0, 2)]),
        ((0,), ("up_proj",), 3, ["model.layers.0.mlp.up_proj"]),
    ],
    ids=["the last two", "first and last", "the first"],
)
def test_a_subset_of_layers_is_adapted_and_no_other(
    llama: ModelDirectory,
    tmp_path: Path,
    layers: tuple[int, ...],
    kinds: tuple[str, ...],
    num_layers: int,
    keys: list[str],
) -> None:
    import mlx_lm
    from mlx.utils import tree_flatten

    config = LoraConfig(3, 5.0)
    weights = live_adapter(llama, config, layers=layers, kinds=kinds)
    first = saved(tmp_path / "first", llama, config, weights)
    found = export_adapter(read_adapter(first), "mlx", tmp_path / "mlx", llama, silent)
    assert found.proof.status == "proven"
    settings = json.loads((tmp_path / "mlx" / CONFIG_FILE).read_text())
    assert settings["num_layers"] == num_layers
    assert settings["lora_parameters"]["keys"] == keys
    network, _ = mlx_lm.load(str(llama.path), adapter_path=str(tmp_path / "mlx"))
    adapted = {name for name, _ in tree_flatten(network.parameters()) if "lora_" in name}
    assert adapted == set(load_file(tmp_path / "mlx" / MLX_WEIGHTS_FILE))
    assert len(adapted) == len(weights)


def test_an_exported_adapter_gives_our_text_in_mlx_lm_generate(
    llama: ModelDirectory, tmp_path: Path
) -> None:
    """The real command, in a process of its own; ids in [T] of one prompt, greedy."""
    import subprocess
    import sys

    from models.chat import ChatEncoder, Message

    config = LoraConfig(4, 8.0)
    weights = live_adapter(llama, config, size=0.5)
    first = saved(tmp_path / "first", llama, config, weights)
    export_adapter(read_adapter(first), "mlx", tmp_path / "mlx", llama, silent)
    done = subprocess.run(
        [sys.executable, "-m", "mlx_lm", "generate", "--model", str(llama.path),
         "--adapter-path", str(tmp_path / "mlx"), "--prompt", "add a number",
         "--max-tokens", "12", "--temp", "0", "--verbose", "False"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    encoder = ChatEncoder(llama)
    asked = encoder.encode_prompt([Message("user", "add a number")])
    prompt = Prompt("one", asked.ids)
    texts = {}
    for name in ("base", "adapted"):
        with open_backend("torch", llama) as model:
            if name == "adapted":
                model.attach_lora(*load_adapter(tmp_path / "mlx", llama))
            found = model.generate([prompt], max_tokens=12, stop_ids=encoder.stop_ids)
            texts[name] = _as_mlx_lm_prints(llama, found[0])
    assert done.stdout.strip() == texts["adapted"].strip()
    assert texts["base"] != texts["adapted"]


def _as_mlx_lm_prints(base: ModelDirectory, completion: Completion) -> str:
    """mlx-lm's own detokenizer, since a random model's bytes are often no valid UTF-8."""
    from mlx_lm.utils import load_tokenizer

    detokenizer = load_tokenizer(base.path).detokenizer
    detokenizer.reset()
    stopped = completion.finish_reason == "stop"
    for token in completion.ids[: len(completion.ids) - stopped]:
        detokenizer.add_token(token)
    detokenizer.finalize()
    return str(detokenizer.text)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_gguf_export_is_proven_in_llama_cpp(
    arch: str, tiny_directory: Tiny, tmp_path: Path
) -> None:
    base = tiny_directory(arch, **(GEMMA3_OF_LLAMACPP if arch == "gemma3" else {}))
    first = saved(tmp_path / "first", base, CONFIG, live_adapter(base, CONFIG))
    export_adapter(read_adapter(first), "mlx", tmp_path / "mlx", base, silent)
    found = export_adapter(read_adapter(tmp_path / "mlx"), "gguf", tmp_path / "out", base, silent)
    assert found.proof.status == "proven", found.proof.reason
    assert found.proof.comparisons[0].engines == ("torch", "llama.cpp")
    assert (tmp_path / "out" / "adapter.gguf").is_file()
    with pytest.raises(UserError, match="is a GGUF adapter"):
        read_adapter(tmp_path / "out")


def test_gguf_of_what_llama_cpp_cannot_compute_is_one_line_and_leaves_nothing(
    tiny_directory: Tiny, tmp_path: Path
) -> None:
    base, config = tiny_directory("gemma3"), LoraConfig(2, 2.0)
    first = saved(tmp_path / "first", base, config, live_adapter(base, config))
    with pytest.raises(CapabilityError, match=r"every sixth.*--to mlx") as caught:
        export_adapter(read_adapter(first), "gguf", tmp_path / "out", base, silent)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


# A square factor passes every shape check, so only the logits can tell -------------------------

SQUARE = LoraConfig(96, 48.0)


@pytest.fixture(scope="module")
def square(llama: ModelDirectory, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same adapter of rank == hidden size, in all three formats."""
    folder = tmp_path_factory.mktemp("square")
    weights = live_adapter(llama, SQUARE, kinds=("q_proj", "o_proj"), size=0.05)
    assert {value.shape for value in weights.values()} == {(96, 96)}
    made = {"source": saved(folder / "source", llama, SQUARE, weights)}
    for target in ("peft", "mlx", "gguf"):
        out = folder / target
        found = export_adapter(read_adapter(made["source"]), target, out, llama, silent)
        assert found.proof.status == "proven", found.proof.reason
        made[target] = out
    return made


def _transpose(part: str) -> object:
    def change(tensors: dict[str, np.ndarray]) -> None:
        for name in [n for n in tensors if part in n.lower()]:
            tensors[name] = tensors[name].T

    return change


def _swap(tensors: dict[str, np.ndarray]) -> None:
    for name in [n for n in tensors if "lora_a" in n.lower()]:
        other = name.replace("lora_a", "lora_b").replace("lora_A", "lora_B")
        tensors[name], tensors[other] = tensors[other], tensors[name]


@pytest.mark.parametrize("change", [_transpose("lora_a"), _transpose("lora_b"), _swap],
                         ids=["A transposed", "B transposed", "A and B mixed up"])  # fmt: skip
@pytest.mark.parametrize(("target", "file"), [("peft", WEIGHTS_FILE), ("mlx", MLX_WEIGHTS_FILE)])
def test_a_mixed_up_square_factor_breaks_the_proof(
    llama: ModelDirectory,
    square: dict[str, Path],
    tmp_path: Path,
    target: str,
    file: str,
    change: object,
) -> None:
    import shutil

    folder = shutil.copytree(square[target], tmp_path / "copy")
    edit_tensors(folder / file, change)  # type: ignore[arg-type]
    config, weights = load_adapter(square["source"], llama)
    with pytest.raises(UserError, match="does not compute what the adapter does"):
        prove_export(llama, config, weights, target, folder, silent)  # type: ignore[arg-type]


def test_one_transposed_square_factor_in_a_gguf_breaks_the_proof(
    llama: ModelDirectory, square: dict[str, Path], tmp_path: Path
) -> None:
    import gguf

    from backends.llamacpp.adapter import convert_adapter

    config, weights = load_adapter(square["source"], llama)
    wrong = dict(weights)
    name = "model.layers.1.self_attn.o_proj.lora_A"
    wrong[name] = wrong[name].T
    folder = tmp_path / "gguf"
    folder.mkdir()
    convert_adapter(saved(tmp_path / "w", llama, config, wrong), llama, folder / "adapter.gguf")
    assert len(gguf.GGUFReader(folder / "adapter.gguf").tensors) == len(weights)
    with pytest.raises(UserError, match="does not compute what the adapter does"):
        prove_export(llama, config, weights, "gguf", folder, silent)


# What is proven, unproven, refused ---------------------------------------------------------


def test_a_breach_removes_the_output(
    llama: ModelDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scale that our own reader does not notice, but mlx-lm applies."""
    import backends.adapters.export as module

    def wrong(folder: Path, *arguments: object) -> None:
        real(folder, *arguments)  # type: ignore[arg-type]
        settings = json.loads((folder / CONFIG_FILE).read_text())
        settings["lora_parameters"]["scale"] *= 1.01
        (folder / CONFIG_FILE).write_text(json.dumps(settings))

    real = module.write_format
    monkeypatch.setattr(module, "write_format", wrong)
    monkeypatch.setattr(module, "_read_back", lambda *_: None)
    first = saved(tmp_path / "first", llama, CONFIG, live_adapter(llama, CONFIG))
    with pytest.raises(UserError, match=r"nothing was written") as caught:
        export_adapter(read_adapter(first), "mlx", tmp_path / "out", llama, silent)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_files_that_do_not_read_back_are_refused_before_any_engine(
    llama: ModelDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import backends.adapters.export as module

    def wrong(folder: Path, kind: str, config: object, weights: object, *rest: object) -> None:
        real(folder, kind, config, weights, *rest)  # type: ignore[arg-type]
        file = folder / (WEIGHTS_FILE if kind == "peft" else MLX_WEIGHTS_FILE)

        def nudge(tensors: dict[str, np.ndarray]) -> None:
            first = min(tensors)
            tensors[first] = np.nextafter(tensors[first], np.float32(9))

        edit_tensors(file, nudge)

    real = module.write_format
    monkeypatch.setattr(module, "write_format", wrong)
    monkeypatch.setattr(module, "prove_export", lambda *_: pytest.fail("too late"))
    first = saved(tmp_path / "first", llama, CONFIG, live_adapter(llama, CONFIG))
    for target in ("mlx", "peft"):
        with pytest.raises(UserError, match="do not read back"):
            export_adapter(read_adapter(first), target, tmp_path / "out", llama, silent)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("target", "absent"), [("mlx", "mlx"), ("peft", "torch"), ("mlx", "torch")]
)
def test_without_the_engine_an_export_says_unproven(
    llama: ModelDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    absent: str,
) -> None:
    import backends.adapters.proof as proof

    usable = {name: None if name != absent else f"{name} is not installed: pip install it"
              for name in ("mlx", "torch")}  # fmt: skip
    monkeypatch.setattr(proof, "available_backends", lambda: usable)
    first = saved(tmp_path / "first", llama, CONFIG, live_adapter(llama, CONFIG))
    found = export_adapter(read_adapter(first), target, tmp_path / "out", llama, silent).proof
    if {"mlx": "mlx", "peft": "torch"}[target] == absent:
        assert found.status == "unproven" and found.reason == usable[absent]
        kept = read_adapter(tmp_path / "out").sidecar
        assert kept is not None and kept.proof is not None and kept.proof["status"] == "unproven"
    else:  # mlx alone: its own loader against our layers
        assert found.status == "proven" and found.comparisons[0].engines == ("mlx", "mlx-lm")


def test_an_adapter_without_an_effect_proves_nothing(llama: ModelDirectory, tmp_path: Path) -> None:
    weights = live_adapter(llama, CONFIG, size=0.0)
    first = saved(tmp_path / "first", llama, CONFIG, weights)
    found = export_adapter(read_adapter(first), "mlx", tmp_path / "out", llama, silent).proof
    assert found.status == "unproven"
    assert found.reason is not None and "less than the 0.001 at which" in found.reason


def test_an_existing_output_is_never_touched(llama: ModelDirectory, tmp_path: Path) -> None:
    first = saved(tmp_path / "first", llama, CONFIG, live_adapter(llama, CONFIG))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(UserError, match="exists already"):
        export_adapter(read_adapter(first), "mlx", tmp_path / "out", llama, silent)
    assert (tmp_path / "out" / "mine").read_text() == "kept"


def test_an_adapter_of_another_model_is_refused(
    llama: ModelDirectory, tiny_directory: Tiny, tmp_path: Path
) -> None:
    other = tiny_directory("llama", intermediate_size=64)
    first = saved(tmp_path / "first", other, CONFIG, live_adapter(other, CONFIG))
    with pytest.raises(UserError, match="was trained on"):
        export_adapter(read_adapter(first), "mlx", tmp_path / "out", llama, silent)
    (first / SIDECAR_FILE).unlink()
    edit = json.loads((first / CONFIG_FILE).read_text()) | {"base_model_name_or_path": None}
    (first / CONFIG_FILE).write_text(json.dumps(edit))
    with pytest.raises(UserError, match=r"first, for .*does not fit this model: .*mlp") as caught:
        export_adapter(read_adapter(first), "mlx", tmp_path / "out", llama, silent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(
    llama: ModelDirectory, tmp_path: Path, fault: float
) -> None:
    weights = live_adapter(llama, CONFIG)
    weights["model.layers.0.mlp.up_proj.lora_B"][0, 0] = fault
    first = saved(tmp_path / "first", llama, CONFIG, weights)
    with pytest.raises(UserError, match=r"up_proj\.lora_B hold numbers that are not finite"):
        export_adapter(read_adapter(first), "mlx", tmp_path / "out", llama, silent)


def test_probe_ids_are_inside_every_tiny_vocabulary(llama: ModelDirectory) -> None:
    ids = probe_ids(llama)
    assert len(ids) == 96 and len(set(ids)) == 96 and min(ids) >= 0 and max(ids) < 512


def test_logits_that_are_not_numbers_are_no_agreement() -> None:
    from backends.adapters.proof import Comparison, conclude, difference

    reference = np.array([[0.0, 1.0]], np.float32)
    assert difference(reference, reference + np.float32(0.5)) == 0.5
    for wrong in (np.nan, np.inf):
        found = difference(reference, np.full((1, 2), wrong, np.float32))
        assert found == np.inf
        comparison = Comparison("it", ("a", "b"), found, 1e-4, "why")
        with pytest.raises(UserError, match="differ by inf of their range"):
            conclude(1.0, (comparison,), 96)


@pytest.mark.slow  # the real model loaded eight times: a minute and a half
def test_a_real_model_carries_an_adapter_through_every_format(
    smollm_directory: ModelDirectory, tmp_path: Path
) -> None:
    from backends.adapters.merge import merge_adapter

    config = LoraConfig(8, 16.0, targets="all")
    weights = live_adapter(smollm_directory, config, size=0.02)
    stored = read_adapter(saved(tmp_path / "first", smollm_directory, config, weights))
    measured = {}
    for target in ("mlx", "peft", "gguf"):
        found = export_adapter(stored, target, tmp_path / target, smollm_directory, silent)
        assert found.proof.status == "proven", found.proof.reason
        measured[target] = found.proof.comparisons[0].difference
        if target == "mlx":
            stored = read_adapter(tmp_path / "mlx")
    # bounds are 1e-4 and 1e-5; 2e-6, 0 and 2e-6 measured
    assert measured["mlx"] < 2e-5 and measured["peft"] < 1e-6 and measured["gguf"] < 2e-5
    assert (tmp_path / "peft" / WEIGHTS_FILE).read_bytes() == (
        tmp_path / "first" / WEIGHTS_FILE
    ).read_bytes()
    merged = merge_adapter(stored, tmp_path / "merged", smollm_directory, "bfloat16", silent)
    exact, written, rounded = merged.proof.comparisons
    assert exact.difference < 3e-5 and written.difference < 1e-4 < rounded.difference < 0.05
