"""Claims of Arc 1: imitation into weights."""

from __future__ import annotations

from collections.abc import Callable

from arcs.claims import ReasonCode
from arcs.estimates import Direction, Estimate, judge_claim
from arcs.reproduction.claims.estimates import (
    SMALLEST,
    change_between_budgets,
    change_of_counts,
    paired_change,
)
from arcs.reproduction.claims.table import PaperClaim, Says
from arcs.reproduction.groups import Facts
from evals.statistics.rates import Interval

HUMANEVAL = 164
AT_1024 = (59, 46)
"""Passes of base and trained Qwen3-0.6B at the larger n_predict: 36.0 and 28.0 percent of 164
(PAPER.md 3.1); the only counts of 164 that give these percentages."""


def gain_at_512(facts: Facts) -> PaperClaim:
    """The first draft's headline, and the artifact that overturned it."""
    he = facts("arc1.he")
    estimate = paired_change(
        "pass@1, trained minus base, n_predict 512", he["dd_only"], he["base_only"], he["n"]
    )
    change, p = change_between_budgets((he["base_pass"], he["dd_pass"]), AT_1024, HUMANEVAL)
    return PaperClaim(
        key="arc1.gain_at_512",
        source="TeX abstract, 4.1",
        paper_says=Says.WITHDRAWN,
        judged=judge_claim(
            "disposition training raises Qwen3-0.6B's HumanEval pass@1 at n_predict 512",
            estimate,
            SMALLEST.pass_at_1,
            faults=[ReasonCode.TRUNCATION_ARTIFACT],
            direction=Direction.MORE,
        ),
        why=f"{he['dd_only']} gained, {he['base_only']} lost, McNemar p = {estimate.p_value:.1e}, "
        f"yet the difference changes by {100 * change:.0f} points at the larger budget "
        f"(p = {p:.0e} from the counts alone): the budget made it",
        missing="finish reasons; per-task results at the larger n_predict",
    )


def loss_at_1024(facts: Facts) -> PaperClaim:
    """The corrected number, from counts alone."""
    del facts  # nothing about the larger budget is published
    base, trained = AT_1024
    estimate = change_of_counts(
        "pass@1, trained minus base, corrected budget", (base, HUMANEVAL), (trained, HUMANEVAL)
    )
    return PaperClaim(
        key="arc1.loss_at_1024",
        source="TeX abstract, 4.1, Table 1",
        paper_says=Says.YES,
        judged=judge_claim(
            "disposition training lowers Qwen3-0.6B's HumanEval pass@1 at the corrected budget",
            estimate,
            SMALLEST.pass_at_1,
            doubts=[ReasonCode.NOT_PUBLISHED],
            direction=Direction.LESS,
        ),
        why=f"36.0 to 28.0 percent is {base} to {trained} of {HUMANEVAL}: Fisher p = "
        f"{estimate.p_value:.2f} unpaired. Even paired, a net loss of 13 is significant only "
        "while at most 38 items are discordant; how many were is not published",
        missing="per-task results and finish reasons at the larger n_predict, and which one it "
        "was (1024 in the paper, 4096 in the authors' notes)",
    )


def student_aware_loss(facts: Facts) -> PaperClaim:
    """The variant that is said to keep capability."""
    del facts
    estimate = change_of_counts("pass@1, DD-SA minus base", (59, HUMANEVAL), (58, HUMANEVAL))
    return PaperClaim(
        key="arc1.student_aware_loss",
        source="TeX Table 1",
        paper_says=Says.NO,
        judged=judge_claim(
            "the attention-only, student-aware variant changes Qwen3-0.6B's pass@1",
            estimate,
            SMALLEST.pass_at_1,
            doubts=[ReasonCode.NOT_PUBLISHED],
        ),
        why="-0.6 points is one task; the unpaired interval "
        f"[{100 * estimate.interval.low:+.0f}, {100 * estimate.interval.high:+.0f}] points "
        "excludes neither a loss nor a gain that matters",
        missing="per-task results of both arms",
    )


def loss_of_1_7b(facts: Facts) -> PaperClaim:
    """The larger model's loss."""
    del facts
    estimate = change_of_counts("pass@1, trained minus base", (137, HUMANEVAL), (111, HUMANEVAL))
    return PaperClaim(
        key="arc1.loss_of_1.7b",
        source="TeX 4.2, Table 1",
        paper_says=Says.YES,
        judged=judge_claim(
            "disposition training lowers Qwen3-1.7B's HumanEval pass@1",
            estimate,
            SMALLEST.pass_at_1,
            doubts=[ReasonCode.NOT_PUBLISHED],
            direction=Direction.LESS,
        ),
        why=f"83.5 to 67.7 percent is significant if the counts are right (Fisher p = "
        f"{estimate.p_value:.4f}), but nothing of it is published, the authors' notes hold three "
        "base rates for this model (83.5, 71.3 and an implied 62.8), and a variant with "
        "longer data that lost 6.7 points is left out",
        missing="per-task results, finish reasons and harness of the 1.7B runs",
    )


