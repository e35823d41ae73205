"""Differences between two engines' answers, each held to its bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.consistency.bounds import Measure, bound_of
from backends.consistency.measure import Measured
from backends.interface import Completion

Explain = Callable[[str, int, int], bool]
"""(kind of text, index of the item, step): whether a near-tie explains a first difference."""


@dataclass(frozen=True)
class Row:
    """One quantity compared between two engines."""

    quantity: str
    engines: tuple[str, str]
    difference: float
    bound: float
    measure: Measure
    n: int
    """Values, steps, modules or texts compared."""
    passed: bool
    reason: str
    """Why the bound is what it is."""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "quantity": self.quantity,
            "engines": list(self.engines),
            "difference": self.difference,
            "bound": self.bound,
            "measure": self.measure.value,
            "n": self.n,
            "passed": self.passed,
            "reason": self.reason,
            "note": self.note,
        }


def compare(
    first: Measured, second: Measured, explain: Explain, *, llamacpp: bool = False
) -> list[Row]:
    """Compare everything that both engines gave.

    ``explain`` is asked about the first difference of each pair of texts. llama.cpp gives fewer
    quantities; raises ValueError where other engines do not give the same ones, or arrays of one
    quantity have other shapes.
    """
    pair = (first.engine, second.engine)
    if not llamacpp and set(first.arrays) != set(second.arrays):
        raise ValueError(f"{pair} gave other quantities: {set(first.arrays) ^ set(second.arrays)}")
    rows = [
        _row(name, pair, *_worst(first.arrays[name], second.arrays[name]), llamacpp)
        for name in first.arrays
        if name in second.arrays
    ]
    if first.losses and second.losses:
        curve = np.abs(np.array(first.losses) - np.array(second.losses))
        rows.append(_row("loss curve", pair, float(curve.max()), len(curve), llamacpp))
    if first.modules is not None and second.modules is not None:
        rows.append(_modules(first.modules, second.modules, pair))
    for kind in first.texts:
        if kind in second.texts:
            rows.append(_texts(kind, pair, first.texts[kind], second.texts[kind], explain))
    return rows


def relative_difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Largest |a - b| over the range of ``a``; infinity where either is not finite."""
    if a.shape != b.shape:
        raise ValueError(f"arrays of shapes {a.shape} and {b.shape} cannot be compared")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    spread = float(np.ptp(a))
    largest = float(np.abs(a.astype(np.float64) - b).max()) if a.size else 0.0
    return largest / spread if spread else largest


def _worst(
    first: Sequence[NDArray[np.float32]], second: Sequence[NDArray[np.float32]]
) -> tuple[float, int]:
    pairs = list(zip(first, second, strict=True))
    return max(relative_difference(a, b) for a, b in pairs), sum(a.size for a, _ in pairs)


def _row(
    quantity: str, pair: tuple[str, str], difference: float, n: int, llamacpp: bool, note: str = ""
) -> Row:
    bound = bound_of(quantity, llamacpp=llamacpp)
    return Row(
        quantity=quantity,
        engines=pair,
        difference=difference,
        bound=bound.limit,
        measure=bound.measure,
        n=n,
        passed=difference <= bound.limit,
        reason=bound.reason,
        note=note,
    )


def _modules(
    first: dict[str, tuple[int, int]], second: dict[str, tuple[int, int]], pair: tuple[str, str]
) -> Row:
    differing = sorted(
        name for name in first.keys() | second.keys() if first.get(name) != second.get(name)
    )
    note = f"first: {differing[0]}" if differing else ""
    return _row("adapted modules", pair, len(differing), len(first), False, note)


def _texts(
    kind: str,
    pair: tuple[str, str],
    first: Sequence[Completion],
    second: Sequence[Completion],
    explain: Explain,
) -> Row:
    """Count texts that differ; a first difference at a near-tie is counted apart."""
    ties, unexplained = 0, []
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        step = first_difference(one.ids, other.ids)
        if step is None:
            continue
        if explain(kind, index, step):
            ties += 1
        else:
            unexplained.append(f"{one.item_id} at token {step}")
    near = sum(one.near_ties or 0 for one in first)
    tokens = sum(len(one.ids) for one in first)
    note = f"{ties} differ at a near-tie; {near} near-ties in {tokens} tokens"
    if unexplained:
        note = f"{unexplained[0]}; {note}"
    return _row(kind, pair, len(unexplained), len(first), False, note)


def first_difference(first: Sequence[int], second: Sequence[int]) -> int | None:
    """Index of the first id that differs, or None for equal texts."""
    for step, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return step
    return None if len(first) == len(second) else min(len(first), len(second))
