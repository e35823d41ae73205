"""Which heads tell the cohorts apart, and which move the axis when they are taken out.

*Magnitude*: norm at the o_proj input, Cohen's d between the cohorts. *Directional*: projection on
the difference of the cohorts' mean vectors, fitted on other folds. *Causal*: each head ablated
once. Every ranking comes with the null of its maximum, since the largest of 280 noise values is
large; what the paper printed (uncorrected d, directions scored on their own items, cosines of
un-centred means) stands beside it under its own name. Pure numpy: no engine is needed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.interface import Float32, Head
from evals.meter_scores import mean_interval
from evals.statistics.permutation import (
    cohen_d_columns,
    expected_in_sample_direction_effect,
    in_sample_direction_effect,
)
from evals.statistics.ranked_effects import (
    FloatArray,
    RankedEffects,
    Stability,
    effect_interval,
    ranked_differences,
    ranked_directions,
    ranked_means,
    shift_scores,
    split_half,
    uncorrected_p,
)
from evals.statistics.rates import Interval

FOLDS = 5
FUDGE_QUANTILE = 0.5
"""s0 of the causal statistic: the median of the heads' standard errors."""
SHOWN = 20
"""Heads that results list with intervals and cosines, from the top."""


@dataclass(frozen=True, eq=False)
class HeadReading:
    """What entered o_proj, by head, over the last response tokens of n answers."""

    item_ids: tuple[str, ...]
    heads: tuple[Head, ...]
    norms: Float32
    """[n, k] mean L2 norm."""
    means: tuple[Float32, ...]
    """One [n, head_dim] mean vector a head."""

    def of(self, item_ids: Sequence[str]) -> HeadReading:
        """The rows of some items, in their order."""
        places = {name: place for place, name in enumerate(self.item_ids)}
        rows = [places[name] for name in item_ids]
        return HeadReading(
            tuple(item_ids), self.heads, self.norms[rows], tuple(one[rows] for one in self.means)
        )


@dataclass(frozen=True, eq=False)
class Ranking:
    """All heads by one kind of effect; positive: damping should bring the disposition about."""

    method: str
    unit: str
    heads: tuple[Head, ...]
    found: RankedEffects
    n: str
    """Items it rests on, in words."""
    null: str
    """What the corrected p are against."""
    stability: Stability
    intervals: Mapping[Head, Interval | None]
    """Of the heads at the top, each by itself."""
    extra: Mapping[Head, Mapping[str, float]]
    """Further numbers of the heads at the top, by name."""
    simultaneous: float | None = None
    """Largest |d| that some head's interval, at once for all heads, still holds; None: no d."""

    @property
    def excludes_beyond(self) -> float | None:
        """Largest |d| of a head that is not excluded; None where nothing is.

        A direction that was estimated falls far short of the best one (a true d of 0.5 of a
        64-dimensional head comes out at 0.17 with 95 answers), so its d excludes no separation.
        """
        return None if self.method == "directional" else self.simultaneous

    @property
    def order(self) -> list[int]:
        """Places in ``heads`` from the largest score to the smallest, signed.

        By what is tested, so that the heads at the top are those with the smallest p.
        """
        return [int(at) for at in _falling(self.found)]

    @property
    def ordered_heads(self) -> tuple[Head, ...]:
        """Heads in that order."""
        return tuple(self.heads[at] for at in self.order)

    def significant(self, alpha: float) -> list[Head]:
        """Heads whose corrected p is below ``alpha`` and whose effect is positive."""
        p, effects = self.found.corrected_p, self.found.effects
        return [self.heads[at] for at in self.order if p[at] < alpha and effects[at] > 0]

    def to_json(self, alpha: float) -> dict[str, Any]:
        """JSON-able form: all heads in order, those at the top in detail."""
        p, statistics = self.found.corrected_p, self.found.statistics
        rows = []
        for at in self.order:
            head = self.heads[at]
            row: dict[str, Any] = {
                "layer": head.layer,
                "head": head.head,
                "effect": float(self.found.effects[at]),
                "p_corrected": float(p[at]),
            }
            if statistics is not None:
                row["statistic"] = float(statistics[at])
            if head in self.intervals:
                interval = self.intervals[head]
                row["interval"] = None if interval is None else interval.to_json()
                row |= self.extra.get(head, {})
            rows.append(row)
        return {
            "method": self.method,
            "unit": self.unit,
            "n": self.n,
            "null": self.null,
            "permutations": len(self.found.null),
            "fudge": self.found.fudge,
            "expected_maximum": self.found.expected_maximum,
            "critical": self.found.critical(alpha),
            "smallest_p": float(p.min()),
            "significant": [list(head) for head in self.significant(alpha)],
            "largest_effect_not_excluded": self.excludes_beyond,
            "stability": asdict(self.stability),
            "heads": rows,
        }


