"""Permutation tests, tests of a selected maximum, and effects along a fitted direction.

A permutation must exchange only what is exchangeable. Where a label belongs to a group (all
answers to one prompt, say), permuting items breaks the groups up and calls noise significant,
and permuting within groups changes nothing at all (ANCHORS B43); groups are permuted instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import quad
from scipy.special import gammaln
from scipy.stats import halfnorm, norm
from scipy.stats import t as student
from sklearn.model_selection import StratifiedKFold

from evals.statistics.auc import boolean_labels

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

NO_SPREAD = 1e-8
"""Pooled standard deviation at or below which an effect size is 0 (PAPER 4.2)."""
_BATCH = 4_000_000
"""Most array cells held at a time while permuting."""


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """An observed statistic and its distribution over permuted labels."""

    observed: float
    p_value: float
    """(1 + number of permutations at least as extreme) / (1 + permutations)"""
    null: FloatArray
    """[permutations], in the order drawn; infinite where a permutation has no such statistic."""
    grouped: bool
    """Whether whole groups were permuted, not items."""

    @property
    def expected(self) -> float:
        """Mean of the statistic under the null, over the permutations that have one."""
        return float(self.null[np.isfinite(self.null)].mean())

    @property
    def undefined(self) -> int:
        """Number of permutations without a statistic, infinite on the side that is not extreme."""
        return int(np.isinf(self.null).sum())

    def quantile(self, q: float) -> float:
        """Quantile of the statistic under the null, q from 0 to 1.

        Infinite, or NaN between infinite neighbours, where too many permutations have no statistic.
        """
        with np.errstate(invalid="ignore"):
            return float(np.quantile(self.null, q))

    def share_at_most(self, value: float) -> float:
        """Share of permutations whose statistic is at most ``value``."""
        return float((self.null <= value + _slack(value)).mean())


def permutation_test(
    statistic: Callable[[BoolArray], float],
    labels: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    permutations: int = 2000,
    seed: int = 0,
    larger_is_more_extreme: bool = True,
) -> PermutationTest:
    """One-sided test of ``statistic(labels)`` over permuted labels, see :func:`permute_labels`.

    The p-value counts the observed labels as one of the permutations, so it is valid at any
    number of them and never 0 (Phipson & Smyth 2010). Raises ValueError where the statistic
    is not a number, is infinite for the labels as they are, or where the labels have only one
    arrangement.
    """
    checked = boolean_labels(labels)
    drawn = permuted_labels(checked, groups, permutations, np.random.default_rng(seed))
    null = np.array([statistic(row) for row in drawn], dtype=np.float64)
    return permutation_result(
        float(statistic(checked)),
        null,
        grouped=groups is not None,
        larger_is_more_extreme=larger_is_more_extreme,
    )


def permutation_result(
    observed: float, null: FloatArray, *, grouped: bool, larger_is_more_extreme: bool
) -> PermutationTest:
    """Put the p-value to an observed statistic and its null distribution [permutations].

    Equal up to rounding counts as extreme. Raises ValueError on NaN or an empty null.
    """
    if not len(null) or not np.isfinite(observed) or np.isnan(null).any():
        raise ValueError("the statistic is not a number for the labels or a permutation of them")
    sign = 1.0 if larger_is_more_extreme else -1.0
    extreme = int((sign * null >= sign * observed - _slack(observed)).sum())
    return PermutationTest(observed, (1 + extreme) / (1 + len(null)), null, grouped)


def permute_labels(
    labels: ArrayLike, groups: ArrayLike | None, rng: np.random.Generator
) -> BoolArray:
    """Return one permutation of the labels [n].

    Without groups, items are permuted. With groups [n] (anything hashable and sortable of one
    kind), where the label is constant within every group the groups' labels are permuted, so
    that the number of True items may change with the groups' sizes. Where labels vary within
    a group, whole label vectors (in order of appearance) are exchanged between groups of equal
    size only.

    Raises ValueError where only one arrangement exists, because a permutation would then be
    the same labels again and any test would be empty.
    """
    permuted: BoolArray = permuted_labels(boolean_labels(labels), groups, 1, rng)[0]
    return permuted


def permuted_labels(
    labels: BoolArray, groups: ArrayLike | None, permutations: int, rng: np.random.Generator
) -> BoolArray:
    """Return many permutations [permutations, n] of the labels [n], as :func:`permute_labels`."""
    if permutations < 1:
        raise ValueError(f"at least one permutation is needed, not {permutations}")
    if labels.all() or not labels.any():
        raise ValueError(f"one class only: all {len(labels)} labels are the same")
    if groups is None:
        return _shuffled_rows(labels, permutations, rng)
    members = _group_members(groups, len(labels))
    first = labels[[rows[0] for rows in members]]
    if all((labels[rows] == label).all() for rows, label in zip(members, first, strict=True)):
        group_of = np.empty(len(labels), dtype=np.int64)
        for index, rows in enumerate(members):
            group_of[rows] = index
        of_groups = _shuffled_rows(first, permutations, rng)
        return of_groups[:, group_of]
    return _exchanged_vectors(labels, members, permutations, rng)


def _shuffled_rows(labels: BoolArray, rows: int, rng: np.random.Generator) -> BoolArray:
    shuffled: BoolArray = rng.permuted(np.tile(labels, (rows, 1)), axis=1)
    return shuffled


def _group_members(groups: ArrayLike, n: int) -> list[IntArray]:
    """Rows of each group, groups in sorted order."""
    values = np.asarray(groups)
    if values.shape != (n,):
        raise ValueError(f"groups of shape {values.shape} for {n} labels")
    _, index = np.unique(values, return_inverse=True)
    order = np.argsort(index, kind="stable")
    return np.split(order, np.cumsum(np.bincount(index))[:-1])


def _exchanged_vectors(
    labels: BoolArray, members: list[IntArray], permutations: int, rng: np.random.Generator
) -> BoolArray:
    """Exchange label vectors between groups of equal size, [permutations, n]."""
    result = np.tile(labels, (permutations, 1))
    changes = False
    for size in sorted({len(rows) for rows in members}):
        positions = np.array([rows for rows in members if len(rows) == size])
        vectors = labels[positions]
        changes = changes or bool((vectors != vectors[0]).any())
        order = np.argsort(rng.random((permutations, len(positions))), axis=1)
        result[:, positions] = vectors[order]
    if not changes:
        raise ValueError(
            "the labels vary within groups and no two groups of equal size differ: "
            "there is nothing to permute"
        )
    return result


def cohen_d_columns(x: FloatArray, labels: ArrayLike) -> FloatArray:
    """Cohen's d of every column: mean of the True rows minus mean of the False rows, [k].

    ``x`` is [n, k]. Over the pooled standard deviation (ddof 1 in each class), 0 where that is
    at most 1e-8. Raises ValueError where a class is empty or no degree of freedom is left.
    """
    values, checked = _columns(x, labels)
    effects: FloatArray = _effects(values, checked[None, :])[0]
    return effects


def max_effect_test(
    x: FloatArray,
    labels: ArrayLike,
    *,
    signed: bool = False,
    groups: ArrayLike | None = None,
    permutations: int = 1000,
    seed: int = 0,
) -> PermutationTest:
    """Test the largest effect over the columns of ``x`` [n, k] as a maximum (Westfall & Young).

    The statistic is the largest |d|, or the largest d if ``signed``. The maximum is taken anew
    in every permutation, so the choice of the best of k columns is paid for and correlation
    between columns is kept. Raises ValueError as :func:`cohen_d_columns` does.
    """
    values, checked = _columns(x, labels)
    observed = _largest(_effects(values, checked[None, :]), signed)[0]
    drawn = permuted_labels(checked, groups, permutations, np.random.default_rng(seed))
    size = max(1, _BATCH // values.shape[1])
    null = [
        _largest(_effects(values, drawn[start : start + size]), signed)
        for start in range(0, permutations, size)
    ]
    return permutation_result(
        float(observed),
        np.concatenate(null),
        grouped=groups is not None,
        larger_is_more_extreme=True,
    )


def _columns(x: FloatArray, labels: ArrayLike) -> tuple[FloatArray, BoolArray]:
    values = np.asarray(x, dtype=np.float64)
    checked = boolean_labels(labels)
    if values.ndim != 2 or len(values) != len(checked) or values.shape[1] == 0:
        raise ValueError(f"values of shape {values.shape} for {len(checked)} labels")
    if not np.isfinite(values).all():
        raise ValueError("a value is missing or infinite: leave the item out and report it")
    if checked.all() or not checked.any() or len(checked) < 3:
        raise ValueError(f"no effect size from {int(checked.sum())} True of {len(checked)} items")
    return values, checked


def _effects(x: FloatArray, labels: BoolArray) -> FloatArray:
    """Cohen's d [m, k] of the columns of x [n, k] for each row of labels [m, n]."""
    n = len(x)
    # Centred first: the sums of squares below would else cancel for columns far from zero.
    centred = x - x.mean(axis=0)
    weights = labels.astype(np.float64)
    n_true = weights.sum(axis=1, keepdims=True)
    mean_true = (weights @ centred) / n_true
    mean_false = -mean_true * n_true / (n - n_true)
    within = (centred**2).sum(axis=0) - n_true * mean_true**2 - (n - n_true) * mean_false**2
    spread = np.sqrt(np.maximum(within, 0.0) / (n - 2))
    has_spread = spread > NO_SPREAD
    return np.where(has_spread, (mean_true - mean_false) / np.where(has_spread, spread, 1.0), 0.0)


