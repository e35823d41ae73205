"""Claims of Arc 3: the frozen-base h_last probe, and the judges behind its labels."""

from __future__ import annotations

from collections.abc import Callable

from arcs.claims import ReasonCode
from arcs.estimates import Direction, Estimate, judge_claim
from arcs.reproduction.claims.estimates import (
    SMALLEST,
    change_of_counts,
    published_auc,
)
from arcs.reproduction.claims.table import PaperClaim, Says
from arcs.reproduction.groups import Facts
from evals.statistics.power_auc import n_to_settle_auc
from evals.statistics.rates import Interval, wilson

STEP1_AUC, STEP1_POSITIVE, STEP1_NEGATIVE = 0.683, 58, 42
"""Cross-validated AUC of the paper's step 1 and the counts of its labels (PAPER.md 5.6)."""


def _cut(facts: Facts, key: str) -> str:
    ended, n = facts("truncation.sentence_terminated")[key]
    return f"{n - ended} of {n}"


def asymmetry_of_gemma(facts: Facts) -> PaperClaim:
    """Does assertion follow correctness?"""
    cells = facts("2x2.gemma")
    right, wrong = (
        (cells["cr"], cells["cr"] + cells["hr"]),
        (cells["cw"], cells["cw"] + cells["hw"]),
    )
    return PaperClaim(
        key="arc3.asymmetry_of_gemma",
        source="TeX abstract, 6.2",
        paper_says=Says.NO,
        judged=judge_claim(
            "Gemma asserts less often when it is wrong",
            change_of_counts("assertion rate, wrong minus right answers", right, wrong),
            SMALLEST.rate,
            faults=[ReasonCode.TRUNCATED],
            direction=Direction.LESS,
        ),
        why=f"{_cut(facts, 'gemma_step16')} answers do not end a sentence, so both labels were "
        "given to cut text; and every failure of the verbal judge counts as an assertion",
        missing="whole answers; the number of judge failures",
    )


def asymmetry_across_models(facts: Facts) -> PaperClaim:
    """Qwen's asymmetry against Gemma's."""
    cells = facts("2x2.qwen35")
    right, wrong = (
        (cells["cr"], cells["cr"] + cells["hr"]),
        (cells["cw"], cells["cw"] + cells["hw"]),
    )
    estimate = change_of_counts("assertion rate of Qwen3.5, wrong minus right", right, wrong)
    return PaperClaim(
        key="arc3.asymmetry_across_models",
        source="findings, cross-model baseline",
        paper_says=Says.YES,
        judged=judge_claim(
            "Qwen3.5 asserts less often when it is wrong, unlike Gemma",
            estimate,
            SMALLEST.rate,
            faults=[ReasonCode.MIXED_INSTRUMENTS],
            direction=Direction.LESS,
        ),
        why=f"Fisher p = {estimate.p_value:.2f}, so the intervals do overlap; Gemma's labels come "
        "from another judge prompt than Qwen's and SmolLM2's, whose texts were cut at 1,500 "
        f"characters ({_cut_at_1500(facts, 'qwen35')} and {_cut_at_1500(facts, 'smollm_step16')})",
        missing="one judge, one prompt and whole answers for all models",
    )


def _cut_at_1500(facts: Facts, model: str) -> str:
    at_limit, n = facts("truncation.sentence_terminated")[f"{model}_text_len_1500"]
    return f"{at_limit} of {n}"


def step1_signal(facts: Facts) -> PaperClaim:
    """The apparent pass within the training distribution."""
    del facts
    return PaperClaim(
        key="arc3.step1_signal",
        source="TeX 6.3, Figure 1",
        paper_says=Says.YES,
        judged=judge_claim(
            "Gemma's h_last carries correctness within the training prompts",
            published_auc("cross-validated AUC", STEP1_AUC, STEP1_POSITIVE, STEP1_NEGATIVE),
            SMALLEST.auc,
            faults=[ReasonCode.MIXED_RUNS, ReasonCode.TRUNCATED],
            direction=Direction.MORE,
        ),
        why="0.683 (mean of fold AUCs, bf16, C = 1.0) and the asymmetry -0.341 (4-bit, C = 0.1, "
        "whose AUC is 0.663) come from two runs; neither run's scores are published, and the "
        "labels were given to cut answers",
        missing="Gemma's features; one run with out-of-fold scores and several fold seeds",
    )


