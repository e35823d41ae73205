"""P-values of a family of tests, corrected for their number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from statsmodels.stats.multitest import multipletests


@dataclass(frozen=True)
class Adjusted:
    """One test of a family."""

    p: float
    """As it came, uncorrected."""
    adjusted: float
    """Compare this with alpha."""
    rejected: bool


def holm(p_values: Mapping[str, float], alpha: float = 0.05) -> Mapping[str, Adjusted]:
    """Holm's step-down correction (Holm 1979), from statsmodels, in the order given.

    The chance of one false rejection or more in the whole family is at most ``alpha``, however
    the tests depend on each other. The family must have been declared before the run. An
    empty family gives an empty result. Raises ValueError for a p-value or alpha outside 0..1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha lies between 0 and 1, not {alpha}")
    for name, p in p_values.items():
        if not 0 <= p <= 1:  # also refuses NaN
            raise ValueError(f"the p-value of {name} must lie between 0 and 1, not {p}")
    if not p_values:
        return {}
    rejected, adjusted, _, _ = multipletests(list(p_values.values()), alpha, method="holm")
    return {
        name: Adjusted(p, float(a), bool(r))
        for (name, p), a, r in zip(p_values.items(), adjusted, rejected, strict=True)
    }
