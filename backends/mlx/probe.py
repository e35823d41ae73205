"""What MLX can do on this machine; imports it only when asked."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from backends.interface import Float32
from backends.probe_checks import ALPHA, BETA, Operations, Progress, check_dtypes
from backends.probing import pip

TRAINS = True
GPU_KINDS = {"nvidia": "cuda", "apple": "metal"}
"""Maker of a GPU -> the kind of device it would be here."""
_WHEELS = ("mlx-metal", "mlx-cpu", "mlx-cuda-12", "mlx-cuda-13", "mlx-cuda")
"""Distributions that bring MLX's native library."""


def gpu_fix(maker: str, driver: str | None, found: dict[str, Any]) -> str:
    """Return the command, or the step, that would let MLX use a GPU it does not use."""
    del found
    if maker == "apple":
        return f"use a native arm64 Python on macOS 14 or newer, then {pip('install mlx')}"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return "unset CUDA_VISIBLE_DEVICES"
    first = (driver or "").split(".")[0]
    extra = "cuda13" if first.isdigit() and int(first) >= 580 else "cuda12"
    # both wheels bring libmlx.so, so the CPU one has to go first
    return f'{pip("uninstall -y mlx mlx-cpu")} && {pip(f"""install "mlx[{extra}]" """).strip()}'


def probe(progress: Progress) -> dict[str, Any]:
    """Try everything; see :func:`backends.probe.examine`. Raises ImportError without MLX."""
    import mlx.core as mx

    from backends.mlx import device

    progress.begin("devices", "default device")
    on_cpu = device.on_cpu()
    name = device.device_name()
    return {
        "versions": _versions("mlx", "mlx-lm", *_WHEELS),
        "missing_packages": [p for p in ("mlx_lm",) if importlib.util.find_spec(p) is None],
        "devices": [_device(mx, name, on_cpu, device.free_memory())],
        "build": _build(),
        "dtypes": check_dtypes(lambda dtype: _operations(mx, dtype), progress, on_gpu=not on_cpu),
        "threads": None,
        "blas": device.blas_name() if on_cpu else None,
        "tf32": _tf32(on_cpu),
        "attention": {"implementation": _attention(on_cpu)},
        "fused_kernels": shutil.which("g++") is not None if on_cpu else None,
    }


def _device(mx: Any, name: str, on_cpu: bool, free: int) -> dict[str, Any]:
    kind = "cpu" if on_cpu else name.split(maxsplit=1)[0]
    total = None if on_cpu else int(mx.device_info()["memory_size"])
    title = "CPU" if on_cpu else name
    return {
        "name": kind, "kind": kind, "title": title, "free": free, "total": total, "used": True
    }  # fmt: skip


def _tf32(on_cpu: bool) -> dict[str, Any]:
    """MLX lets float32 products be TF32 on CUDA and on Apple's M5, unless this is 0."""
    allowed = not on_cpu and os.environ.get("MLX_ENABLE_TF32", "1") != "0"
    return {
        "applies": not on_cpu,
        "as_started": not on_cpu,
        "in_threearc": allowed,
        "switch": "export MLX_ENABLE_TF32=0",
    }


def _attention(on_cpu: bool) -> str:
    """Where attention is computed; on a CPU mlx-lm's models are given our own form of it."""
    return "threearc's softmax (backends.mlx.cpu)" if on_cpu else "mx.fast (fused kernel)"


def _build() -> str:
    """What the installed wheels were compiled for."""
    if sys.platform == "darwin":
        return "Metal"
    cuda = [name for name, version in _versions(*_WHEELS).items() if version and "cuda" in name]
    return cuda[0] if cuda else "cpu"


def _operations(mx: Any, dtype: str) -> Operations:
    kind = getattr(mx, dtype)

    def put(array: Float32) -> Any:
        return mx.array(np.ascontiguousarray(array)).astype(kind)

    def get(array: Any) -> Float32:
        return np.array(array.astype(mx.float32), dtype=np.float32)

    def addmm(c: Any, a: Any, b: Any) -> Any:
        return mx.addmm(c, a, b, alpha=ALPHA, beta=BETA)

    def gradient(a: Float32, b: Float32, w: Float32) -> Sequence[Float32]:
        weights = put(w)
        slope = mx.grad(lambda x, y: ((x @ y) * weights).sum(), argnums=(0, 1))
        return [get(found) for found in slope(put(a), put(b))]

    def addmm_gradient(c: Float32, a: Float32, b: Float32, w: Float32) -> Sequence[Float32]:
        right, weights = put(b), put(w)
        slope = mx.grad(lambda x, y: (addmm(x, y, right) * weights).sum(), argnums=(0, 1))
        return [get(found) for found in slope(put(c), put(a))]

    def prepare(a: Float32, b: Float32) -> Any:
        left, right = put(a), put(b)
        mx.eval(left, right)
        return lambda: mx.eval(left @ right)

    return Operations(
        matmul=lambda a, b: get(put(a) @ put(b)),
        prepare=prepare,
        addmm=lambda c, a, b: get(addmm(put(c), put(a), put(b))),
        gradient=gradient,
        addmm_gradient=addmm_gradient,
    )


def _versions(*names: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found
