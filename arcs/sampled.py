"""Verdicts from several samples an item: pass@1 by item means, intervals clustered by item.

The counterpart of :mod:`arcs.verdicts` for one answer an item. Samples of an item are not
independent, so the item is the unit everywhere: an arm's pass@1 is the mean over items of the
share of their samples that pass; intervals resample items; the paired test flips the signs of
items' differences (exact, and for one sample McNemar's). What makes a claim INVALID, and the
bounds of unfinished answers, are as there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arcs.claims import ReasonCode, Verdict, held_to_gate
from arcs.explanations import statement, why
from arcs.gates import Gates
from arcs.sampled_arms import Passes, difference_interval, paired
from arcs.verdicts import Results
from evals.budgets import check_budgets
from evals.statistics.rates import Interval
from evals.statistics.sign_flips import sign_flip_p_value
from evals.truncation import ArmBounds, bound_arm, corners
from models.errors import UserError

NULL = "an item's difference is as likely to have one sign as the other"


@dataclass(frozen=True)
class Difference:
    """Edited minus base, over the items whose answers all have results."""

    delta: float
    interval: Interval
    p_value: float
    n_items: int
    gained: int
    """Items of which the edited arm passes more samples."""
    lost: int
    verdict: Verdict
    reason: ReasonCode

    @property
    def conclusion(self) -> int:
        """What is claimed: +1 a gain is shown, -1 a loss is shown, 0 neither."""
        if self.verdict is not Verdict.SUPPORTED:
            return 0
        return 1 if self.delta > 0 else -1


@dataclass(frozen=True)
class SampledBudget:
    """Both arms at one n_predict, and the claim there."""

    n_predict: int
    difference: Difference | None
    bounds: tuple[Difference, ...]
    """The difference in all four combinations of unfinished answers failing or passing."""
    interaction_p: float | None
    missing_share: float
    verdict: Verdict
    reasons: tuple[ReasonCode, ...]


@dataclass(frozen=True)
class SampledClaim:
    """The claim at one n_predict, in the form of :class:`arcs.claims.ClaimVerdict`."""

    budget: SampledBudget
    gates: Gates

    @property
    def reasons(self) -> tuple[ReasonCode, ...]:
        """Why it got its verdict."""
        return self.budget.reasons

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        found, smallest = self.budget.difference, self.gates.smallest_effect.pass_at_1
        return {
            "statement": statement(smallest, self.budget.n_predict),
            "verdict": self.budget.verdict.value,
            "reasons": [reason.value for reason in self.budget.reasons],
            "explanation": "; ".join(why(reason) for reason in self.budget.reasons),
            "n_predict": self.budget.n_predict,
            "n_items": found.n_items if found else 0,
            "delta": found.delta if found else None,
            "interval": found.interval.to_json() if found else None,
            "p_value": found.p_value if found else None,
            "null": NULL,
            "gate": {"smallest_effect": smallest, "alpha": self.gates.test.alpha},
            "statistic_verdict": found.verdict.value if found else None,
            "statistic_reason": found.reason.value if found else None,
        }


@dataclass(frozen=True)
class SampledComparison:
    """Two arms over all budgets; the last budget is the primary one."""

    budgets: tuple[SampledBudget, ...]
    gates: Gates

    @property
    def claim(self) -> SampledClaim:
        """The run's claim: the one at the primary n_predict."""
        return SampledClaim(self.budgets[-1], self.gates)

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "primary_n_predict": self.budgets[-1].n_predict,
            "claim": self.claim.to_json(),
            "budgets": [self._budget(one) for one in self.budgets],
            "gates": self.gates.to_json(),
        }

    def _budget(self, one: SampledBudget) -> dict[str, Any]:
        found = one.difference
        return {
            "n_predict": one.n_predict,
            "gained": found.gained if found else None,
            "lost": found.lost if found else None,
            "bounds": [
                {
                    "delta": bound.delta,
                    "interval": bound.interval.to_json(),
                    "p_value": bound.p_value,
                    "verdict": bound.verdict.value,
                }
                for bound in one.bounds
            ],
            "interaction_p": one.interaction_p,
            "missing_share": one.missing_share,
            "claim": SampledClaim(one, self.gates).to_json(),
        }


