"""Compare two arms at several n_predict, and say what follows (DESIGN sections 4 and 5).

The claim is always "the edit changes pass@1, in either direction", held to the smallest effect
that matters, once for each n_predict. The run's verdict is the one at the primary (the
largest) n_predict: there is one primary claim, so nothing is corrected for multiplicity. The
claims at smaller budgets are shown for comparison, and the interaction tests that can only
invalidate them are left uncorrected because that errs on the side of doubt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from arcs.claims import (
    ClaimVerdict,
    ReasonCode,
    Statistic,
    Verdict,
    items_that_settle,
    paired_statistic,
)
from arcs.comparison import ArmSummary, BudgetComparison, Comparison, CornerResult
from arcs.explanations import explain, statement
from arcs.gates import Gates, load_gates
from evals.budgets import check_budgets
from evals.humaneval.outcomes import ItemResult
from evals.statistics import (
    budget_interaction,
    minimum_detectable_effect,
    paired_counts,
    wilson,
)
from evals.truncation import ArmBounds, bound_arm, corners
from models.errors import UserError

__all__ = [
    "ArmSummary",
    "BudgetComparison",
    "ClaimVerdict",
    "Comparison",
    "CornerResult",
    "Gates",
    "ReasonCode",
    "Statistic",
    "Verdict",
    "compare",
    "load_gates",
    "summarise",
]

Results = Mapping[int, Sequence[ItemResult]]
"""n_predict -> the results of all items at it."""


def compare(
    base: Results,
    edited: Results,
    gates: Gates,
    *,
    base_settings: str,
    edited_settings: str,
    finish_reasons_known: bool = True,
    trained_on_test: bool = False,
) -> Comparison:
    """Compare an edited model with its base on the same items at the same budgets.

    ``base_settings`` and ``edited_settings`` are hashes of everything that must not differ
    between the arms (prompt template, decoding, engine, quantisation, sandbox); claims are
    INVALID(instrument_differs) when they do. With ``finish_reasons_known=False`` (results
    that never stored them) only the budget-by-arm interaction tells of truncation.
    With ``trained_on_test`` evaluated items were trained on, and every claim is
    INVALID(train_test_overlap). Everything is exact: the same results give the same
    comparison, without a seed.
    Raises UserError when budgets are not the same, or an item occurs twice.
    """
    if set(base) != set(edited):
        raise UserError(
            f"the arms were evaluated at different n_predict, {sorted(base)} and "
            f"{sorted(edited)}: evaluate both at the same"
        )
    budgets = check_budgets(sorted(base))
    design = _Design(
        base=_Arm.of(base, budgets, "base"),
        edited=_Arm.of(edited, budgets, "edited"),
        settings_differ=base_settings != edited_settings,
        reasons_known=finish_reasons_known,
        trained_on_test=trained_on_test,
    )
    return Comparison(tuple(_compare_at(n, design, gates) for n in budgets), gates)


def summarise(results: Results, gates: Gates) -> dict[int, ArmSummary]:
    """One arm alone, at each of its budgets. Raises UserError where an item occurs twice."""
    budgets = check_budgets(sorted(results))
    arm = _Arm.of(results, budgets, "only")
    same = len(arm.items) == 1
    return {n: arm.summary(n, gates.level, same, reasons_known=True) for n in budgets}


@dataclass(frozen=True)
class _Arm:
    """One arm's results, each budget sorted by item id."""

    budgets: tuple[int, ...]
    results: Mapping[int, tuple[ItemResult, ...]]
    items: frozenset[tuple[str, ...]]
    """The item ids at each budget: one element when all budgets hold the same items."""

    @classmethod
    def of(cls, results: Results, budgets: tuple[int, ...], name: str) -> _Arm:
        for n in budgets:
            if not results[n]:
                raise UserError(f"the {name} arm has no results at n_predict {n}")
            item, times = Counter(r.item_id for r in results[n]).most_common(1)[0]
            if times > 1:
                raise UserError(f"{item} occurs {times} times in the {name} arm at n_predict {n}")
        ordered = {n: tuple(sorted(results[n], key=lambda r: r.item_id)) for n in budgets}
        items = frozenset(tuple(r.item_id for r in at_n) for at_n in ordered.values())
        return cls(budgets, ordered, items)

    @property
    def primary(self) -> int:
        return self.budgets[-1]

    def passes(self, n: int) -> list[bool | None]:
        return [result.passed for result in self.results[n]]

    def bounds(self, n: int) -> ArmBounds:
        larger = [self.results[m] for m in self.budgets if m > n]
        return bound_arm(self.results[n], larger)

    def summary(self, n: int, level: float, same_items: bool, reasons_known: bool) -> ArmSummary:
        results = self.results[n]
        passes = self.passes(n)
        passed, counted = passes.count(True), len(passes) - passes.count(None)
        at_primary = {r.item_id: r.answer_sha for r in self.results[self.primary]}
        return ArmSummary(
            n_items=len(results),
            passed=passed,
            missing=passes.count(None),
            rate=passed / counted if counted else None,
            interval=wilson(passed, counted, level) if counted else None,
            outcomes=Counter(r.outcome for r in results),
            truncated=sum(r.truncated for r in results) if reasons_known else None,
            loops=sum(r.truncated and r.loop for r in results) if reasons_known else None,
            unfinished=sum(r.unfinished for r in results) if reasons_known else None,
            resolved=self.bounds(n).resolved if reasons_known and same_items else None,
            changed=sum(r.answer_sha != at_primary.get(r.item_id) for r in results),
        )


