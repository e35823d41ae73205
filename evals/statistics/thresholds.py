"""The "balanced asymmetry" of a threshold, and how easily chance passes a gate on it.

A probe asserts an item iff its score reaches a threshold. The asymmetry is the share of wrong
items asserted minus the share of correct items asserted; below zero is good. Choosing the
threshold on the labels it is reported on makes the best asymmetry negative by chance alone
(PAPER 5.3), so a gate on it means nothing without the null distribution computed here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evals.statistics.auc import scores_and_labels
from evals.statistics.permutation import PermutationTest, permutation_result, permuted_labels

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

GRID: FloatArray = np.linspace(0.05, 0.95, 91)
"""The thresholds of the paper's sweep."""
GRID.setflags(write=False)
_BATCH = 20_000_000
"""Most array cells held at a time while drawing."""


@dataclass(frozen=True)
class Threshold:
    """One threshold and what it does; rates are shares of all wrong, or all correct, items."""

    value: float
    asymmetry: float
    """p_assert_wrong - p_assert_correct"""
    p_assert_wrong: float
    p_assert_correct: float


def threshold_curve(
    scores: ArrayLike, correct: ArrayLike, grid: FloatArray = GRID, *, inclusive: bool = True
) -> tuple[FloatArray, FloatArray]:
    """Shares of wrong and of correct items asserted at each threshold, [t] and [t].

    An item is asserted where score >= threshold, or score > threshold if not ``inclusive``.
    Raises ValueError on missing scores or labels, or where all items are correct or all wrong.
    """
    checked_scores, checked_correct = scores_and_labels(scores, correct)
    asserted = _asserts(checked_scores, grid, inclusive)
    return asserted[~checked_correct].mean(axis=0), asserted[checked_correct].mean(axis=0)


def best_asymmetry(
    scores: ArrayLike,
    correct: ArrayLike,
    *,
    min_p_correct: float = 0.70,
    grid: FloatArray = GRID,
    inclusive: bool = True,
) -> Threshold | None:
    """Return the threshold of smallest asymmetry that still asserts enough correct items.

    This is an oracle threshold: it is chosen on the labels given. The first one in ``grid``
    wins a tie. None where no threshold asserts the share ``min_p_correct`` of correct items.
    """
    p_wrong, p_correct = threshold_curve(scores, correct, grid, inclusive=inclusive)
    asymmetry = _allowed_asymmetry(p_wrong, p_correct, min_p_correct)
    # Rates of different counts can tie; a difference in the last digit must not decide.
    best = int(np.argmax(asymmetry <= asymmetry.min() + 1e-12))
    if not np.isfinite(asymmetry[best]):
        return None
    return Threshold(
        float(grid[best]), float(asymmetry[best]), float(p_wrong[best]), float(p_correct[best])
    )


def asymmetry_null(
    scores: ArrayLike,
    correct: ArrayLike,
    *,
    gate: float,
    min_p_correct: float = 0.70,
    permutations: int = 2000,
    seed: int = 0,
) -> PermutationTest:
    """Test the best asymmetry against that of permuted labels, the threshold chosen anew each time.

    The p-value is one-sided (smaller is more extreme). ``result.share_at_most(gate)`` is how
    often chance passes the gate. A permutation for which no threshold is allowed is +infinity
    in the null, as it cannot pass. Thresholds are those of :data:`GRID`, inclusive.

    Raises ValueError where no threshold is allowed for the labels as they are, and for a gate
    that no asymmetry can reach.
    """
    _check_gate(gate)
    observed = best_asymmetry(scores, correct, min_p_correct=min_p_correct)
    if observed is None:
        raise ValueError(f"no threshold asserts {min_p_correct} of the correct items")
    checked_scores, checked_correct = scores_and_labels(scores, correct)
    rng = np.random.default_rng(seed)
    null = _permuted_best(checked_scores, checked_correct, min_p_correct, permutations, rng)
    return permutation_result(observed.asymmetry, null, grouped=False, larger_is_more_extreme=False)


