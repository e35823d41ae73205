"""Rubric v4: counts on each axis, agreement with the checklist, correlation of the axes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import combinations

import numpy as np
from scipy.stats import pearsonr

from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.formats import FreshItem, StepItem
from arcs.reproduction.groups.group import Group, Values, mean, rate, scored_auc
from evals.statistics.agreement import cohen_kappa
from evals.statistics.auc import auc

AXES = (
    "factual_accuracy",
    "hedging_appropriateness",
    "pedagogical_framing",
    "self_verification",
    "completeness",
)
STEP, FRESH, LABELS = (
    "judge_v4_step16.json",
    "judge_v4_fresh.json",
    "v1_full_fresh_judged_gold.json",
)
HIGH, LOW = 4, 2
Items = Sequence[FreshItem] | Sequence[StepItem]


def _items(artifacts: Artifacts, which: str) -> Items:
    return artifacts.step16.items if which == "step16" else artifacts.fresh.items


def grades(items: Items, axis: str) -> list[int | None]:
    """Grades of one axis in item order; None where the judge gave none."""
    return [getattr(item.scores, axis) for item in items]


def _valid(items: Items, axis: str) -> list[int]:
    return [grade for grade in grades(items, axis) if grade is not None]


def rubric(artifacts: Artifacts, *, which: str) -> Values:
    """Counts of grades and of certainty classes."""
    items = _items(artifacts, which)
    missing = [i for i, grade in enumerate(grades(items, AXES[0])) if grade is None]
    return {
        "n": len(items),
        "valid": len(items) - len(missing),
        "error_index": missing,
        "cert": dict(Counter(item.cert for item in items)),
        "axes": {axis: _axis(_valid(items, axis)) for axis in AXES},
    }


def _axis(found: list[int]) -> Values:
    return {
        "mean": sum(found) / len(found),
        "ge4": sum(grade >= HIGH for grade in found),
        "le2": sum(grade <= LOW for grade in found),
        "hist1to5": [found.count(grade) for grade in range(1, 6)],
    }


def rubric_intervals(artifacts: Artifacts, *, which: str) -> Values:
    """Mean of each axis, and the number of high grades; the latter scaled from Wilson's share."""
    items = _items(artifacts, which)
    return {"axes": {axis: _axis_intervals(_valid(items, axis)) for axis in AXES}}


def _axis_intervals(found: list[int]) -> Values:
    high = rate(sum(grade >= HIGH for grade in found), len(found), len(found))
    return {
        "mean": mean(found, len(found)),
        "ge4": {**high, "method": "Wilson, times n"},
    }


def _against_checklist(
    artifacts: Artifacts, which: str
) -> tuple[list[int], list[bool], list[float]]:
    """Factual grade, checklist label and coverage of the items that have a grade."""
    if which == "step16":
        found = [(i.scores.factual_accuracy, i.correct, i.coverage) for i in artifacts.step16.items]
    else:
        gold = artifacts.gemma_fresh_labels
        graded = grades(artifacts.fresh.items, AXES[0])
        labels = [bool(label) for label in gold.labels]
        found = list(zip(graded, labels, gold.coverage, strict=True))
    kept = [(grade, label, coverage) for grade, label, coverage in found if grade is not None]
    return [k[0] for k in kept], [k[1] for k in kept], [k[2] for k in kept]


def agreement(artifacts: Artifacts, *, which: str) -> Values:
    """Two readings of correctness by the same judge."""
    factual, correct, coverage = _against_checklist(artifacts, which)
    return {
        "auc_v4factual_vs_checklist": auc(factual, correct),
        "kappa_ge4": cohen_kappa([grade >= HIGH for grade in factual], correct).value,
        "pearson_cov_factual": float(pearsonr(coverage, factual).statistic),
    }


def agreement_intervals(artifacts: Artifacts, *, which: str) -> Values:
    """The same with intervals."""
    factual, correct, coverage = _against_checklist(artifacts, which)
    kappa = cohen_kappa([grade >= HIGH for grade in factual], correct)
    correlation = pearsonr(coverage, factual)
    between = correlation.confidence_interval(0.95)
    interval = None if kappa.interval is None else [kappa.interval.low, kappa.interval.high]
    return {
        "auc_v4factual_vs_checklist": scored_auc(factual, correct),
        "kappa_ge4": {
            "value": kappa.value,
            "interval": interval,
            "level": 0.95,
            "method": "Fleiss-Cohen-Everitt",
            "n": kappa.n,
        },
        "pearson_cov_factual": {
            "value": float(correlation.statistic),
            "interval": [float(between.low), float(between.high)],
            "level": 0.95,
            "method": "Fisher z",
            "n": len(factual),
        },
    }


def axis_correlations(artifacts: Artifacts, *, which: str) -> Values:
    """Pearson correlation of each pair of axes over the graded items."""
    items = _items(artifacts, which)
    table = np.array([_valid(items, axis) for axis in AXES], dtype=np.float64)
    matrix = np.atleast_2d(np.corrcoef(table))
    pairs = combinations(range(len(AXES)), 2)
    return {f"{AXES[i]}__{AXES[j]}": float(matrix[i, j]) for i, j in pairs}


def spot_checks(artifacts: Artifacts) -> Values:
    """Factual grade of the fresh answers that the findings name."""
    found = grades(artifacts.fresh.items, AXES[0])
    return {f"factual_{i}": found[i] for i in (38, 74, 132, 190)}


def _groups(which: str, judged: tuple[str, ...], labelled: tuple[str, ...]) -> dict[str, Group]:
    return {
        f"v4.{which}": Group(judged, partial(rubric, which=which)),
        f"v4.{which}.intervals": Group(judged, partial(rubric_intervals, which=which)),
        f"v4.{which}.correlations": Group(judged, partial(axis_correlations, which=which)),
        f"judge_agreement.{which}": Group(labelled, partial(agreement, which=which)),
        f"judge_agreement.{which}.intervals": Group(
            labelled, partial(agreement_intervals, which=which)
        ),
    }


GROUPS: dict[str, Group] = {
    **_groups("step16", (STEP,), (STEP,)),
    **_groups("fresh", (FRESH,), (FRESH, LABELS)),
    "v4.spot_checks": Group((FRESH,), spot_checks),
}
