"""What llama.cpp can do on this machine; loads it only when asked.

Products are made with ggml's own functions, through the libraries that llama-cpp-python brings:
weights in the dtype, activations in float32, as in a model.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np

from backends.interface import Float32
from backends.memory import available_memory
from backends.probe_checks import Operations, Progress, check_dtypes
from backends.probing import pip

TRAINS = False
GPU_KINDS = {"nvidia": "gpu", "amd": "gpu", "apple": "gpu"}
"""Maker of a GPU -> the kind of device it would be here."""
_TYPES = {"float32": 0, "float16": 1, "bfloat16": 30}
"""ggml_type of each dtype (ggml.h)."""
_KINDS = {0: "cpu", 1: "gpu", 2: "gpu", 3: "accelerator"}
"""ggml_backend_dev_type: CPU, GPU, integrated GPU, and what works beside the CPU."""
_CONTEXT_BYTES = 64 << 20


def gpu_fix(maker: str, driver: str | None, found: dict[str, Any]) -> str:
    """Return the command that builds llama.cpp with support for the GPU."""
    del driver
    flag = {"nvidia": "-DGGML_CUDA=on", "amd": "-DGGML_HIP=on", "apple": "-DGGML_METAL=on"}[maker]
    if found.get("build") == "gpu":
        return (
            "this llama.cpp is built for GPUs and sees none: unset CUDA_VISIBLE_DEVICES, check the "
            "driver, or give the container the GPU (docker run --gpus all)"
        )
    compiler = "with NVIDIA's compiler (nvcc) on PATH: " if maker == "nvidia" else ""
    build = pip("install --force-reinstall --no-deps --no-cache-dir llama-cpp-python")
    return f'{compiler}CMAKE_ARGS="{flag}" {build}'


def probe(progress: Progress) -> dict[str, Any]:
    """Try everything; see :func:`backends.probe.examine`. Raises ImportError without it."""
    import llama_cpp

    from backends.llamacpp.library import library

    progress.begin("devices", "llama.cpp's library")
    loaded = library()
    ggml = Ggml(_libraries(Path(llama_cpp.__file__).parent))
    return {
        "versions": {"llama-cpp-python": importlib.metadata.version("llama-cpp-python")},
        "missing_packages": [],
        "devices": _devices(ggml),
        "build": "gpu" if loaded.supports_gpu else "cpu",
        "gpu_offload": loaded.supports_gpu,
        # the products run on the CPU, also of a build with a GPU
        "dtypes": check_dtypes(lambda dtype: _operations(ggml, dtype), progress),
        "threads": None,
        "blas": None,
        "tf32": {"applies": False, "as_started": False, "in_threearc": False, "switch": None},
        "attention": {"implementation": "llama.cpp's own"},
        "system_info": loaded.system_info,
    }


class Ggml:
    """The few of ggml's functions that are needed, found in whichever library has them."""

    def __init__(self, libraries: list[ctypes.CDLL]) -> None:
        self._libraries = libraries

    def call(self, name: str, *arguments: Any, returns: Any = ctypes.c_void_p) -> Any:
        """Call a function. Raises AttributeError when this build does not export it."""
        for library in self._libraries:
            function = getattr(library, name, None)
            if function is not None:
                function.restype = returns
                return function(*arguments)
        raise AttributeError(f"this build of llama.cpp does not export {name}")


class _InitParameters(ctypes.Structure):
    """struct ggml_init_params."""

    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


def _libraries(package: Path) -> list[ctypes.CDLL]:
    found = [*package.glob("lib/libggml*.so"), *package.glob("lib/libggml*.dylib")]
    return [ctypes.CDLL(str(path)) for path in sorted(found)]


def _devices(ggml: Ggml) -> list[dict[str, Any]]:
    """Devices llama.cpp would use; memory in bytes. A GPU is used before the CPU."""
    try:
        count = ggml.call("ggml_backend_dev_count", returns=ctypes.c_size_t)
        found = [_device(ggml, index) for index in range(count)]
    except AttributeError:
        found = [_entry("cpu", "cpu", "CPU", available_memory(), None)]
    best = next((entry for entry in found if entry["kind"] == "gpu"), None)
    used = best or next((entry for entry in found if entry["kind"] == "cpu"), None)
    return [{**entry, "used": entry is used} for entry in found]