@dataclass(frozen=True)
class _Design:
    """What does not depend on the budget."""

    base: _Arm
    edited: _Arm
    settings_differ: bool
    reasons_known: bool
    trained_on_test: bool

    @property
    def same_items(self) -> bool:
        """Whether both arms hold the same items at every budget."""
        return len(self.base.items | self.edited.items) == 1

    @property
    def only_budget(self) -> bool:
        return len(self.base.budgets) == 1

    def summary(self, arm: _Arm, n: int, level: float) -> ArmSummary:
        return arm.summary(n, level, self.same_items, self.reasons_known)


def _compare_at(n: int, design: _Design, gates: Gates) -> BudgetComparison:
    base, edited, same_items = design.base, design.edited, design.same_items
    counts = paired_counts(base.passes(n), edited.passes(n)) if same_items else None
    statistic = paired_statistic(counts, gates) if counts and counts.n else None
    bounded = statistic is not None and design.reasons_known
    found = _Found(
        n_predict=n,
        design=design,
        missing_share=counts.missing_share if counts else None,
        statistic=statistic,
        corners=_corner_results(n, base, edited, gates) if bounded else (),
        interaction_p=_interaction(n, base, edited) if same_items else None,
    )
    return BudgetComparison(
        n_predict=n,
        base=design.summary(base, n, gates.level),
        edited=design.summary(edited, n, gates.level),
        statistic=statistic,
        minimum_detectable_effect=_detectable(statistic, gates),
        corners=found.corners,
        interaction_p=found.interaction_p,
        claim=_claim(found, gates),
    )


def _corner_results(n: int, base: _Arm, edited: _Arm, gates: Gates) -> tuple[CornerResult, ...]:
    return tuple(
        CornerResult(
            corner.base_unfinished_pass,
            corner.edited_unfinished_pass,
            paired_statistic(paired_counts(corner.base, corner.edited), gates),
        )
        for corner in corners(base.bounds(n), edited.bounds(n))
    )


def _interaction(n: int, base: _Arm, edited: _Arm) -> float | None:
    if n == base.primary:
        return None
    return budget_interaction(
        base.passes(n), edited.passes(n), base.passes(base.primary), edited.passes(base.primary)
    )


def _detectable(statistic: Statistic | None, gates: Gates) -> float | None:
    if statistic is None:
        return None
    counts, test = statistic.counts, gates.test
    return minimum_detectable_effect(
        counts.gained, counts.lost, counts.n, alpha=test.alpha, power=test.power
    )


