"""MCAS (PAPER.md 3.4): reflection where it is due, and what is earned where it is not.

The original form scores 0, 1 or 2 and gives the sum as a percentage; it pays for doubt on requests
that lack nothing. *With the penalty*, an answer to a fully specified request that leaves its main
content open (HEDGE by the delivery instrument) earns 0 whatever its score. The five-axis form is a
sum out of 25. Its axes count from 1, so nothing on any axis is 5 of 25.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import bootstrap

from evals.delivery import Rate
from evals.judges.instruments import MCAS_AXES
from evals.statistics.bootstrap import bootstrap_mean
from evals.statistics.rates import Interval

TOP = 2
"""Of the original form."""
AXES = tuple(one.name for one in MCAS_AXES)
LEAST, MOST = len(AXES), 5 * len(AXES)
TYPES = ("underspecified", "specified")


@dataclass(frozen=True)
class Reflected:
    """One answer; None where a judge has no label."""

    item_id: str
    type: Literal["underspecified", "specified"]
    holistic: int | None
    """0 to 2."""
    axes: Mapping[str, int | None]
    """Each 1 to 5."""
    hedged: bool | None
    finished: bool = True

    @property
    def penalised(self) -> int | None:
        """The original score, 0 for a specified request's answer that hedges."""
        if self.holistic is None or self.type == "underspecified":
            return self.holistic
        if self.hedged is None:
            return None
        return 0 if self.hedged else self.holistic

    @property
    def total(self) -> int | None:
        """The sum of the axes, out of 25; None unless all have a label."""
        known = [score for score in self.axes.values() if score is not None]
        return sum(known) if len(known) == len(AXES) else None


def summary(
    answers: Sequence[Reflected], level: float, *, finished_only: bool = False
) -> dict[str, Any]:
    """Means with BCa intervals over answers, for all requests and by type, JSON-able.

    ``penalty``: points of the percentage that over-hedging takes away. ``discrimination``: the
    original percentage on underspecified requests minus that on specified ones.
    """
    used = [one for one in answers if one.finished or not finished_only]
    groups = {"all": used, **{name: [o for o in used if o.type == name] for name in TYPES}}
    found: dict[str, Any] = {name: _group(group, level) for name, group in groups.items()}
    found["discrimination"] = _discrimination(groups, level)
    return found


def _group(answers: Sequence[Reflected], level: float) -> dict[str, Any]:
    both = [one for one in answers if one.penalised is not None]
    lost = [100 * ((o.holistic or 0) - (o.penalised or 0)) / TOP for o in both]
    hedged = [one.hedged for one in answers if one.hedged is not None]
    return {
        "n": len(answers),
        "original_percent": _mean([one.holistic for one in answers], 100 / TOP, level),
        "penalised_percent": _mean([one.penalised for one in answers], 100 / TOP, level),
        "penalty": {"value": sum(lost) / len(lost) if lost else None, "n": len(lost)},
        "out_of_25": _mean([one.total for one in answers], 1, level),
        "axes": {name: _mean([one.axes.get(name) for one in answers], 1, level) for name in AXES},
        "hedged": Rate(sum(hedged), len(hedged)).to_json(),
    }


def _mean(scores: Sequence[int | None], factor: float, level: float) -> dict[str, Any]:
    known = [factor * score for score in scores if score is not None]
    try:
        interval = bootstrap_mean(known, level=level) if len(known) > 1 else None
    except ValueError:  # nothing varies: a point would claim a certainty that no data give
        interval = None
    return {
        "value": sum(known) / len(known) if known else None,
        "interval": interval.to_json() if interval else None,
        "n": len(known),
        "missing": len(scores) - len(known),
    }


def _discrimination(
    groups: Mapping[str, Sequence[Reflected]], level: float
) -> dict[str, Any] | None:
    sides = [
        np.array([100 * o.holistic / TOP for o in groups[name] if o.holistic is not None])
        for name in TYPES
    ]
    if min(map(len, sides)) < 2:
        return None
    value = float(sides[0].mean() - sides[1].mean())
    interval = None
    if all(side.min() < side.max() for side in sides):
        found = bootstrap(
            sides,
            lambda a, b, axis=-1: a.mean(axis=axis) - b.mean(axis=axis),
            vectorized=True,
            method="BCa",
            confidence_level=level,
            n_resamples=2000,
            random_state=np.random.default_rng(0),
        ).confidence_interval
        if np.isfinite([found.low, found.high]).all():
            interval = Interval(float(found.low), float(found.high), level)
    return {
        "value": value,
        "interval": interval.to_json() if interval else None,
        "n": [len(side) for side in sides],
    }
