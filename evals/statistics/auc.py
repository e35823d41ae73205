"""The area under the ROC curve: intervals, differences of two curves, and tests against chance.

Throughout, ``scores`` is a sequence of n finite numbers, higher meaning "more likely True",
and ``labels`` a sequence of n booleans in the same order. The items are taken as independent:
where several items share a prompt, resample or permute whole groups instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import mannwhitneyu, norm, rankdata
from sklearn.metrics import roc_auc_score

from evals.statistics.rates import Interval

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_ROUNDING = 1e-24
"""A variance below this is rounding of placements, which are good to 1e-16."""
_INSIDE = 1e-12
"""Steps off 0 and 1, where the score equation has a root that is no limit."""
FEW = 20
"""Items of the rarer class below which DeLong's variance is not trusted alone."""
_BATCH = 4_000_000
"""Most counts held at a time while resampling, about 32 MB an array."""


@dataclass(frozen=True)
class AucDifference:
    """Two AUCs of the same items, and the second minus the first."""

    first: float
    second: float
    difference: float
    """second - first"""
    interval: Interval
    """Of the difference."""
    p_value: float
    """Two-sided, for no difference."""


class AlikeScores(ValueError):
    """Two scores that order the items alike: no difference to test, and no mistake."""


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Probability that a True item scores higher than a False one, ties counted half.

    Raises ValueError when the lengths differ, a score is missing, or there is one class only.
    """
    checked_scores, checked_labels = scores_and_labels(scores, labels)
    return float(roc_auc_score(checked_labels, checked_scores))


def mann_whitney_u(auc: float, n_positive: int, n_negative: int) -> float:
    """Number of (True, False) pairs in the right order, ties counted half; not rounded."""
    _check_counts(auc, n_positive, n_negative)
    return auc * n_positive * n_negative


def is_possible_auc(
    auc: float,
    n_positive: int,
    n_negative: int,
    tolerance: float = 1e-6,
    *,
    ties: bool = True,
) -> bool:
    """Whether a published AUC can come from these class sizes.

    U is a whole number of pairs, or of half pairs where scores can be tied. ``tolerance`` is
    in pairs: for an AUC rounded to three digits give 0.0005 * n_positive * n_negative, and
    note that the test says nothing once that reaches half a step.
    """
    steps = mann_whitney_u(auc, n_positive, n_negative) * (2 if ties else 1)
    return abs(steps - round(steps)) <= tolerance * (2 if ties else 1)


def auc_p_value(scores: ArrayLike, labels: ArrayLike) -> float:
    """Two-sided Mann-Whitney p-value of AUC = 0.5, from scipy: exact where small and untied."""
    positives, negatives = _classes(*scores_and_labels(scores, labels))
    return float(mannwhitneyu(positives, negatives, alternative="two-sided").pvalue)


def delong_interval(scores: ArrayLike, labels: ArrayLike, level: float = 0.95) -> Interval:
    """DeLong's interval of the AUC, set on the logit scale so that it stays inside 0 to 1.

    Variance after DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44:837), computed from
    mid-ranks as in Sun & Xu 2014. That variance is zero when the classes are perfectly
    separated or all scores are tied, and undefined for a class of one item; it would say
    "no uncertainty" just where little is known. There :func:`newcombe_interval` is returned.
    """
    checked_scores, checked_labels = scores_and_labels(scores, labels)
    value = auc(checked_scores, checked_labels)
    n_positive = int(checked_labels.sum())
    n_negative = len(checked_labels) - n_positive
    if min(n_positive, n_negative) < 2 or not 0 < value < 1:
        return newcombe_interval(value, n_positive, n_negative, level)
    variance = float(delong_covariance(checked_scores[None, :], checked_labels)[0, 0])
    if variance < _ROUNDING:
        return newcombe_interval(value, n_positive, n_negative, level)
    half = _z(level) * math.sqrt(variance) / (value * (1 - value))
    centre = float(logit(value))
    return Interval(float(expit(centre - half)), float(expit(centre + half)), level)


def guarded_interval(scores: ArrayLike, labels: ArrayLike, level: float = 0.95) -> Interval:
    """DeLong's interval; with fewer than :data:`FEW` items of a class, the smallest that holds
    :func:`newcombe_interval` too.

    DeLong's variance comes from the spread of the rarer class's own items. Two that happen to lie
    close together make it tiny: of 2 against 80 items with a true AUC of 0.63 the 95% interval lies
    wholly above it in 14% of samples and wholly below in 9%, of 5 in 6% and 3% (nominally 2.5%
    each); this one in 0% and 3%, of 5 in 2% and 2%.
    """
    found = delong_interval(scores, labels, level)
    checked_scores, checked_labels = scores_and_labels(scores, labels)
    n_positive = int(checked_labels.sum())
    n_negative = len(checked_labels) - n_positive
    if min(n_positive, n_negative) >= FEW:
        return found
    value = auc(checked_scores, checked_labels)
    other = newcombe_interval(value, n_positive, n_negative, level)
    return Interval(min(found.low, other.low), max(found.high, other.high), level)


def hanley_mcneil_interval(
    auc: float, n_positive: int, n_negative: int, level: float = 0.95
) -> Interval:
    """Interval of a published AUC whose scores are not known, clipped to 0 to 1.

    Standard error after Hanley & McNeil 1982 (Radiology 143:29). At an AUC of exactly 0 or 1
    that standard error is zero, and :func:`newcombe_interval` is returned instead.
    """
    _check_counts(auc, n_positive, n_negative)
    if auc in (0.0, 1.0):
        return newcombe_interval(auc, n_positive, n_negative, level)
    half = _z(level) * math.sqrt(hanley_mcneil_variance(auc, n_positive, n_negative))
    return Interval(max(0.0, auc - half), min(1.0, auc + half), level)


def hanley_mcneil_variance(auc: float, n_positive: int, n_negative: int) -> float:
    """Variance of an AUC under exponential score distributions (Hanley & McNeil 1982)."""
    _check_counts(auc, n_positive, n_negative)
    two_positives = auc / (2 - auc) - auc**2
    two_negatives = 2 * auc**2 / (1 + auc) - auc**2
    own = auc * (1 - auc)
    spread = own + (n_positive - 1) * two_positives + (n_negative - 1) * two_negatives
    return spread / (n_positive * n_negative)


def newcombe_interval(
    auc: float, n_positive: int, n_negative: int, level: float = 0.95
) -> Interval:
    """Score interval of the AUC that has a width even at 0 and 1.

    Holds every value theta with |auc - theta| <= z sqrt(V(theta)), where V is the variance of
    Hanley & McNeil with both class sizes replaced by their mean inside the bracket (Newcombe
    2006, Statistics in Medicine 25:559, method 5).
    """
    _check_counts(auc, n_positive, n_negative)
    z = _z(level)

    def excess(theta: float) -> float:
        return abs(auc - theta) - z * math.sqrt(_newcombe_variance(theta, n_positive, n_negative))

    low = 0.0 if auc == 0.0 else float(brentq(excess, 0.0, min(auc, 1 - _INSIDE), xtol=1e-12))
    high = 1.0 if auc == 1.0 else float(brentq(excess, max(auc, _INSIDE), 1.0, xtol=1e-12))
    return Interval(min(low, auc), max(high, auc), level)


def _newcombe_variance(theta: float, n_positive: int, n_negative: int) -> float:
    mean_size = (n_positive + n_negative) / 2
    bracket = 1 + (mean_size - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
    return theta * (1 - theta) * bracket / (n_positive * n_negative)


def delong_difference(
    first: ArrayLike, second: ArrayLike, labels: ArrayLike, level: float = 0.95
) -> AucDifference:
    """Compare two scores of the same items (DeLong 1988): AUC of the second minus the first.

    Raises ValueError where a class has fewer than two items; AlikeScores where the two scores
    order every pair of items alike up to a constant, so that the difference has no variance.
    """
    scores, checked_labels = _two_scores(first, second, labels)
    values = [auc(row, checked_labels) for row in scores]
    difference = values[1] - values[0]
    # From the differences of placements: subtracting near-equal variances would leave rounding.
    contrasts = [np.diff(side, axis=0)[0] for side in _placements(scores, checked_labels)]
    variance = sum(float(np.var(side, ddof=1)) / len(side) for side in contrasts)
    if variance < _ROUNDING:
        raise AlikeScores(
            "no variation: the two scores order the items alike, so their AUCs cannot be compared"
        )
    error = math.sqrt(variance)
    half = _z(level) * error
    interval = Interval(max(-1.0, difference - half), min(1.0, difference + half), level)
    p_value = float(2 * norm.sf(abs(difference) / error))
    return AucDifference(values[0], values[1], difference, interval, p_value)


def delong_covariance(scores: FloatArray, labels: BoolArray) -> FloatArray:
    """DeLong's covariance [k, k] of the AUCs of k scores [k, n] over the same labels [n].

    Raises ValueError where a class has fewer than two items.
    """
    of_positives, of_negatives = _placements(scores, labels)
    return np.atleast_2d(
        np.cov(of_positives) / of_positives.shape[1] + np.cov(of_negatives) / of_negatives.shape[1]
    )


def _placements(scores: FloatArray, labels: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Placements of the True items [k, m] and of the False items [k, n - m].

    A True item's placement is the share of False items it beats, a False item's the share of
    True items that beat it. Up to a sign that is (mid-rank among all - mid-rank within the
    class) over the size of the other class (Sun & Xu 2014); the sign leaves no trace in a
    covariance.
    """
    n_positive = int(labels.sum())
    n_negative = len(labels) - n_positive
    if min(n_positive, n_negative) < 2:
        raise ValueError(f"a class of one item has no variance: {n_positive} True of {len(labels)}")
    overall = rankdata(scores, axis=1)
    beats = overall[:, labels] - rankdata(scores[:, labels], axis=1)
    beaten = overall[:, ~labels] - rankdata(scores[:, ~labels], axis=1)
    return beats / n_negative, beaten / n_positive


