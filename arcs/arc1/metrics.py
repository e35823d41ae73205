"""The result of an Arc 1 run: what metrics.json holds and --json prints.

Nothing in it depends on when or how fast the run was: a killed and continued run gives the
same bytes. docs/arc1-metrics.schema.json is the JSON schema of :class:`Arc1Metrics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from arcs.arc1.config import Arc1Config
from arcs.arc1.summary import RUN, own_rows, paper_rows, spread
from arcs.verdicts import Comparison
from backends.interface import Completion
from backends.training import TrainResult


class Model(BaseModel):
    """Base of the records below: frozen, and no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(Model):
    """A confidence interval."""

    low: float
    high: float
    level: float


class ArmAtBudget(Model):
    """One arm at one n_predict."""

    n_items: int
    passed: int
    missing: int = Field(description="items without a result (infrastructure); not in the rate")
    pass_at_1: float | None
    interval: Interval | None = Field(description="Wilson, of pass_at_1")
    outcomes: dict[str, int] = Field(description="every item in exactly one kind")
    truncated: int | None = Field(description="finish_reason 'length' at this n_predict")
    truncated_share: float | None
    loops: int | None = Field(description="truncated answers that end in an exact repetition")
    unfinished: int | None = Field(description="truncated answers that do not")
    resolved_by_larger_budget: int | None
    answers_changed_from_primary: int


class Bound(Model):
    """The comparison when each arm's unfinished answers all fail or all pass."""

    base_unfinished: Literal["fail", "pass"]
    edited_unfinished: Literal["fail", "pass"]
    delta: float
    interval: Interval
    p_value: float
    verdict: str


class Gate(Model):
    """What a claim is held to."""

    smallest_effect: float
    alpha: float


class Claim(Model):
    """A claim with its verdict and the numbers behind it."""

    statement: str
    verdict: Literal["SUPPORTED", "REFUTED", "INCONCLUSIVE", "INVALID"]
    reasons: list[str]
    explanation: str
    n_predict: int
    n_items: int
    delta: float | None = Field(description="pass@1, trained minus base")
    interval: Interval | None
    p_value: float | None = Field(description="exact McNemar, two-sided")
    null: str
    gate: Gate
    statistic_verdict: str | None
    statistic_reason: str | None
    n_to_settle: int | None = Field(description="items in all that would settle the claim")
    n_to_exclude: int | None = Field(
        description="where no number settles it because the difference lies at the border of what "
        "matters: items in all that would exclude an effect that matters, if there is none"
    )


class BudgetResult(Model):
    """Both arms at one n_predict."""

    n_predict: int
    base: ArmAtBudget
    trained: ArmAtBudget
    gained: int | None
    lost: int | None
    missing_pairs: int | None
    minimum_detectable_effect: float | None
    bounds: list[Bound]
    interaction_p: float | None
    claim: Claim


class HeldOutLoss(Model):
    """Validation loss (nats a response token) after some optimiser steps."""

    step: int
    loss: float
    tokens: int


class ArmComparison(Model):
    """Another arm against the base, in the form of the run's own; ``trained`` is that arm."""

    claim: Claim
    budgets: list[BudgetResult]

    @classmethod
    def of(cls, comparison: Comparison) -> Self:
        """Take from a comparison what belongs into the result."""
        plain = comparison.to_json()
        return cls(
            claim=Claim(**plain["claim"]),
            budgets=[
                BudgetResult(**{("trained" if k == "edited" else k): v for k, v in one.items()})
                for one in plain["budgets"]
            ],
        )


