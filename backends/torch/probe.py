"""What PyTorch and transformers can do on this machine; imports them only when asked."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from backends.interface import Float32
from backends.memory import available_memory
from backends.probe_checks import ALPHA, BETA, Operations, Progress, check_dtypes
from backends.probing import pip

TRAINS = True
GPU_KINDS = {"nvidia": "cuda", "amd": "rocm", "apple": "mps"}
"""Maker of a GPU -> the kind of device it would be here."""
_KERNELS = {"fla": "chunk_gated_delta_rule", "causal_conv1d": "causal_conv1d_fn"}
"""Optional packages that transformers takes Qwen3.5's kernels from, and one name in each."""


def gpu_fix(maker: str, driver: str | None, found: dict[str, Any]) -> str:
    """Return the command, or the step, that would let torch use a GPU it does not use."""
    if maker == "apple":
        return f"use a native arm64 Python, then {pip('install --force-reinstall torch')}"
    if maker == "amd":
        return "install torch's ROCm build as https://pytorch.org/get-started/locally says"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return "unset CUDA_VISIBLE_DEVICES"
    if found.get("build") not in (None, "cpu"):
        return (
            f"this torch is built for {found['build']} and the driver is {driver or 'unknown'}: "
            "update the NVIDIA driver, or give the container the GPU (docker run --gpus all)"
        )
    wheel = "cu130" if _major(driver) >= 580 else "cu126"
    where = f"https://download.pytorch.org/whl/{wheel}"
    return pip(f"install --force-reinstall torch --index-url {where}")


def probe(progress: Progress) -> dict[str, Any]:
    """Try everything; see :func:`backends.probe.examine`. Raises ImportError without torch."""
    import torch

    progress.begin("devices", "cuda, mps")
    tf32 = _tf32(torch)
    devices = _devices(torch)
    device = next(entry["name"] for entry in devices if entry["used"])
    # as the engine does when it opens a model
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    dtypes = check_dtypes(
        lambda dtype: _operations(torch, device, dtype), progress, on_gpu=device != "cpu"
    )
    progress.begin("attention", "transformers")
    return {
        "versions": _versions("torch", "transformers", "peft", "accelerate"),
        "missing_packages": _absent("transformers", "peft"),
        "devices": devices,
        "build": _build(torch),
        "dtypes": dtypes,
        "threads": torch.get_num_threads(),
        "blas": _blas(torch),
        "tf32": tf32,
        "attention": _attention(torch),
    }


def _devices(torch: Any) -> list[dict[str, Any]]:
    """Every device, the best first used: cuda (or rocm), mps, cpu. Memory in bytes."""
    found: list[dict[str, Any]] = []
    if torch.cuda.is_available():
        kind = "rocm" if torch.version.hip else "cuda"
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            found.append(
                _device(f"cuda:{index}", kind, torch.cuda.get_device_name(index), free, total)
            )
    if torch.backends.mps.is_available():
        total = int(torch.mps.recommended_max_memory())
        found.append(_device("mps", "mps", "Apple GPU", min(available_memory(), total), total))
    found.append(_device("cpu", "cpu", "CPU", available_memory(), None))
    return [{**entry, "used": position == 0} for position, entry in enumerate(found)]


def _device(name: str, kind: str, title: str, free: int, total: int | None) -> dict[str, Any]:
    return {"name": name, "kind": kind, "title": title, "free": free, "total": total}


def _build(torch: Any) -> str:
    """What this wheel was compiled for."""
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    return "MPS" if torch.backends.mps.is_built() else "cpu"


def _blas(torch: Any) -> str:
    """The BLAS of the wheel's CPU build, from its own description."""
    settings = str(torch.__config__.show()).replace(",", " ").split()
    named = [part.split("=", 1)[1] for part in settings if part.startswith("BLAS_INFO=")]
    return named[0] if named else "unknown"


def _tf32(torch: Any) -> dict[str, Any]:
    """Whether float32 products would be TF32: as torch starts, and as our engine sets it."""
    return {
        "applies": bool(torch.cuda.is_available()),
        "as_started": bool(torch.backends.cuda.matmul.allow_tf32),
        "in_threearc": False,
        "switch": "export NVIDIA_TF32_OVERRIDE=0",
    }


