"""Many candidates ranked by an effect: p-values paid for the choice, intervals, stability.

The largest of many effects is large under no effect at all. Each candidate's effect is therefore
compared with the distribution of the *largest* effect over permutations of the labels (Westfall
& Young 1993), which keeps the correlation between candidates: in a single step, or step by step
down where one candidate's true effect would widen the null of all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, spearmanr, ttest_ind
from sklearn.model_selection import StratifiedKFold

from evals.statistics.auc import boolean_labels
from evals.statistics.permutation import NO_SPREAD, cohen_d_columns, max_effect_test
from evals.statistics.rates import Interval

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
ALL_FLIPS = 4095
"""Sign flips of up to 13 items are all taken."""
_BATCH = 4_000_000
"""Most array cells held at a time."""


@dataclass(frozen=True, eq=False)
class RankedEffects:
    """Effects [k] of k candidates and the null of their maximum."""

    effects: FloatArray
    null: FloatArray
    """[permutations] the largest of all candidates' scores in each."""
    signed: bool
    """Whether ``null`` is of the largest score; otherwise of the largest |score|."""
    stepped_p: FloatArray | None = None
    """[k] step-down p; None: single step, from ``null``."""
    statistics: FloatArray | None = None
    """[k] what ``null`` is the maximum of; None: the effects themselves."""
    fudge: float | None = None
    """What was added to every standard error in ``statistics``."""
    null_spread: FloatArray | None = None
    """[k] standard deviation of each effect over the permutations; None: not kept."""

    @property
    def scores(self) -> FloatArray:
        """[k] what the candidates are ranked and tested by, with the sign of the effect."""
        return self.effects if self.statistics is None else self.statistics

    @property
    def corrected_p(self) -> FloatArray:
        """[k] share of maxima at least as large, the observed labels counted as one of them."""
        if self.stepped_p is not None:
            return self.stepped_p
        sizes = self.scores if self.signed else np.abs(self.scores)
        slack = 1e-12 * np.maximum(1.0, np.abs(sizes))
        reached = (self.null[None, :] >= (sizes - slack)[:, None]).sum(axis=1)
        found: FloatArray = (1 + reached) / (1 + len(self.null))
        return found

    @property
    def expected_maximum(self) -> float:
        """Mean of the largest score under the null."""
        return float(self.null.mean())

    def critical(self, alpha: float) -> float:
        """The score whose corrected p is about ``alpha``."""
        return float(np.quantile(self.null, 1 - alpha))


def ranked_differences(
    x: FloatArray, labels: ArrayLike, *, permutations: int, seed: int = 0
) -> RankedEffects:
    """Cohen's d of every column of ``x`` [n, k], with the null of the largest |d|."""
    test = max_effect_test(x, labels, permutations=permutations, seed=seed)
    return RankedEffects(cohen_d_columns(x, labels), test.null, signed=False)


