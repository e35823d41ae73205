"""Claims of Arc 2: attention heads, attribution and tempering."""

from __future__ import annotations

from collections.abc import Callable

from arcs.claims import ReasonCode
from arcs.estimates import Direction, judge_claim
from arcs.reproduction.claims.estimates import (
    SMALLEST,
    change_of_counts,
)
from arcs.reproduction.claims.table import PaperClaim, Says
from arcs.reproduction.groups import Facts
from evals.statistics.permutation import expected_in_sample_direction_effect

TEMPERED = {"1.0": (60, 6, 29, 5), "0.9": (52, 7, 36, 5), "0.5": (54, 5, 33, 8)}
"""Gemma's cells cr, hr, cw, hw by lambda (PAPER.md 4.8, from the findings)."""
DIRECTIONAL = (1.73, 1.29)
"""Largest and tenth largest directional d of Qwen3.5 (PAPER.md 4.3, from the findings)."""


def _attribution(key: str, model: str, facts: Facts, group: str) -> PaperClaim:
    heads, top = facts(group)["n_heads_total"], facts(group)["top5"][0]
    null = facts(f"{group}.null")
    return PaperClaim(
        key=key,
        source="TeX 5, Table 2",
        paper_says=Says.YES,
        judged=judge_claim(
            f"single heads of {model} tell confidently wrong from confidently right answers",
            None,
            None,
            doubts=[ReasonCode.SELECTED_WITHOUT_NULL],
        ),
        why=f"the strongest of {heads} heads (layer {top[0]}, head {top[1]}, d = {top[2]:.3f}) is "
        f"t = {null['t']:.2f}; the expected maximum of {heads} pure-noise values is "
        f"{null['expected_maximum']:.2f}, and p of such a maximum is {null['p_of_maximum']:.2f} if "
        "heads were independent",
        missing="per-item head norms, for a permutation null of the maximum",
    )


def heads_of_gemma(facts: Facts) -> PaperClaim:
    """Magnitude attribution, 280 heads."""
    return _attribution("arc2.heads_of_gemma", "Gemma 4 E2B", facts, "attr.gemma")


def heads_of_qwen(facts: Facts) -> PaperClaim:
    """Magnitude attribution, 48 heads."""
    return _attribution("arc2.heads_of_qwen3.5", "Qwen3.5-0.8B", facts, "attr.qwen35")


def direction_of_qwen(facts: Facts) -> PaperClaim:
    """A direction scored on the items it was fitted on."""
    cohorts = facts("attr.qwen35")["cohorts"]
    sizes = cohorts["cw"], cohorts["cr"]
    low, high = (expected_in_sample_direction_effect(d, *sizes) for d in (25, 40))
    return PaperClaim(
        key="arc2.direction_of_qwen3.5",
        source="TeX 5, Table 2, row 5",
        paper_says=Says.NO,
        judged=judge_claim(
            "a direction in single heads of Qwen3.5-0.8B separates the two cohorts",
            None,
            None,
            faults=[ReasonCode.IN_SAMPLE],
        ),
        why=f"d of {DIRECTIONAL[1]} to {DIRECTIONAL[0]} is what a direction fitted and scored on "
        f"the same {sum(sizes)} items gives without any effect ({low:.1f} to {high:.1f} at 25 to "
        "40 effective dimensions); a cosine near 1 of un-centred means says nothing either way",
        missing="per-item head vectors, for a direction fitted on other items",
    )


def tempering_content(facts: Facts) -> PaperClaim:
    """The seven points of content damage."""
    del facts
    before, after = TEMPERED["1.0"], TEMPERED["0.9"]
    n = sum(before)
    estimate = change_of_counts(
        "accuracy at lambda 0.9 minus 1.0",
        (before[0] + before[1], n),
        (after[0] + after[1], sum(after)),
    )
    return PaperClaim(
        key="arc2.tempering_content",
        source="TeX 5, Table 2, row 1",
        paper_says=Says.YES,
        judged=judge_claim(
            "tempering the five Gemma heads damages content",
            estimate,
            SMALLEST.rate,
            doubts=[ReasonCode.NOT_PUBLISHED],
            direction=Direction.LESS,
        ),
        why=f"66 to 59 of 100, Fisher p = {estimate.p_value:.2f}, while the unchanged model moved "
        "by 8 points between the stored baseline and the lambda 1.0 run; mean coverage did not "
        "move (0.489 to 0.486)",
        missing="the answers and labels of the sweep; lambda 1.0 at several seeds",
    )


def tempering_assertion(facts: Facts) -> PaperClaim:
    """What the intervention was for."""
    del facts
    before, after = TEMPERED["1.0"], TEMPERED["0.5"]
    estimate = change_of_counts(
        "assertion rate at lambda 0.5 minus 1.0",
        (before[0] + before[2], sum(before)),
        (after[0] + after[2], sum(after)),
    )
    return PaperClaim(
        key="arc2.tempering_assertion",
        source="TeX 5, Table 2, row 1",
        paper_says=Says.NO,
        judged=judge_claim(
            "tempering the five Gemma heads lowers the assertion rate",
            estimate,
            SMALLEST.rate,
            doubts=[ReasonCode.NOT_PUBLISHED, ReasonCode.SELECTED_WITHOUT_NULL],
            direction=Direction.LESS,
        ),
        why="89 to 87 of 100; the heads that were damped are not distinguishable from noise "
        "picks, so that the disposition axis was left alone does not follow",
        missing="the answers of the sweep; random heads as placebo; a known effect as a control",
    )


def adversarial_heads(facts: Facts) -> PaperClaim:
    """Self-verification moved the wrong way."""
    del facts
    return PaperClaim(
        key="arc2.adversarial_heads",
        source="TeX 5, Table 2, row 2",
        paper_says=Says.YES,
        judged=judge_claim(
            "tempering Gemma's adversarial-self heads lowers self-verification (3.69 to 3.58)",
            None,
            None,
            doubts=[ReasonCode.NOT_PUBLISHED, ReasonCode.NOT_REPLICATED],
        ),
        why="two means of a 1-5 score without a spread; the cohorts were formed with another "
        "judge prompt (mean 2.15 for the same base answers) than the outcome (3.69)",
        missing="per-item scores of one instrument, all four lambdas, several seeds",
    )


def qwen_replicate(facts: Facts) -> PaperClaim:
    """Non-monotone, then worse in the replicate."""
    del facts
    estimate = change_of_counts("accuracy, replicate minus first seed", (23, 100), (13, 100))
    return PaperClaim(
        key="arc2.qwen_replicate",
        source="TeX 5, Table 2, rows 3 and 4",
        paper_says=Says.YES,
        judged=judge_claim(
            "tempering Qwen3.5's heads at lambda 0.5 gives another result at another seed",
            estimate,
            SMALLEST.rate,
            doubts=[ReasonCode.NOT_PUBLISHED, ReasonCode.NOT_REPLICATED],
        ),
        why=f"23 to 13 of 100 correct between two seeds (Fisher p = {estimate.p_value:.2f}), but "
        "there is no lambda 1.0 at the second seed: the seed's own effect is unknown",
        missing="a control at each seed, three seeds or more, one decoding configuration",
    )


CLAIMS: tuple[Callable[[Facts], PaperClaim], ...] = (
    heads_of_gemma, heads_of_qwen, direction_of_qwen, tempering_content, tempering_assertion,
    adversarial_heads, qwen_replicate,
)  # fmt: skip
