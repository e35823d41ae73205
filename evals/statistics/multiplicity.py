"""P-values of a family of tests, corrected for their number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Adjusted:
    """One test of a family."""

    p: float
    """As it came, uncorrected."""
    adjusted: float
    """Compare this with alpha."""
    rejected: bool


def holm(p_values: Mapping[str, float], alpha: float = 0.05) -> Mapping[str, Adjusted]:
    """Holm's step-down correction (Holm 1979), in the order given.

    The chance of one false rejection or more in the whole family is at most ``alpha``, however
    the tests depend on each other. The family must have been declared before the run. An
    empty family gives an empty result. statsmodels' multipletests, which the tests compare with,
    collects garbage at every call: 0.4 s beside a loaded engine. Raises ValueError for a p-value
    or alpha outside 0..1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, not {alpha}")
    for name, p in p_values.items():
        if not 0 <= p <= 1:  # also refuses NaN
            raise ValueError(f"the p-value of {name} must lie between 0 and 1, not {p}")
    if not p_values:
        return {}
    values = np.array(list(p_values.values()), dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return {
        name: Adjusted(p, float(a), bool(a <= alpha))
        for (name, p), a in zip(p_values.items(), adjusted, strict=True)
    }