def _device(ggml: Ggml, index: int) -> dict[str, Any]:
    handle = ctypes.c_void_p(ggml.call("ggml_backend_dev_get", ctypes.c_size_t(index)))
    name, title = (
        ggml.call(f"ggml_backend_dev_{what}", handle, returns=ctypes.c_char_p).decode()
        for what in ("name", "description")
    )
    kind = _KINDS.get(ggml.call("ggml_backend_dev_type", handle, returns=ctypes.c_int), "other")
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ggml.call(
        "ggml_backend_dev_memory", handle, ctypes.byref(free), ctypes.byref(total), returns=None
    )
    if kind == "cpu":
        return _entry(name, kind, title, available_memory(), None)
    return _entry(name, kind, title, free.value, total.value)


def _entry(name: str, kind: str, title: str, free: int, total: int | None) -> dict[str, Any]:
    return {"name": name, "kind": kind, "title": title, "free": free, "total": total}


def _operations(ggml: Ggml, dtype: str) -> Operations:
    def prepare(a: Float32, b: Float32) -> Any:
        return _Product(ggml, dtype, a, b).compute

    def matmul(a: Float32, b: Float32) -> Float32:
        product = _Product(ggml, dtype, a, b)
        product.compute()
        return product.result()

    return Operations(matmul=matmul, prepare=prepare)


class _Product:
    """a [m, k] in float32 times weights b [k, n] in a dtype, in a context of its own."""

    def __init__(self, ggml: Ggml, dtype: str, a: Float32, b: Float32) -> None:
        self._ggml, self._shape = ggml, (a.shape[0], b.shape[1])
        parameters = _InitParameters(_CONTEXT_BYTES, None, False)
        self._context = ctypes.c_void_p(ggml.call("ggml_init", parameters))
        if not self._context:
            raise MemoryError("ggml has no memory for a product")
        weights = self._tensor(_TYPES[dtype], _stored(b.T, dtype))
        activations = self._tensor(_TYPES["float32"], np.ascontiguousarray(a))
        self._output = ctypes.c_void_p(
            ggml.call("ggml_mul_mat", self._context, weights, activations)
        )
        self._graph = ctypes.c_void_p(ggml.call("ggml_new_graph", self._context))
        ggml.call("ggml_build_forward_expand", self._graph, self._output, returns=None)

    def compute(self) -> None:
        """Run the product once, on one thread."""
        status = self._ggml.call(
            "ggml_graph_compute_with_ctx",
            self._context, self._graph, ctypes.c_int(1), returns=ctypes.c_int,
        )  # fmt: skip
        if status != 0:
            raise RuntimeError(f"ggml could not compute a product (status {status})")

    def result(self) -> Float32:
        """Return the product, [m, n]."""
        address = self._ggml.call("ggml_get_data", self._output)
        values = (ctypes.c_float * (self._shape[0] * self._shape[1])).from_address(address)
        return np.array(values, dtype=np.float32).reshape(self._shape)

    def __del__(self) -> None:
        self._ggml.call("ggml_free", self._context, returns=None)

    def _tensor(self, kind: int, rows: Any) -> ctypes.c_void_p:
        """Make a tensor of ``rows`` (a contiguous array [n, k]); ggml calls it k by n."""
        sizes = (ctypes.c_int64(rows.shape[1]), ctypes.c_int64(rows.shape[0]))
        tensor = ctypes.c_void_p(
            self._ggml.call("ggml_new_tensor_2d", self._context, ctypes.c_int(kind), *sizes)
        )
        ctypes.memmove(self._ggml.call("ggml_get_data", tensor), rows.ctypes.data, rows.nbytes)
        return tensor


def _stored(values: Any, dtype: str) -> Any:
    """The bytes of values that ``dtype`` can hold, as a contiguous array."""
    array = np.ascontiguousarray(values, dtype=np.float32)
    if dtype == "float16":
        return array.astype(np.float16)
    if dtype == "bfloat16":
        return (array.view(np.uint32) >> 16).astype(np.uint16)
    return array