def _largest(effects: FloatArray, signed: bool) -> FloatArray:
    largest: FloatArray = (effects if signed else np.abs(effects)).max(axis=1)
    return largest


def expected_maximum_of_normals(k: int) -> float:
    """Mean of the largest of k independent standard normals, by numerical integration.

    What the best of k unrelated columns reaches by chance, in units of its standard error.
    """
    return _expected_maximum(k, norm.logpdf, norm.logcdf, -10.0)


def expected_absolute_maximum_of_normals(k: int) -> float:
    """Mean of the largest absolute value among k independent standard normals."""
    return _expected_maximum(k, halfnorm.logpdf, halfnorm.logcdf, 0.0)


def _expected_maximum(
    k: int,
    log_density: Callable[[float], float],
    log_cumulative: Callable[[float], float],
    low: float,
) -> float:
    """Integral of x times the density k f(x) F(x)^(k-1) of the maximum."""
    if k < 1:
        raise ValueError(f"a maximum of {k} values does not exist")

    def integrand(x: float) -> float:
        return float(x * k * np.exp(log_density(x) + (k - 1) * log_cumulative(x)))

    return float(quad(integrand, low, 12.0, limit=200, epsabs=1e-10)[0])


def largest_effect_p_value(
    statistic: float, candidates: int, degrees_of_freedom: int, *, signed: bool = True
) -> float:
    """Probability that the largest of ``candidates`` independent t values reaches ``statistic``.

    ``statistic`` is the largest effect over its null standard error; ``signed=False`` means
    that it was picked by size. Correlated candidates make the true probability smaller, so a
    permutation null (:func:`max_effect_test`) is better where the items are at hand.
    """
    if candidates < 1 or degrees_of_freedom < 1:
        raise ValueError(f"impossible: {candidates} candidates, {degrees_of_freedom} df")
    single = float(student.sf(statistic, degrees_of_freedom))
    single = single if signed else min(1.0, 2 * single)
    return -math.expm1(candidates * math.log1p(-min(single, 1 - 1e-16)))


