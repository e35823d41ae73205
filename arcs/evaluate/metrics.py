"""The result of an evaluation: what metrics.json holds and --json prints.

docs/eval-metrics.schema.json is the JSON schema of :class:`EvalMetrics`, docs/eval.md says it in
words. Nothing in it depends on when or how fast the run was.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from arcs.arc1.metrics import ArmAtBudget, Bound, Claim, Model


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


class Tempering(Model):
    """What scaling heads made of the file."""

    rounding: float = Field(description="largest relative rounding of a scaled weight")
    tensors: int = Field(description="of the model that the sweep touches")
    retyped: list[str] = Field(description="tensors stored in another type, from and to")


class ConditionResult(Model):
    """One condition at one quantisation."""

    budgets: dict[str, ArmAtBudget] = Field(description="by n_predict")
    against: str | None = Field(description="null for the base and the control of a sweep")
    comparison: EditComparison | None
    tempering: Tempering | None = Field(description="null where no heads were scaled")
    merge: dict[str, Any] | None = Field(
        description="proof of a merged adapter (docs/adapters.md) with dtype and rounding_share; "
        "null without --adapter-mode merged"
    )


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
        description="by quantisation, F16 itself left out"
    )
    quantisations: dict[str, dict[str, ConditionResult]] = Field(
        description="by quantisation, then by condition"
    )
    config: dict[str, Any]
    made_with: dict[str, Any] = Field(
        description="adapters, benchmark, prompts, engine of every stage, sandbox, gates, versions"
    )
