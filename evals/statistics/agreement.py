"""How far two judges agree beyond what their label frequencies make them agree by chance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evals.statistics.rates import Interval, wilson


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa of two judges over the items that both have labelled."""

    value: float | None
    """-1 to 1; None where both judges give every item one and the same label: 0 / 0."""
    interval: Interval | None
    """None where either judge gives every item the same label. Kappa is then 0 whatever the
    other one does, and says nothing about agreement."""
    n: int
    """Items that both judges have labelled."""
    observed_agreement: float
    """Share of the n items with the same label from both."""


def cohen_kappa(
    first: Sequence[Hashable | None], second: Sequence[Hashable | None], level: float = 0.95
) -> Kappa:
    """Cohen's kappa (Cohen 1960) and its interval; an item with a None from either is left out.

    The interval holds the expected agreement fixed, as Cohen's own standard error does, and
    maps Wilson's interval of the observed agreement to kappa. The large-sample interval of
    Fleiss, Cohen and Everitt 1969 (statsmodels) is a point at perfect agreement, and covers
    a kappa of 0.9 in only 89 percent of samples of 60 and 87 of 100, against 96 to 97 here;
    simulated in the tests. Raises ValueError for sequences of different length and where no
    item has both labels.
    """
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if not pairs:
        raise ValueError("no item has a label from both judges")
    table = _table(pairs)
    n, agreed = len(pairs), int(np.trace(table))
    expected = float(table.sum(axis=0) @ table.sum(axis=1)) / n**2
    labels_used = [np.count_nonzero(table.sum(axis=axis)) for axis in (0, 1)]
    if min(labels_used) == 1:
        undefined = max(labels_used) == 1 and agreed == n
        return Kappa(None if undefined else 0.0, None, n, agreed / n)
    rates = wilson(agreed, n, level)
    value, low, high = (
        (p - expected) / (1 - expected) for p in (agreed / n, rates.low, rates.high)
    )
    return Kappa(value, Interval(max(-1.0, low), min(1.0, high), level), n, agreed / n)


def quadratic_kappas(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """Kappa with quadratic weights (Cohen 1968) of each row, [R]; NaN where it is 0 / 0.

    ``first``, ``second``: [R, n], places on the scale, 0 upwards. One minus the mean squared
    difference over the one that the rows' label frequencies give by chance. The same numbers
    as scikit-learn's ``cohen_kappa_score``, which takes a millisecond a row.
    """
    n = first.shape[1]
    apart = np.square(first - second).sum(axis=1)
    squares = np.square(first).sum(axis=1) + np.square(second).sum(axis=1)
    chance = squares - 2 * first.sum(axis=1) * second.sum(axis=1) / n
    kappas = np.full(len(first), np.nan)
    np.divide(apart, chance, out=kappas, where=chance > 0)
    return 1 - kappas


def _table(pairs: list[tuple[Hashable, Hashable]]) -> NDArray[np.int64]:
    """[k, k] counts, first judge's label by second judge's."""
    labels = {label: i for i, label in enumerate(dict.fromkeys(x for p in pairs for x in p))}
    table = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for a, b in pairs:
        table[labels[a], labels[b]] += 1
    return table