def ranked_means(
    values: FloatArray, *, permutations: int, seed: int = 0, fudge_quantile: float | None = None
) -> RankedEffects:
    """Mean of every column of ``values`` [n, k], with the null of the largest.

    The null flips the signs of whole items, all columns together: an item is as likely to move
    one way as the other. All arrangements are taken where there are no more than
    ``permutations`` or ALL_FLIPS. p is taken by steps down (Westfall & Young 1993, algorithm 2.8):
    each column against the largest of those that are not above it, and never below the p of one
    above; ``null`` is the largest of all columns.

    Without ``fudge_quantile`` columns are compared by |mean|, and one that moves items far to both
    sides widens the null of all. With it by |mean| / (standard error + s0), as in SAM (Tusher,
    Tibshirani & Chu 2001): s0 is that quantile of the columns' standard errors as observed, the
    same in every arrangement, and keeps columns with a luckily small spread from coming first.
    Raises ValueError for fewer than two items.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2 or not np.isfinite(x).all():
        raise ValueError(f"values of shape {x.shape}: finite values of two items are needed")
    n = len(x)
    flips = _sign_flips(n, permutations, seed)
    effects, fudge = x.mean(axis=0), None
    squares = (x**2).sum(axis=0)
    if fudge_quantile is not None:
        errors = _standard_errors(effects, squares, n)
        fudge = float(np.quantile(errors, fudge_quantile))
        if fudge <= NO_SPREAD:  # most columns do not vary: what they add to an error is no scale
            fudge = float(errors.max()) or 1.0
    scores = effects if fudge is None else effects / (_standard_errors(effects, squares, n) + fudge)
    rising = np.argsort(np.abs(scores), kind="stable")
    sizes = np.abs(scores)[rising]
    slack = 1e-12 * np.maximum(1.0, sizes)
    reached = np.zeros(x.shape[1], dtype=np.int64)
    size, null = max(1, _BATCH // x.shape[1]), []
    for start in range(0, len(flips), size):
        flipped = np.abs(flips[start : start + size] @ x[:, rising]) / n
        if fudge is not None:
            flipped /= _standard_errors(flipped, squares[rising], n) + fudge
        largest = np.maximum.accumulate(flipped, axis=1)
        reached += (largest >= sizes - slack).sum(axis=0)
        null.append(largest[:, -1])
    falling = ((1 + reached) / (1 + len(flips)))[::-1]
    stepped = np.empty_like(effects)
    stepped[rising[::-1]] = np.maximum.accumulate(falling)
    return RankedEffects(
        effects, np.concatenate(null), signed=False, stepped_p=stepped,
        statistics=None if fudge is None else scores, fudge=fudge,
    )  # fmt: skip


def shift_scores(values: FloatArray, fudge: float) -> FloatArray:
    """[k] mean / (standard error + ``fudge``) of the columns of ``values`` [n, k]."""
    x = np.asarray(values, dtype=np.float64)
    means = x.mean(axis=0)
    scores: FloatArray = means / (_standard_errors(means, (x**2).sum(axis=0), len(x)) + fudge)
    return scores


def _sign_flips(n: int, permutations: int, seed: int) -> FloatArray:
    """Signs [m, n]: every arrangement but the one as it is, or ``permutations`` drawn ones."""
    if n < 60 and 2 ** (n - 1) - 1 <= max(permutations, ALL_FLIPS):
        # the first item's sign is kept: flipping all changes no |mean|; row 0 is the data itself
        codes = np.arange(1, 2 ** (n - 1))
        bits = (codes[:, None] >> np.arange(n - 1)[None, :]) & 1
        return np.concatenate([np.ones((len(codes), 1)), 1.0 - 2.0 * bits], axis=1)
    drawn: FloatArray = np.random.default_rng(seed).choice([-1.0, 1.0], size=(permutations, n))
    return drawn


def _standard_errors(means: FloatArray, squares: FloatArray, n: int) -> FloatArray:
    """Of means [..., k] over n values whose squares sum to [k]: flips leave those as they are."""
    within = np.maximum(squares - n * means**2, 0.0)
    found: FloatArray = np.sqrt(within / (n - 1) / n)
    return found


def ranked_directions(
    blocks: Sequence[NDArray[np.floating[Any]]],
    labels: ArrayLike,
    *,
    folds: int = 5,
    permutations: int,
    seed: int = 0,
) -> RankedEffects:
    """Cross-fitted effects along each block's mean-difference direction; null of the largest.

    Block i is [n, d_i]; its effect is what
    :func:`evals.statistics.permutation.cross_fitted_direction_effect` gives. Labels are permuted
    within the folds, so that every permutation has the observed class sizes in each fold. A
    negative effect means a direction that does not carry over, so the maximum is of the signed
    values. Raises ValueError where a class has fewer items than folds.
    """
    checked = boolean_labels(labels)
    n, smaller = len(checked), min(int(checked.sum()), int((~checked).sum()))
    if not 2 <= folds <= smaller:
        raise ValueError(f"{folds} folds are impossible: the smaller class has {smaller} items")
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(checked, checked)
    tests = [np.asarray(test) for _, test in splits]
    rows = np.tile(checked, (1 + permutations, 1))
    rng = np.random.default_rng(seed)
    for test in tests:
        rows[1:, test] = rng.permuted(rows[1:, test], axis=1)
    found = np.empty((1 + permutations, len(blocks)))
    for place, block in enumerate(blocks):
        values = np.asarray(block, dtype=np.float64)
        if values.ndim != 2 or len(values) != n or not np.isfinite(values).all():
            raise ValueError(f"block {place}: finite values of {n} items are needed")
        found[:, place] = _row_effects(_projections(values, rows, tests), rows)
    return RankedEffects(
        found[0], found[1:].max(axis=1), signed=True, null_spread=found[1:].std(axis=0)
    )


def _projections(x: FloatArray, rows: BoolArray, tests: Sequence[IntArray]) -> FloatArray:
    """[m, n] each item on the unit direction of the other folds, for every row of labels [m, n]."""
    projected = np.empty(rows.shape)
    x = x - x.mean(axis=0)
    for test in tests:
        train = np.ones(len(x), dtype=bool)
        train[test] = False
        weights, fitted = rows[:, train].astype(np.float64), x[train]
        count = weights.sum(axis=1, keepdims=True)
        first = (weights @ fitted) / count
        second = (fitted.sum(axis=0) - weights @ fitted) / (train.sum() - count)
        direction = first - second
        length = np.linalg.norm(direction, axis=1, keepdims=True)
        direction = np.divide(direction, length, out=np.zeros_like(direction), where=length > 0)
        middle = ((first + second) / 2 * direction).sum(axis=1, keepdims=True)
        projected[:, test] = direction @ x[test].T - middle
    return projected


def _row_effects(values: FloatArray, rows: BoolArray) -> FloatArray:
    """Cohen's d [m] of each row of values [m, n] between its own labels [m, n]."""
    weights = rows.astype(np.float64)
    n, count = values.shape[1], weights.sum(axis=1)
    values = values - values.mean(axis=1, keepdims=True)
    first = (values * weights).sum(axis=1) / count
    second = -first * count / (n - count)
    within = (values**2).sum(axis=1) - count * first**2 - (n - count) * second**2
    spread = np.sqrt(np.maximum(within, 0.0) / (n - 2))
    safe = np.where(spread > NO_SPREAD, spread, 1.0)
    effects: FloatArray = np.where(spread > NO_SPREAD, (first - second) / safe, 0.0)
    return effects


