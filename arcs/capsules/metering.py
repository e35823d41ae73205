"""What the meter read, in a capsule: shifts from the stored contrasts, contrasts of a sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from arcs.arc3.engine import Engine
from arcs.capsules.answers import in_float32
from arcs.evaluate.config import BASE
from arcs.measure.meter import Meter
from backends.interface import LanguageModel
from evals.meter import read_pairs

TOLERANCE = 1e-3
"""Nats per token of a contrast, both sides in float32. Measured: mean log-probabilities by torch,
MLX and llama.cpp 1.1e-5 apart at most (docs/measure.md), and a contrast has two of them; what is
claimed of the meter is far larger. In fewer bits, or quantised, nothing is promised."""
KEPT = ("item_id", "axis", "domain", "positive", "negative", "contrast")
Read = list[float]
Each = Callable[[int, Callable[[LanguageModel], Read]], tuple[dict[str, Read], dict[str, str]]]


def again(
    document: Mapping[str, Any],
    meter: Meter,
    places: Sequence[int],
    each: Each,
    engine: Engine,
) -> dict[str, Any]:
    """Numbers and readings. ``each``: of :class:`arcs.capsules.measured.Arms`."""
    pairs = [meter.pairs[place] for place in places]
    longest = max(len(side.ids) for pair in pairs for side in (pair.positive, pair.negative))
    found, skipped = each(longest, lambda model: [one.contrast for one in read_pairs(model, pairs)])
    read = {(name, pair.item.id): value for name, values in found.items()
            for pair, value in zip(pairs, values, strict=True)}  # fmt: skip
    return {
        "numbers": [_number(document, name, axis)
                    for name, claims in document["claims"].items() for axis in claims],
        "readings": readings_compared(
            {(row["arm"], row["item_id"]): row["contrast"] for row in document["rows"]},
            read, exact=in_float32(document["manifest"]["config"]["dtype"], engine),
            not_replayed=skipped,
        ),
    }  # fmt: skip


def _number(document: Mapping[str, Any], name: str, axis: str) -> dict[str, Any]:
    claim = document["claims"][name][axis]
    contrasts: dict[str, dict[str, float]] = {BASE: {}, name: {}}
    for row in document["rows"]:
        if row["arm"] in contrasts and row["axis"] == axis:
            contrasts[row["arm"]][row["item_id"]] = row["contrast"]
    shifts = [contrasts[name][item] - base for item, base in contrasts[BASE].items()]
    value = float(np.mean(shifts))
    return {
        "quantity": f"shift of {axis}, nats per token, {name}", "stated": claim["delta"],
        "recomputed": value, "n": len(shifts), "tolerance": 1e-12,
        "reproduces": abs(value - claim["delta"]) < 1e-12, "why": None,
    }  # fmt: skip


def readings_compared(
    stored: Mapping[tuple[str, str], float],
    read: Mapping[tuple[str, str], float],
    *,
    exact: bool,
    not_replayed: Mapping[str, str],
) -> dict[str, Any]:
    """Contrasts by condition and item, beside those of the capsule; ``exact``: all in float32."""
    apart = {key: abs(value - stored[key]) for key, value in read.items()}
    # np.max keeps a nan, which max() hides; what is not within the tolerance is outside
    largest = float(np.max(list(apart.values())))
    median = float(np.median(list(apart.values())))
    return {
        "n": len(apart),
        "distance": {"median": number_or_none(median), "largest": number_or_none(largest)},
        "tolerance": TOLERANCE if exact else None,
        "reproduces": largest <= TOLERANCE if exact else None,
        "outside": [] if not exact else [f"{item}, {arm}" for (arm, item), far in apart.items()
                                         if not far <= TOLERANCE],
        "not_replayed": dict(not_replayed),
    }  # fmt: skip


def number_or_none(value: float) -> float | None:
    """JSON has no nan: None, where a reading was none."""
    return None if math.isnan(value) else value