class TrainingSummary(Model):
    """How the adapter was trained."""

    optimiser_steps: int
    examples: int
    examples_dropped: list[str] = Field(description="response wholly beyond max_length")
    examples_partly_cut: int
    response_tokens: int
    positions: int = Field(description="ids run forward and backward, padding not counted")
    padding_share: list[float] = Field(description="by epoch")
    first_loss: float
    last_loss: float
    held_out_examples: int = Field(description="records that the held-out loss is a mean over")
    held_out: list[HeldOutLoss]
    adapted_modules: int
    weights_sha256: str

    @classmethod
    def of(cls, result: TrainResult) -> Self:
        """Take from a training what belongs into the result."""
        kept = {name: result.summary[name] for name in cls.model_fields if name in result.summary}
        return cls(
            **kept,
            positions=result.positions,
            first_loss=result.steps[0].loss,
            last_loss=result.steps[-1].loss,
            held_out=[
                HeldOutLoss(step=record.step, loss=record.loss, tokens=record.tokens)
                for record in result.evals
            ],
            adapted_modules=len(result.modules),
        )


class Decoding(Model):
    """What one arm's decode at the largest n_predict was made of."""

    tokens: int = Field(description="ids generated, all items together")
    near_ties: int | None = Field(
        description="of these, ids that rounding on another engine or machine could have made "
        "another; null where they were not counted"
    )

    @classmethod
    def of(cls, completions: Iterable[Completion]) -> Self:
        """Add up; one answer without a count leaves the sum unknown."""
        done = list(completions)
        counts = [completion.near_ties for completion in done]
        known = [count for count in counts if count is not None]
        return cls(
            tokens=sum(len(completion.ids) for completion in done),
            near_ties=sum(known) if len(known) == len(counts) else None,
        )


class HeldOutPreferences(Model):
    """How held-out pairs are told apart after some optimiser steps; means over pairs."""

    step: int
    loss: float
    pairs: int
    margin: float = Field(description="reward of chosen minus reward of rejected")
    accuracy: float = Field(description="share of pairs with a positive margin")
    reward_chosen: float
    reward_rejected: float


class DpoReference(Model):
    """What the rewards are differences to."""

    kind: Literal["base", "adapter"]
    scale: float | None
    weights_sha256: str | None
    logprobs_sha256: str


class PreferenceSummary(Model):
    """How DPO trained the adapter. A loss is a mean over pairs (nats)."""

    optimiser_steps: int
    beta: float
    reference: DpoReference
    policy_is_reference: bool = Field(description="before any update, by construction")
    step0_loss: float = Field(description="of a step's worth of pairs; ln 2 where the above holds")
    pairs: int
    pairs_dropped: list[str] = Field(
        description="no response, or no difference, within dpo_max_length"
    )
    pairs_partly_cut: int
    response_tokens: int
    positions: int = Field(description="ids run forward and backward, padding not counted")
    padding_share: list[float] = Field(description="by epoch")
    first_loss: float
    last_loss: float
    held_out: list[HeldOutPreferences]
    adapted_modules: int
    weights_sha256: str

    @classmethod
    def of(cls, result: TrainResult, beta: float) -> Self:
        """Take from a training what belongs into the result."""
        kept = {name: result.summary[name] for name in cls.model_fields if name in result.summary}
        start = result.start
        assert start is not None  # every DPO training has one
        return cls(
            **kept,
            beta=beta,
            reference=DpoReference(**result.summary["identity"]["reference"]),
            policy_is_reference=start.policy_is_reference,
            step0_loss=start.loss,
            positions=result.positions,
            first_loss=result.steps[0].loss,
            last_loss=result.steps[-1].loss,
            held_out=[
                HeldOutPreferences(step=r.step, loss=r.loss, **asdict(r.preferences))
                for r in result.evals
                if r.preferences is not None
            ],
            adapted_modules=len(result.modules),
        )


