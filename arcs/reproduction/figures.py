"""The paper's figures from its published files, ours beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arcs.figures.auc_collapse import AucCollapse, AucStep, PaperAuc, draw_auc_collapse
from arcs.figures.axis_sweep import AxisSweep, SweptAxis, draw_axis_sweep
from arcs.figures.discordance import BudgetCounts, Discordance, PaperChange, draw_discordance
from arcs.figures.nulls import NullDistribution, draw_nulls
from arcs.figures.parts import AucEstimate
from arcs.figures.pca import FeatureSet, PcaComparison, draw_pca
from arcs.figures.save import save
from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.claims.arc3 import STEP1_AUC, STEP1_NEGATIVE, STEP1_POSITIVE
from arcs.reproduction.claims.estimates import SMALLEST
from arcs.reproduction.groups import facts_of
from arcs.reproduction.groups.smollm import transfer_scores
from evals.statistics.auc import auc, delong_interval, hanley_mcneil_interval
from evals.statistics.paired import tango_interval
from evals.statistics.permutation import permutation_test
from evals.statistics.rates import Interval
from evals.statistics.thresholds import asymmetry_null

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

PERMUTATIONS = 2000
CUT_AT = 1500
"""Characters at which SmolLM2's stored training answers were cut."""
ASYMMETRY_GATE, AUC_GATE, CV_GATE = -0.15, 0.63, 0.65


def draw_all(artifacts: Artifacts, folder: Path) -> list[Path]:
    """Write every figure as SVG and PNG; returns the paths."""
    made = {
        "auc-collapse": draw_auc_collapse(_auc_collapse(artifacts)),
        "axis-sweep": draw_axis_sweep(_axis_sweep(artifacts)),
        "pca": draw_pca(_pca(artifacts)),
        "discordance": draw_discordance(_discordance(artifacts)),
        "null-distributions": draw_nulls(_nulls(artifacts)),
    }
    return [path for name, figure in made.items() for path in save(figure, folder, name)]


def _published(value: float, positive: int, negative: int) -> AucEstimate:
    return AucEstimate(value, positive, negative, hanley_mcneil_interval(value, positive, negative))


def _auc_collapse(artifacts: Artifacts) -> AucCollapse:
    facts = facts_of(artifacts)
    fresh, pooled = facts("probe.gemma_fresh"), facts("probe.gemma_multilayer")
    scores, labels = _smollm_scores(artifacts)
    second = AucEstimate(
        auc(scores, labels), int(labels.sum()), int((~labels).sum()),
        delong_interval(scores, labels),
    )  # fmt: skip
    return AucCollapse(
        paper=(
            PaperAuc("CV", STEP1_AUC),
            PaperAuc("fresh", 0.516),
            PaperAuc("pooled", 0.557),
            PaperAuc("SmolLM2", 0.519),
        ),
        paper_gate=AUC_GATE,
        steps=(
            AucStep(
                "1 within training",
                _published(STEP1_AUC, STEP1_POSITIVE, STEP1_NEGATIVE),
                CV_GATE,
            ),
            AucStep(
                "2 fresh prompts",
                _published(fresh["auc"], fresh["n_pos"], fresh["n_neg"]),
                AUC_GATE,
            ),
            AucStep(
                "4 last 4 layers",
                _published(pooled["auc"], pooled["n_pos"], pooled["n_neg"]),
                AUC_GATE,
            ),
            AucStep("5 SmolLM2", second, AUC_GATE, _chance_band(scores, labels)),
        ),
        method="Hanley-McNeil; SmolLM2 DeLong",
    )


def _smollm_scores(artifacts: Artifacts) -> tuple[FloatArray, BoolArray]:
    """Scores [193] of the probe (C = 1.0) on fresh prompts, and their labels [193]."""
    correct = artifacts.smollm_step16().labels
    return transfer_scores(artifacts, correct, 1.0), artifacts.smollm_fresh().labels


def _chance_band(scores: FloatArray, labels: BoolArray) -> Interval:
    """Central 95 percent of the AUC when the labels are permuted."""
    test = permutation_test(lambda drawn: auc(scores, drawn), labels, permutations=1000)
    return Interval(test.quantile(0.025), test.quantile(0.975), 0.95)


