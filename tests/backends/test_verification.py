"""Comparing the installed engines on a model directory before anything is measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("mlx_lm")

import backends.verification as verification
from backends.reduced import LAYERS_OF, reduced_copy
from backends.torch.model import open_model
from backends.verification import FILE, SINGLE_ENGINE, verify
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.devices import DEVICE
from tests.support.tiny_models import ARCHITECTURES

Tiny = Callable[..., ModelDirectory]


def copy_of(directory: ModelDirectory, folder: Path) -> ModelDirectory:
    shutil.copytree(directory.path, folder)
    (folder / FILE).unlink(missing_ok=True)
    return replace(directory, path=folder)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_prepared_models_are_verified_and_remembered(
    tiny_directory: Tiny, tmp_path: Path, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copy_of(tiny_directory(arch), tmp_path / "m")
    said: list[str] = []
    status = verify(directory, said.append)
    assert status == "verified: mlx and torch agree on all layers"
    assert len(said) == 1
    record = json.loads((directory.path / FILE).read_text())
    assert 0 < record["max_difference"] < record["allowed"]
    monkeypatch.setattr(verification, "_compare_within_memory", None)  # must not be called
    assert verify(directory, said.append) == status
    assert len(said) == 1


def test_another_fingerprint_or_version_is_compared_again(
    tiny_directory: Tiny, tmp_path: Path
) -> None:
    directory = copy_of(tiny_directory("llama"), tmp_path / "m")
    said: list[str] = []
    verify(directory, said.append)
    verify(replace(directory, fingerprint="0" * 64), said.append)
    record = json.loads((directory.path / FILE).read_text())
    record["versions"]["mlx"] = "0.0"
    (directory.path / FILE).write_text(json.dumps(record))
    verify(replace(directory, fingerprint="0" * 64), said.append)
    (directory.path / FILE).write_text("torn")
    verify(replace(directory, fingerprint="0" * 64), said.append)
    assert len(said) == 4


def test_a_config_that_engines_read_differently_is_refused(
    tiny_directory: Tiny, tmp_path: Path
) -> None:
    """mlx-lm reads the top-level rope_theta of a llama, transformers 5 rope_parameters."""
    directory = copy_of(tiny_directory("llama"), tmp_path / "m")
    file = directory.path / "config.json"
    config = json.loads(file.read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 1e5
    file.write_text(json.dumps(config | {"rope_theta": 1e4}))
    with pytest.raises(UserError, match=r"do not read .* as the same model") as caught:
        verify(directory)
    assert "\n" not in str(caught.value)
    assert not (directory.path / FILE).exists()


def test_one_engine_is_said_to_be_unverified(
    tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        verification, "available_backends", lambda: {"mlx": "not installed", "torch": None}
    )
    assert verify(tiny_directory("llama")) == SINGLE_ENGINE


@pytest.mark.parametrize("arch", ["llama", "qwen3", "qwen3_5", "gemma3"])
def test_reduced_copies_hold_the_first_layers_exactly(
    tiny_directory: Tiny, tmp_path: Path, arch: str
) -> None:
    """The hidden state after k layers of the whole model is that of the copy before its norm."""
    import torch

    directory = tiny_directory(arch)
    count = min(LAYERS_OF[arch], 2)
    reduced = reduced_copy(directory, count, tmp_path)
    ids = torch.tensor([[5, 9, 200, 77, 31]], device=DEVICE)
    states = []
    for opened in (directory, reduced):
        with open_model(opened, device=DEVICE) as model:
            captured: list[torch.Tensor] = []
            layer = model.backbone.layers[count - 1]
            layer.register_forward_hook(
                lambda module, args, out, into=captured: into.append(
                    out[0] if isinstance(out, tuple) else out
                )
            )
            with torch.no_grad():
                model.hidden(ids)
            assert len(captured) == 1
            states.append(captured[0].cpu().numpy())
            layers = len(model.backbone.layers)
    assert layers == count
    np.testing.assert_array_equal(states[0], states[1])


def test_short_memory_compares_a_reduced_copy(
    tiny_directory: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copy_of(tiny_directory("llama"), tmp_path / "m")
    whole = verification.model_size(directory).parameters
    monkeypatch.setattr(verification, "available_memory", lambda: 2 * 4 * whole - 1)
    assert verify(directory) == "verified: mlx and torch agree on the first 2 layers"
    file = directory.path / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"rope_theta": 1e4}))
    with pytest.raises(UserError, match="do not read"):
        verify(replace(directory, fingerprint="1" * 64))


def test_what_could_not_be_compared_is_said(
    tiny_directory: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "available_memory", lambda: 1000)
    small = copy_of(tiny_directory("llama"), tmp_path / "a")
    assert verify(small) == "unverified: too large to compare in free memory"
    gemma = copy_of(tiny_directory("gemma4"), tmp_path / "b")
    assert "no reduced copy of the gemma4 family" in verify(gemma)
    monkeypatch.undo()
    assert verify(small).startswith("verified")  # an "unverified" is not remembered