def step2_fresh(facts: Facts) -> PaperClaim:
    """Fresh prompts."""
    probe = facts("probe.gemma_fresh")
    positive, negative = probe["n_pos"], probe["n_neg"]
    estimate = published_auc("AUC on fresh prompts", probe["auc"], positive, negative)
    return PaperClaim(
        key="arc3.step2_fresh",
        source="TeX 6.4, Figure 1",
        paper_says=Says.NO,
        judged=judge_claim(
            "Gemma's h_last carries correctness to fresh prompts",
            estimate,
            SMALLEST.auc,
            faults=[ReasonCode.TRUNCATED],
            direction=Direction.MORE,
        ),
        why=f"{_cut(facts, 'gemma_fresh_rule_simple')} fresh answers do not end a sentence: the "
        "position that is read is almost never an end, and finishing early goes with lower "
        f"coverage. The statistic alone misses the gate of 0.63 (upper limit "
        f"{estimate.interval.high:.3f}) and cannot exclude a small signal",
        missing="Gemma's features; whole answers with finish reasons",
    )


def step3_axes(facts: Facts) -> PaperClaim:
    """Three axes below chance."""
    axis = facts("probe.sweep")["pedagogical_framing"]
    estimate = published_auc(
        "transfer AUC, pedagogical framing", axis["auc"], axis["n_pos"], axis["n_neg"]
    )
    return PaperClaim(
        key="arc3.step3_axes",
        source="TeX 6.5, Table sweep",
        paper_says=Says.YES,
        judged=judge_claim(
            "the probe reads another quantity: transfer AUC is below chance on three of five axes",
            estimate,
            SMALLEST.auc,
            faults=[ReasonCode.TRUNCATED],
            direction=Direction.LESS,
        ),
        why=f"the lowest of five is {estimate.value:.3f} "
        f"[{estimate.interval.low:.2f}, {estimate.interval.high:.2f}]: chance is inside, before "
        "any correction for five axes; labels and features come from cut answers",
        missing="Gemma's features, for a permutation null of the minimum",
    )


def step4_pooled(facts: Facts) -> PaperClaim:
    """Pooling the last four layers."""
    probe = facts("probe.gemma_multilayer")
    estimate = published_auc("AUC, last 4 layers", probe["auc"], probe["n_pos"], probe["n_neg"])
    return PaperClaim(
        key="arc3.step4_pooled",
        source="TeX 6.6, Figure 1",
        paper_says=Says.NO,
        judged=judge_claim(
            "pooling Gemma's last four layers rescues the signal on fresh prompts",
            estimate,
            SMALLEST.auc,
            faults=[ReasonCode.TRUNCATED],
            direction=Direction.MORE,
        ),
        why=f"{estimate.value:.3f} [{estimate.interval.low:.3f}, {estimate.interval.high:.3f}] "
        "excludes neither chance nor the gate; the pool mixes normed and un-normed layers",
        missing="Gemma's features of each layer; whole answers",
    )


def step5_second_model(facts: Facts) -> PaperClaim:
    """SmolLM2, the only model with published features."""
    probe = facts("smollm.probe.C=1.0")
    n = facts("smollm.features")
    low, high = facts("smollm.fresh_interval")["interval"]
    positive = n["fresh_pos"]
    negative = n["fresh_shape"][0] - positive
    settles = n_to_settle_auc(probe["fresh_auc"], positive, negative, SMALLEST.auc)
    return PaperClaim(
        key="arc3.step5_second_model",
        source="TeX 6.7, Table twomodes",
        paper_says=Says.NO,
        judged=judge_claim(
            "SmolLM2's h_last carries correctness to fresh prompts",
            Estimate(
                "AUC on fresh prompts", probe["fresh_auc"], Interval(low, high, 0.95), "DeLong",
                positive + negative, null=0.5,
            ),
            SMALLEST.auc,
            faults=[ReasonCode.MIXED_INSTRUMENTS],
            doubts=[ReasonCode.NO_SIGNAL_IN_TRAINING],
            direction=Direction.MORE,
            n_to_settle=settles,
        ),
        why=f"{positive} positives of {positive + negative} cannot tell chance from the gate, and "
        f"the probe already fails on its own training prompts (out-of-fold AUC "
        f"{probe['cv_oof_auc_seed0']:.3f}, gate 0.65). Training features come from texts cut at "
        "1,500 characters, fresh ones from whole texts; a probe reads that cut with AUC "
        f"{facts('smollm.nuisance_probes_C1_cv_auc')['truncated_at_1500_chars']:.2f}",
        missing="features of whole answers, labels of one judge, several hundred fresh items",
    )  # fmt: skip