def uncorrected_p(x: FloatArray, labels: ArrayLike) -> FloatArray:
    """Two-sided p of Student's t for every column alone, 1 where a column has no spread."""
    checked = boolean_labels(labels)
    with np.errstate(all="ignore"):
        found = ttest_ind(x[checked], x[~checked], axis=0).pvalue
    values: FloatArray = np.where(np.isfinite(found), found, 1.0)
    return values


def effect_interval(
    d: float,
    n_first: int,
    n_second: int,
    level: float = 0.95,
    *,
    null_spread: float | None = None,
) -> Interval:
    """Large-sample interval of Cohen's d (Hedges & Olkin 1985, section 5.E), for one candidate.

    Give a level of 1 - alpha / k for k candidates at a time. ``null_spread``: standard deviation
    of this d without an effect where it is larger than that of a plain d, as for a cross-fitted
    one.
    """
    n = n_first + n_second
    without = max(n / (n_first * n_second), (null_spread or 0.0) ** 2)
    variance = without + d * d / (2 * n)
    half = float(norm.ppf(0.5 + level / 2)) * variance**0.5
    return Interval(d - half, d + half, level)


@dataclass(frozen=True)
class Stability:
    """How far two halves of the items rank the candidates alike, over random splits."""

    splits: int
    rank_correlation: float
    """Mean of Spearman's rho; 0 is expected where there is nothing to rank."""
    low: float
    high: float
    """Range that holds 95 percent of the splits; not a confidence interval."""
    top: int
    top_shared: float
    """Mean share of one half's ``top`` candidates that are among the other half's."""
    top_by_chance: float
    """What that share is where the halves have nothing in common."""


def split_half(
    effects_of: Callable[[IntArray], FloatArray],
    strata: ArrayLike,
    *,
    top: int,
    splits: int = 50,
    seed: int = 0,
) -> Stability:
    """Rank candidates on two random halves of the items, again and again.

    ``effects_of(rows)`` returns the effects [k] from some of the items; ``strata`` [n] are divided
    evenly between the halves. Raises ValueError for a stratum of fewer than 2 items.
    """
    groups = np.asarray(strata)
    members = [np.flatnonzero(groups == value) for value in np.unique(groups)]
    if min(map(len, members)) < 2:
        raise ValueError("a group of one item cannot be split")
    rng = np.random.default_rng(seed)
    correlations, shared, k = [], [], 0
    for _ in range(splits):
        halves: tuple[list[int], list[int]] = ([], [])
        for rows in members:
            order = rng.permutation(rows)
            halves[0].extend(order[::2])
            halves[1].extend(order[1::2])
        first, second = (effects_of(np.sort(np.array(half))) for half in halves)
        k = len(first)
        correlations.append(_rank_correlation(first, second))
        best = [set(np.argsort(-one, kind="stable")[:top].tolist()) for one in (first, second)]
        shared.append(len(best[0] & best[1]) / min(top, k))
    low, high = np.quantile(correlations, [0.025, 0.975])
    return Stability(
        splits=splits,
        rank_correlation=float(np.mean(correlations)),
        low=float(low),
        high=float(high),
        top=top,
        top_shared=float(np.mean(shared)),
        top_by_chance=min(top, k) / k,
    )


def _rank_correlation(first: FloatArray, second: FloatArray) -> float:
    """Spearman's rho; 0 where one half gives every candidate the same effect."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(spearmanr(first, second).statistic)