def asymmetry_gate_false_positive_rate(
    n_positive: int,
    n_negative: int,
    *,
    gate: float,
    min_p_correct: float = 0.70,
    scores: ArrayLike | None = None,
    permutations: int = 4000,
    seed: int = 0,
) -> float:
    """Share of label-independent draws whose best asymmetry is at most ``gate``.

    ``n_positive`` items are correct. Without ``scores`` every draw has fresh scores, uniform
    on 0 to 1; with them, the labels are permuted over these scores. Its Monte Carlo standard
    error is sqrt(rate (1 - rate) / permutations). Raises ValueError on impossible sizes.
    """
    _check_gate(gate)
    if min(n_positive, n_negative, permutations) < 1:
        raise ValueError(f"impossible: {n_positive} correct, {n_negative} wrong, {permutations}")
    rng = np.random.default_rng(seed)
    labels = np.arange(n_positive + n_negative) < n_positive
    if scores is None:
        null = _uniform_best(labels, min_p_correct, permutations, rng)
    else:
        checked_scores, labels = scores_and_labels(scores, labels)
        null = _permuted_best(checked_scores, labels, min_p_correct, permutations, rng)
    return float((null <= gate + 1e-12).mean())


def _asserts(scores: FloatArray, grid: FloatArray, inclusive: bool) -> NDArray[np.bool_]:
    """Whether each item is asserted at each threshold, [n, t]."""
    return scores[:, None] >= grid if inclusive else scores[:, None] > grid


def _allowed_asymmetry(
    p_wrong: FloatArray, p_correct: FloatArray, min_p_correct: float
) -> FloatArray:
    """Asymmetry where enough correct items are asserted, +infinity elsewhere; same shape."""
    return np.where(p_correct >= min_p_correct, p_wrong - p_correct, np.inf)


def _permuted_best(
    scores: FloatArray,
    labels: NDArray[np.bool_],
    min_p_correct: float,
    permutations: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Best asymmetry of each permutation of the labels over the scores, [permutations]."""
    # Single precision holds the counts exactly and halves the time of the product.
    asserted = _asserts(scores, GRID, inclusive=True).astype(np.float32)
    totals = asserted.sum(axis=0, dtype=np.float64)
    n_positive = int(labels.sum())
    best = []
    for size in _batches(permutations, len(labels)):
        permuted = permuted_labels(labels, None, size, rng).astype(np.float32)
        correct = (permuted @ asserted).astype(np.float64)
        p_wrong = (totals - correct) / (len(labels) - n_positive)
        best.append(_allowed_asymmetry(p_wrong, correct / n_positive, min_p_correct).min(axis=1))
    return np.concatenate(best)


def _uniform_best(
    labels: NDArray[np.bool_], min_p_correct: float, draws: int, rng: np.random.Generator
) -> FloatArray:
    """Best asymmetry of fresh uniform scores for the same labels, [draws]."""
    best = []
    for size in _batches(draws, len(labels)):
        # Number of thresholds that a score reaches, 0 to t.
        reached = np.searchsorted(GRID, rng.random((size, len(labels))), side="right")
        p_wrong, p_correct = (_assert_rates(reached[:, side]) for side in (~labels, labels))
        best.append(_allowed_asymmetry(p_wrong, p_correct, min_p_correct).min(axis=1))
    return np.concatenate(best)


def _assert_rates(reached: IntArray) -> FloatArray:
    """Share of a row's items that reach each threshold, [m, t], from numbers reached [m, n]."""
    rows, items = reached.shape
    cells = len(GRID) + 1
    flat = (np.arange(rows)[:, None] * cells + reached).ravel()
    counts = np.bincount(flat, minlength=rows * cells).reshape(rows, cells)
    at_least = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    rates: FloatArray = at_least[:, 1:] / items
    return rates


def _batches(total: int, items: int) -> list[int]:
    size = max(1, _BATCH // max(items, len(GRID)))
    return [min(size, total - start) for start in range(0, total, size)]


def _check_gate(gate: float) -> None:
    if not -1 <= gate <= 1:
        raise ValueError(f"an asymmetry lies between -1 and 1, the gate {gate} does not")
