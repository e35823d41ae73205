"""What an interval says about an effect of stated size: there, not there, or not known."""

from __future__ import annotations

from enum import StrEnum

from evals.statistics.rates import Interval


class Equivalence(StrEnum):
    """The three things that an interval can say."""

    EQUIVALENT = "equivalent"
    """Any effect is smaller than the smallest that matters."""
    DIFFERENT = "different"
    """The effect is at least the smallest that matters."""
    UNDECIDED = "undecided"


def equivalence(interval: Interval, smallest_effect: float, null: float = 0.0) -> Equivalence:
    """Compare an interval with the zone ``null`` - to + ``smallest_effect``, ends excluded.

    Wholly inside is EQUIVALENT, wholly beyond one end is DIFFERENT, all else is UNDECIDED. A
    p-value above 0.05 is none of the three. EQUIVALENT is the two one-sided tests of
    Schuirmann 1987, each at (1 - level) / 2: 2.5 percent for the usual interval of 95, which
    is stricter than the customary 5. Raises ValueError unless ``smallest_effect`` is above 0.
    """
    if not smallest_effect > 0:
        raise ValueError(f"the smallest effect that matters must be above 0: {smallest_effect}")
    low, high = null - smallest_effect, null + smallest_effect
    if low < interval.low and interval.high < high:
        return Equivalence.EQUIVALENT
    if interval.low >= high or interval.high <= low:
        return Equivalence.DIFFERENT
    return Equivalence.UNDECIDED
