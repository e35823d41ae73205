"""What a group of recomputed numbers is, and intervals in the form groups give them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike
from statsmodels.stats.proportion import confint_proportions_2indep

from arcs.reproduction.artifacts import Artifacts
from evals.statistics.auc import auc, delong_interval, hanley_mcneil_interval
from evals.statistics.bootstrap import bootstrap_mean
from evals.statistics.differences import difference_of_rates
from evals.statistics.rates import Interval, wilson

Values = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Numbers that one computation makes from the same files."""

    files: tuple[str, ...]
    """Names of the published files it reads."""
    compute: Callable[[Artifacts], Values]


def with_interval(value: float, interval: Interval, method: str, n: int) -> Values:
    """Return one statistic with its interval, as rows read it."""
    return {
        "value": value,
        "interval": [interval.low, interval.high],
        "level": interval.level,
        "method": method,
        "n": n,
    }


def rate(successes: int, n: int, scale: float = 1.0) -> Values:
    """A rate with Wilson's interval, times ``scale`` (100 for percent)."""
    found = wilson(successes, n)
    scaled = Interval(found.low * scale, found.high * scale, found.level)
    return with_interval(scale * successes / n, scaled, "Wilson", n)


def mean(values: ArrayLike, n: int, scale: float = 1.0) -> Values:
    """A mean with its BCa bootstrap interval, times ``scale``."""
    found = bootstrap_mean(values)
    scaled = Interval(found.low * scale, found.high * scale, found.level)
    total = float(sum(values))  # type: ignore[arg-type]
    return with_interval(scale * total / n, scaled, "BCa bootstrap", n)


def rates_apart(first: tuple[int, int], second: tuple[int, int], scale: float = 1.0) -> Values:
    """Second rate minus first, each (successes, n), with Newcombe's interval and Fisher's p."""
    found = difference_of_rates(*first, *second)
    low, high = scale * found.interval.low, scale * found.interval.high
    interval = Interval(low, high, found.interval.level)
    values = with_interval(scale * found.value, interval, "Newcombe", first[1] + second[1])
    return {**values, "p": found.p_value}


def rate_ratio(first: tuple[int, int], second: tuple[int, int]) -> Values:
    """How many times larger the first rate is, each (successes, n).

    With the score interval of Miettinen and Nurminen 1985, from statsmodels.
    """
    value = (first[0] / first[1]) / (second[0] / second[1])
    low, high = confint_proportions_2indep(*first, *second, method="score", compare="ratio")
    interval = Interval(float(low), float(high), 0.95)
    return with_interval(value, interval, "score, of a ratio", first[1] + second[1])


def scored_auc(scores: ArrayLike, labels: ArrayLike) -> Values:
    """An AUC from its scores, with DeLong's interval."""
    n = len(list(labels))  # type: ignore[arg-type]
    return with_interval(auc(scores, labels), delong_interval(scores, labels), "DeLong", n)


def published_auc(value: float, n_positive: int, n_negative: int) -> Values:
    """An AUC whose scores are not published, with the interval of Hanley and McNeil."""
    found = hanley_mcneil_interval(value, n_positive, n_negative)
    n = n_positive + n_negative
    return {
        **with_interval(value, found, "Hanley-McNeil", n),
        "n_pos": n_positive,
        "n_neg": n_negative,
    }
