"""The gate: assert an answer where the probe's score reaches a threshold, hedge it elsewhere.

The threshold comes from out-of-fold scores of the training items. One that is chosen on the labels
it is reported on (an oracle) is reported apart, with what the same choice makes of permuted labels:
on the paper's own sizes chance passes its gate in 6 to 37 percent of draws (PAPER.md 5.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evals.statistics.bootstrap import bootstrap_mean
from evals.statistics.calibration import (
    brier_score,
    expected_calibration_error,
    reliability_table,
    risk_coverage,
)
from evals.statistics.differences import Difference, difference_of_rates
from evals.statistics.rates import Interval
from evals.statistics.thresholds import Threshold, asymmetry_null, best_asymmetry

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
BINS = 10
COVERAGES = (0.25, 0.5, 0.75, 1.0)
PAPER_GATE = -0.15
"""Asymmetry that the paper's fresh gate asks for (PAPER.md 5.4)."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold held to the labels of items it was not chosen on."""

    threshold: float
    asserted_right: int
    right: int
    asserted_wrong: int
    wrong: int
    level: float

    @property
    def asymmetry(self) -> Difference:
        """Share asserted of the wrong minus of the right ones; p by Fisher's exact test, which is
        the permutation test of a fixed gate."""
        return difference_of_rates(
            self.asserted_right, self.right, self.asserted_wrong, self.wrong, self.level
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        found = self.asymmetry
        return {
            "threshold": self.threshold,
            "p_assert_correct": self.asserted_right / self.right,
            "p_assert_wrong": self.asserted_wrong / self.wrong,
            "asserted_correct": self.asserted_right,
            "correct": self.right,
            "asserted_wrong": self.asserted_wrong,
            "wrong": self.wrong,
            "asymmetry": found.value,
            "interval": found.interval.to_json(),
            "p_value": found.p_value,
        }


def choose_threshold(
    scores: FloatArray, right: BoolArray, min_p_correct: float
) -> Threshold | None:
    """The best balanced threshold on (out-of-fold) training scores; None where there is none.

    Each observed score is a candidate: every gate that these items can tell apart. The paper's
    grid begins at 0.05, where a model that is seldom right has hardly an answer.
    """
    return best_asymmetry(scores, right, min_p_correct=min_p_correct, grid=np.unique(scores))


def operate(
    threshold: float, scores: FloatArray, right: BoolArray, level: float
) -> OperatingPoint | None:
    """Apply a threshold; None where all answers are right, or all wrong."""
    if right.all() or not right.any():
        return None
    asserted = scores >= threshold
    return OperatingPoint(
        threshold,
        int(asserted[right].sum()),
        int(right.sum()),
        int(asserted[~right].sum()),
        int((~right).sum()),
        level,
    )


def oracle(
    scores: FloatArray, right: BoolArray, *, min_p_correct: float, permutations: int, seed: int = 0
) -> dict[str, Any] | None:
    """The best threshold in hindsight, with its permutation null; None where there is none.

    On the paper's own grid, and as its gate is printed.
    """
    best = best_asymmetry(scores, right, min_p_correct=min_p_correct)
    if best is None:
        return None
    null = asymmetry_null(
        scores, right, gate=PAPER_GATE, min_p_correct=min_p_correct,
        permutations=permutations, seed=seed,
    )  # fmt: skip
    low = null.quantile(0.05)  # of permutations without such a threshold: infinite, or no number
    return {
        "threshold": best.value,
        "asymmetry": best.asymmetry,
        "p_assert_correct": best.p_assert_correct,
        "p_assert_wrong": best.p_assert_wrong,
        "p_value": null.p_value,
        "null_passes_paper_gate": null.share_at_most(PAPER_GATE),
        "null_5_percent": low if np.isfinite(low) else None,
        "permutations": permutations,
    }


def calibration(scores: FloatArray, right: BoolArray, base_rate: float) -> dict[str, Any]:
    """Brier score, ECE and reliability; ``base_rate`` is the training set's share of right ones.

    The Brier score stands beside that of always saying the base rate.
    """
    squared = (scores - right) ** 2
    return {
        "brier": brier_score(scores, right),
        "brier_interval": _interval_of(squared),
        "brier_of_base_rate": brier_score(np.full(len(right), base_rate), right),
        "ece": expected_calibration_error(scores, right, bins=BINS),
        "bins": [
            {
                "low": row.low,
                "high": row.high,
                "n": row.n,
                "mean_probability": row.mean_probability,
                "rate": row.rate,
                "interval": row.interval.to_json(),
            }
            for row in reliability_table(scores, right, bins=BINS)
        ],
    }


def risk(scores: FloatArray, right: BoolArray) -> dict[str, Any]:
    """Errors among the answers that are kept when the surest ones are."""
    found = risk_coverage(scores, ~right)
    n = len(right)
    return {
        "aurc": found.aurc,
        "augrc": found.augrc,
        "error_rate": float((~right).mean()),
        "risk_at": {f"{c:g}": float(found.risk[max(1, round(c * n)) - 1]) for c in COVERAGES},
        "n": n,
    }


def _interval_of(values: FloatArray) -> dict[str, Any] | None:
    try:
        interval: Interval = bootstrap_mean(values)
    except ValueError:  # nothing varies
        return None
    return interval.to_json()