def compare_sampled(
    base: Results,
    edited: Results,
    items: Mapping[str, str],
    gates: Gates,
    *,
    base_settings: str,
    edited_settings: str,
    trained_on_test: bool = False,
) -> SampledComparison:
    """As :func:`arcs.verdicts.compare`, with several answers an item.

    ``items``: answer (the results' ``item_id``) -> its item. An item of which an answer is
    missing in either arm is left out of the differences. Raises UserError where the arms differ
    in budgets or answers.
    """
    budgets = check_budgets(sorted(base))
    names = [[row.item_id for row in arm[n]] for arm in (base, edited) for n in budgets]
    if sorted(edited) != list(budgets) or any(one != names[0] for one in names):
        raise UserError("the arms hold different n_predict or answers: evaluate both alike")
    of_item = [items[name] for name in names[0]]
    found = []
    for n in budgets:
        larger = [m for m in budgets if m > n]
        bounded = tuple(bound_arm(arm[n], [arm[m] for m in larger]) for arm in (base, edited))
        found.append(
            _judged(
                n,
                of_item,
                tuple([row.passed for row in arm[n]] for arm in (base, edited)),
                tuple([row.passed for row in arm[budgets[-1]]] for arm in (base, edited)),
                bounded,
                gates,
                settings_differ=base_settings != edited_settings,
                trained_on_test=trained_on_test,
                primary=n == budgets[-1],
            )
        )
    return SampledComparison(tuple(found), gates)


def _judged(
    n: int,
    of_item: Sequence[str],
    passes: tuple[Passes, ...],
    at_primary: tuple[Passes, ...],
    bounded: tuple[ArmBounds, ...],
    gates: Gates,
    *,
    settings_differ: bool,
    trained_on_test: bool,
    primary: bool,
) -> SampledBudget:
    difference = _difference(of_item, passes[0], passes[1], gates)
    bounds = [
        _difference(of_item, corner.base, corner.edited, gates) for corner in corners(*bounded)
    ]
    known = [one for one in (difference, *bounds) if one is not None]
    interaction = None if primary else _interaction(of_item, passes, at_primary)
    total = len(set(of_item))
    missing = 1 - (difference.n_items if difference else 0) / total
    faults = []
    if settings_differ:
        faults.append(ReasonCode.INSTRUMENT_DIFFERS)
    if trained_on_test:
        faults.append(ReasonCode.TRAIN_TEST_OVERLAP)
    if missing > gates.validity.max_missing_share:
        faults.append(ReasonCode.INFRASTRUCTURE)
    if len({one.conclusion for one in known}) > 1:
        faults.append(ReasonCode.TRUNCATED)
    if interaction is not None and interaction < gates.validity.interaction_alpha:
        faults.append(ReasonCode.TRUNCATION_ARTIFACT)
    if faults or difference is None:
        verdict, reasons = Verdict.INVALID, tuple(faults)
    elif difference.verdict is Verdict.REFUTED and not all(
        one.verdict is Verdict.REFUTED for one in known
    ):
        verdict, reasons = Verdict.INCONCLUSIVE, (ReasonCode.UNFINISHED_ANSWERS,)
    else:
        verdict, reasons = difference.verdict, (difference.reason,)
    kept = tuple(one for one in bounds if one is not None)
    return SampledBudget(n, difference, kept, interaction, missing, verdict, reasons)


def _difference(
    of_item: Sequence[str], base: Passes, edited: Passes, gates: Gates
) -> Difference | None:
    """None where no item has all its results."""
    groups = paired(of_item, base, edited)
    if not groups:
        return None
    steps = [sum(e) - sum(b) for b, e in groups]
    values = [step / len(b) for step, (b, _) in zip(steps, groups, strict=True)]
    rates = [sum(sum(one[arm]) / len(one[arm]) for one in groups) / len(groups) for arm in (0, 1)]
    delta = sum(values) / len(values)
    interval = difference_interval(values, gates.level)
    p_value = sign_flip_p_value(steps)
    smallest, alpha = gates.smallest_effect.pass_at_1, gates.test.alpha
    verdict, reason = held_to_gate(rates, delta, interval, p_value, smallest, alpha)
    gained, lost = sum(step > 0 for step in steps), sum(step < 0 for step in steps)
    return Difference(delta, interval, p_value, len(groups), gained, lost, verdict, reason)


def _interaction(
    of_item: Sequence[str], small: tuple[Passes, ...], large: tuple[Passes, ...]
) -> float:
    """Budget-by-arm interaction: the items' differences at both budgets, subtracted."""
    kept = {item: list[int]() for item in of_item}
    for item, *four in zip(of_item, *small, *large, strict=True):
        known = [int(one) for one in four if one is not None]
        if len(known) == 4:
            bs, es, bl, el = known
            kept[item].append((es - bs) - (el - bl))
    return sign_flip_p_value([sum(values) for values in kept.values()])