class Arc1Metrics(Model):
    """The whole result."""

    schema_version: Literal["threearc-arc1-2"] = "threearc-arc1-2"
    claim: Claim = Field(description="the run's claim: the one at the largest n_predict")
    primary_n_predict: int
    escalated: list[int] = Field(
        default_factory=list,
        description="n_predict to which unfinished answers were continued (--escalate), rising",
    )
    budgets: list[BudgetResult] = Field(description="rising n_predict, escalations included")
    training: TrainingSummary | None = Field(
        description="SFT; null for an adapter given by the user, and for dpo alone"
    )
    training_dpo: PreferenceSummary | None = Field(
        default=None, description="null where the method has no DPO"
    )
    other_arms: dict[str, ArmComparison] = Field(
        default_factory=dict, description="sft: what SFT made, where DPO went on from it"
    )
    decoding: dict[str, Decoding] = Field(description="by arm: base, sft, trained")
    thinking: dict[str, Any] = Field(
        default_factory=dict, description="with --thinking: think tokens, and what an edit keeps"
    )
    evaluations: dict[str, Any] = Field(
        default_factory=dict,
        description="by name: n_items, conditions (base and arms) and judge, as threearc measure "
        "and threearc eval give them",
    )
    controls: dict[str, Any] = Field(
        default_factory=dict,
        description="with --planted: instruments, and whether each sees the planted effect and not "
        "the placebo (null: not decidable)",
    )
    table: list[dict[str, Any]] = Field(
        default_factory=list,
        description="one row a checkpoint, ours and the paper's: name, of, checkpoint, cells",
    )
    seeds: list[dict[str, Any]] = Field(
        default_factory=list, description="by seed: claim and table; empty for one seed"
    )
    over_seeds: list[dict[str, Any]] = Field(
        default_factory=list, description="the table's values over seeds: mean, least, most"
    )
    config: dict[str, Any]
    made_with: dict[str, Any] = Field(
        description="model, adapter, data, prompts, engines, sandbox, gates and versions"
    )


MADE_WITH = (
    "model", "adapter", "adapter_sft", "training_backend", "engine_training", "engine_base",
    "engine_sft", "engine_trained",
    "chat", "data", "pairs", "reference", "evaluation", "sandbox", "gates", "versions", "code",
    "environment", "overlap", "overlap_elsewhere",
)  # fmt: skip
STAGES = ("engine_base_", "engine_sft_", "engine_trained_")
"""Of an arm's continuations, by n_predict."""


@dataclass(frozen=True)
class Found:
    """What a run measured."""

    comparison: Comparison
    decoding: Mapping[str, Decoding]
    others: Mapping[str, Comparison] = field(default_factory=dict)
    thinking: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Mapping[str, Any] = field(default_factory=dict)
    controls: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[Arc1Metrics] = ()
    """Of the further seeds."""


def build(
    config: Arc1Config,
    manifest: Mapping[str, Any],
    found: Found,
    training: TrainingSummary | None,
    training_dpo: PreferenceSummary | None = None,
) -> Arc1Metrics:
    """Put the result together."""
    own = ArmComparison.of(found.comparison)
    others = {arm: ArmComparison.of(one) for arm, one in found.others.items()}
    reached = [budget.n_predict for budget in own.budgets]
    stages = sorted(name for name in manifest if name.startswith(STAGES))
    last = "dpo" if training_dpo is not None else "sft" if training is not None else "adapter"
    rows = own_rows({**others, last: own}, manifest["evaluation"]["dataset"], found.evaluations)
    every = [
        {"seed": config.seed, "claim": own.claim.model_dump(mode="json"), "table": rows},
        *(
            {
                "seed": one.config["seed"],
                "claim": one.claim.model_dump(mode="json"),
                "table": [row for row in one.table if row["of"] == RUN],
            }
            for one in found.seeds
        ),
    ]
    return Arc1Metrics(
        claim=own.claim,
        primary_n_predict=own.claim.n_predict,
        escalated=[n for n in reached if n > config.n_predict[-1]],
        budgets=own.budgets,
        training=training,
        decoding=dict(found.decoding),
        training_dpo=training_dpo,
        other_arms=others,
        thinking=dict(found.thinking),
        evaluations=dict(found.evaluations),
        controls=dict(found.controls),
        table=[*rows, *paper_rows(manifest["model"]["name"])],
        seeds=every if found.seeds else [],
        over_seeds=spread([one["table"] for one in every]) if found.seeds else [],
        config=config.model_dump(mode="json"),
        made_with={name: manifest[name] for name in (*MADE_WITH, *stages) if name in manifest},
    )