def _operations(torch: Any, device: str, dtype: str) -> Operations:
    kind = getattr(torch, dtype)

    def put(array: Float32, grad: bool = False) -> Any:
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(device, kind)
        return tensor.requires_grad_(grad)

    def get(tensor: Any) -> Float32:
        return np.asarray(tensor.detach().float().cpu().numpy(), dtype=np.float32)

    def addmm(c: Any, a: Any, b: Any) -> Any:
        return torch.addmm(c, a, b, alpha=ALPHA, beta=BETA)

    def gradient(a: Float32, b: Float32, w: Float32) -> Sequence[Float32]:
        inputs = put(a, True), put(b, True)
        loss = (inputs[0] @ inputs[1]).mul(put(w)).sum()
        return [get(found) for found in torch.autograd.grad(loss, inputs)]

    def addmm_gradient(c: Float32, a: Float32, b: Float32, w: Float32) -> Sequence[Float32]:
        inputs = put(c, True), put(a, True)
        loss = addmm(*inputs, put(b)).mul(put(w)).sum()
        return [get(found) for found in torch.autograd.grad(loss, inputs)]

    def prepare(a: Float32, b: Float32) -> Any:
        left, right = put(a), put(b)

        def run() -> None:
            product = left @ right
            product[0, 0].item()  # waits, on every device

        return run

    return Operations(
        matmul=lambda a, b: get(put(a) @ put(b)),
        prepare=prepare,
        addmm=lambda c, a, b: get(addmm(put(c), put(a), put(b))),
        gradient=gradient,
        addmm_gradient=addmm_gradient,
    )


def _attention(torch: Any) -> dict[str, Any]:
    """Attention implementation, and where Qwen3.5's Gated DeltaNet would run."""
    if _absent("transformers"):
        return {"implementation": None, "sdpa_kernels": [], "deltanet": None}
    kernels = torch.backends.cuda
    enabled = {
        "flash": kernels.flash_sdp_enabled(),
        "memory-efficient": kernels.mem_efficient_sdp_enabled(),
        "cudnn": kernels.cudnn_sdp_enabled(),
        "math": kernels.math_sdp_enabled(),
    }
    on_cuda = torch.cuda.is_available()
    return {
        "implementation": _implementation(torch),
        "sdpa_kernels": [name for name, on in enabled.items() if on and on_cuda],
        "deltanet": _deltanet(on_cuda),
    }


def _implementation(torch: Any) -> str | None:
    """What transformers chooses when nothing is named, read off a Qwen3.5 without weights."""
    try:
        from transformers import AutoModelForCausalLM
        from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

        sizes = {
            "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 4,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
            "linear_num_value_heads": 2, "linear_num_key_heads": 2,
            "linear_key_head_dim": 4, "linear_value_head_dim": 4,
        }  # fmt: skip
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(Qwen3_5TextConfig(**sizes))
    except (ImportError, AttributeError, ValueError, TypeError, RuntimeError):
        return None  # another layout of transformers; said as "not known"
    return str(model.config._attn_implementation)


def _deltanet(on_cuda: bool) -> dict[str, Any]:
    """Which functions transformers bound to Qwen3.5's Gated DeltaNet when it was imported.

    It takes an optional package whenever that can be imported, whatever the device.
    """
    packages = {name: _optional(name, symbol) for name, symbol in _KERNELS.items()}
    bound = _bound_function()
    taken = packages["fla"]["importable"] if bound is None else bound != "transformers"
    return {
        "path": "fla" if taken else "transformers",
        "known_from": "transformers' binding" if bound is not None else "the import of fla",
        "packages": packages,
        # fla's kernels are Triton programs: without a GPU they cannot be launched
        "works": on_cuda or not taken,
    }


def _optional(name: str, symbol: str) -> dict[str, Any]:
    """Whether a package is installed, can be imported and has what is looked for in it."""
    installed = importlib.util.find_spec(name) is not None
    entry: dict[str, Any] = {"installed": installed, "importable": False, "reason": None}
    if not installed:
        return entry
    try:
        module = importlib.import_module(name)
        return entry | {"importable": hasattr(module, symbol), "version": _version_of(name)}
    except Exception as error:  # noqa: BLE001 - transformers catches all of them too, and goes on
        return entry | {"reason": " ".join(str(error).split())[:200] or type(error).__name__}


def _bound_function() -> str | None:
    """Top-level package of the function behind transformers' wrapper; None: not found out."""
    try:
        from transformers.models.qwen3_5 import modeling_qwen3_5

        wrapper = modeling_qwen3_5.torch_chunk_gated_delta_rule
        function = inspect.getclosurevars(wrapper).nonlocals["implementation"]
    except (ImportError, AttributeError, KeyError, TypeError):
        return None  # transformers binds it in another way in this version
    return str(function.__module__).split(".", maxsplit=1)[0]


def _version_of(name: str) -> str | None:
    distribution = {"fla": "flash-linear-attention", "causal_conv1d": "causal-conv1d"}[name]
    return _versions(distribution)[distribution]


def _versions(*names: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def _absent(*names: str) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]


def _major(driver: str | None) -> int:
    first = (driver or "").split(".")[0]
    return int(first) if first.isdigit() else 0
