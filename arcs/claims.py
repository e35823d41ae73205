"""A claim's verdict: the vocabulary, and the rule for a paired difference.

Two levels are kept apart. A *statistic* is held to its gate and is SUPPORTED, REFUTED or
INCONCLUSIVE. A *claim* rests on a statistic, and is INVALID when its instrument failed,
whatever the statistic says: the paper's artifact at n_predict 512 has McNemar p = 4.9e-6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from arcs.gates import Gates
from evals.statistics import (
    Interval,
    PairedCounts,
    mcnemar_exact,
    n_to_exclude,
    n_to_settle,
    tango_interval,
)


class Verdict(StrEnum):
    """What became of a claim."""

    SUPPORTED = "SUPPORTED"
    REFUTED = "REFUTED"
    """The interval excludes the smallest effect that matters. "p > 0.05" refutes nothing."""
    INCONCLUSIVE = "INCONCLUSIVE"
    INVALID = "INVALID"
    """The instrument failed."""


class ReasonCode(StrEnum):
    """Why a claim got its verdict."""

    EFFECT_SHOWN = "effect_shown"
    EFFECT_EXCLUDED = "effect_excluded"
    UNDERPOWERED = "underpowered"
    FLOOR = "floor"
    CEILING = "ceiling"
    UNFINISHED_ANSWERS = "unfinished_answers"
    """The effect is excluded as the answers stand, but not for every way they could end."""
    FINISH_REASONS_UNKNOWN = "finish_reasons_unknown"
    """Nothing stored tells whether truncation made the result."""
    TRUNCATED = "truncated"
    TRUNCATION_ARTIFACT = "truncation_artifact"
    INFRASTRUCTURE = "infrastructure"
    DIFFERENT_ITEMS = "different_items"
    INSTRUMENT_DIFFERS = "instrument_differs"
    MIXED_INSTRUMENTS = "mixed_instruments"
    """Labels that are compared were given by different judges, prompts or cuts."""
    MIXED_RUNS = "mixed_runs"
    """Numbers that are presented as one result come from different runs."""
    JUDGE_NOT_VALID = "judge_not_valid"
    CONSTANT_CLASS = "constant_class"
    """The instrument returned one class only, and could not return another."""
    IN_SAMPLE = "in_sample"
    """A direction, threshold or model was scored on the items it was fitted on."""
    TRAIN_TEST_OVERLAP = "train_test_overlap"
    REPEATED_ITEMS = "repeated_items"
    """Some items are others again, so that fewer are there than are counted."""
    MISALIGNED = "misaligned"
    """Labels were joined to the wrong items."""
    NOT_PUBLISHED = "not_published"
    SELECTED_WITHOUT_NULL = "selected_without_null"
    """The largest of many, compared with what one alone would give."""
    CHOSEN_ON_TEST = "chosen_on_test"
    NO_SIGNAL_IN_TRAINING = "no_signal_in_training"
    NOT_REPLICATED = "not_replicated"
    UNIFORM_OUTPUT = "uniform_output"
    CAPABILITY_CLIFF = "capability_cliff"
    UNBALANCED = "unbalanced"
    """A gate that asserts too few of the right answers."""
    BETWEEN_KINDS = "between_kinds"
    """Shown if items were independent, but neither within kinds of item nor over whole kinds."""
    NO_POSITION = "no_position"
    """Too many answers lack the position that is read."""
    INSENSITIVE = "insensitive"
    """A planted effect was not found, so nothing is excluded."""
    PLACEBO_SHOWN = "placebo_shown"
    """The same effect is shown where there is none."""


@dataclass(frozen=True)
class Statistic:
    """A paired difference of rates, held to its gate."""

    counts: PairedCounts
    interval: Interval
    """Of the difference, edited minus base."""
    p_value: float
    """Exact McNemar, two-sided."""
    verdict: Verdict
    reason: ReasonCode
    smallest_effect: float
    """The gate: the smallest difference that matters."""

    @property
    def conclusion(self) -> int:
        """Say what is claimed: +1 a gain is shown, -1 a loss is shown, 0 neither."""
        if self.verdict is not Verdict.SUPPORTED:
            return 0
        return 1 if self.counts.delta > 0 else -1

    def n_to_settle(self, gates: Gates) -> int | None:
        """Items that would decide it; None where it is decided, or no number would.

        More items of the same benchmark do not help at its floor or ceiling.
        """
        if self.reason is not ReasonCode.UNDERPOWERED:
            return None
        return n_to_settle(*self._plan(gates), alpha=gates.test.alpha, power=gates.test.power)

    def n_to_exclude(self, gates: Gates) -> int | None:
        """Items that would exclude an effect that matters, if there is none."""
        return n_to_exclude(*self._plan(gates), alpha=gates.test.alpha, power=gates.test.power)

    def _plan(self, gates: Gates) -> tuple[int, int, int, float]:
        counts = self.counts
        return counts.gained, counts.lost, counts.n, self.smallest_effect


def items_that_settle(
    as_read: Statistic, everywhere: Sequence[Statistic], gates: Gates
) -> int | None:
    """Items that would settle a claim as the answers stand and at every corner of the open ones.

    None where no number would: also at a floor or ceiling, where more of the same items do not
    help, whatever a corner needs. ``everywhere`` holds ``as_read``.
    """
    if as_read.reason in (ReasonCode.FLOOR, ReasonCode.CEILING):
        return None
    needed = [one.n_to_settle(gates) for one in everywhere
              if one.reason is ReasonCode.UNDERPOWERED]  # fmt: skip
    known = [n for n in needed if n is not None]
    return max(known) if known and len(known) == len(needed) else None


def paired_statistic(
    counts: PairedCounts, gates: Gates, smallest_effect: float | None = None
) -> Statistic:
    """Hold "the edit changes the rate" to its gate; by default the rate is pass@1.

    SUPPORTED needs McNemar p < alpha against no difference, and an *estimate* of at least the
    smallest effect; the true difference may be smaller, as the interval shows. REFUTED needs
    the whole interval inside the smallest effect.

    Raises ValueError when there is no complete pair.
    """
    interval = tango_interval(counts.gained, counts.lost, counts.n, gates.level)
    p_value = mcnemar_exact(counts.gained, counts.lost)
    smallest = gates.smallest_effect.pass_at_1 if smallest_effect is None else smallest_effect
    rates = (counts.base_rate, counts.edited_rate)
    alpha = gates.test.alpha
    verdict, reason = held_to_gate(rates, counts.delta, interval, p_value, smallest, alpha)
    return Statistic(counts, interval, p_value, verdict, reason, smallest)


def held_to_gate(
    rates: Sequence[float],
    delta: float,
    interval: Interval,
    p_value: float,
    smallest: float,
    alpha: float,
) -> tuple[Verdict, ReasonCode]:
    """The rule: floor and ceiling of both arms' ``rates`` first, then effect, then null.

    With both arms below the smallest effect, a drop of that size has nowhere to go, and an
    interval that "excludes" it says nothing about the edit. A difference of that size between two
    such arms is impossible, so nothing that could be SUPPORTED is lost by asking that first.
    """
    if max(rates) < smallest:
        return Verdict.INCONCLUSIVE, ReasonCode.FLOOR
    if min(rates) > 1 - smallest:
        return Verdict.INCONCLUSIVE, ReasonCode.CEILING
    if p_value < alpha and abs(delta) >= smallest:
        return Verdict.SUPPORTED, ReasonCode.EFFECT_SHOWN
    if interval.excludes_effect(smallest):
        return Verdict.REFUTED, ReasonCode.EFFECT_EXCLUDED
    return Verdict.INCONCLUSIVE, ReasonCode.UNDERPOWERED


@dataclass(frozen=True)
class ClaimVerdict:
    """A claim, its verdict, and the numbers behind it."""

    statement: str
    verdict: Verdict
    reasons: tuple[ReasonCode, ...]
    explanation: str
    """One sentence for people."""
    n_predict: int
    n_items: int
    """Complete pairs that the statistic rests on."""
    smallest_effect: float
    alpha: float
    statistic: Statistic | None
    """None where the arms could not be compared at all."""
    n_to_settle: int | None
    """Items in all that would settle an INCONCLUSIVE claim; None where no number would."""
    n_to_exclude: int | None = None
    """Where that is None because the difference lies at the border of what matters: items in
    all that would exclude an effect that matters, if there is none."""
    quantity: str = "pass@1"
    """The rate that is compared."""

    @property
    def delta(self) -> float | None:
        """Difference of the rate, edited minus base."""
        return self.statistic.counts.delta if self.statistic else None

    @property
    def interval(self) -> Interval | None:
        """Interval of :attr:`delta`."""
        return self.statistic.interval if self.statistic else None

    @property
    def p_value(self) -> float | None:
        """Exact McNemar p of the difference."""
        return self.statistic.p_value if self.statistic else None

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        statistic = self.statistic
        return {
            "statement": self.statement,
            "verdict": self.verdict.value,
            "reasons": [reason.value for reason in self.reasons],
            "explanation": self.explanation,
            "n_predict": self.n_predict,
            "n_items": self.n_items,
            "delta": self.delta,
            "interval": self.interval.to_json() if self.interval else None,
            "p_value": self.p_value,
            "null": f"equal {self.quantity}: discordant items fall either way with probability 1/2",
            "gate": {"smallest_effect": self.smallest_effect, "alpha": self.alpha},
            "statistic_verdict": statistic.verdict.value if statistic else None,
            "statistic_reason": statistic.reason.value if statistic else None,
            "n_to_settle": self.n_to_settle,
            "n_to_exclude": self.n_to_exclude,
        }