def magnitude(
    reading: HeadReading,
    labels: Sequence[bool],
    *,
    permutations: int,
    top: int,
    seed: int,
    alpha: float,
) -> Ranking:
    """Rank by Cohen's d of the norms, lacking minus having (``labels``: True where lacking)."""
    x, y = np.asarray(reading.norms, dtype=np.float64), np.asarray(labels)
    found = ranked_differences(x, y, permutations=permutations, seed=seed)
    alone = uncorrected_p(x, y)
    shown = _falling(found)[:SHOWN]
    means = x[y].mean(axis=0), x[~y].mean(axis=0)
    sizes = int(y.sum()), int((~y).sum())
    return Ranking(
        method="magnitude",
        unit="Cohen's d",
        heads=reading.heads,
        found=found,
        n=_sizes(y),
        null=f"largest |d| of all heads, labels permuted {permutations} times",
        stability=split_half(lambda rows: cohen_d_columns(x[rows], y[rows]), y, top=top, seed=seed),
        intervals={reading.heads[at]: _of_d(found, at, sizes, alpha) for at in shown},
        extra={
            reading.heads[at]: {
                "p_uncorrected": float(alone[at]),
                "mean_lacking": float(means[0][at]),
                "mean_having": float(means[1][at]),
            }
            for at in shown
        },
        simultaneous=_simultaneous(found, sizes, alpha),
    )


def directional(
    reading: HeadReading,
    labels: Sequence[bool],
    *,
    permutations: int,
    top: int,
    seed: int,
    alpha: float,
) -> Ranking:
    """Rank by the cross-fitted effect along each head's mean-difference direction.

    Beside it, as in the paper: the effect scored on its own items, what noise alone gives there,
    and the cosine of the un-centred means. Centring on the common mean makes the cosine of two
    cohorts -1 whatever the data are; what is informative is whether the *difference* points the
    same way in two halves of the items, so that is the centred cosine shown.
    """
    y, sizes = np.asarray(labels), None
    found = ranked_directions(reading.means, y, folds=FOLDS, permutations=permutations, seed=seed)
    sizes = int(y.sum()), int((~y).sum())
    shown = _falling(found)[:SHOWN]
    halves = _halves(y, seed)

    def effects_of(rows: NDArray[np.int64]) -> FloatArray:
        few = min(FOLDS, int(y[rows].sum()), int((~y[rows]).sum()))
        blocks = [block[rows] for block in reading.means]
        return ranked_directions(blocks, y[rows], folds=few, permutations=1, seed=seed).effects

    return Ranking(
        method="directional",
        unit="Cohen's d, cross-fitted",
        heads=reading.heads,
        found=found,
        n=_sizes(y),
        null=f"largest cross-fitted d of all heads, labels permuted {permutations} times in folds",
        stability=split_half(effects_of, y, top=top, splits=10, seed=seed),
        intervals={reading.heads[at]: _of_d(found, at, sizes, alpha) for at in shown},
        extra={reading.heads[at]: _directions(reading.means[at], y, halves, sizes) for at in shown},
        simultaneous=_simultaneous(found, sizes, alpha),
    )


def causal(
    heads: Sequence[Head],
    shifts: FloatArray,
    *,
    permutations: int,
    top: int,
    seed: int,
    alpha: float,
    unit: str,
) -> Ranking:
    """Rank by the mean shift of the axis when a head is ablated; ``shifts`` [n, k] by item.

    The effect is the mean; ranked and tested is mean / (standard error + s0), so that heads that
    shift items far to both sides neither come first nor widen the null of the others.
    """
    found = ranked_means(
        shifts, permutations=permutations, seed=seed, fudge_quantile=FUDGE_QUANTILE
    )
    fudge = 0.0 if found.fudge is None else found.fudge
    shown = _falling(found)[:SHOWN]
    n = len(shifts)
    return Ranking(
        method="causal",
        unit=unit,
        heads=tuple(heads),
        found=found,
        n=f"{n} items",
        null="largest |mean / (error + s0)| of the heads that reach no more, s0 the heads' median "
        f"error of {fudge:.3f}, signs of items flipped, {len(found.null) + 1} arrangements",
        stability=split_half(
            lambda rows: shift_scores(shifts[rows], fudge), np.zeros(n), top=top, seed=seed
        ),
        intervals={heads[at]: mean_interval(shifts[:, at], 1 - alpha) for at in shown},
        extra={heads[at]: {"items_up": float((shifts[:, at] > 0).sum())} for at in shown},
    )


