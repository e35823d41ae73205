"""Intervals, and the interval of one rate."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binomtest


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval, closed at both ends."""

    low: float
    high: float
    level: float
    """Confidence level, 0 to 1."""

    def __post_init__(self) -> None:
        if not self.low <= self.high:  # also refuses NaN
            raise ValueError(f"not an interval: {self.low} to {self.high}")
        if not 0 < self.level < 1:
            raise ValueError(f"a confidence level lies between 0 and 1, not {self.level}")

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def excludes_effect(self, smallest_effect: float) -> bool:
        """Whether the whole interval lies strictly inside (-smallest_effect, +smallest_effect)."""
        return -smallest_effect < self.low and self.high < smallest_effect

    def negated(self) -> Interval:
        """Return the interval of the same quantity with its sign turned round."""
        return Interval(-self.high, -self.low, self.level)

    def to_json(self) -> dict[str, float]:
        """JSON-able form."""
        return {"low": self.low, "high": self.high, "level": self.level}


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927), from scipy.

    Raises ValueError when there are no trials or the count is outside 0..n.
    """
    found = binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    return Interval(float(found.low), float(found.high), level)
