"""llama.cpp gives torch's numbers: base, adapted, and near them when quantised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models.gguf.llama as llama_module
from backends.llamacpp.adapter import convert_adapter
from backends.llamacpp.model import open_gguf
from backends.llamacpp.quantise import KINDS, evaluation_gguf
from models.directory import ModelDirectory
from models.gguf.export import export_gguf
from tests.support.llamacpp import (
    encode_chatml,
    mean_kl,
    torch_logits,
    torch_model,
    with_random_lora,
)
from tests.support.tiny_models import build_tiny

TOLERANCE = 1e-3
"""Absolute, on logits of size 20 to 30, float32 weights and KV on both sides: 5e-5 to 9e-5 was
measured on SmolLM2-135M (order of sums). Wrong row orders cost 0.9 and more."""

QUESTION = "Write a Python function that returns the sum of the even numbers in a list."


@pytest.fixture(scope="module")
def ids(smollm_directory: ModelDirectory) -> tuple[int, ...]:
    return encode_chatml(smollm_directory, QUESTION)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("smollm-gguf")


@pytest.fixture(scope="module")
def f32(smollm_directory: ModelDirectory, folder: Path) -> Iterator[Path]:
    path = export_gguf(smollm_directory, folder / "f32.gguf", dtype="f32")
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def reference(
    smollm_directory: ModelDirectory, ids: tuple[int, ...], folder: Path
) -> dict[str, np.ndarray]:
    """Torch's logits without and with an adapter on every linear module, which is saved."""
    base = torch_model(smollm_directory)
    plain = torch_logits(base, ids)
    adapted = with_random_lora(base, folder / "peft", size=0.02)
    return {"base": plain, "adapted": torch_logits(adapted, ids)}


def _logits(gguf: Path, ids: tuple[int, ...], adapter: Path | None = None) -> np.ndarray:
    with open_gguf(gguf, adapter=adapter, context=128, width=1, kv_dtype="f32", threads=1) as model:
        return model.logits(ids)


def test_base_logits_equal_torch(
    f32: Path, ids: tuple[int, ...], reference: dict[str, np.ndarray]
) -> None:
    ours = _logits(f32, ids)
    assert ours.dtype == np.float32
    assert ours.shape == (len(ids), 49152)
    assert np.abs(ours - reference["base"]).max() < TOLERANCE


@pytest.mark.slow
def test_adapted_logits_equal_torch_and_differ_from_base(
    f32: Path,
    ids: tuple[int, ...],
    reference: dict[str, np.ndarray],
    smollm_directory: ModelDirectory,
    folder: Path,
) -> None:
    adapter = convert_adapter(folder / "peft", smollm_directory, folder / "adapter.gguf")
    ours = _logits(f32, ids, adapter)
    assert np.abs(ours - reference["adapted"]).max() < TOLERANCE
    assert np.abs(ours - reference["base"]).max() > 100 * TOLERANCE


NEAR = {"f16": (1e-4, 0.97), "q8_0": (0.03, 0.9), "q5_k_m": (0.25, 0.75), "q4_k_m": (0.25, 0.75)}
"""Largest mean KL (nats) and least argmax agreement with torch float32 on one short prompt:
several times what was measured (1e-5, 0.008, 0.09, 0.07 nats), and well under the 0.7 nats of
q4_0. Not allclose: llama.cpp quantises the activations too (BACKENDS section 6)."""


# a kind that rounds a little and one that rounds a lot; the others are quantised in
# test_llamacpp_quantise, from a tiny model
@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        kind if kind in ("q8_0", "q4_k_m") else pytest.param(kind, marks=pytest.mark.slow)
        for kind in KINDS
    ],
)
def test_quantised_files_stay_near(
    kind: str,
    ids: tuple[int, ...],
    reference: dict[str, np.ndarray],
    smollm_directory: ModelDirectory,
    folder: Path,
) -> None:
    gguf = evaluation_gguf(smollm_directory, kind, folder / "cache")
    with open_gguf(gguf, context=128, width=1, threads=1) as model:
        ours = model.logits(ids)
        assert model.describe()["file_type"].lower().startswith(kind.split("_", maxsplit=1)[0])
    base = reference["base"]
    furthest, agreement = NEAR[kind]
    assert mean_kl(base, ours) < furthest
    assert (ours.argmax(-1) == base.argmax(-1)).mean() > agreement
    assert not np.array_equal(ours, base)


TINY_IDS = tuple(int(n) for n in np.random.default_rng(3).integers(0, 512, 40))
TINY_TOLERANCE = 2e-4
"""Logits of size 5; 4e-5 measured in BACKENDS section 6."""


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"tie_word_embeddings": False},
        {"attention_bias": True},
        {"head_dim": 32},
        {"num_key_value_heads": 6},
        {"rms_norm_eps": 1e-2, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    ],
    ids=["plain", "untied", "bias", "wide heads", "no grouping", "eps and theta"],
)
def test_variants_of_llama_equal_torch(overrides: dict[str, Any], tmp_path: Path) -> None:
    path = build_tiny("llama", tmp_path / "tiny", **overrides)
    directory = ModelDirectory(path, "tiny", "llama", "0" * 64, "test")
    gguf = export_gguf(directory, tmp_path / "tiny.gguf", dtype="f32")
    ours, theirs = _logits(gguf, TINY_IDS), torch_logits(torch_model(directory), TINY_IDS)
    assert np.abs(ours - theirs).max() < TINY_TOLERANCE


def test_an_export_without_the_row_permutation_is_wrong(
    tiny_directory: Callable[..., ModelDirectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tiny_directory("llama")
    monkeypatch.setattr(llama_module, "interleave_rope_rows", lambda rows, heads: rows)
    gguf = export_gguf(directory, tmp_path / "tiny.gguf", dtype="f32")
    ours, theirs = _logits(gguf, TINY_IDS), torch_logits(torch_model(directory), TINY_IDS)
    assert np.abs(ours - theirs).max() > 100 * TINY_TOLERANCE


def test_an_adapter_without_the_row_permutation_is_wrong(
    tiny_directory: Callable[..., ModelDirectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative twin of the adapted logits above, on a model that costs nothing."""
    directory = tiny_directory("llama")
    gguf = export_gguf(directory, tmp_path / "tiny.gguf", dtype="f32")
    adapted = with_random_lora(torch_model(directory), tmp_path / "peft", size=0.1)
    theirs = torch_logits(adapted, TINY_IDS)
    right = convert_adapter(tmp_path / "peft", directory, tmp_path / "right.gguf")
    assert np.abs(_logits(gguf, TINY_IDS, right) - theirs).max() < TINY_TOLERANCE
    monkeypatch.setattr(llama_module, "interleave_rope_rows", lambda rows, heads: rows)
    wrong = convert_adapter(tmp_path / "peft", directory, tmp_path / "wrong.gguf")
    assert np.abs(_logits(gguf, TINY_IDS, wrong) - theirs).max() > 100 * TINY_TOLERANCE
