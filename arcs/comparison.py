"""What a comparison of two arms at several n_predict consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arcs.claims import ClaimVerdict, Statistic
from arcs.gates import Gates
from evals.humaneval.outcomes import Outcome
from evals.statistics import Interval


@dataclass(frozen=True)
class ArmSummary:
    """One arm at one n_predict."""

    n_items: int
    passed: int
    missing: int
    """Items without a result (infrastructure errors); not part of the rate."""
    rate: float | None
    """pass@1; None when every item is missing."""
    interval: Interval | None
    """Wilson's, of the rate."""
    outcomes: Mapping[Outcome, int]
    truncated: int | None
    """Answers that ran out of budget, loops and unfinished ones together. This and the next
    three are None where finish reasons were never stored."""
    loops: int | None
    unfinished: int | None
    resolved: int | None
    """Unfinished answers whose end a larger budget of the same decode has shown."""
    changed: int
    """Answers that differ from the one at the primary n_predict."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        known = self.truncated is not None
        return {
            "n_items": self.n_items,
            "passed": self.passed,
            "missing": self.missing,
            "pass_at_1": self.rate,
            "interval": self.interval.to_json() if self.interval else None,
            "outcomes": {kind.value: self.outcomes[kind] for kind in Outcome},
            "truncated": self.truncated,
            "truncated_share": (self.truncated or 0) / self.n_items if known else None,
            "loops": self.loops,
            "unfinished": self.unfinished,
            "resolved_by_larger_budget": self.resolved,
            "answers_changed_from_primary": self.changed,
        }


@dataclass(frozen=True)
class CornerResult:
    """The statistic when each arm's open answers all fail or all pass."""

    base_unfinished_pass: bool
    edited_unfinished_pass: bool
    statistic: Statistic

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "base_unfinished": "pass" if self.base_unfinished_pass else "fail",
            "edited_unfinished": "pass" if self.edited_unfinished_pass else "fail",
            "delta": self.statistic.counts.delta,
            "interval": self.statistic.interval.to_json(),
            "p_value": self.statistic.p_value,
            "verdict": self.statistic.verdict.value,
        }


@dataclass(frozen=True)
class BudgetComparison:
    """Both arms at one n_predict."""

    n_predict: int
    base: ArmSummary
    edited: ArmSummary
    statistic: Statistic | None
    """None where the arms hold different items, or no pair is complete."""
    minimum_detectable_effect: float | None
    """Smallest true difference this many items would show; None where none would be."""
    corners: tuple[CornerResult, ...]
    """Empty where finish reasons were never stored or there is no statistic."""
    interaction_p: float | None
    """Budget-by-arm interaction against the primary n_predict; None at the primary itself."""
    claim: ClaimVerdict

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        counts = self.statistic.counts if self.statistic else None
        return {
            "n_predict": self.n_predict,
            "base": self.base.to_json(),
            "edited": self.edited.to_json(),
            "gained": counts.gained if counts else None,
            "lost": counts.lost if counts else None,
            "missing_pairs": counts.missing if counts else None,
            "minimum_detectable_effect": self.minimum_detectable_effect,
            "bounds": [corner.to_json() for corner in self.corners],
            "interaction_p": self.interaction_p,
            "claim": self.claim.to_json(),
        }


@dataclass(frozen=True)
class Comparison:
    """Two arms over all budgets; the last budget is the primary one."""

    budgets: tuple[BudgetComparison, ...]
    gates: Gates

    @property
    def primary(self) -> BudgetComparison:
        """The comparison at the largest n_predict."""
        return self.budgets[-1]

    @property
    def claim(self) -> ClaimVerdict:
        """The run's claim: the one at the primary n_predict."""
        return self.primary.claim

    def at(self, n_predict: int) -> BudgetComparison:
        """Return the comparison at one n_predict; raises KeyError."""
        return {budget.n_predict: budget for budget in self.budgets}[n_predict]

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "primary_n_predict": self.primary.n_predict,
            "claim": self.claim.to_json(),
            "budgets": [budget.to_json() for budget in self.budgets],
            "gates": self.gates.to_json(),
        }
