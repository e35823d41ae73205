"""Probes, rankings, sweeps and claims in the paper's files (PAPER.md 4.2, 5.4, 5.6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arcs.audits.readers.paper_files import Files, common_denominator
from arcs.audits.results import (
    Claim,
    Effect,
    EffectRanking,
    Intervention,
    OperatingPoint,
    ProbeResult,
    Role,
)

FRESH_GATE, ASYMMETRY_GATE, CV_GATE, TRANSFER_GATE = 0.63, -0.15, 0.65, 0.60
"""PAPER.md 5.4: fresh AUC, balanced asymmetry, CV on the training set, transfer of an axis."""


def _point(found: Mapping[str, Any]) -> OperatingPoint:
    """Return a threshold picked on the labels of the fresh set (PAPER.md 5.3)."""
    return OperatingPoint(
        threshold=found["thr"],
        asymmetry=found["asym"],
        p_assert_wrong=found["p_assert_wrong"],
        p_assert_correct=found["p_assert_correct"],
        chosen_on=Role.TEST,
    )


def _last_layer(files: Files) -> Iterator[ProbeResult]:
    if not files.has("v1_full_v2"):
        return
    evaluation = files.json("v1_full_v2")["evaluation"]
    for configuration, found in evaluation["configs"].items():
        yield ProbeResult(
            "Gemma correctness probe, fresh set", files.path("v1_full_v2"), configuration,
            "v1_full_v2", test_auc=found["auc"], n_positive=evaluation["n_fresh_pos"],
            n_negative=evaluation["n_fresh_neg"], operating_point=_point(found["balanced_pc_0.70"]),
            auc_gate=FRESH_GATE, asymmetry_gate=ASYMMETRY_GATE, train_auc_gate=CV_GATE,
            family="gemma",
        )  # fmt: skip


def _multilayer(files: Files) -> Iterator[ProbeResult]:
    if not files.has("probe_multilayer"):
        return
    document = files.json("probe_multilayer")
    points = [found["fresh"]["balanced_pc_0.70"] for found in document["configs"].values()]
    # The file gives rates and no counts: their common denominators are the class sizes.
    n_positive = common_denominator([point["p_assert_correct"] for point in points])
    n_negative = common_denominator([point["p_assert_wrong"] for point in points])
    for configuration, found in document["configs"].items():
        yield ProbeResult(
            "Gemma correctness probe, layers pooled", files.path("probe_multilayer"),
            f"last {document['n_last_layers']} layers, {configuration}", "probe_multilayer",
            test_auc=found["fresh"]["auc"], n_positive=n_positive, n_negative=n_negative,
            operating_point=_point(found["fresh"]["balanced_pc_0.70"]),
            auc_gate=document["bar"]["auc_min"], asymmetry_gate=document["bar"]["asym_max"],
            train_auc_gate=CV_GATE, family="gemma",
        )  # fmt: skip


def _smollm(files: Files) -> Iterator[ProbeResult]:
    if not files.has("smollm_factual_probe"):
        return
    document = files.json("smollm_factual_probe")
    positive = document["fresh_pos"]
    for configuration, found in document["results"].items():
        point = OperatingPoint(found["best_thr"], found["best_asym"], chosen_on=Role.TEST)
        yield ProbeResult(
            "SmolLM2 correctness probe, fresh set", files.path("smollm_factual_probe"),
            configuration, "smollm_factual_probe", test_auc=found["auc"], n_positive=positive,
            n_negative=document["fresh_n"] - positive, operating_point=point, auc_gate=FRESH_GATE,
            asymmetry_gate=ASYMMETRY_GATE, train_auc_gate=CV_GATE, family="smollm",
        )  # fmt: skip


def _axes(files: Files) -> Iterator[ProbeResult]:
    """One probe an axis, fitted with C=0.1 (PAPER.md 5.2; the file says so in ``classifier``)."""
    if not files.has("disposition_probe_sweep"):
        return
    document = files.json("disposition_probe_sweep")
    c = document["classifier"].partition("C=")[2].partition(")")[0]
    for axis, found in document["axes"].items():
        yield ProbeResult(
            f"Gemma axis probe, {axis}", files.path("disposition_probe_sweep"), f"{axis}, C={c}",
            "disposition_probe_sweep", train_auc=found["cv_auc_step16"],
            test_auc=found["transfer_auc_fresh"], n_positive=found["n_pos_fresh"],
            n_negative=found["n_neg_fresh"], auc_gate=TRANSFER_GATE, train_auc_gate=CV_GATE,
            family="gemma",
        )  # fmt: skip


def _rankings(files: Files) -> Iterator[EffectRanking]:
    """Heads ranked by d between confidently wrong and confidently right answers."""
    for kind in files.paths:
        if not kind.startswith("attribution_"):
            continue
        document = files.json(kind)
        effects = tuple(
            Effect(f"layer {head['layer']} head {head['head']}", head["cohen_d"])
            for head in document["all_heads_ranked_by_cohen_d"]
        )
        yield EffectRanking(
            f"attention heads of {document['model_id']}", files.path(kind), effects,
            n_first=document["cohorts"]["cw"], n_second=document["cohorts"]["cr"], signed=True,
        )  # fmt: skip


def _interventions(files: Files) -> Iterator[Intervention]:
    """Strengths of the alpha sweep; the file states no seed."""
    if not files.has("alpha_sweep"):
        return
    for alpha in files.json("alpha_sweep")["alphas"]:
        yield Intervention(
            f"alpha {alpha:g}", files.path("alpha_sweep"), "alpha sweep", alpha, alpha == 0, None
        )


def _humaneval_claim(files: Files) -> Iterator[Claim]:
    if not files.has("humaneval_baseline") or not files.has("humaneval_dd_fp16"):
        return
    base = {row["task_id"]: row["passed"] for row in files.json("humaneval_baseline")}
    edited = {row["task_id"]: row["passed"] for row in files.json("humaneval_dd_fp16")}
    both = base.keys() & edited.keys()
    effect = (sum(edited[i] for i in both) - sum(base[i] for i in both)) / len(both)
    said = f"training moves HumanEval pass@1 by {effect * 100:+.1f} points (dd_fp16 against base)"
    yield Claim(said, files.path("humaneval_dd_fp16"), effect, "paired rate", len(both))


def _mcas_claim(files: Files) -> Iterator[Claim]:
    if not files.has("mcas_details"):
        return
    document = files.json("mcas_details")
    pairs = [
        (edited, base)
        for edited, base in zip(
            document["dd_fp16_scores"], document["baseline_scores"], strict=True
        )
        if -1 not in (edited, base)
    ]
    effect = sum(edited - base for edited, base in pairs) / (2 * len(pairs))
    said = f"training moves MCAS by {effect * 100:+.1f} of 100 points (dd_fp16 against base)"
    yield Claim(said, files.path("mcas_details"), effect, "paired rate", len(pairs))


def _asymmetry_claims(files: Files) -> Iterator[Claim]:
    """How much more often wrong answers are asserted than correct ones, by model."""
    sources = (
        ("Gemma", "judge_v4_step16", "items"),
        ("SmolLM2", "profile_smollm", "samples"),
        ("Qwen3.5", "profile_qwen35", "samples"),
        ("Gemma (retracted)", "profile_retracted", "samples"),
    )
    for model, kind, key in sources:
        if files.has(kind):
            rows = files.json(kind)[key]
            effect, n_correct, n = _asymmetry(rows)
            said = f"{model} asserts wrong answers {effect:+.3f} more often than correct ones"
            yield Claim(said, files.path(kind), effect, "rate", n, n_positive=n_correct)


def _asymmetry(rows: Sequence[Mapping[str, Any]]) -> tuple[float, int, int]:
    """Share asserted among wrong minus among correct answers, number correct, number in all."""
    used = [row for row in rows if row["correct"] is not None and row["verbal"] is not None]
    correct = [row["verbal"] == "assert" for row in used if row["correct"]]
    wrong = [row["verbal"] == "assert" for row in used if not row["correct"]]
    return sum(wrong) / len(wrong) - sum(correct) / len(correct), len(correct), len(used)


PROBES = (_last_layer, _multilayer, _axes, _smollm)
RANKINGS = (_rankings,)
INTERVENTIONS = (_interventions,)
CLAIMS = (_humaneval_claim, _mcas_claim, _asymmetry_claims)
