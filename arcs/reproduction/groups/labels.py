"""Checklist labels: where the cut of 0.5 falls, and how many claims the checklists have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scipy.stats import fisher_exact

from arcs.reproduction.artifacts import CORRECT, Artifacts
from arcs.reproduction.groups.dispositions import JUDGED, QWEN, RETRACTED, SMOLLM
from arcs.reproduction.groups.group import (
    Group,
    Values,
    mean,
    rate,
    rate_ratio,
    rates_apart,
    scored_auc,
)
from evals.statistics.auc import auc

GEMMA_FRESH, SMOLLM_FRESH = "v1_full_fresh_judged_gold.json", "smollm_fresh_judged_gold.json"
CUTS = (0.2, 0.25, 0.4, 0.5, 0.6)
FILES = (JUDGED, SMOLLM, QWEN, GEMMA_FRESH, SMOLLM_FRESH)
ROUNDING = 1e-4
"""Coverages are stored with four digits in some files."""


def coverages(artifacts: Artifacts) -> Mapping[str, list[float]]:
    """Coverage of every set of answers, in prompt order."""
    return {
        "gemma_step16": [item.coverage for item in artifacts.step16.items],
        "smollm_step16": [sample.coverage for sample in artifacts.smollm_profile.samples],
        "qwen35_step16": [sample.coverage for sample in artifacts.qwen_profile.samples],
        "gemma_fresh": list(artifacts.gemma_fresh_labels.coverage),
        "smollm_fresh": list(artifacts.smollm_fresh_labels.coverage),
    }


def threshold_counts(artifacts: Artifacts) -> Values:
    """How many answers are correct at each cut."""
    found = coverages(artifacts)
    return {
        name: {f"{cut:g}": sum(value >= cut for value in values) for cut in CUTS}
        for name, values in found.items()
    }


def mean_coverage(artifacts: Artifacts) -> Values:
    """Mean coverage of each set."""
    return {name: sum(values) / len(values) for name, values in coverages(artifacts).items()}


def label_intervals(artifacts: Artifacts) -> Values:
    """Mean coverage, and the share that is correct at each cut, with intervals."""
    found = coverages(artifacts)
    rates = {
        f"{name}.{cut:g}": rate(sum(value >= cut for value in values), len(values))
        for name, values in found.items()
        for cut in CUTS
    }
    return {**rates, **{f"{k}.coverage": mean(v, len(v)) for k, v in found.items()}}


def coverage_drop(artifacts: Artifacts) -> Values:
    """Share correct on fresh minus on first prompts, at two cuts, and how many times smaller."""
    found = coverages(artifacts)
    drops: Values = {}
    for model in ("gemma", "smollm"):
        before, after = found[f"{model}_step16"], found[f"{model}_fresh"]
        for cut in (0.5, 0.6):
            first = sum(value >= cut for value in before), len(before)
            second = sum(value >= cut for value in after), len(after)
            times = rate_ratio(first, second)
            drops[f"{model}.{cut:g}"] = {**rates_apart(first, second), "times": times}
    return drops


def claims_possible(values: Sequence[float]) -> list[int]:
    """Checklist lengths, 2 to 6, under which every coverage is a whole number of claims."""
    lengths = range(2, 7)
    return [k for k in lengths if all(abs(v * k - round(v * k)) < k * ROUNDING for v in values)]


def step16_lengths(artifacts: Artifacts) -> list[int | None]:
    """Claims on the checklist of each first prompt; None where several lengths fit.

    One checklist served all models, so every coverage given for the prompt narrows it down,
    those of the retracted samples too. Lists of 2 claims were not asked for: of 2, 4 and 6, if
    all fit, the length is left open.
    """
    found = coverages(artifacts)
    per_prompt: list[list[float]] = [
        list(values)
        for values in zip(
            *(found[f"{m}_step16"] for m in ("gemma", "smollm", "qwen35")), strict=True
        )
    ]
    for sample in artifacts.retracted_profile.samples:
        per_prompt[sample.prompt_i].append(sample.coverage)
    return [_only(claims_possible(values)) for values in per_prompt]


def fresh_lengths(artifacts: Artifacts) -> list[int | None]:
    """Claims on the checklist of each fresh prompt; None where several lengths fit."""
    found = coverages(artifacts)
    pairs = zip(found["gemma_fresh"], found["smollm_fresh"], strict=True)
    return [_only(claims_possible(values)) for values in pairs]


def _only(lengths: list[int]) -> int | None:
    return lengths[0] if len(lengths) == 1 else None


def lengths(artifacts: Artifacts) -> Values:
    """How many checklists have how many claims."""
    first, fresh = step16_lengths(artifacts), fresh_lengths(artifacts)
    return {
        name: {str(k): found.count(k) for k in (4, 5, 6)} | {"open": found.count(None)}
        for name, found in (("step16", first), ("fresh", fresh))
    }


def length_range(artifacts: Artifacts) -> Values:
    """Shortest and longest checklist among those whose length is known."""
    known = [k for k in (*step16_lengths(artifacts), *fresh_lengths(artifacts)) if k is not None]
    return {"all": f"{min(known)}-{max(known)}"}


def sizes(artifacts: Artifacts) -> Values:
    """Wrong answers of SmolLM2 on fresh prompts, and the sizes of both classes."""
    labels = artifacts.smollm_fresh_labels.labels
    correct = sum(labels)
    wrong = len(labels) - correct
    return {"smollm_fresh_wrong": wrong, "smollm_fresh_pairs": [correct, wrong]}


def by_claim_count(artifacts: Artifacts) -> Values:
    """[correct, items] of each set among items with 4 and with 5 claims.

    Fresh checklists of open length are counted as 5, which 162 of the 166 others are.
    """
    found = coverages(artifacts)
    first, fresh = step16_lengths(artifacts), fresh_lengths(artifacts)
    fresh_assumed = [5 if k is None else k for k in fresh]
    result: Values = {}
    for name, values in found.items():
        length = fresh_assumed if name.endswith("fresh") else first
        result[name] = {
            str(k): _correct([v for v, n in zip(values, length, strict=True) if n == k])
            for k in (4, 5)
        }
    return result


def _correct(values: Sequence[float]) -> list[int]:
    return [sum(value >= CORRECT for value in values), len(values)]


def claim_count_intervals(artifacts: Artifacts) -> Values:
    """The same as rates, and fresh minus first among 5-claim items."""
    counts = by_claim_count(artifacts)
    rates = {
        f"{name}.{k}": rate(*pair)
        for name, by_length in counts.items()
        for k, pair in by_length.items()
        if pair[1]
    }
    drops = {
        f"{model}.drop": rates_apart(
            tuple(counts[f"{model}_step16"]["5"]), tuple(counts[f"{model}_fresh"]["5"])
        )
        for model in ("gemma", "smollm")
    }
    gap = counts["gemma_step16"]
    table = [[gap[k][0], gap[k][1] - gap[k][0]] for k in ("4", "5")]
    return {**rates, **drops, "gemma_4_against_5_p": float(fisher_exact(table).pvalue)}


def coverage_by_claim_count(artifacts: Artifacts) -> Values:
    """Gemma's mean coverage on first prompts with 4 and with 5 claims."""
    pairs = list(zip(coverages(artifacts)["gemma_step16"], step16_lengths(artifacts), strict=True))
    split = {k: [v for v, n in pairs if n == k] for k in (4, 5)}
    return {str(k): sum(values) / len(values) for k, values in split.items()}


