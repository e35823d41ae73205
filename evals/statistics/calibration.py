"""Do stated probabilities come true, and do confident answers fail less often?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import brier_score_loss

from evals.statistics.rates import Interval, wilson

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ReliabilityBin:
    """The items whose probability falls in one bin; bins without items are not listed."""

    low: float
    high: float
    """The bin's edges."""
    n: int
    mean_probability: float
    rate: float
    """Share of the n items whose outcome is True."""
    interval: Interval
    """Wilson's, of the rate."""


@dataclass(frozen=True)
class RiskCoverage:
    """Errors among the answers kept, when only the most confident ones are kept."""

    coverage: FloatArray
    """[n] share of answers kept: 1/n, 2/n ... 1."""
    risk: FloatArray
    """[n] share of errors among those kept."""
    aurc: float
    """Mean of the risk over all coverages (Geifman, Uziel and El-Yaniv 2019); the error rate
    itself where confidence says nothing. Its first terms rest on a handful of answers."""
    augrc: float
    """Area under the share of all answers that are kept and wrong (Traub et al. 2024); half
    the error rate where confidence says nothing. Steadier than ``aurc`` at low coverage."""


def expected_calibration_error(
    probabilities: ArrayLike, outcomes: ArrayLike, *, bins: int = 10, equal_mass: bool = True
) -> float:
    """Mean distance of stated probability and rate over bins, weighted by items; 0 to 1.

    Naeini, Cooper and Hauskrecht 2015; bins as in :func:`reliability_table`. It is above 0 for
    a perfectly calibrated score too (about 0.12 for 100 items in 10 bins), so compare only
    values of the same n and the same bins. Raises ValueError as that function does.
    """
    table = reliability_table(probabilities, outcomes, bins=bins, equal_mass=equal_mass)
    n = sum(row.n for row in table)
    return sum(row.n * abs(row.mean_probability - row.rate) for row in table) / n


def brier_score(probabilities: ArrayLike, outcomes: ArrayLike) -> float:
    """Mean squared distance of probability [n] and outcome [n] (Brier 1950), by scikit-learn.

    Raises ValueError for no items, lengths that differ, and probabilities outside 0..1.
    """
    p, y = _checked(probabilities, outcomes)
    return float(brier_score_loss(y, p, pos_label=True))


def reliability_table(
    probabilities: ArrayLike, outcomes: ArrayLike, *, bins: int = 10, equal_mass: bool = True
) -> tuple[ReliabilityBin, ...]:
    """Stated probability [n] against the rate of True outcomes [n], by bins.

    Bins have edges at the quantiles of the probabilities, or at equal distances from 0 to 1.
    A bin holds its upper edge, the first one both. Equal probabilities fall in the same bin,
    whatever the order of the items, so the bins' masses are equal only where few are tied.
    (scikit-learn's ``calibration_curve`` returns no counts; the tests compare the rest.)
    Raises ValueError for no items, no bins, lengths that differ, or values outside 0..1.
    """
    p, y = _checked(probabilities, outcomes)
    if bins < 1:
        raise ValueError(f"at least one bin is needed, not {bins}")
    shares = np.linspace(0, 1, bins + 1)
    edges = np.percentile(p, shares * 100) if equal_mass else shares
    where = np.searchsorted(edges[1:-1], p)
    return tuple(
        ReliabilityBin(
            low=float(edges[b]),
            high=float(edges[b + 1]),
            n=int(inside.sum()),
            mean_probability=float(p[inside].mean()),
            rate=float(y[inside].mean()),
            interval=wilson(int(y[inside].sum()), int(inside.sum())),
        )
        for b in np.unique(where)
        for inside in [where == b]
    )


def risk_coverage(confidence: ArrayLike, errors: ArrayLike) -> RiskCoverage:
    """Risk at every coverage; ``confidence`` [n] of any scale, ``errors`` [n] True where wrong.

    Equally confident answers are kept in no order: inside such a block the errors are spread
    evenly, which is the mean over all orders. Raises ValueError for no items, lengths that
    differ, and confidence that is not a number.
    """
    c, wrong = np.asarray(confidence, dtype=np.float64), _outcomes(errors)
    if c.shape != wrong.shape or not c.size or np.isnan(c).any():
        raise ValueError(f"confidence {c.shape} and errors {wrong.shape} must pair up, all given")
    _, block, sizes = np.unique(-c, return_inverse=True, return_counts=True)
    mean_error = np.bincount(block, weights=wrong) / sizes
    kept_and_wrong = np.cumsum(np.repeat(mean_error, sizes))
    count = np.arange(1, c.size + 1)
    risk = kept_and_wrong / count
    generalised = np.concatenate([[0.0], kept_and_wrong / c.size])
    augrc = float(np.trapezoid(generalised, dx=1 / c.size))
    return RiskCoverage(count / c.size, risk, float(risk.mean()), augrc)


def _checked(probabilities: ArrayLike, outcomes: ArrayLike) -> tuple[FloatArray, NDArray[np.bool_]]:
    p, y = np.asarray(probabilities, dtype=np.float64), _outcomes(outcomes)
    if p.shape != y.shape or not p.size:
        raise ValueError(f"probabilities {p.shape} and outcomes {y.shape} must pair up")
    if not ((p >= 0) & (p <= 1)).all():  # also refuses NaN
        raise ValueError("probabilities must lie between 0 and 1")
    return p, y


def _outcomes(given: ArrayLike) -> NDArray[np.bool_]:
    values = np.asarray(given)
    if values.ndim != 1 or not np.isin(values, (0, 1)).all():
        raise ValueError("outcomes must be one row of true or false")
    return values.astype(np.bool_)