def _axis_sweep(artifacts: Artifacts) -> AxisSweep:
    return AxisSweep(
        axes=tuple(
            SweptAxis(
                name.replace("_", " "),
                _published(axis["cv"]["value"], axis["cv"]["n_pos"], axis["cv"]["n_neg"]),
                _published(axis["auc"], axis["n_pos"], axis["n_neg"]),
            )
            for name, axis in facts_of(artifacts)("probe.sweep").items()
        ),
        method="Hanley-McNeil",
    )


def _pca(artifacts: Artifacts) -> PcaComparison:
    facts = facts_of(artifacts)
    nuisance = facts("smollm.nuisance_probes_C1_cv_auc")
    cut = np.array([len(sample.text) == CUT_AT for sample in artifacts.smollm_profile.samples])
    n_train, n_fresh = len(cut), len(artifacts.smollm_fresh_features)
    n_cut = int(cut.sum())
    return PcaComparison(
        training=FeatureSet(
            "training prompts",
            artifacts.smollm_step16_features.astype(np.float64),
            artifacts.smollm_step16().labels,
            cut,
        ),
        fresh=FeatureSet(
            "fresh prompts",
            artifacts.smollm_fresh_features.astype(np.float64),
            artifacts.smollm_fresh().labels,
        ),
        set_probe=AucEstimate(nuisance["step16_vs_fresh"], n_fresh, n_train),
        cut_probe=AucEstimate(nuisance["truncated_at_1500_chars"], n_cut, n_train - n_cut),
    )


def _discordance(artifacts: Artifacts) -> Discordance:
    he = facts_of(artifacts)("arc1.he")
    gained, lost, n = he["dd_only"], he["base_only"], he["n"]
    return Discordance(
        budgets=(BudgetCounts(512, gained, lost, n, tango_interval(gained, lost, n)),),
        title="Published per-task results, Qwen3-0.6B",
        paper=(
            PaperChange("HumanEval, first run", 15.3, 100, "points"),
            PaperChange("HumanEval, corrected", -8.0, 100, "points"),
            PaperChange("MCAS, first run", 33.9, 100, "points"),
            PaperChange("MCAS, corrected", -0.32, 25, "of 25"),
        ),
        smallest_effect=SMALLEST.pass_at_1,
    )


def _nulls(artifacts: Artifacts) -> tuple[NullDistribution, ...]:
    scores, labels = _smollm_scores(artifacts)
    n = f"n = {len(labels)}, {int(labels.sum())} positive"
    fresh = permutation_test(lambda drawn: auc(scores, drawn), labels, permutations=1000)
    gate = asymmetry_null(scores, labels, gate=ASYMMETRY_GATE, permutations=PERMUTATIONS)
    return (
        NullDistribution(
            f"AUC, SmolLM2 fresh, {n}", "AUC", "labels permuted", fresh.null, fresh.observed,
            fresh.p_value, AUC_GATE,
        ),
        NullDistribution(
            f"best asymmetry, SmolLM2 fresh, {n}", "asymmetry (wrong minus correct)",
            "labels permuted", gate.null[np.isfinite(gate.null)], gate.observed, gate.p_value,
            ASYMMETRY_GATE, larger_passes=False, undefined=gate.undefined,
        ),
        _head_null(artifacts, "gemma_heads", "Gemma"),
        _head_null(artifacts, "qwen_heads", "Qwen3.5"),
    )  # fmt: skip


def _head_null(artifacts: Artifacts, file: str, model: str) -> NullDistribution:
    """The largest of as many independent noise effects: per-item norms are not published."""
    found = artifacts.gemma_heads if file == "gemma_heads" else artifacts.qwen_heads
    heads = found.all_heads_ranked_by_cohen_d
    error = np.sqrt(1 / found.cohorts.cw + 1 / found.cohorts.cr)
    freedom = found.cohorts.cw + found.cohorts.cr - 2
    draws = np.random.default_rng(0).standard_t(freedom, (PERMUTATIONS, len(heads)))
    null = error * draws.max(axis=1)
    observed = heads[0].cohen_d
    p_value = (1 + int((null >= observed).sum())) / (1 + len(null))
    return NullDistribution(
        f"largest of {len(heads)} heads, {model}", "Cohen's d", "independent noise", null,
        observed, p_value,
    )  # fmt: skip
