"""Weight files written again: rounding, ranges, and tensors that are not floats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.errors import UserError
from models.rewrite import rewrite_weights


def _rewritten(tmp_path: Path, tensors: dict[str, torch.Tensor], dtype: str | None,
               **changes: object) -> dict[str, torch.Tensor]:  # fmt: skip
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    save_file(tensors, tmp_path / "in" / "model.safetensors")
    rewrite_weights(tmp_path / "in", tmp_path / "out", dtype=dtype, changes=changes)  # type: ignore[arg-type]
    return dict(load_file(tmp_path / "out" / "model.safetensors"))


def _every_kind_of_float() -> torch.Tensor:
    """All signs, exponents and rounding positions of float32, infinities and NaNs included."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=np.uint32)
    return torch.from_numpy((upper[:, None] | lower).reshape(-1).view(np.float32).copy())


def test_bfloat16_is_rounded_as_torch_rounds(tmp_path: Path) -> None:
    values = _every_kind_of_float()
    expected = values.to(torch.bfloat16)
    inside = torch.isfinite(values) == torch.isfinite(expected)  # the rest is out of range
    found = _rewritten(tmp_path, {"a": values[inside]}, "bfloat16")["a"]
    numbers = ~torch.isnan(expected[inside])
    assert torch.equal(found[numbers], expected[inside][numbers])
    assert torch.equal(torch.isnan(found), torch.isnan(expected[inside]))
    assert int(numbers.sum()) > 380_000


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_value_outside_the_range_is_refused(tmp_path: Path, dtype: str) -> None:
    largest = torch.tensor([torch.finfo(torch.float32).max])
    with pytest.raises(UserError, match=f"too.big has values up to 3.4e.38.* range of {dtype}"):
        _rewritten(tmp_path, {"too.big": largest}, dtype)


def test_large_tensors_are_converted_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.rewrite._CHUNK", 7)
    values = torch.randn(5, 11, generator=torch.Generator().manual_seed(0))
    found = _rewritten(tmp_path, {"a": values, "b": values.to(torch.float16)}, "bfloat16")
    assert torch.equal(found["a"], values.to(torch.bfloat16))
    assert torch.equal(found["b"], values.to(torch.float16).to(torch.bfloat16))


def test_integers_stay_and_changes_are_made_in_float32(tmp_path: Path) -> None:
    counts = torch.arange(6).reshape(2, 3)
    weight = torch.ones(2, 3, dtype=torch.bfloat16)
    found = _rewritten(tmp_path, {"n": counts, "w": weight}, None, w=lambda x: x + 1 / 3)
    assert torch.equal(found["n"], counts)
    assert torch.equal(found["w"], (weight.float() + 1 / 3).to(torch.bfloat16))


def test_a_change_of_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no weights named missing"):
        _rewritten(tmp_path, {"a": torch.ones(2)}, None, missing=lambda x: x)
