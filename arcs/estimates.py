"""Verdicts on any estimated quantity: rates, AUC, differences (DESIGN section 5).

Two levels are kept apart. A *statistic* is an estimate with its interval, held to a smallest
effect that matters or to a gate. A *claim* rests on a statistic: an instrument fault makes it
INVALID whatever the statistic says, and a doubt (data that are not published, a maximum that
was selected without a null) leaves it INCONCLUSIVE at best. The paired comparison of pass@1
has its own rules (floor, ceiling, unfinished answers) in :mod:`arcs.claims`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from arcs.claims import ReasonCode, Verdict
from evals.statistics.rates import Interval

FAULTS = frozenset(
    {
        ReasonCode.TRUNCATED,
        ReasonCode.TRUNCATION_ARTIFACT,
        ReasonCode.INFRASTRUCTURE,
        ReasonCode.DIFFERENT_ITEMS,
        ReasonCode.INSTRUMENT_DIFFERS,
        ReasonCode.MIXED_INSTRUMENTS,
        ReasonCode.MIXED_RUNS,
        ReasonCode.JUDGE_NOT_VALID,
        ReasonCode.CONSTANT_CLASS,
        ReasonCode.IN_SAMPLE,
        ReasonCode.TRAIN_TEST_OVERLAP,
        ReasonCode.REPEATED_ITEMS,
        ReasonCode.MISALIGNED,
        ReasonCode.NO_POSITION,
    }
)
"""Instrument faults: a claim that rests on one is INVALID."""

DOUBTS = frozenset(
    {
        ReasonCode.FLOOR,
        ReasonCode.CEILING,
        ReasonCode.UNFINISHED_ANSWERS,
        ReasonCode.FINISH_REASONS_UNKNOWN,
        ReasonCode.NOT_PUBLISHED,
        ReasonCode.SELECTED_WITHOUT_NULL,
        ReasonCode.CHOSEN_ON_TEST,
        ReasonCode.NO_SIGNAL_IN_TRAINING,
        ReasonCode.NOT_REPLICATED,
        ReasonCode.UNIFORM_OUTPUT,
        ReasonCode.CAPABILITY_CLIFF,
        ReasonCode.PLACEBO_SHOWN,
    }
)
"""Reasons that leave a claim undecided, whatever its statistic says."""


class GateState(StrEnum):
    """What became of a gate."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_DECIDABLE = "not decidable"


@dataclass(frozen=True)
class Gate:
    """A threshold that a quantity must reach."""

    name: str
    threshold: float
    at_least: bool = True
    """Passed at or above the threshold; otherwise at or below it."""


def hold_to_gate(interval: Interval, gate: Gate) -> GateState:
    """Passed or failed only where the whole interval is on one side of the threshold."""
    if gate.at_least:
        passed, failed = interval.low >= gate.threshold, interval.high < gate.threshold
    else:
        passed, failed = interval.high <= gate.threshold, interval.low > gate.threshold
    if passed:
        return GateState.PASSED
    return GateState.FAILED if failed else GateState.NOT_DECIDABLE


class Direction(StrEnum):
    """Which way a claim says that a quantity differs from its null value."""

    EITHER = "either"
    MORE = "more"
    LESS = "less"


@dataclass(frozen=True)
class Estimate:
    """A number with its interval and its null value."""

    quantity: str
    value: float
    interval: Interval
    interval_method: str
    n: int
    """Items the number rests on."""
    null: float = 0.0
    """Value without any effect: 0 for a difference, 0.5 for an AUC."""
    p_value: float | None = None
    """Two-sided, against ``null``; None: the interval alone decides."""
    test: str | None = None
    """What ``p_value`` comes from."""

    def __post_init__(self) -> None:
        if self.value not in self.interval:
            raise ValueError(f"{self.quantity}: {self.value} lies outside its own {self.interval}")

    def significant(self, alpha: float) -> bool:
        """Whether the null value is rejected, by the test where there is one."""
        if self.p_value is not None:
            return self.p_value < alpha
        return self.null not in self.interval

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "quantity": self.quantity,
            "value": self.value,
            "interval": self.interval.to_json(),
            "interval_method": self.interval_method,
            "n": self.n,
            "null": self.null,
            "p_value": self.p_value,
            "test": self.test,
        }


