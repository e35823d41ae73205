"""The result of an evaluation: what metrics.json holds and --json prints.

docs/eval-metrics.schema.json is the JSON schema of :class:`EvalMetrics`, docs/eval.md says it in
words. Nothing in it depends on when or how fast the run was.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from arcs.arc1.metrics import ArmAtBudget, Bound, Claim, Interval, Model


class QuantisationQuality(Model):
    """What a quantisation does to the base, on fixed text."""

    kl: float = Field(description="mean KL(F16 || quantised) of next-token distributions, nats")
    same_top: float = Field(description="share of positions with the same most probable token")
    positions: int
    texts: int


class EditedBudget(Model):
    """An edit and what it is an edit of, at one n_predict."""

    n_predict: int
    base: ArmAtBudget = Field(description="of the condition named by against")
    edited: ArmAtBudget
    gained: int | None = Field(description="items that only the edit passes")
    lost: int | None = Field(description="items that only the other passes")
    missing_pairs: int | None
    minimum_detectable_effect: float | None
    bounds: list[Bound]
    interaction_p: float | None = Field(
        description="budget-by-arm interaction with the largest n_predict; null at that one"
    )
    claim: Claim


class EditComparison(Model):
    """An edit compared with what it is an edit of."""

    primary_n_predict: int
    claim: Claim = Field(description="the one at the largest n_predict")
    budgets: list[EditedBudget]
    gates: dict[str, Any]


class PassAtK(Model):
    """pass@k, unbiased (Chen et al. 2021)."""

    value: float
    interval: Interval = Field(description="BCa over items")
    n_items: int = Field(description="items with at least k results")


class SampledArmAtBudget(Model):
    """One arm of several samples an item, at one n_predict."""

    n_items: int
    samples: int = Field(description="of each item")
    answers: int
    passed: int = Field(description="answers")
    missing: int = Field(description="answers without a result (infrastructure)")
    pass_at_1: float | None = Field(description="mean over items of the share that passes")
    interval: Interval | None = Field(description="BCa over items, of pass_at_1")
    pass_at_k: dict[str, PassAtK | None]
    outcomes: dict[str, int] = Field(description="every answer in exactly one kind")
    truncated: int
    truncated_share: float
    loops: int
    unfinished: int


class SampledBound(Model):
    """The difference if unfinished answers failed or passed, one of four combinations."""

    delta: float
    interval: Interval
    p_value: float
    verdict: str


class SampledClaim(Model):
    """The claim at one n_predict, by item means."""

    statement: str
    verdict: str
    reasons: list[str]
    explanation: str
    n_predict: int
    n_items: int
    delta: float | None
    interval: Interval | None = Field(description="BCa over items")
    p_value: float | None = Field(description="signs of items' differences flipped, exact")
    null: str
    gate: dict[str, float]
    statistic_verdict: str | None
    statistic_reason: str | None


class SampledEditedBudget(Model):
    """An edit and what it is an edit of, several samples an item, at one n_predict."""

    n_predict: int
    gained: int | None = Field(description="items of which the edit passes more samples")
    lost: int | None
    bounds: list[SampledBound]
    interaction_p: float | None
    missing_share: float = Field(description="items left out for a missing result")
    claim: SampledClaim


class SampledEditComparison(Model):
    """As EditComparison, of several samples an item."""

    primary_n_predict: int
    claim: SampledClaim
    budgets: list[SampledEditedBudget]
    gates: dict[str, Any]


class FastCost(Model):
    """What --fast changed: a sample of items decoded in the repeatable mode too."""

    compared: int
    changed: int
    share: float
    interval: Interval = Field(description="Wilson, of share")
    tokens: int = Field(description="ids of each text that are compared")
    first_difference: dict[str, int] = Field(description="by changed item, position of the id")
    sittings: int = Field(description="times that the decode was begun or continued")
    continued: bool


class Tempering(Model):
    """What scaling heads made of the file."""

    rounding: float = Field(description="largest relative rounding of a scaled weight")
    tensors: int = Field(description="of the model that the sweep touches")
    retyped: list[str] = Field(description="tensors stored in another type, from and to")


class ConditionResult(Model):
    """One condition at one quantisation."""

    budgets: dict[str, ArmAtBudget | SampledArmAtBudget] = Field(description="by n_predict")
    against: str | None = Field(description="null for the base and the control of a sweep")
    comparison: EditComparison | SampledEditComparison | None
    tempering: Tempering | None = Field(description="null where no heads were scaled")
    merge: dict[str, Any] | None = Field(
        description="proof of a merged adapter (docs/adapters.md) with dtype and rounding_share; "
        "null without --adapter-mode merged"
    )
    fast: FastCost | None = Field(description="null in the repeatable mode")


class EvalMetrics(Model):
    """The whole result."""

    schema_version: Literal["threearc-eval-1"] = "threearc-eval-1"
    model: dict[str, Any] = Field(description="name, family, source and hashes of the base")
    n_items: int
    n_predict: list[int] = Field(description="rising, escalations included")
    escalated: list[int] = Field(
        description="n_predict to which unfinished answers were continued (--escalate), rising"
    )
    quality_against_f16: dict[str, QuantisationQuality] = Field(
        description="by quantisation, F16 itself left out; empty where it was not measured"
    )
    quantisations: dict[str, dict[str, ConditionResult]] = Field(
        description="by quantisation, then by condition"
    )
    config: dict[str, Any]
    made_with: dict[str, Any] = Field(
        description="adapters, benchmark, prompts, engine of every stage, sandbox, gates, versions"
    )
