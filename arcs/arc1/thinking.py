"""Reasoning compression: how much of its thinking an edit leaves, by problem (PAPER.md 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from arcs.arc1.think_mask import think_span
from evals.statistics.bootstrap import bootstrap_mean
from evals.statistics.rates import wilson
from models.chat import ChatEncoder

BUCKETS = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Upper ends of shares of thinking kept; the last bucket is open."""


@dataclass(frozen=True)
class Thought:
    """Of one answer."""

    tokens: int
    closed: bool
    """False where n_predict cut the thinking: its length is then at least this."""


def think_length(encoder: ChatEncoder, ids: Sequence[int], opened: bool) -> Thought:
    """Tokens of an answer's think block, marks included; 0 without one."""
    found = think_span(encoder.decode, ids, opened=opened)
    if found is None:
        return Thought(0, closed=True)
    (first, end), closed = found
    return Thought(end - first, closed)


def compression(
    lengths: Mapping[str, Mapping[str, Thought]],
    passed: Mapping[str, Mapping[str, bool]],
    level: float,
) -> dict[str, Any]:
    """By arm, mean think tokens; by edit, the share of the base's thinking that it keeps, paired.

    Kept shares are of problems on which both think and end the thinking. ``geometric_mean`` has a
    BCa interval over problems. ``buckets``: problems, and passes of the edit among them, by share.
    """
    base = lengths["base"]
    return {
        "arms": {arm: _arm(list(own.values())) for arm, own in lengths.items()},
        "kept": {
            arm: _kept(base, own, passed[arm], level)
            for arm, own in lengths.items()
            if arm != "base"
        },
    }


def _arm(found: Sequence[Thought]) -> dict[str, Any]:
    closed = [one.tokens for one in found if one.closed and one.tokens]
    return {
        "n": len(found),
        "thinking": sum(one.tokens > 0 for one in found),
        "cut": sum(not one.closed for one in found),
        "mean_tokens": float(np.mean(closed)) if closed else None,
        "median_tokens": float(np.median(closed)) if closed else None,
    }


def _kept(
    base: Mapping[str, Thought],
    own: Mapping[str, Thought],
    passed: Mapping[str, bool],
    level: float,
) -> dict[str, Any]:
    pairs = {item: (one, own[item]) for item, one in base.items()}
    usable = {
        item: after.tokens / before.tokens
        for item, (before, after) in pairs.items()
        if before.tokens and after.tokens and before.closed and after.closed
    }
    logs = np.log(list(usable.values()))
    try:
        interval = bootstrap_mean(logs, level=level) if len(logs) > 1 else None
    except ValueError:  # nothing varies
        interval = None
    return {
        "n": len(usable),
        "left_out": len(pairs) - len(usable),
        "median": float(np.median(list(usable.values()))) if usable else None,
        "geometric_mean": float(np.exp(logs.mean())) if usable else None,
        "interval": None
        if interval is None
        else {"low": float(np.exp(interval.low)), "high": float(np.exp(interval.high)),
              "level": level},
        "buckets": _buckets(usable, passed, level),
    }  # fmt: skip


def _buckets(
    kept: Mapping[str, float], passed: Mapping[str, bool], level: float
) -> list[dict[str, Any]]:
    made, low = [], 0.0
    for high in (*BUCKETS, float("inf")):
        inside = [item for item, share in kept.items() if low <= share < high]
        right = sum(passed[item] for item in inside)
        made.append(
            {
                "from": low,
                "below": high if np.isfinite(high) else None,
                "n": len(inside),
                "passed": right,
                "interval": wilson(right, len(inside), level).to_json() if inside else None,
            }
        )
        low = high
    return made