def mcas_gain(facts: Facts) -> PaperClaim:
    """The judge's score that rose by a third of its scale."""
    base, trained = facts("arc1.mcas.base.all"), facts("arc1.mcas.dd.all")
    change = (trained["pct"] - base["pct"]) / 100
    low, high = facts("arc1.mcas.difference")["interval"]
    interval = Interval(low, high, 0.95)
    straight = facts("arc1.mcas.dd.straightforward")["pct"]
    return PaperClaim(
        key="arc1.mcas_gain",
        source="TeX abstract, 4.1",
        paper_says=Says.WITHDRAWN,
        judged=judge_claim(
            "disposition training raises meta-cognitive awareness (MCAS)",
            Estimate(
                "MCAS share of the scale, trained minus base", change, interval,
                "BCa bootstrap, paired", base["n"],
            ),
            SMALLEST.rate,
            faults=[ReasonCode.JUDGE_NOT_VALID],
            direction=Direction.MORE,
        ),
        why="no judge was ever validated; this one saw 2,000 characters of answers that were "
        "given under a system prompt asking for the behaviour, and it rewards reflective "
        f"language where none is called for (straightforward prompts: {straight:.1f} percent)",
        missing="answers without that prompt, a validated judge, a penalty for over-hedging",
    )  # fmt: skip


def mcas_corrected(facts: Facts) -> PaperClaim:
    """The corrected score, of another model on other prompts."""
    del facts
    return PaperClaim(
        key="arc1.mcas_corrected",
        source="TeX 4.1, Figure 4",
        paper_says=Says.NO,
        judged=judge_claim(
            "disposition training changes the corrected MCAS (12.39 to 12.07 of 25)",
            None,
            None,
            doubts=[ReasonCode.NOT_PUBLISHED],
        ),
        why="the axis means add up, and that is all that can be checked; model, judge, prompts "
        "and scale all differ from the score it is said to correct",
        missing="per-prompt scores of both arms from one judge",
    )


def self_verification_rate(facts: Facts) -> PaperClaim:
    """A rate at its ceiling."""
    rates = facts("arc1.svr")
    n, base, trained = rates["n"], rates["base"], rates["dd"]
    return PaperClaim(
        key="arc1.self_verification_rate",
        source="phase0 eval_results.json; TeX 4.1",
        paper_says=Says.NO,
        judged=judge_claim(
            "disposition training changes the self-verification rate",
            change_of_counts("SVR, trained minus base", (base, n), (trained, n)),
            SMALLEST.rate,
            doubts=[ReasonCode.CEILING, ReasonCode.NOT_PUBLISHED],
        ),
        why=f"{base} and {trained} of {n}: both arms are at the ceiling, since the patterns also "
        "match inside think text and code (wait matches await)",
        missing="the answers; patterns with word boundaries, on text outside think and code",
    )


def recovery(facts: Facts) -> PaperClaim:
    """Correction after feedback."""
    del facts
    estimate = change_of_counts("recovery rate, DD-SA minus base", (11, 105), (8, 106))
    return PaperClaim(
        key="arc1.recovery",
        source="TeX Table 1",
        paper_says=Says.YES,
        judged=judge_claim(
            "disposition training lowers the rate of recovery after feedback",
            estimate,
            SMALLEST.rate,
            doubts=[ReasonCode.NOT_PUBLISHED],
            direction=Direction.LESS,
        ),
        why=f"11 of 105 to 8 of 106, Fisher p = {estimate.p_value:.2f}; script, prompts and "
        "answers are not published",
        missing="the transcripts of both arms",
    )


def chef_coverage(facts: Facts) -> PaperClaim:
    """Checklist coverage on texts that nearly all stop in mid-sentence."""
    ends = facts("truncation.sentence_terminated")
    base, trained = ends["gemma_step16"], ends["gemma_full_ddv2"]
    return PaperClaim(
        key="arc1.chef_coverage",
        source="TeX 4.3",
        paper_says=Says.YES,
        judged=judge_claim(
            "SFT and DPO lower Gemma's checklist coverage on Chef prompts (0.452 to 0.379)",
            None,
            None,
            faults=[ReasonCode.TRUNCATED],
        ),
        why=f"{base[1] - base[0]} of {base[1]} base and {trained[1] - trained[0]} of {trained[1]} "
        "trained answers do not end a sentence, so coverage measures where they were cut; by "
        "the authors' own notes the prompts are the last 100 lines of the training file",
        missing="whole answers on prompts that were held out; per-prompt coverage of the trained "
        "model (only the base's is published)",
    )


def verifier_score(facts: Facts) -> PaperClaim:
    """The rule-based verifier."""
    paired = facts("verifier.paired.intervals")["mean"]
    low, high = paired["interval"]
    return PaperClaim(
        key="arc1.verifier_score",
        source="findings, step 16",
        paper_says=Says.YES,
        judged=judge_claim(
            "SFT and DPO lower the verifier score of Chef answers",
            Estimate(
                "verifier score, trained minus base", paired["value"],
                Interval(low, high, paired["level"]), paired["method"], paired["n"],
            ),
            SMALLEST.rate,
            faults=[ReasonCode.JUDGE_NOT_VALID, ReasonCode.TRUNCATED],
            direction=Direction.LESS,
        ),
        why="three of its checks cannot find an error by construction and the fourth flags 98 of "
        "100 base answers; the difference is not significant either",
        missing="a verifier that ranks known good above known bad answers; whole answers",
    )  # fmt: skip


CLAIMS: tuple[Callable[[Facts], PaperClaim], ...] = (
    gain_at_512, loss_at_1024, student_aware_loss, loss_of_1_7b, mcas_gain, mcas_corrected,
    self_verification_rate, recovery, chef_coverage, verifier_score,
)  # fmt: skip