def in_sample_direction_effect(x: FloatArray, labels: ArrayLike) -> float:
    """Cohen's d of the rows of ``x`` [n, d] projected on their own mean-difference direction.

    The direction is fitted on the rows it is scored on, so noise gives a large effect: see
    :func:`expected_in_sample_direction_effect`. 0 where the class means coincide.
    """
    values, checked = _columns(x, labels)
    return _effect_of(values @ _direction(values, checked), checked)


def cross_fitted_direction_effect(
    x: FloatArray, labels: ArrayLike, *, folds: int = 5, seed: int = 0
) -> float:
    """Cohen's d of projections on mean-difference directions fitted on the other folds.

    ``x`` is [n, d]. The items of a fold are projected on the unit direction of the other
    folds, from the midpoint of those folds' class means, and all projections are pooled. On
    noise its mean is about 0. Raises ValueError where a class has fewer items than folds.
    """
    values, checked = _columns(x, labels)
    smaller = min(int(checked.sum()), int((~checked).sum()))
    if not 2 <= folds <= smaller:
        raise ValueError(f"{folds} folds are impossible: the smaller class has {smaller} items")
    projected = np.empty(len(values))
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(values, checked):
        fitted, fitted_labels = values[train], checked[train]
        means = [fitted[side].mean(axis=0) for side in (fitted_labels, ~fitted_labels)]
        midpoint = (means[0] + means[1]) / 2
        projected[test] = (values[test] - midpoint) @ _direction(fitted, fitted_labels)
    return _effect_of(projected, checked)


def expected_in_sample_direction_effect(d: float, n_first: int, n_second: int) -> float:
    """Mean of :func:`in_sample_direction_effect` on isotropic normal noise in d dimensions.

    The difference of the means has length sqrt(1/n1 + 1/n2) chi_d, and the spread within the
    classes along it is an independent chi_(n1+n2-2) / sqrt(n1+n2-2); the value is the product
    of E[chi_d] and E[1/chi], exact for such noise and about sqrt(d (1/n1 + 1/n2)) (PAPER 4.3).
    For correlated features give their effective dimension, which need not be whole.
    """
    freedom = n_first + n_second - 2
    if d <= 0 or min(n_first, n_second) < 1 or freedom < 2:
        raise ValueError(f"impossible: {d} dimensions, classes of {n_first} and {n_second}")
    log_length = gammaln((d + 1) / 2) - gammaln(d / 2)
    log_inverse_spread = gammaln((freedom - 1) / 2) - gammaln(freedom / 2)
    ratio = np.exp(log_length + log_inverse_spread) * np.sqrt(freedom)
    return float(np.sqrt(1 / n_first + 1 / n_second) * ratio)


def _direction(x: FloatArray, labels: BoolArray) -> FloatArray:
    """Unit vector [d] from the mean of the False rows to that of the True ones, or zeros."""
    difference = x[labels].mean(axis=0) - x[~labels].mean(axis=0)
    length = float(np.linalg.norm(difference))
    direction: FloatArray = difference / length if length > 0 else np.zeros_like(difference)
    return direction


def _effect_of(projected: FloatArray, labels: BoolArray) -> float:
    return float(_effects(projected[:, None], labels[None, :])[0, 0])


def _slack(value: float) -> float:
    """Allowance for rounding when two ways to compute one statistic are compared."""
    return 1e-12 * max(1.0, abs(value)) if np.isfinite(value) else 0.0
