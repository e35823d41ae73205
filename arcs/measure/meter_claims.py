"""The claim "the edit shifts an axis of the meter", held to its gate.

Contrasts are nats per token, which have no natural size, so a shift is held against the spread of
the base's own contrasts over items: it matters from ``smallest_effect.meter`` standard deviations
on. The p-value is that of the shift (random signs), corrected for the axes of the condition (Holm).
"""

from __future__ import annotations

from typing import Any

from arcs.claims import ReasonCode, Verdict
from arcs.explanations import why
from arcs.gates import Gates
from evals.meter_scores import AxisScore, AxisShift
from evals.statistics.power_means import paired_items
from evals.statistics.sign_flips import smallest_sign_flip_p

NULL = "an edit moves an item's contrast either way"


def meter_claim(
    axis: str,
    base: AxisScore,
    shift: AxisShift,
    gates: Gates,
    *,
    trained_on_test: bool = False,
    smallest: float | None = None,
) -> dict[str, Any]:
    """One axis of one condition, JSON-able; ``delta`` and ``interval`` in nats per token.

    ``smallest``: the shift that matters, in nats per token, where it was fixed before these
    readings; None: it is taken from the base's own.
    """
    if smallest is None and base.deviation:
        smallest = gates.smallest_effect.meter * base.deviation
    verdict, reason = _verdict(shift, smallest, gates)
    if trained_on_test:
        verdict, reason = Verdict.INVALID, ReasonCode.TRAIN_TEST_OVERLAP
    settles = _n_to_settle(shift, smallest, gates) if reason is ReasonCode.UNDERPOWERED else None
    size = "" if smallest is None else f" = {smallest:.3f} nats per token"
    interval = shift.interval
    return {
        "statement": f"the edit shifts {axis} on the meter (a shift that matters: "
        f"{gates.smallest_effect.meter:g} standard deviations of the base{size})",
        "quantity": f"{axis} on the meter",
        "verdict": verdict.value,
        "reasons": [reason.value],
        "explanation": _explanation(shift, reason, settles),
        "n_items": shift.n,
        "delta": shift.mean,
        "interval": None if interval is None else interval.to_json(),
        "standardised": None if not base.deviation else shift.mean / base.deviation,
        "p_value": shift.p_holm,
        "null": NULL,
        "gate": {"smallest_effect": smallest, "alpha": gates.test.alpha},
        "n_to_settle": settles,
    }


def _verdict(shift: AxisShift, smallest: float | None, gates: Gates) -> tuple[Verdict, ReasonCode]:
    # one item, or all of them alike: no spread to hold a shift against; or so few that no signs of
    # theirs are rare enough, and a bootstrap's interval is too short
    if smallest is None or smallest_sign_flip_p(shift.n) >= gates.test.alpha:
        return Verdict.INCONCLUSIVE, ReasonCode.UNDERPOWERED
    if shift.unchanged == shift.n:
        return Verdict.REFUTED, ReasonCode.EFFECT_EXCLUDED
    if shift.interval is None:
        return Verdict.INCONCLUSIVE, ReasonCode.UNDERPOWERED
    if shift.p_holm < gates.test.alpha and abs(shift.mean) >= smallest:
        return Verdict.SUPPORTED, ReasonCode.EFFECT_SHOWN
    if shift.interval.excludes_effect(smallest):
        return Verdict.REFUTED, ReasonCode.EFFECT_EXCLUDED
    return Verdict.INCONCLUSIVE, ReasonCode.UNDERPOWERED


def _explanation(shift: AxisShift, reason: ReasonCode, settles: int | None) -> str:
    interval = shift.interval
    between = "" if interval is None else f" [{interval.low:+.3f}, {interval.high:+.3f}]"
    parts = [
        why(reason),
        f"shift {shift.mean:+.3f} nats per token{between}, p = {shift.p_holm:.2g} (Holm), "
        f"{shift.up} of {shift.n} items rose",
    ]
    if settles is not None:
        parts.append(f"about {settles:,} items would show a shift that matters")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _n_to_settle(shift: AxisShift, smallest: float | None, gates: Gates) -> int | None:
    """Items at which the paired t test finds a shift that matters with the wanted power."""
    if smallest is None or not shift.deviation:
        return None
    test = gates.test
    return paired_items(smallest / shift.deviation, shift.n, alpha=test.alpha, power=test.power)