def bootstrap_auc(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of the AUC, each class resampled to its own size.

    Raises ValueError at an AUC of exactly 0 or 1, where every resample gives the same AUC and
    the interval would be a point; :func:`delong_interval` gives one with a width.
    """
    checked_scores, checked_labels = scores_and_labels(scores, labels)
    values = _resampled_aucs(checked_scores[None, :], checked_labels, resamples, seed)[0]
    return _percentile_interval(values, level)


def bootstrap_auc_difference(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of AUC(second) - AUC(first) over the same resampled items.

    Each class is resampled to its own size. Raises ValueError where nothing varies.
    """
    scores, checked_labels = _two_scores(first, second, labels)
    values = _resampled_aucs(scores, checked_labels, resamples, seed)
    return _percentile_interval(values[1] - values[0], level)


def scores_and_labels(scores: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Return scores [n] and labels [n] as arrays; raises ValueError on what cannot be ranked."""
    checked_scores = np.asarray(scores, dtype=np.float64)
    checked_labels = boolean_labels(labels)
    if checked_scores.shape != checked_labels.shape:
        raise ValueError(f"{checked_scores.shape} scores for {checked_labels.shape} labels")
    if not np.isfinite(checked_scores).all():
        raise ValueError("a score is missing or infinite: leave the item out and report it")
    if checked_labels.all() or not checked_labels.any():
        raise ValueError(f"one class only: all {len(checked_labels)} labels are the same")
    return checked_scores, checked_labels


def boolean_labels(labels: ArrayLike) -> BoolArray:
    """Return labels as a boolean array [n], n > 0; raises ValueError on anything else.

    Whole numbers 0 and 1 are accepted; a missing label (None, NaN) is not a False one.
    """
    values = np.asarray(labels)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"labels must be one non-empty row, not of shape {values.shape}")
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise ValueError("labels must be True or False: leave items without a label out")
    return values.astype(np.bool_)


def _resampled_aucs(scores: FloatArray, labels: BoolArray, resamples: int, seed: int) -> FloatArray:
    """AUCs [k, resamples] of k scores [k, n] over stratified resamples of the items."""
    if resamples < 1:
        raise ValueError(f"at least one resample is needed, not {resamples}")
    rng = np.random.default_rng(seed)
    batch = max(1, _BATCH // len(labels))
    found = []
    for start in range(0, resamples, batch):
        counts = _stratified_counts(labels, min(batch, resamples - start), rng)
        found.append(np.stack([_weighted_auc(row, labels, counts) for row in scores]))
    return np.concatenate(found, axis=1)


def _stratified_counts(labels: BoolArray, resamples: int, rng: np.random.Generator) -> FloatArray:
    """How often each item is drawn [resamples, n], each class keeping its own size."""
    counts = np.empty((resamples, len(labels)))
    for side in (labels, ~labels):
        size = int(side.sum())
        counts[:, side] = rng.multinomial(size, np.full(size, 1 / size), size=resamples)
    return counts


def _weighted_auc(scores: FloatArray, labels: BoolArray, counts: FloatArray) -> FloatArray:
    """AUC [m] of one score [n] under m sets of item weights [m, n], without any pair loop."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    weights = counts[:, order]
    positive = np.add.reduceat(weights * labels[order], starts, axis=1)
    negative = np.add.reduceat(weights * ~labels[order], starts, axis=1)
    beaten = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    found: FloatArray = (positive * beaten).sum(axis=1) / pairs
    return found


def _percentile_interval(values: FloatArray, level: float) -> Interval:
    if np.ptp(values) == 0.0:
        raise ValueError("no variation: every resample gives the same value, so no interval exists")
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(float(low), float(high), level)


def _two_scores(
    first: ArrayLike, second: ArrayLike, labels: ArrayLike
) -> tuple[FloatArray, BoolArray]:
    first_scores, checked_labels = scores_and_labels(first, labels)
    second_scores, _ = scores_and_labels(second, labels)
    return np.stack([first_scores, second_scores]), checked_labels


def _classes(scores: FloatArray, labels: BoolArray) -> tuple[FloatArray, FloatArray]:
    return scores[labels], scores[~labels]


def _check_counts(auc: float, n_positive: int, n_negative: int) -> None:
    if not 0 <= auc <= 1 or min(n_positive, n_negative) < 1:
        raise ValueError(f"impossible: AUC {auc} of {n_positive} True and {n_negative} False items")


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"a confidence level lies between 0 and 1, not {level}")
    return float(norm.ppf(0.5 + level / 2))
