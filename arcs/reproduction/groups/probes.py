"""Gemma's probes, whose features are not published: what their files still allow to check."""

from __future__ import annotations

from collections.abc import Mapping

from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.formats import OperatingPoint
from arcs.reproduction.groups.group import Group, Values, published_auc, rate, rates_apart
from arcs.reproduction.groups.labels import GEMMA_FRESH
from evals.statistics.auc import is_possible_auc, mann_whitney_u
from evals.statistics.thresholds import asymmetry_gate_false_positive_rate

SWEEP, STEP2, STEP4 = "disposition_probe_sweep.json", "v1_full_v2.json", "probe_multilayer.json"
JUDGED = "judge_v4_step16.json"
GATE, AUC_GATE, BEST = -0.15, 0.63, "C=0.1"
"""The paper's gates on asymmetry and AUC; the C whose AUC and asymmetry it reports."""


def sweep_u(artifacts: Artifacts) -> Values:
    """Mann-Whitney U of each published AUC of the axis sweep, rounded to a whole number."""
    axes = artifacts.axis_sweep.axes
    return {
        name: {
            "cv": float(
                round(mann_whitney_u(axis.cv_auc_step16, axis.n_pos_step16, axis.n_neg_step16))
            ),
            "transfer": float(
                round(mann_whitney_u(axis.transfer_auc_fresh, axis.n_pos_fresh, axis.n_neg_fresh))
            ),
        }
        for name, axis in axes.items()
    }


def sweep(artifacts: Artifacts) -> Values:
    """Each axis' transfer AUC with its interval, and its cross-validated AUC under ``cv``."""
    return {
        name: {
            "auc": axis.transfer_auc_fresh,
            **published_auc(axis.transfer_auc_fresh, axis.n_pos_fresh, axis.n_neg_fresh),
            "whole": _whole(axis.transfer_auc_fresh, axis.n_pos_fresh, axis.n_neg_fresh),
            "cv": {
                **published_auc(axis.cv_auc_step16, axis.n_pos_step16, axis.n_neg_step16),
                "whole": _whole(axis.cv_auc_step16, axis.n_pos_step16, axis.n_neg_step16),
            },
        }
        for name, axis in artifacts.axis_sweep.axes.items()
    }


def _whole(value: float, n_positive: int, n_negative: int) -> bool:
    return is_possible_auc(value, n_positive, n_negative, ties=False)


def sweep_gate(artifacts: Artifacts) -> Values:
    """How many disposition axes pass, and how many transfer below chance."""
    axes = artifacts.axis_sweep.axes
    locked = [axis for name, axis in axes.items() if name != "factual_accuracy"]
    passing = [a for a in locked if a.cv_auc_step16 >= 0.65 and a.transfer_auc_fresh >= 0.60]
    return {
        "passing": len(passing),
        "locked": len(locked),
        "below_chance": sum(axis.transfer_auc_fresh < 0.5 for axis in axes.values()),
        "axes": len(axes),
    }


def gemma_fresh(artifacts: Artifacts) -> Values:
    """Step 2 at the C that the paper reports."""
    run = artifacts.fresh_probe.evaluation
    value = run.configs[BEST].auc
    return {"auc": value, **published_auc(value, run.n_fresh_pos, run.n_fresh_neg)}


def gemma_multilayer(artifacts: Artifacts) -> Values:
    """Step 4 at the C that the paper reports; the class sizes are those of the fresh labels."""
    positive, negative = _fresh_sizes(artifacts)
    value = artifacts.pooled_probe.configs[BEST].fresh.auc
    return {"auc": value, **published_auc(value, positive, negative)}


def _fresh_sizes(artifacts: Artifacts) -> tuple[int, int]:
    labels = artifacts.gemma_fresh_labels.labels
    return sum(labels), len(labels) - sum(labels)


def step2(artifacts: Artifacts) -> Values:
    """Checks of every number of step 2 against the class sizes in its own file."""
    run = artifacts.fresh_probe.evaluation
    sizes = run.n_fresh_pos, run.n_fresh_neg
    return {
        c: {
            "auc": {**published_auc(config.auc, *sizes), "whole": _whole(config.auc, *sizes)},
            "u": mann_whitney_u(config.auc, *sizes),
            "min": point(config.min, *sizes),
            "at_half": point(config.at_half, *sizes),
            "balanced": point(config.balanced, *sizes),
        }
        for c, config in run.configs.items()
    }