def causal_of_answers(
    heads: Sequence[Head],
    shifts: FloatArray,
    labels: Sequence[bool],
    *,
    permutations: int,
    top: int,
    seed: int,
    alpha: float,
) -> Ranking:
    """Rank by how much less an ablation costs the answers that have the disposition.

    ``shifts`` [n, k]: change of each answer's mean log-probability (nats per token). The effect is
    Cohen's d of having minus lacking: positive where the ablated model finds the lacking answers
    less likely than the others, by comparison.
    """
    y = ~np.asarray(labels)
    found = ranked_differences(shifts, y, permutations=permutations, seed=seed)
    shown = _falling(found)[:SHOWN]
    sizes = int(y.sum()), int((~y).sum())
    return Ranking(
        method="causal",
        unit="Cohen's d of the answers' log-probability shifts",
        heads=tuple(heads),
        found=found,
        n=_sizes(np.asarray(labels)),
        null=f"largest |d| of all heads, labels permuted {permutations} times",
        stability=split_half(
            lambda rows: cohen_d_columns(shifts[rows], y[rows]), y, top=top, seed=seed
        ),
        intervals={heads[at]: _of_d(found, at, sizes, alpha) for at in shown},
        extra={heads[at]: {"mean_shift": float(shifts[:, at].mean())} for at in shown},
        simultaneous=_simultaneous(found, sizes, alpha),
    )


def _sizes(lacking: NDArray[np.bool_]) -> str:
    return f"{int(lacking.sum())} lacking, {int((~lacking).sum())} having"


def _falling(found: RankedEffects) -> NDArray[np.int64]:
    return np.argsort(-found.scores, kind="stable")


def _of_d(found: RankedEffects, at: int, sizes: tuple[int, int], alpha: float) -> Interval:
    """Interval of one head's d; of a cross-fitted one as wide as its permutations say.

    Directions of different folds are estimated from answers they share, so a cross-fitted d varies
    more than the d of a given direction: by a factor of about 1.4 in noise.
    """
    spread = None if found.null_spread is None else float(found.null_spread[at])
    return effect_interval(float(found.effects[at]), *sizes, 1 - alpha, null_spread=spread)


def _simultaneous(found: RankedEffects, sizes: tuple[int, int], alpha: float) -> float:
    """Largest |d| in any head's interval when all hold at once (Bonferroni over heads)."""
    count = len(found.effects)
    ends = [_of_d(found, at, sizes, alpha / count) for at in range(count)]
    return max(max(abs(one.low), abs(one.high)) for one in ends)


def _halves(y: NDArray[np.bool_], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    parts = [rng.permutation(np.flatnonzero(y == side)) for side in (True, False)]
    first, second = ([part[start::2] for part in parts] for start in (0, 1))
    return np.concatenate(first), np.concatenate(second)


def _directions(
    block: Float32,
    y: NDArray[np.bool_],
    halves: tuple[NDArray[np.int64], NDArray[np.int64]],
    sizes: tuple[int, int],
) -> dict[str, float]:
    x = np.asarray(block, dtype=np.float64)
    means = x[y].mean(axis=0), x[~y].mean(axis=0)
    differences = [
        x[rows][y[rows]].mean(axis=0) - x[rows][~y[rows]].mean(axis=0) for rows in halves
    ]
    return {
        "in_sample_d": in_sample_direction_effect(x, y),
        "in_sample_d_of_noise": expected_in_sample_direction_effect(
            _effective_dimension(x), *sizes
        ),
        "cosine_of_means": _cosine(*means),
        "cosine_of_differences": _cosine(*differences),
    }


def _effective_dimension(x: FloatArray) -> float:
    """Participation ratio of the covariance's eigenvalues: (sum)^2 / sum of squares, at least 1."""
    centred = x - x.mean(axis=0)
    squares = np.linalg.svd(centred, compute_uv=False) ** 2
    total = float((squares**2).sum())
    return max(1.0, float(squares.sum()) ** 2 / total) if total > 0 else 1.0


def _cosine(first: FloatArray, second: FloatArray) -> float:
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / scale if scale > 0 else 0.0
