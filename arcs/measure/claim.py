"""The claim "the edit changes the accuracy on short answers", held to its gate.

The same rules as for pass@1 (arcs/verdicts.py), with the smallest effect that matters for a
rate: an answer that was cut before it was settled may be right or wrong, and the claim is INVALID
where the conclusion depends on that.
"""

from __future__ import annotations

from collections.abc import Sequence

from arcs.claims import (
    ClaimVerdict,
    ReasonCode,
    Statistic,
    Verdict,
    items_that_settle,
    paired_statistic,
)
from arcs.explanations import explain
from arcs.gates import Gates
from evals.statistics import paired_counts
from evals.truncation import ArmBounds, corners

QUANTITY = "accuracy"


def claim_of(
    base: ArmBounds,
    edited: ArmBounds,
    base_right: Sequence[bool],
    edited_right: Sequence[bool],
    n_predict: int,
    gates: Gates,
    *,
    trained_on_test: bool = False,
) -> ClaimVerdict:
    """Judge the paired results as they are read, and at the four corners of the open answers.

    Raises ValueError where there are no items, or the arms differ in length.
    """
    smallest = gates.smallest_effect.rate
    as_read = paired_statistic(paired_counts(base_right, edited_right), gates, smallest)
    at_corners = [
        paired_statistic(paired_counts(corner.base, corner.edited), gates, smallest)
        for corner in corners(base, edited)
    ]
    everywhere = [as_read, *at_corners]
    verdict, reason = _verdict(as_read, everywhere)
    if trained_on_test:
        verdict, reason = Verdict.INVALID, ReasonCode.TRAIN_TEST_OVERLAP
    settles = (
        items_that_settle(as_read, everywhere, gates) if verdict is Verdict.INCONCLUSIVE else None
    )
    excludes = None
    if settles is None and reason is ReasonCode.UNDERPOWERED:
        excludes = as_read.n_to_exclude(gates)
    return ClaimVerdict(
        statement=f"the edit changes the accuracy on short answers at n_predict {n_predict} "
        f"(a change that matters: {100 * smallest:g} points)",
        verdict=verdict,
        reasons=(reason,),
        explanation=explain(verdict, (reason,), as_read, smallest, settles, excludes),
        n_predict=n_predict,
        n_items=as_read.counts.n,
        smallest_effect=smallest,
        alpha=gates.test.alpha,
        statistic=as_read,
        n_to_settle=settles,
        n_to_exclude=excludes,
        quantity=QUANTITY,
    )


def _verdict(as_read: Statistic, everywhere: Sequence[Statistic]) -> tuple[Verdict, ReasonCode]:
    if len({statistic.conclusion for statistic in everywhere}) > 1:
        return Verdict.INVALID, ReasonCode.TRUNCATED
    refuted_everywhere = all(one.verdict is Verdict.REFUTED for one in everywhere)
    if as_read.verdict is Verdict.REFUTED and not refuted_everywhere:
        return Verdict.INCONCLUSIVE, ReasonCode.UNFINISHED_ANSWERS
    return as_read.verdict, as_read.reason
