"""Quantised files: made whole, made once, and refused clearly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import backends.llamacpp.quantise as quantise_module
import models.disk
from backends.llamacpp.model import open_gguf
from backends.llamacpp.quantise import evaluation_gguf, quantise
from models.directory import ModelDirectory
from models.errors import CapabilityError, UserError
from models.gguf.export import export_gguf
from models.gguf.inspect import inspect_gguf
from tests.support.llamacpp import mean_kl

IDS = tuple(range(5, 45))


@pytest.fixture(scope="module")
def directory(tiny_directory: Callable[..., ModelDirectory]) -> ModelDirectory:
    return tiny_directory("llama")


@pytest.fixture(scope="module")
def f32(directory: ModelDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_gguf(directory, tmp_path_factory.mktemp("gguf") / "f32.gguf", dtype="f32")


def _logits(path: Path) -> np.ndarray:
    with open_gguf(path, context=64, width=1, kv_dtype="f32", threads=1) as model:
        return model.logits(IDS)


@pytest.mark.parametrize(
    ("kind", "stored", "furthest"),
    [("f16", "F16", 1e-4), ("q8_0", "Q8_0", 0.1)],
)
def test_a_quantised_file_says_so_and_computes_nearly_the_same(
    kind: quantise_module.Kind, stored: str, furthest: float, f32: Path, tmp_path: Path
) -> None:
    """Mean KL in nats. Rows of 96 admit no K-quants; those are tested on SmolLM2."""
    out = quantise(f32, tmp_path / "out.gguf", kind)
    assert inspect_gguf(out).tensor_types[stored] >= 21
    kl = mean_kl(_logits(f32), _logits(out))
    print(kind, kl)
    assert 1e-9 < kl < furthest


def test_an_already_quantised_source_is_refused_with_llama_cpps_reason(
    f32: Path, tmp_path: Path
) -> None:
    quantised = quantise(f32, tmp_path / "q8.gguf", "q8_0")
    with pytest.raises(UserError, match=r"cannot write .*q8\.gguf as q4_k_m: .*requantizing"):
        quantise(quantised, tmp_path / "q4.gguf", "q4_k_m")
    assert [p.name for p in tmp_path.iterdir()] == ["q8.gguf"]


def test_a_damaged_source_is_refused(f32: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(f32.read_bytes()[:4000])
    with pytest.raises(UserError, match=r"damaged\.gguf is not a usable GGUF file"):
        quantise(damaged, tmp_path / "out.gguf", "q8_0")


def test_original_is_the_file_the_directory_came_from(
    directory: ModelDirectory, f32: Path, tmp_path: Path
) -> None:
    assert evaluation_gguf(replace(directory, gguf=f32), "original", tmp_path) == f32
    with pytest.raises(UserError, match="was not made from a GGUF file; choose f16, q8_0"):
        evaluation_gguf(replace(directory, gguf=None), "original", tmp_path)
    with pytest.raises(UserError, match=r"gone\.gguf is gone; prepare"):
        evaluation_gguf(replace(directory, gguf=tmp_path / "gone.gguf"), "original", tmp_path)


def test_a_file_is_made_once_per_model_and_kind(directory: ModelDirectory, tmp_path: Path) -> None:
    said: list[str] = []
    first = evaluation_gguf(directory, "q8_0", tmp_path, say=said.append)
    assert said == [f"writing {directory.name} as GGUF", f"quantising {directory.name} to q8_0"]
    stamp = first.stat().st_mtime_ns
    assert evaluation_gguf(directory, "q8_0", tmp_path, say=said.append) == first
    assert (len(said), first.stat().st_mtime_ns) == (2, stamp)
    other = evaluation_gguf(replace(directory, fingerprint="1" * 64), "q8_0", tmp_path)
    f16 = evaluation_gguf(directory, "f16", tmp_path, say=said.append)
    assert len({first, other, f16}) == 3
    assert len(said) == 2, "the export made for q8_0 is the f16 file"


def test_a_failed_quantisation_leaves_no_file_and_works_the_next_time(
    directory: ModelDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation_gguf(directory, "f16", tmp_path)
    with monkeypatch.context() as patched:
        usage = type("Usage", (), {"free": 1000})
        patched.setattr(models.disk.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(UserError, match="not enough disk space for"):
            evaluation_gguf(directory, "q8_0", tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert inspect_gguf(evaluation_gguf(directory, "q8_0", tmp_path)).file_type == "MOSTLY_Q8_0"


def test_unknown_kinds_and_other_families_are_refused(
    directory: ModelDirectory,
    f32: Path,
    tiny_directory: Callable[..., ModelDirectory],
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match="unknown quantisation 'q3'; give original, f16, q8_0"):
        evaluation_gguf(directory, "q3", tmp_path)
    with pytest.raises(UserError, match="unknown quantisation 'q3'; give one of f16"):
        quantise(f32, tmp_path / "out.gguf", "q3")  # type: ignore[arg-type]
    with pytest.raises(
        CapabilityError,
        match="GGUF export is not possible with global layers other than every sixth",
    ):
        evaluation_gguf(tiny_directory("gemma3"), "q8_0", tmp_path)