def label_rule(artifacts: Artifacts) -> Values:
    """Labels that are not "coverage of at least 0.5", of each set; 0 where the rule holds."""
    found = coverages(artifacts)
    labels: Mapping[str, list[bool]] = {
        "gemma_step16": [item.correct for item in artifacts.step16.items],
        "smollm_step16": [sample.correct for sample in artifacts.smollm_profile.samples],
        "qwen35_step16": [sample.correct for sample in artifacts.qwen_profile.samples],
        "gemma_fresh": [label == 1 for label in artifacts.gemma_fresh_labels.labels],
        "smollm_fresh": [label == 1 for label in artifacts.smollm_fresh_labels.labels],
    }
    return {
        name: sum((v >= CORRECT) != label for v, label in zip(found[name], given, strict=True))
        for name, given in labels.items()
    }


def at_the_cut(artifacts: Artifacts) -> Values:
    """Answers whose coverage is exactly at the cut."""
    return {name: values.count(CORRECT) for name, values in coverages(artifacts).items()}


def _difficulty(artifacts: Artifacts) -> Mapping[str, tuple[list[float], list[bool]]]:
    """Coverage of one model beside the labels of another on the same prompts."""
    found = coverages(artifacts)
    correct = {name: [value >= CORRECT for value in values] for name, values in found.items()}
    return {
        "smollm_cov_predicts_gemma_label_fresh": (found["smollm_fresh"], correct["gemma_fresh"]),
        "smollm_cov_predicts_gemma_label_step16": (
            found["smollm_step16"], correct["gemma_step16"],
        ),
        "gemma_cov_predicts_smollm_label_fresh": (found["gemma_fresh"], correct["smollm_fresh"]),
    }  # fmt: skip


def difficulty(artifacts: Artifacts) -> Values:
    """AUC of one model's coverage for another's labels: how much the prompt alone says."""
    return {name: auc(*pair) for name, pair in _difficulty(artifacts).items()}


def difficulty_intervals(artifacts: Artifacts) -> Values:
    """The same with intervals."""
    return {name: scored_auc(*pair) for name, pair in _difficulty(artifacts).items()}


GROUPS: dict[str, Group] = {
    "labels.threshold_counts": Group(FILES, threshold_counts),
    "labels.mean_coverage": Group(FILES, mean_coverage),
    "labels.intervals": Group(FILES, label_intervals),
    "labels.drop": Group(FILES, coverage_drop),
    "labels.lengths": Group((*FILES, RETRACTED), lengths),
    "labels.by_claim_count": Group((*FILES, RETRACTED), by_claim_count),
    "labels.by_claim_count.intervals": Group((*FILES, RETRACTED), claim_count_intervals),
    "labels.coverage_by_claim_count": Group((*FILES, RETRACTED), coverage_by_claim_count),
    "labels.range": Group((*FILES, RETRACTED), length_range),
    "labels.sizes": Group((SMOLLM_FRESH,), sizes),
    "labels.rule": Group(FILES, label_rule),
    "labels.at_the_cut": Group(FILES, at_the_cut),
    "difficulty_baseline_auc": Group(FILES, difficulty),
    "difficulty_baseline_auc.intervals": Group(FILES, difficulty_intervals),
}
