"""Small products an engine must get right, in each dtype, compared with numpy.

Each stands for something that was wrong once: half-precision products that abort the process
(ml-explore/mlx#2037, #1511), addmm that ignores beta (#2695), and their gradients. #3502 is
about speed, so the time of a product of an MLP's size is taken as well.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backends.interface import Float32

DTYPES = ("float32", "bfloat16", "float16")
TOLERANCES = {"float32": 1e-5, "bfloat16": 3.2e-2, "float16": 4e-3}
"""Largest error over the largest true value. Half precision: 4 units in the last place (2^-7,
2^-10), for a result that is rounded and products that may be. float32: sums of 64 terms in any
order stay near 1e-6, while TF32's 10 bits give some 1.5e-4 and so fail."""
_TF32 = 2e-3
"""float32 errors up to this are what TF32 gives: less exact than promised, yet no nonsense."""
ALPHA, BETA = 2.0, 0.5
_TIMED_ROWS, _TIMED_INNER, _TIMED_COLUMNS = 64, 576, 1536
"""An MLP of SmolLM2-135M on 64 tokens; a GPU gets a square of this side, to be busy at all."""
_GPU_SIDE = 2048
_ERRORS = (RuntimeError, ValueError, TypeError, MemoryError, AttributeError)


@dataclass(frozen=True)
class Operations:
    """One engine's operations in one dtype: float32 arrays that the dtype can hold in, float32 out.

    An operation that the engine does not have is None.
    """

    matmul: Callable[[Float32, Float32], Float32]
    """a [m, k], b [k, n] -> a @ b."""
    prepare: Callable[[Float32, Float32], Callable[[], None]]
    """Put a and b on the device; what is returned computes a @ b once and waits for it."""
    addmm: Callable[[Float32, Float32, Float32], Float32] | None = None
    """c, a, b -> BETA * c + ALPHA * a @ b."""
    gradient: Callable[[Float32, Float32, Float32], Sequence[Float32]] | None = None
    """a, b, w -> gradients of sum(w * (a @ b)) with respect to a and b."""
    addmm_gradient: Callable[[Float32, Float32, Float32, Float32], Sequence[Float32]] | None = None
    """c, a, b, w -> gradients of sum(w * addmm(c, a, b)) with respect to c and a."""


@dataclass(frozen=True)
class Progress:
    """What a probe is about to try goes to stderr, so that a crash has a name."""

    skip: frozenset[str] = field(default_factory=frozenset)
    """dtypes to leave out, since they ended the process before."""

    def begin(self, subject: str, what: str) -> None:
        """Say it before trying it; ``subject`` is a dtype or another part of the engine."""
        print(f"probe: {subject}: {what}", file=sys.stderr, flush=True)


def check_dtypes(
    operations: Callable[[str], Operations], progress: Progress, *, on_gpu: bool = False
) -> dict[str, Any]:
    """Return dtype -> works, checks, seconds of one product, slowdown against float32."""
    found: dict[str, Any] = {}
    for dtype in DTYPES:
        if dtype not in progress.skip:
            found[dtype] = check_dtype(dtype, operations, progress, on_gpu=on_gpu)
    base = found.get("float32", {}).get("seconds")
    for entry in found.values():
        seconds = entry["seconds"]
        entry["slowdown"] = round(seconds / base, 2) if seconds and base else None
    return found


def check_dtype(
    dtype: str,
    operations: Callable[[str], Operations],
    progress: Progress,
    *,
    on_gpu: bool = False,
) -> dict[str, Any]:
    """Return whether every operation works, each check's result, and a product's seconds.

    ``reduced``: float32 is no more exact than TF32, and otherwise right.
    """
    progress.begin(dtype, "set-up")
    try:
        ops = operations(dtype)
    except _ERRORS as error:
        failed = {"set-up": {"ok": False, "error": None, "reason": _line(error)}}
        return {"works": False, "reduced": False, "checks": failed, "seconds": None}
    checks = {}
    for name, run in _checks(dtype, ops).items():
        progress.begin(dtype, name)
        checks[name] = _outcome(run, TOLERANCES[dtype])
    works = all(check["ok"] for check in checks.values())
    reduced = dtype == "float32" and not works and all(map(_near, checks.values()))
    return {
        "works": works,
        "reduced": reduced,
        "checks": checks,
        "seconds": _seconds(dtype, ops, progress, on_gpu) if works or reduced else None,
    }


