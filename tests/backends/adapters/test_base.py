"""The base is the one the adapter names, the most exact name first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import backends.adapters.base as module
from backends.adapter_files import SIDECAR_FILE, StoredAdapter, read_adapter, save_adapter
from backends.adapters.contents import CONFIG_FILE
from backends.interface import LoraConfig
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.adapters import edit_json, silent


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that would have been prepared."""
    names: list[str] = []
    monkeypatch.setattr(module, "prepare", lambda name, say: names.append(name))
    return names


def stored(tmp_path: Path, source: str, name: str, declared: str | None) -> StoredAdapter:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "llama"}')
    directory = ModelDirectory(base, name, "llama", "a" * 64, source)
    part = "model.layers.0.self_attn.q_proj.lora_"
    weights = {part + "A": np.ones((1, 2), np.float32), part + "B": np.ones((2, 1), np.float32)}
    save_adapter(tmp_path / "adapter", LoraConfig(1, 1.0), weights, directory)
    edit_json(tmp_path / "adapter" / CONFIG_FILE, base_model_name_or_path=declared)
    return read_adapter(tmp_path / "adapter")


def test_the_source_in_the_sidecar_comes_first(tmp_path: Path, asked: list[str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    adapter = stored(tmp_path, str(tmp_path / "base"), "Qwen3-0.6B", str(other))
    module.find_base(adapter, None, silent)
    assert asked == [str(tmp_path / "base")]


def test_a_source_that_is_gone_gives_way_to_the_name_then_to_the_settings(
    tmp_path: Path, asked: list[str]
) -> None:
    adapter = stored(tmp_path, "/gone/model", "Qwen3-0.6B", "org/other")
    module.find_base(adapter, None, silent)
    (tmp_path / "adapter" / SIDECAR_FILE).unlink()
    module.find_base(read_adapter(tmp_path / "adapter"), None, silent)
    assert asked == ["Qwen3-0.6B", "org/other"]


def test_the_embedded_model_is_found_by_its_name_and_not_as_a_folder(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "embedded").mkdir()
    monkeypatch.chdir(tmp_path)
    adapter = stored(tmp_path, "embedded", "SmolLM2-135M-Instruct", "embedded")
    module.find_base(adapter, None, silent)
    assert asked == ["SmolLM2-135M-Instruct"]
    with pytest.raises(UserError, match="names no base model"):
        module.find_base(replace(adapter, sidecar=None), None, silent)


def test_a_model_that_is_given_wins(tmp_path: Path, asked: list[str]) -> None:
    adapter = stored(tmp_path, str(tmp_path / "base"), "tiny", None)
    module.find_base(adapter, "org/mine", silent)
    assert asked == ["org/mine"]
