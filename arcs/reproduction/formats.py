"""The shapes of the paper's published files: what is read from each, checked on reading.

Only fields that a recomputation uses are named; others are ignored. Values out of their range
are refused here, so that a damaged file cannot turn into a wrong number later.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Grade = Annotated[int, Field(ge=1, le=5)]
Verbal = Literal["assert", "hedge"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class TaskResult(_Record):
    """One HumanEval task."""

    task_id: str
    passed: bool


class McasPrompt(_Record):
    """One prompt of the meta-cognition test."""

    type: Literal["tricky", "straightforward"]


class McasDetails(_Record):
    """Judge's scores 0, 1, 2 of both arms, in prompt order."""

    baseline_scores: list[Annotated[int, Field(ge=0, le=2)]]
    dd_fp16_scores: list[Annotated[int, Field(ge=0, le=2)]]
    prompts: list[McasPrompt]


class PhaseZeroResults(_Record):
    """The headline numbers of the uncorrected first run, in percent."""

    baseline_svr: float
    dd_fp16_svr: float
    dd_bitnet_svr: float
    dd_bitnet_humaneval: float
    dd_bitnet_mcas: float


class Sample(_Record):
    """One answer of a disposition profile; ``text`` may be cut at 1,500 characters."""

    prompt_i: int
    topic: str
    coverage: Share
    correct: bool
    text: str
    verbal: Verbal


class Profile(_Record):
    """All answers of one model."""

    samples: list[Sample]


class AxisScores(_Record):
    """Grades of rubric v4; all missing where the judge's reply could not be read."""

    factual_accuracy: Grade | None = None
    hedging_appropriateness: Grade | None = None
    pedagogical_framing: Grade | None = None
    self_verification: Grade | None = None
    completeness: Grade | None = None


class FreshItem(_Record):
    """One fresh prompt with Gemma's answer and its grades."""

    prompt: str
    response: str
    cert: str
    scores: AxisScores


class StepItem(FreshItem):
    """One prompt of the first set, with its checklist label."""

    coverage: Share
    correct: bool
    verbal: Verbal


class StepJudgements(_Record):
    """Judged answers to the first set of 100 prompts."""

    items: list[StepItem]


class FreshJudgements(_Record):
    """Judged answers to the 193 fresh prompts."""

    items: list[FreshItem]


class GoldLabels(_Record):
    """Checklist coverage and label of the fresh answers, in prompt order."""

    coverage: list[Share]
    labels: list[Annotated[int, Field(ge=0, le=1)]]


class VerifierRow(_Record):
    """One answer as the rule-based verifier scored it."""

    prompt: str
    response: str
    score: Share
    passed: bool
    incorrect_technique: int
    incorrect_regional: int
    incorrect_ingredient: int
    invented_count: int
    implausible_temps: int


class VerifierRun(_Record):
    """One condition of the Chef evaluation."""

    rows: list[VerifierRow]


class Head(_Record):
    """One attention head's difference between wrongly and rightly asserted answers."""

    layer: int
    head: int
    mean_cw: float
    mean_cr: float
    overconf_score: float
    cohen_d: float


class Cohorts(_Record):
    """How many answers were right or wrong, asserted or hedged."""

    cr: int
    cw: int
    hr: int
    hw: int


class Attribution(_Record):
    """All heads of one model, ranked."""

    cohorts: Cohorts
    top20_overconf_heads: list[Head]
    bottom5_overconf_heads: list[Head]
    all_heads_ranked_by_cohen_d: list[Head]


class TokenRecord(_Record):
    """One generated token of the alpha sweep."""

    base_top1: Share
    kl: float


class Decode(_Record):
    """One answer at one alpha."""

    telemetry: list[TokenRecord]
    n_tok: int


class AlphaItem(_Record):
    """One prompt at every alpha."""

    tag: str
    by_alpha: dict[str, Decode]


class AlphaSweep(_Record):
    """Mixed logits of base and trained model."""

    alphas: list[float]
    items: list[AlphaItem]


class Components(_Record):
    """Principal components of one set of states."""

    shape: tuple[int, int]
    evr_top20: list[Share]
    ranks_for_variance: dict[str, int]


class PcaRank(_Record):
    """Principal components of base, trained model and their difference."""

    base: Components
    dd: Components
    diff_dd_minus_base: Components


class Axis(_Record):
    """One rubric axis of the probe sweep."""

    n_pos_step16: int
    n_neg_step16: int
    n_pos_fresh: int
    n_neg_fresh: int
    cv_auc_step16: Share
    transfer_auc_fresh: Share


class AxisSweep(_Record):
    """The probe sweep over five axes."""

    axes: dict[str, Axis]


class OperatingPoint(_Record):
    """One threshold and the shares asserted at it."""

    thr: float
    p_assert_wrong: Share
    p_assert_correct: Share
    asym: float


class FreshConfig(_Record):
    """One C of the fresh evaluation; the three thresholds that were reported."""

    auc: Share
    min: OperatingPoint
    at_half: OperatingPoint = Field(alias="thr_0.5")
    balanced: OperatingPoint = Field(alias="balanced_pc_0.70")


class FreshEvaluation(_Record):
    """Step 2 on Gemma."""

    configs: dict[str, FreshConfig]
    n_fresh_pos: int
    n_fresh_neg: int


class FreshRun(_Record):
    """The file of step 2."""

    evaluation: FreshEvaluation


class PooledResult(_Record):
    """AUC and best balanced threshold of the pooled probe."""

    auc: Share
    balanced: OperatingPoint = Field(alias="balanced_pc_0.70")


class PooledConfig(_Record):
    """One C of the pooled probe."""

    fresh: PooledResult


class PooledRun(_Record):
    """Step 4 on Gemma."""

    configs: dict[str, PooledConfig]