def step4(artifacts: Artifacts) -> Values:
    """Checks of every number of step 4 against the fresh labels."""
    sizes = _fresh_sizes(artifacts)
    return {
        c: {
            "auc": {
                **published_auc(config.fresh.auc, *sizes),
                "whole": _whole(config.fresh.auc, *sizes),
            },
            "u": mann_whitney_u(config.fresh.auc, *sizes),
            "balanced": point(config.fresh.balanced, *sizes),
        }
        for c, config in artifacts.pooled_probe.configs.items()
    }


def point(published: OperatingPoint, n_positive: int, n_negative: int) -> Values:
    """Counts behind one operating point, and whether its rates and asymmetry agree."""
    wrong = published.p_assert_wrong * n_negative
    correct = published.p_assert_correct * n_positive
    whole = all(abs(count - round(count)) < 1e-6 for count in (wrong, correct))
    counts = (round(correct), n_positive), (round(wrong), n_negative)
    asymmetry = rates_apart(*counts)
    return {
        "asserted_wrong": counts[1][0],
        "asserted_correct": counts[0][0],
        "p_wrong": rate(*counts[1]),
        "p_correct": rate(*counts[0]),
        "asymmetry": asymmetry,
        "consistent": whole and abs(asymmetry["value"] - published.asym) < 1e-9,
    }


def gates(artifacts: Artifacts) -> Values:
    """Whether steps 2 and 4 pass by their own published numbers, and agree with the files."""
    run, pooled = artifacts.fresh_probe.evaluation, artifacts.pooled_probe
    step2 = _passes([(c.auc, c.balanced.asym) for c in run.configs.values()], AUC_GATE)
    step4 = _passes([(c.fresh.auc, c.fresh.balanced.asym) for c in pooled.configs.values()], 0.60)
    published = artifacts.raw(STEP2)["evaluation"]["gate_pass"], artifacts.raw(STEP4)["pass"]
    return {
        "step2": "yes" if step2 else "no",
        "step4": "yes" if step4 else "no",
        "step2_agrees": step2 is published[0],
        "step4_agrees": step4 is published[1],
        "asym": GATE,
    }


def _passes(results: list[tuple[float, float]], auc_gate: float) -> bool:
    return any(value >= auc_gate and asymmetry <= GATE for value, asymmetry in results)


def fresh_labels(artifacts: Artifacts) -> Values:
    """Labels of the fresh answers, to compare with the counts in the probes' files."""
    positive, negative = _fresh_sizes(artifacts)
    return {"n_pos": positive, "n_neg": negative, "n": positive + negative}


def gate_by_chance(artifacts: Artifacts) -> Values:
    """How often scores that know nothing pass the gate on the asymmetry."""
    labels = artifacts.gemma_fresh_labels.labels
    correct = sum(item.correct for item in artifacts.step16.items)
    sizes: Mapping[str, tuple[int, int]] = {
        "fresh": (sum(labels), len(labels) - sum(labels)),
        "step16": (correct, len(artifacts.step16.items) - correct),
        "smollm_fresh": (9, 184),
    }
    return {
        name: asymmetry_gate_false_positive_rate(*pair, gate=GATE) for name, pair in sizes.items()
    }


GROUPS: dict[str, Group] = {
    "sweep.mann_whitney_U": Group((SWEEP,), sweep_u),
    "probe.sweep": Group((SWEEP,), sweep),
    "probe.sweep_gate": Group((SWEEP,), sweep_gate),
    "probe.gemma_fresh": Group((STEP2,), gemma_fresh),
    "probe.gemma_multilayer": Group((STEP4, GEMMA_FRESH), gemma_multilayer),
    "probe.step2": Group((STEP2,), step2),
    "probe.step4": Group((STEP4, GEMMA_FRESH), step4),
    "probe.gates": Group((STEP2, STEP4), gates),
    "probe.fresh_labels": Group((GEMMA_FRESH,), fresh_labels),
    "probe.gate_by_chance": Group((GEMMA_FRESH, JUDGED), gate_by_chance),
}
