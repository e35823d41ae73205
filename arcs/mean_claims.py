"""Claims about the mean of whole-number scores: claims covered, points of a rubric, yes or no.

The rules of :mod:`arcs.claims`. Items are the units. Scores are whole numbers from 0 to ``scale``
and means are given as shares of it, so that one smallest effect fits all. The paired test flips
the signs of items' differences (exact; of yes and no it is McNemar's); the interval is Tango's for
yes and no, else BCa over items. An unfinished answer has a lowest and a highest score that it could
have ended with: a claim whose conclusion depends on that is INVALID (truncated).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from arcs.claims import ReasonCode, Verdict, held_to_gate
from arcs.explanations import why
from arcs.gates import Gates
from arcs.sampled_arms import difference_interval
from evals.statistics.paired import tango_interval
from evals.statistics.power_means import paired_items
from evals.statistics.rates import Interval
from evals.statistics.sign_flips import sign_flip_p_value, smallest_sign_flip_p

Scores = Sequence[int | None]
"""One arm's in item order; None: no label."""
NULL = "an item's difference is as likely to have one sign as the other"


@dataclass(frozen=True)
class Scored:
    """One arm at one n_predict."""

    as_read: tuple[int | None, ...]
    low: tuple[int | None, ...]
    """The least that each answer could end with; of finished ones what was read."""
    high: tuple[int | None, ...]

    @classmethod
    def of(
        cls, as_read: Scores, unfinished: Sequence[bool], scale: int, *, keeps: bool = False
    ) -> Scored:
        """``keeps``: what is said cannot be lost by going on (a claim that is stated)."""
        low, high = list(as_read), list(as_read)
        for place, (score, is_open) in enumerate(zip(as_read, unfinished, strict=True)):
            if is_open and score is not None:
                low[place], high[place] = (score if keeps else 0), scale
        return cls(tuple(as_read), tuple(low), tuple(high))


@dataclass(frozen=True)
class MeanDifference:
    """Edited minus base, as a share of the scale, over items that both arms have a score of."""

    delta: float
    interval: Interval
    p_value: float
    n_items: int
    means: tuple[float, float]
    gained: int
    """Items whose score rose."""
    lost: int
    deviation: float
    """Standard deviation of the items' differences; 0 where nothing varies."""
    verdict: Verdict
    reason: ReasonCode

    @property
    def conclusion(self) -> int:
        """What is claimed: +1 a gain is shown, -1 a loss is shown, 0 neither."""
        if self.verdict is not Verdict.SUPPORTED:
            return 0
        return 1 if self.delta > 0 else -1


@dataclass(frozen=True)
class MeanClaim:
    """The claim "the edit changes the mean" at one n_predict."""

    quantity: str
    n_predict: int
    difference: MeanDifference | None
    bounds: tuple[MeanDifference, ...]
    """In all four combinations of unfinished answers ending low or high."""
    interaction_p: float | None
    """Of the difference here against that at the largest n_predict; None there."""
    missing_share: float
    verdict: Verdict
    reasons: tuple[ReasonCode, ...]
    smallest: float
    gates: Gates

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        found, statement = self.difference, self._statement()
        return {
            "statement": statement,
            "quantity": self.quantity,
            "verdict": self.verdict.value,
            "reasons": [reason.value for reason in self.reasons],
            "explanation": self._explanation(),
            "n_predict": self.n_predict,
            "n_items": found.n_items if found else 0,
            "base": found.means[0] if found else None,
            "edited": found.means[1] if found else None,
            "delta": found.delta if found else None,
            "interval": found.interval.to_json() if found else None,
            "p_value": found.p_value if found else None,
            "gained": found.gained if found else None,
            "lost": found.lost if found else None,
            "null": NULL,
            "gate": {"smallest_effect": self.smallest, "alpha": self.gates.test.alpha},
            "statistic_verdict": found.verdict.value if found else None,
            "statistic_reason": found.reason.value if found else None,
            "bounds": [
                {"delta": one.delta, "interval": one.interval.to_json(), "p_value": one.p_value,
                 "verdict": one.verdict.value}
                for one in self.bounds
            ],
            "interaction_p": self.interaction_p,
            "missing_share": self.missing_share,
            "n_to_settle": self._n_to_settle(),
        }  # fmt: skip

    def _statement(self) -> str:
        return (
            f"the edit changes {self.quantity} at n_predict {self.n_predict} "
            f"(a change that matters: {100 * self.smallest:g} points)"
        )

    def _explanation(self) -> str:
        parts = ["; ".join(why(reason) for reason in self.reasons)]
        found, needed = self.difference, self._n_to_settle()
        if found is not None:
            parts.append(
                f"difference {100 * found.delta:+.1f} points [{100 * found.interval.low:+.1f}, "
                f"{100 * found.interval.high:+.1f}], sign-flip p = {found.p_value:.2g}, "
                f"{found.gained} rose and {found.lost} fell of {found.n_items} items"
            )
        if needed is not None:
            parts.append(f"about {needed:,} items would show a difference that matters")
        return ". ".join(part[0].upper() + part[1:] for part in parts) + "."

    def _n_to_settle(self) -> int | None:
        """Items at which a difference of the smallest effect is found with the wanted power, by
        the paired t test (statsmodels); None where more items are not what is missing."""
        found = self.difference
        if found is None or self.reasons != (ReasonCode.UNDERPOWERED,) or not found.deviation:
            return None
        test = self.gates.test
        return paired_items(
            self.smallest / found.deviation, found.n_items, alpha=test.alpha, power=test.power
        )


