"""What dtype a backend takes where none was asked for; the GPUs are only pretended here."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
mx = pytest.importorskip("mlx.core")

import backends.mlx.device as mlx_device  # noqa: E402
import backends.torch.model as torch_model  # noqa: E402
from backends import default_dtype  # noqa: E402


@pytest.mark.parametrize(
    ("device", "bf16", "expected"),
    [
        ("cpu", False, "float32"),
        ("mps", False, "float32"),
        ("cuda", True, "bfloat16"),
        ("cuda", False, "float32"),
    ],
)
def test_torch_takes_bfloat16_where_a_cuda_device_computes_it(
    monkeypatch, device, bf16, expected
) -> None:
    monkeypatch.setattr(torch_model, "default_device", lambda: device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    assert torch_model.default_dtype() == expected


@pytest.mark.parametrize(("cpu", "expected"), [(True, "float32"), (False, "bfloat16")])
def test_mlx_takes_bfloat16_on_a_gpu(monkeypatch, cpu, expected) -> None:
    monkeypatch.setattr(mlx_device, "on_cpu", lambda: cpu)
    assert mlx_device.default_dtype() == expected


def test_the_engines_default_is_asked_by_name() -> None:
    assert {default_dtype(name) for name in ("torch", "mlx")} <= {"float32", "bfloat16"}


@pytest.mark.parametrize(("cpu", "metal", "calls"), [(False, True, [7 << 30]), (True, True, [])])
def test_metal_keeps_what_is_recommended_wired(monkeypatch, cpu, metal, calls) -> None:
    seen: list[int] = []
    monkeypatch.setattr(mlx_device, "on_cpu", lambda: cpu)
    monkeypatch.setattr(mx.metal, "is_available", lambda: metal)
    info = {"max_recommended_working_set_size": 7 << 30}
    monkeypatch.setattr(mx, "device_info", lambda: info)
    monkeypatch.setattr(mx, "set_wired_limit", seen.append)
    mlx_device.keep_resident()
    assert seen == calls


def test_a_training_without_a_dtype_takes_the_engines_own(monkeypatch) -> None:
    from arcs.arc1.config import resolve

    assert resolve({}).dtype == "auto"
    assert resolve({"dtype": "bfloat16"}).dtype == "bfloat16"