def judge(
    estimate: Estimate,
    smallest_effect: float,
    *,
    alpha: float = 0.05,
    direction: Direction = Direction.EITHER,
) -> tuple[Verdict, ReasonCode]:
    """Hold "the quantity differs from its null by at least the smallest effect" to the data.

    SUPPORTED: significant, and at least that large in the claimed direction. REFUTED: the
    interval holds no value that far from the null in that direction. Else INCONCLUSIVE.
    """
    if smallest_effect <= 0:
        raise ValueError(f"a smallest effect is above 0, not {smallest_effect}")
    above, below = estimate.null + smallest_effect, estimate.null - smallest_effect
    enough = {
        Direction.MORE: estimate.value >= above,
        Direction.LESS: estimate.value <= below,
        Direction.EITHER: estimate.value >= above or estimate.value <= below,
    }[direction]
    if enough and estimate.significant(alpha):
        return Verdict.SUPPORTED, ReasonCode.EFFECT_SHOWN
    excludes_more, excludes_less = estimate.interval.high < above, estimate.interval.low > below
    excluded = {
        Direction.MORE: excludes_more,
        Direction.LESS: excludes_less,
        Direction.EITHER: excludes_more and excludes_less,
    }[direction]
    if excluded:
        return Verdict.REFUTED, ReasonCode.EFFECT_EXCLUDED
    return Verdict.INCONCLUSIVE, ReasonCode.UNDERPOWERED


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its verdict and what it rests on."""

    statement: str
    verdict: Verdict
    reasons: tuple[ReasonCode, ...]
    estimate: Estimate | None
    statistic_verdict: Verdict | None
    """What the statistic alone would say; None where there is no number to judge."""
    smallest_effect: float | None
    n_to_settle: int | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "statement": self.statement,
            "verdict": self.verdict.value,
            "reasons": [reason.value for reason in self.reasons],
            "estimate": self.estimate.to_json() if self.estimate else None,
            "statistic_verdict": self.statistic_verdict.value if self.statistic_verdict else None,
            "smallest_effect": self.smallest_effect,
            "n_to_settle": self.n_to_settle,
        }


def judge_claim(
    statement: str,
    estimate: Estimate | None,
    smallest_effect: float | None,
    *,
    faults: Sequence[ReasonCode] = (),
    doubts: Sequence[ReasonCode] = (),
    alpha: float = 0.05,
    direction: Direction = Direction.EITHER,
    n_to_settle: int | None = None,
) -> JudgedClaim:
    """Validity first, then doubts, then the statistic.

    Raises ValueError for a reason that is no fault or no doubt, and for a claim without an
    estimate, fault or doubt: nothing at all would be said of it.
    """
    _check_reasons(faults, FAULTS, "fault")
    _check_reasons(doubts, DOUBTS, "doubt")
    if estimate is None and not faults and not doubts:
        raise ValueError(f"nothing to judge: {statement}")
    alone: tuple[Verdict, ReasonCode] | None = None
    if estimate is not None:
        if smallest_effect is None:
            raise ValueError(f"an estimate is judged against a smallest effect: {statement}")
        alone = judge(estimate, smallest_effect, alpha=alpha, direction=direction)
    if faults:
        verdict, reasons = Verdict.INVALID, tuple(faults)
    elif alone is None or doubts:
        open_too = (alone[1],) if alone and alone[0] is Verdict.INCONCLUSIVE else ()
        verdict, reasons = Verdict.INCONCLUSIVE, (*doubts, *open_too)
    else:
        verdict, reasons = alone[0], (alone[1],)
    settles = n_to_settle if verdict is Verdict.INCONCLUSIVE else None
    return JudgedClaim(
        statement, verdict, reasons, estimate, alone and alone[0], smallest_effect, settles
    )


def _check_reasons(
    reasons: Sequence[ReasonCode], allowed: frozenset[ReasonCode], kind: str
) -> None:
    for reason in reasons:
        if reason not in allowed:
            raise ValueError(f"{reason.value} is no {kind}")
