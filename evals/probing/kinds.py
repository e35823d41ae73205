"""Does a score tell right from wrong *within* kinds of question, or only kinds apart?

Answers to questions of one kind are right, and score, alike. A test that takes the items as
independent then calls it a find that some kind with many right answers happens to have high scores;
with 8 kinds that happens a lot more often than the test says. So two parts are tested apart:

* within: right and wrong answers of one kind are compared with each other alone. Labels are
  permuted within kinds, which keeps each kind's size and its number of right answers; the test is
  exact whatever the kinds are.
* between: kinds are compared with each other alone, each by its mean rank. The mean ranks are
  permuted over whole kinds, so that n is the number of kinds. With fewer than 5 no result can be
  rare enough (4! = 24 orders).

p is two-sided, (1 + as extreme) / (1 + permutations) on the nearer side, doubled (Phipson & Smyth
2010: never 0, valid at any number of permutations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from evals.statistics.auc import scores_and_labels
from evals.statistics.permutation import permutation_result

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
PERMUTATIONS = 4999
PAIRED_PERMUTATIONS = 999
"""Of a difference, whose pairs are counted anew in each."""
_BATCH = 4_000_000
"""Most array cells held at a time."""


@dataclass(frozen=True)
class PartOfAuc:
    """AUC over some of the (right, wrong) pairs, ties counted half."""

    auc: float
    p_value: float
    """Two-sided, for 0.5."""
    kinds: int
    """That have such a pair."""
    pairs: int

    def shown(self, alpha: float) -> bool:
        """Whether right answers score higher."""
        return self.auc > 0.5 and self.p_value < alpha


@dataclass(frozen=True)
class ByKind:
    """Both parts; None where there is no pair of that sort."""

    kinds: int
    within: PartOfAuc | None
    between: PartOfAuc | None
    permutations: int

    @property
    def tested(self) -> bool:
        """Whether there is more than one kind: else items and kinds cannot be told apart."""
        return self.kinds > 1

    def shown(self, alpha: float) -> bool:
        """Whether either part is shown, each at half of ``alpha`` (Bonferroni)."""
        return any(one is not None and one.shown(alpha / 2) for one in (self.within, self.between))

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {**asdict(self), "tested": self.tested}


def by_kind(
    scores: ArrayLike,
    labels: ArrayLike,
    kinds: Sequence[str],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> ByKind:
    """Scores [n] (a gate's decisions are scores of 0 and 1) on labels [n], by kind [n].

    With one kind nothing is tested. Raises ValueError as :func:`evals.statistics.auc.auc`, and
    where the kinds are not one an item.
    """
    checked, right = scores_and_labels(scores, labels)
    if len(kinds) != len(right):
        raise ValueError(f"{len(kinds)} kinds for {len(right)} items")
    names, of = np.unique(np.asarray(kinds), return_inverse=True)
    if len(names) < 2:
        return ByKind(len(names), None, None, permutations)
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(of == kind) for kind in range(len(names))]
    within = _within(checked, right, members, permutations, rng)
    between = _between(rankdata(checked), right, members, permutations, rng)
    return ByKind(len(names), within, between, permutations)


@dataclass(frozen=True)
class PairedByKind:
    """Two scores of the same items: the second's AUC less the first's, within and between kinds."""

    kinds: int
    within: float | None
    within_p: float | None
    between: float | None
    between_p: float | None
    permutations: int

    def shown(self, alpha: float) -> bool:
        """Whether the second is better in either part, each at half of ``alpha``; with one kind
        that is not tested, and so not denied."""
        parts = ((self.within, self.within_p), (self.between, self.between_p))
        return self.kinds < 2 or any(
            value is not None and p is not None and value > 0 and p < alpha / 2
            for value, p in parts
        )


def paired_by_kind(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    kinds: Sequence[str],
    *,
    permutations: int = PAIRED_PERMUTATIONS,
    seed: int = 0,
) -> PairedByKind:
    """As :func:`by_kind`, of a difference: the two scores are exchanged.

    Within: of single items, as ranks within their kind. Between: of whole kinds, as their mean
    ranks. Two-sided by the size of the difference. Raises ValueError as :func:`by_kind`.
    """
    both = np.stack([scores_and_labels(one, labels)[0] for one in (first, second)])
    right = scores_and_labels(first, labels)[1]
    if len(kinds) != len(right):
        raise ValueError(f"{len(kinds)} kinds for {len(right)} items")
    names, of = np.unique(np.asarray(kinds), return_inverse=True)
    if len(names) < 2:
        return PairedByKind(len(names), None, None, None, None, permutations)
    rng = np.random.default_rng(seed)
    ranks, inside = rankdata(both, axis=1), np.empty_like(both)
    for kind in range(len(names)):
        inside[:, of == kind] = rankdata(both[:, of == kind], axis=1)
    same = (of[:, None] == of) & right[:, None] & ~right
    means = np.stack([ranks[:, of == kind].mean(axis=1) for kind in range(len(names))], axis=1)
    n_right = np.bincount(of, weights=right)
    apart = np.outer(n_right, np.bincount(of) - n_right)
    np.fill_diagonal(apart, 0.0)
    within, within_p = _exchanged(inside, same.astype(np.float64), permutations, rng)
    between, between_p = _exchanged(means, apart, permutations, rng)
    return PairedByKind(len(names), within, within_p, between, between_p, permutations)


def _exchanged(
    ranks: FloatArray, weights: FloatArray, permutations: int, rng: np.random.Generator
) -> tuple[float | None, float | None]:
    """Difference of the AUC of two rows of ranks [2, k] over weighted pairs [k, k], with its p."""
    winners, losers = np.nonzero(weights)
    if not len(winners):
        return None, None
    share = weights[winners, losers] / (2 * weights.sum())
    swapped = rng.random((1 + permutations, ranks.shape[1])) < 0.5
    swapped[0] = False
    size, found = max(1, _BATCH // len(winners)), []
    for start in range(0, len(swapped), size):
        part = swapped[start : start + size]
        signs = [
            np.sign(one[:, winners] - one[:, losers]) @ share
            for one in (np.where(part, ranks[0], ranks[1]), np.where(part, ranks[1], ranks[0]))
        ]
        found.append(signs[0] - signs[1])
    values = np.concatenate(found)
    test = permutation_result(
        float(abs(values[0])), np.abs(values[1:]), grouped=True, larger_is_more_extreme=True
    )
    return float(values[0]), test.p_value


def _within(
    scores: FloatArray,
    right: BoolArray,
    members: Sequence[IntArray],
    permutations: int,
    rng: np.random.Generator,
) -> PartOfAuc | None:
    """Pairs of one kind. The sum of the right ones' ranks less its least value counts the pairs
    in order (Mann-Whitney's U); over kinds the counts are added (van Elteren's sum, by pairs)."""
    mixed = [rows for rows in members if right[rows].any() and not right[rows].all()]
    if not mixed:
        return None
    counted = np.zeros(1 + permutations)
    pairs = 0
    for rows in mixed:
        ranks, own = rankdata(scores[rows]), right[rows]
        n_right = int(own.sum())
        drawn = rng.permuted(np.tile(own, (permutations, 1)), axis=1)
        counted += np.vstack([own, drawn]) @ ranks - n_right * (n_right + 1) / 2
        pairs += n_right * (len(rows) - n_right)
    return _part(counted / pairs, len(mixed), pairs)


def _between(
    ranks: FloatArray,
    right: BoolArray,
    members: Sequence[IntArray],
    permutations: int,
    rng: np.random.Generator,
) -> PartOfAuc | None:
    """Pairs of two kinds, in order where the right answer's kind has the higher mean rank."""
    k = len(members)
    n_right = np.array([right[rows].sum() for rows in members], dtype=np.float64)
    n_wrong = np.array([len(rows) for rows in members]) - n_right
    weights = np.outer(n_right, n_wrong)
    np.fill_diagonal(weights, 0.0)
    pairs = int(weights.sum())
    if not pairs:
        return None
    means = np.array([ranks[rows].mean() for rows in members])
    above = (1 + np.sign(means[:, None] - means[None, :])) / 2
    orders = np.vstack([np.arange(k), np.argsort(rng.random((permutations, k)), axis=1)])
    size = max(1, _BATCH // k**2)
    counted = [
        (above[part[:, :, None], part[:, None, :]] * weights).sum(axis=(1, 2))
        for part in (orders[start : start + size] for start in range(0, len(orders), size))
    ]
    return _part(np.concatenate(counted) / pairs, k, pairs)


def _part(aucs: FloatArray, kinds: int, pairs: int) -> PartOfAuc:
    """From the AUC [1 + permutations], the observed one first."""
    sides = [
        permutation_result(float(aucs[0]), aucs[1:], grouped=True, larger_is_more_extreme=larger)
        for larger in (True, False)
    ]
    p_value = min(1.0, 2 * min(one.p_value for one in sides))
    return PartOfAuc(float(aucs[0]), p_value, kinds, pairs)