def rounded(values: Float32, dtype: str) -> Float32:
    """Round float32 values to the nearest that ``dtype`` can hold, by numpy alone."""
    if dtype == "float16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        bits = values.view(np.uint32)
        even = bits + 0x7FFF + ((bits >> 16) & 1)
        return (even & np.uint32(0xFFFF0000)).view(np.float32)
    return values


def best_seconds(run: Callable[[], None], budget: float = 0.2) -> float:
    """Shortest of several calls within ``budget`` seconds; at least one after a first."""
    start = time.perf_counter()
    run()
    first = time.perf_counter() - start
    if first > 5 * budget:
        return first
    times: list[float] = []
    while not times or (sum(times) < budget and len(times) < 50):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


_Pairs = list[tuple[Float32, Any]]


def _checks(dtype: str, ops: Operations) -> dict[str, Callable[[], _Pairs]]:
    """Name -> function that returns pairs of result and truth."""
    made: dict[str, Callable[[], _Pairs]] = {
        "matmul 4x4": lambda: _matmul(dtype, ops, 4),
        "matmul 64x64": lambda: _matmul(dtype, ops, 64),
    }
    if ops.addmm is not None:
        made["addmm alpha 2, beta 0.5"] = lambda: _addmm(dtype, ops)
    if ops.gradient is not None:
        made["gradient of matmul"] = lambda: _gradient(dtype, ops)
    if ops.addmm_gradient is not None:
        made["gradient of addmm"] = lambda: _addmm_gradient(dtype, ops)
    return made


def _inputs(dtype: str, side: int, count: int) -> list[Float32]:
    rng = np.random.default_rng(side)
    drawn = rng.standard_normal((count, side, side), dtype=np.float32)
    return [rounded(matrix, dtype) for matrix in drawn]


def _matmul(dtype: str, ops: Operations, side: int) -> _Pairs:
    a, b = _inputs(dtype, side, 2)
    return [(ops.matmul(a, b), _product(a, b))]


def _addmm(dtype: str, ops: Operations) -> _Pairs:
    assert ops.addmm is not None
    c, a, b = _inputs(dtype, 16, 3)
    return [(ops.addmm(c, a, b), BETA * c.astype(np.float64) + ALPHA * _product(a, b))]


def _gradient(dtype: str, ops: Operations) -> _Pairs:
    assert ops.gradient is not None
    a, b, w = _inputs(dtype, 16, 3)
    of_a, of_b = ops.gradient(a, b, w)
    return [(of_a, _product(w, b.T)), (of_b, _product(a.T, w))]


def _addmm_gradient(dtype: str, ops: Operations) -> _Pairs:
    assert ops.addmm_gradient is not None
    c, a, b, w = _inputs(dtype, 16, 4)
    of_c, of_a = ops.addmm_gradient(c, a, b, w)
    return [(of_c, BETA * w.astype(np.float64)), (of_a, ALPHA * _product(w, b.T))]


def _product(a: Float32, b: Float32) -> Any:
    return a.astype(np.float64) @ b.astype(np.float64)


def _outcome(run: Callable[[], _Pairs], tolerance: float) -> dict[str, Any]:
    """Return ok, the error relative to the largest true value, and the reason of a failure."""
    try:
        errors = [float(np.abs(got - true).max() / np.abs(true).max()) for got, true in run()]
    except _ERRORS as error:
        return {"ok": False, "error": None, "reason": _line(error)}
    # not max(): it may pass over a NaN, depending on the order
    worst = float(np.max(errors))
    if np.isfinite(worst) and worst <= tolerance:
        return {"ok": True, "error": worst, "reason": None}
    shown = worst if np.isfinite(worst) else None
    return {"ok": False, "error": shown, "reason": f"off by {worst:.1e}, bound {tolerance:.1e}"}


def _near(check: dict[str, Any]) -> bool:
    return check["error"] is not None and bool(check["error"] <= _TF32)


def _seconds(dtype: str, ops: Operations, progress: Progress, on_gpu: bool) -> float | None:
    progress.begin(dtype, "speed")
    rows, inner, columns = (
        (_GPU_SIDE,) * 3 if on_gpu else (_TIMED_ROWS, _TIMED_INNER, _TIMED_COLUMNS)
    )
    rng = np.random.default_rng(0)
    a = rounded(rng.standard_normal((rows, inner), dtype=np.float32), dtype)
    b = rounded(rng.standard_normal((inner, columns), dtype=np.float32), dtype)
    try:
        return best_seconds(ops.prepare(a, b))
    except _ERRORS:
        return None  # too little memory for the product; the small ones worked


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
