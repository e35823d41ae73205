"""How a model is run: one interface, one engine a folder, everything decidable decided outside."""

from __future__ import annotations

import importlib
import importlib.util
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from backends.out_of_memory import memory_errors
from models.errors import CapabilityError, UserError

if TYPE_CHECKING:
    from backends.interface import Dtype, LanguageModel
    from backends.memory import MemoryModel
    from models.directory import ModelDirectory


@dataclass(frozen=True)
class _Engine:
    packages: tuple[str, ...]
    """Import names that must be found for the engine to work."""
    module: str
    """Module with ``open_model(directory, *, dtype) -> LanguageModel``."""
    extra: str


_ENGINES = {
    "mlx": _Engine(("mlx", "mlx_lm"), "backends.mlx.model", "mlx"),
    "torch": _Engine(("torch", "peft"), "backends.torch.model", "torch"),
}
_QUANTISED_BASES = frozenset({"mlx"})
_DATA_PARALLEL = {"torch": "backends.torch.parallel"}
"""Engine -> module with ``open_model(directory, *, dtype, processes) -> LanguageModel``."""


def available_backends() -> dict[str, str | None]:
    """Return each training backend's name -> None when usable, else one line that says why not.

    Nothing is imported: only whether the packages can be found is looked up.
    """
    return {name: _missing(name, engine) for name, engine in _ENGINES.items()}


def open_backend(
    name: str,
    directory: ModelDirectory,
    *,
    dtype: Dtype = "float32",
    quantise: int | None = None,
    processes: int = 1,
) -> LanguageModel:
    """Open ``directory`` on the engine ``name``: ``auto``, ``mlx`` or ``torch``.

    ``auto`` takes MLX on Apple Silicon, else torch, else MLX. A backend asked for by name
    never falls back to another. ``quantise``: the bits (4 or 8) that the decoder's linear layers
    are packed to. ``processes``: how many share out the micro-batches of a training step, each with
    the whole model. Raises UserError when the backend is unknown, not installed, or cannot do that.
    """
    chosen = choose_backend(name)
    require_processes(chosen, processes)
    if quantise is not None:
        require_quantised_bases(chosen)
    options = {} if quantise is None else {"quantise": quantise}
    module = importlib.import_module(_ENGINES[chosen].module)
    if processes > 1:
        module = importlib.import_module(_DATA_PARALLEL[chosen])
        options["processes"] = processes
    opener = cast("Callable[..., LanguageModel]", module.open_model)
    advice = "use a smaller model or a narrower dtype, or close other programs"
    with memory_errors(chosen, f"loading {directory.name}", advice):
        return opener(directory, dtype=dtype, **options)


def require_quantised_bases(name: str) -> None:
    """Raise CapabilityError when the backend cannot train over weights of 4 or 8 bits."""
    if name not in _QUANTISED_BASES:
        raise CapabilityError(
            f"the {name} engine cannot train over a quantised base: use --backend mlx, or leave "
            "the bits out and use dtype bfloat16 to save memory"
        )


def require_processes(name: str, processes: int) -> None:
    """Raise UserError when the backend cannot train one model in so many processes here."""
    if processes == 1:
        return
    chosen = choose_backend(name)
    if chosen not in _DATA_PARALLEL:
        raise CapabilityError(
            f"the {chosen} engine cannot train in {processes} processes: use --backend torch, or "
            "leave --processes out"
        )
    if importlib.util.find_spec("accelerate") is None:
        raise UserError(
            "--processes: accelerate is not installed: pip install "
            f'"threearc[{_ENGINES[chosen].extra}]"'
        )
    module = importlib.import_module(_DATA_PARALLEL[chosen])
    cast("Callable[[int], None]", module.require_devices)(processes)


def choose_backend(name: str) -> str:
    """Resolve ``auto`` and check that the backend can be used; returns ``mlx`` or ``torch``."""
    available = available_backends()
    if name == "auto":
        order = ("mlx", "torch") if _apple_silicon() else ("torch", "mlx")
        usable = [candidate for candidate in order if available[candidate] is None]
        if not usable:
            reasons = "; ".join(f"{key}: {why}" for key, why in available.items())
            raise UserError(f"no backend can be used ({reasons})")
        return usable[0]
    if name not in available:
        known = ", ".join(("auto", *available))
        raise UserError(f"unknown backend {name!r}: choose one of {known}")
    reason = available[name]
    if reason is not None:
        raise UserError(f"backend {name} cannot be used: {reason}")
    return name


def free_memory(name: str, processes: int = 1) -> int:
    """Free bytes where the backend would keep a model's tensors, before one is opened.

    ``processes``: for each of so many that train together.
    """
    chosen = choose_backend(name)
    if processes > 1:
        shared = importlib.import_module(_DATA_PARALLEL[chosen])
        return cast("Callable[[int], int]", shared.free_memory)(processes)
    module = importlib.import_module(_ENGINES[chosen].module)
    return cast("Callable[[], int]", module.free_memory)()


def memory_model(name: str) -> MemoryModel:
    """Return what a backend keeps and wastes, for :func:`backends.memory.estimate_training`."""
    module = importlib.import_module(_ENGINES[choose_backend(name)].module)
    return cast("Callable[[], MemoryModel]", module.memory_model)()


def default_dtype(name: str) -> Dtype:
    """Return the dtype of a backend's weights where none was asked for.

    float32 on a CPU, where engines are equal and narrower types are slower (MLX's bfloat16 20
    times); bfloat16 on a GPU that computes it, where float32 costs twice the memory and time.
    """
    module = importlib.import_module(_ENGINES[choose_backend(name)].module)
    return cast("Callable[[], Dtype]", module.default_dtype)()


def wants_fast_blas(name: str) -> bool:
    """Whether the backend computes on a BLAS that can be preloaded.

    Torch brings its own, and a preloaded OpenBLAS makes it five times slower (measured: 320
    against 65 tokens/s of training on two cores, the two thread pools spin against each other).
    """
    return name == "mlx"


def _missing(name: str, engine: _Engine) -> str | None:
    absent = [package for package in engine.packages if importlib.util.find_spec(package) is None]
    if not absent:
        return None
    verb = "is" if len(absent) == 1 else "are"
    listed = " and ".join(package.replace("_", "-") for package in absent)
    return f'{listed} {verb} not installed: pip install "threearc[{engine.extra}]"'


def _apple_silicon() -> bool:
    return platform.system() == "Darwin" and platform.machine() == "arm64"