def mean_claims(
    arms: Sequence[Mapping[int, Scored]],
    scale: int,
    quantity: str,
    gates: Gates,
    *,
    faults: Sequence[ReasonCode] = (),
) -> list[MeanClaim]:
    """One claim at each n_predict, rising; the last is the primary one.

    ``arms``: base, then edited, by n_predict. ``faults``: what makes the claims INVALID whatever
    the numbers say. Raises ValueError where the arms differ in budgets or items.
    """
    base, edited = arms
    budgets = sorted(base)
    if sorted(edited) != budgets:
        raise ValueError("the arms hold different n_predict")
    last = budgets[-1]
    made = []
    for n in budgets:
        interaction = None
        if n != last:
            interaction = _interaction(base[n], edited[n], base[last], edited[last])
        made.append(_claim(n, base[n], edited[n], scale, quantity, gates, faults, interaction))
    return made


def _claim(
    n: int,
    base: Scored,
    edited: Scored,
    scale: int,
    quantity: str,
    gates: Gates,
    given: Sequence[ReasonCode],
    interaction: float | None,
) -> MeanClaim:
    found = mean_difference(base.as_read, edited.as_read, scale, gates)
    corners = [
        mean_difference(b, e, scale, gates)
        for b in (base.low, base.high)
        for e in (edited.low, edited.high)
    ]
    bounds = tuple(one for one in corners if one is not None)
    missing = 1 - (found.n_items if found else 0) / len(base.as_read)
    faults = list(given)
    if missing > gates.validity.max_missing_share:
        faults.append(ReasonCode.INFRASTRUCTURE)
    known = [one for one in (found, *bounds) if one is not None]
    if len({one.conclusion for one in known}) > 1:
        faults.append(ReasonCode.TRUNCATED)
    if interaction is not None and interaction < gates.validity.interaction_alpha:
        faults.append(ReasonCode.TRUNCATION_ARTIFACT)
    if faults or found is None:
        verdict, reasons = Verdict.INVALID, tuple(dict.fromkeys(faults))
    elif found.verdict is Verdict.REFUTED and any(
        one.verdict is not Verdict.REFUTED for one in known
    ):
        verdict, reasons = Verdict.INCONCLUSIVE, (ReasonCode.UNFINISHED_ANSWERS,)
    else:
        verdict, reasons = found.verdict, (found.reason,)
    smallest = gates.smallest_effect.rate
    return MeanClaim(
        quantity, n, found, bounds, interaction, missing, verdict, reasons, smallest, gates
    )


def mean_difference(
    base: Scores, edited: Scores, scale: int, gates: Gates
) -> MeanDifference | None:
    """Hold the paired difference to its gate; None where no item has both scores.

    Raises ValueError where the arms differ in length.
    """
    pairs = [(b, e) for b, e in zip(base, edited, strict=True) if b is not None and e is not None]
    if not pairs:
        return None
    steps = [e - b for b, e in pairs]
    values = [step / scale for step in steps]
    gained, lost = sum(step > 0 for step in steps), sum(step < 0 for step in steps)
    if scale == 1:
        interval = tango_interval(gained, lost, len(pairs), gates.level)
    else:
        interval = difference_interval(values, gates.level)
    means = (
        sum(b for b, _ in pairs) / (scale * len(pairs)),
        sum(e for _, e in pairs) / (scale * len(pairs)),
    )
    delta, p_value = sum(values) / len(values), sign_flip_p_value(steps)
    verdict, reason = held_to_gate(
        means, delta, interval, p_value, gates.smallest_effect.rate, gates.test.alpha
    )
    if (
        scale > 1  # Tango's interval of yes and no is wide enough on few items by itself
        and reason is ReasonCode.EFFECT_EXCLUDED
        and smallest_sign_flip_p(len(values)) >= gates.test.alpha
    ):
        verdict, reason = Verdict.INCONCLUSIVE, ReasonCode.UNDERPOWERED
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return MeanDifference(
        delta, interval, p_value, len(pairs), means, gained, lost, deviation, verdict, reason
    )


def _interaction(base: Scored, edited: Scored, base_last: Scored, edited_last: Scored) -> float:
    """The items' differences at two n_predict, subtracted: exact sign-flip p."""
    four = zip(base.as_read, edited.as_read, base_last.as_read, edited_last.as_read, strict=True)
    steps = [
        (e - b) - (f - c)
        for b, e, c, f in four
        if b is not None and e is not None and c is not None and f is not None
    ]
    return sign_flip_p_value(steps)
