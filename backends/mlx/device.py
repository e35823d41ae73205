"""Where MLX runs in this process, and how fast it can be there."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx

from backends.interface import Dtype
from backends.memory import available_memory
from backends.sequences import CPU_TOKENS, GPU_TOKENS

_MAPPED_BLAS = re.compile(r"/lib(openblas|mkl_rt)[^/]*$")


def device_name() -> str:
    """``metal ...``, ``cuda ...`` or ``cpu``, for people and the manifest."""
    if mx.default_device() != mx.gpu:
        return "cpu"
    kind = "metal" if mx.metal.is_available() else "cuda"
    return f"{kind} {mx.device_info().get('device_name', '')}".strip()


def on_cpu() -> bool:
    """Whether the default device is the CPU."""
    return bool(mx.default_device() != mx.gpu)


def reading_tokens() -> int:
    """Ids in one batch when sequences are read."""
    return CPU_TOKENS if on_cpu() else GPU_TOKENS


def free_memory() -> int:
    """Free bytes on the default device; on CUDA what MLX has not taken of the card."""
    if on_cpu() or mx.metal.is_available():
        return available_memory()
    return int(mx.device_info()["memory_size"]) - int(mx.get_active_memory())


def default_dtype() -> Dtype:
    """``float32`` on a CPU, ``bfloat16`` on Metal and CUDA."""
    return "float32" if on_cpu() else "bfloat16"


def keep_resident() -> None:
    """On Metal, keep what MLX allocates wired, up to what Apple recommends for the machine.

    Otherwise macOS may page weights out between steps. Does nothing elsewhere.
    """
    if not on_cpu() and mx.metal.is_available():
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))


def blas_name(maps: str | None = None) -> str:
    """The BLAS that float32 products on the CPU use; ``maps`` is the text of /proc/self/maps."""
    if sys.platform == "darwin":
        return "Accelerate"
    text = Path("/proc/self/maps").read_text() if maps is None else maps
    found = {line.rsplit("/", 1)[-1] for line in text.splitlines() if _MAPPED_BLAS.search(line)}
    return ", ".join(sorted(found)) or "reference BLAS (slow)"


def describe_device() -> dict[str, Any]:
    """Device, versions and, on a CPU, the BLAS and whether fused kernels can be compiled."""
    found: dict[str, Any] = {
        "device": device_name(),
        "versions": {name: importlib.metadata.version(name) for name in ("mlx", "mlx-lm")},
        "tf32": not on_cpu() and os.environ.get("MLX_ENABLE_TF32", "1") != "0",
    }
    if on_cpu():
        found["blas"] = blas_name()
        found["fused_kernels"] = shutil.which("g++") is not None
    return found