def capability_cliff(facts: Facts) -> PaperClaim:
    """SmolLM2's positive rate, under two judges."""
    counts = facts("labels.threshold_counts")
    before, after = (counts["smollm_step16"]["0.5"], 100), (counts["smollm_fresh"]["0.5"], 193)
    by_claims = facts("labels.by_claim_count")
    five, fresh = by_claims["smollm_step16"]["5"], by_claims["smollm_fresh"]["5"]
    at_06 = counts["smollm_step16"]["0.6"], counts["smollm_fresh"]["0.6"]
    return PaperClaim(
        key="arc3.capability_cliff",
        source="TeX 7, Table twomodes",
        paper_says=Says.YES,
        judged=judge_claim(
            "SmolLM2's correctness falls off a cliff on fresh prompts (0.56 to 0.047)",
            change_of_counts("share correct, fresh minus training prompts", before, after),
            SMALLEST.rate,
            faults=[ReasonCode.MIXED_INSTRUMENTS],
            direction=Direction.LESS,
        ),
        why="training labels come from a lenient claim prompt and mostly 4-claim lists, where 0.5 "
        "is 2 of 4; fresh labels from a strict prompt and 5-claim lists, where it is 3 of 5. At "
        f"the cut 0.6 it is {at_06[0]} of 100 to {at_06[1]} of 193, and among 5-claim items "
        f"{five[0]} of {five[1]} to {fresh[0]} of {fresh[1]}: a fall, of a size that two judges "
        "cannot tell. The probe fails in training "
        "already, so no cliff is needed to explain its failure",
        missing="both sets labelled by one judge with lists of one length",
    )


def rate_drop_of_gemma(facts: Facts) -> PaperClaim:
    """Gemma's positive rate, at equal numbers of claims."""
    by_claims = facts("labels.by_claim_count")
    train, fresh = by_claims["gemma_step16"]["5"], by_claims["gemma_fresh"]["5"]
    counts = facts("labels.threshold_counts")
    estimate = change_of_counts(
        "share correct among 5-claim items, fresh minus training", tuple(train), tuple(fresh)
    )
    return PaperClaim(
        key="arc3.rate_drop_of_gemma",
        source="TeX 6.4",
        paper_says=Says.YES,
        judged=judge_claim(
            "Gemma's correctness falls on fresh prompts (0.58 to 0.285)",
            estimate,
            SMALLEST.rate,
            faults=[ReasonCode.TRUNCATED],
            direction=Direction.LESS,
        ),
        why=f"0.5 is 2 of 4 claims on the training prompts and 3 of 5 on the fresh ones: at 0.6 "
        f"both are equal ({counts['gemma_step16']['0.6']} of 100, "
        f"{counts['gemma_fresh']['0.6']} of 193), and among 5-claim items the fall is "
        f"{train[0]} of {train[1]} to {fresh[0]} of {fresh[1]} (Fisher p = "
        f"{estimate.p_value:.2f})",
        missing="checklists of one length and origin for both sets; whole answers",
    )


def judge_reads_correctness(facts: Facts) -> PaperClaim:
    """Two readings of correctness that barely agree."""
    agreement = [facts(f"judge_agreement.{name}")["kappa_ge4"] for name in ("step16", "fresh")]
    return PaperClaim(
        key="arc3.judge_reads_correctness",
        source="TeX 6, 7",
        paper_says=Says.YES,
        judged=judge_claim(
            "a judge reads from the answers the correctness that the probe does not find",
            None,
            None,
            faults=[ReasonCode.JUDGE_NOT_VALID],
        ),
        why="the judge's factual axis and its own checklist barely agree: kappa "
        f"{agreement[0]:.2f} on training and {agreement[1]:.2f} on fresh prompts; no label was "
        "ever checked by a person, so label noise bounds any probe",
        missing="a sample labelled by people; the checklists",
    )


