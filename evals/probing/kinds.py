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