@dataclass(frozen=True)
class _Found:
    """All that the verdict at one n_predict rests on."""

    n_predict: int
    design: _Design
    missing_share: float | None
    statistic: Statistic | None
    corners: tuple[CornerResult, ...]
    interaction_p: float | None

    @property
    def all_statistics(self) -> list[Statistic]:
        """As the answers stand, and at the four corners."""
        as_is = [self.statistic] if self.statistic else []
        return as_is + [corner.statistic for corner in self.corners]


def _claim(found: _Found, gates: Gates) -> ClaimVerdict:
    """Validity first; the statistic's own verdict stands only when nothing speaks against it."""
    faults = _faults(found, gates)
    verdict, reasons = (Verdict.INVALID, faults) if faults else _valid_verdict(found)
    settles = _n_to_settle(found, gates) if verdict is Verdict.INCONCLUSIVE else None
    excludes = None
    if found.statistic and settles is None and reasons == (ReasonCode.UNDERPOWERED,):
        excludes = found.statistic.n_to_exclude(gates)
    smallest = gates.smallest_effect.pass_at_1
    return ClaimVerdict(
        statement=statement(smallest, found.n_predict),
        verdict=verdict,
        reasons=reasons,
        explanation=explain(verdict, reasons, found.statistic, smallest, settles, excludes),
        n_predict=found.n_predict,
        n_items=found.statistic.counts.n if found.statistic else 0,
        smallest_effect=smallest,
        alpha=gates.test.alpha,
        statistic=found.statistic,
        n_to_settle=settles,
        n_to_exclude=excludes,
    )


def _faults(found: _Found, gates: Gates) -> tuple[ReasonCode, ...]:
    """Instrument faults, every one that applies."""
    faults = []
    if not found.design.same_items:
        faults.append(ReasonCode.DIFFERENT_ITEMS)
    if found.design.trained_on_test:
        faults.append(ReasonCode.TRAIN_TEST_OVERLAP)
    if found.design.settings_differ:
        faults.append(ReasonCode.INSTRUMENT_DIFFERS)
    if found.missing_share is not None and found.missing_share > gates.validity.max_missing_share:
        faults.append(ReasonCode.INFRASTRUCTURE)
    # What is concluded is that a gain, a loss, or neither is shown. That an effect is excluded
    # as the answers stand but not in some corner is no reversal: see _valid_verdict.
    if len({statistic.conclusion for statistic in found.all_statistics}) > 1:
        faults.append(ReasonCode.TRUNCATED)
    interaction = found.interaction_p
    if interaction is not None and interaction < gates.validity.interaction_alpha:
        faults.append(ReasonCode.TRUNCATION_ARTIFACT)
    return tuple(faults)


def _valid_verdict(found: _Found) -> tuple[Verdict, tuple[ReasonCode, ...]]:
    """Verdict of a claim whose instrument has no known fault."""
    statistic = found.statistic
    if statistic is None:
        raise ValueError("a claim without a statistic has a fault")
    if not found.design.reasons_known:
        # With one budget there is no interaction either: whether truncation made the result
        # is not decidable, and so nothing is.
        unknown = ReasonCode.FINISH_REASONS_UNKNOWN
        if found.design.only_budget:
            return Verdict.INCONCLUSIVE, (unknown, statistic.reason)
        return statistic.verdict, (statistic.reason, unknown)
    refuted_everywhere = all(s.verdict is Verdict.REFUTED for s in found.all_statistics)
    if statistic.verdict is Verdict.REFUTED and not refuted_everywhere:
        return Verdict.INCONCLUSIVE, (ReasonCode.UNFINISHED_ANSWERS,)
    return statistic.verdict, (statistic.reason,)


def _n_to_settle(found: _Found, gates: Gates) -> int | None:
    unknowable = not found.design.reasons_known and found.design.only_budget
    if unknowable or found.statistic is None:
        return None
    return items_that_settle(found.statistic, found.all_statistics, gates)