def no_uncertain_prompts(facts: Facts) -> PaperClaim:
    """A class that could not be returned."""
    classes = [facts(f"v4.{name}")["cert"] for name in ("step16", "fresh")]
    n = [sum(found.values()) for found in classes]
    return PaperClaim(
        key="arc3.no_uncertain_prompts",
        source="findings, summary",
        paper_says=Says.NO,
        judged=judge_claim(
            "some of the prompts have more than one valid answer (UNCERTAIN)",
            None,
            None,
            faults=[ReasonCode.CONSTANT_CLASS],
        ),
        why=f"all {n[0]} and all {n[1]} prompts came back CERTAIN because the parser looks for "
        "that word first, and UNCERTAIN contains it; the hedging axis was scored accordingly",
        missing="the judge's raw replies",
    )


def degenerate_gate(facts: Facts) -> PaperClaim:
    """The explanation given for SmolLM2's passed asymmetry gate."""
    point = facts("smollm.probe.C=1.0")["oracle_balanced"]
    n_wrong = facts("smollm.features")["fresh_shape"][0] - facts("smollm.features")["fresh_pos"]
    asserted = round(point["p_assert_wrong"] * n_wrong)
    return PaperClaim(
        key="arc3.degenerate_gate",
        source="TeX 6.7",
        paper_says=Says.NO,
        judged=judge_claim(
            "at SmolLM2's best threshold the probe holds back on part of the wrong answers",
            Estimate(
                "share of wrong answers asserted", point["p_assert_wrong"],
                wilson(asserted, n_wrong), "Wilson", n_wrong, null=1.0,
            ),
            SMALLEST.rate,
            direction=Direction.LESS,
        ),
        why=f"the paper calls the passed gate degenerate because nearly everything is asserted; "
        f"{asserted} of {n_wrong} wrong and 8 of 9 correct answers are. It passes because 9 "
        "positives are noise: permuted labels pass this gate in more than a third of draws",
        missing="nothing",
    )  # fmt: skip


def u_curve(facts: Facts) -> PaperClaim:
    """The retracted alpha sweep."""
    kl = [facts(f"alpha.{alpha}")["mean_item_kl"] for alpha in ("0.25", "2.0")]
    return PaperClaim(
        key="extras.u_curve",
        source="archive notes",
        paper_says=Says.YES,
        judged=judge_claim(
            "coverage follows a U-curve in alpha when base and trained logits are mixed",
            None,
            None,
            faults=[ReasonCode.MISALIGNED],
        ),
        why="claims were looked up by the index of another file; the telemetry is sound (mean KL "
        f"{kl[0]:.3f} at alpha 0.25, {kl[1]:.2f} at 2), the scores belong to other questions",
        missing="coverage with claims joined by id",
    )


def mid_rank(facts: Facts) -> PaperClaim:
    """Principal components of two sets of different texts."""
    rank = facts("pca_rank")["diff_dd_minus_base"]["ranks"]["95%"]
    return PaperClaim(
        key="extras.mid_rank",
        source="findings, PCA rank",
        paper_says=Says.YES,
        judged=judge_claim(
            "the trained model's shift is of middle rank",
            None,
            None,
            faults=[ReasonCode.INSTRUMENT_DIFFERS],
        ),
        why=f"{rank} components for 95 percent of the variance, of 79 that 80 items allow; the "
        "two models' states come from different texts, and noise has no lower rank",
        missing="states of both models on the same texts, and a null",
    )


CLAIMS: tuple[Callable[[Facts], PaperClaim], ...] = (
    asymmetry_of_gemma, asymmetry_across_models, step1_signal, step2_fresh, step3_axes,
    step4_pooled, step5_second_model, capability_cliff, rate_drop_of_gemma,
    judge_reads_correctness, no_uncertain_prompts, degenerate_gate, u_curve, mid_rank,
)  # fmt: skip
