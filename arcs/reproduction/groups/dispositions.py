"""The 2x2 of correct against asserted, of each model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.formats import Sample, StepItem
from arcs.reproduction.groups.group import Group, Values, rate, rates_apart
from evals.statistics.rates import wilson

Answers = Sequence[StepItem] | Sequence[Sample]
JUDGED = "judge_v4_step16.json"
SMOLLM = "baseline_smollm_v2_disposition_profile.json"
QWEN = "baseline_qwen35_0.8b_v2_disposition_profile.json"
RETRACTED = "baseline_disposition_profile.json"

SOURCES: Mapping[str, tuple[str, Callable[[Artifacts], Answers]]] = {
    "gemma": (JUDGED, lambda artifacts: artifacts.step16.items),
    "smollm": (SMOLLM, lambda artifacts: artifacts.smollm_profile.samples),
    "qwen35": (QWEN, lambda artifacts: artifacts.qwen_profile.samples),
    "gemma_retracted_800": (RETRACTED, lambda artifacts: artifacts.retracted_profile.samples),
}


def cells_of(answers: Answers) -> tuple[int, int, int, int]:
    """Correct and asserted, correct and hedged, wrong and asserted, wrong and hedged."""
    pairs = [(answer.correct, answer.verbal) for answer in answers]
    return (
        pairs.count((True, "assert")),
        pairs.count((True, "hedge")),
        pairs.count((False, "assert")),
        pairs.count((False, "hedge")),
    )


def rates_of(cr: int, hr: int, cw: int, hw: int) -> Values:
    """Rates of the four cells (PAPER.md 4.7); raises ZeroDivisionError for an empty row."""
    n = cr + hr + cw + hw
    return {
        "cr": cr,
        "hr": hr,
        "cw": cw,
        "hw": hw,
        "accuracy": (cr + hr) / n,
        "assertion_rate": (cr + cw) / n,
        "hallucination_rate": cw / (cw + hw),
        "over_hedging_rate": hr / (cr + hr),
        "p_assert_correct": cr / (cr + hr),
        "p_assert_wrong": cw / (cw + hw),
        "asymmetry": cw / (cw + hw) - cr / (cr + hr),
    }


def intervals_of(cr: int, hr: int, cw: int, hw: int) -> Values:
    """The same rates with intervals; the asymmetry is wrong minus correct."""
    n, correct, wrong = cr + hr + cw + hw, (cr, cr + hr), (cw, cw + hw)
    return {
        "accuracy": rate(cr + hr, n),
        "assertion_rate": rate(cr + cw, n),
        "hallucination_rate": rate(*wrong),
        "over_hedging_rate": rate(hr, cr + hr),
        "p_assert_correct": rate(*correct),
        "p_assert_wrong": rate(*wrong),
        "asymmetry": rates_apart(correct, wrong),
    }


def table(artifacts: Artifacts, *, model: str) -> Values:
    """Cells, rates and mean coverage of one model."""
    answers = SOURCES[model][1](artifacts)
    coverage = sum(answer.coverage for answer in answers) / len(answers)
    return {**rates_of(*cells_of(answers)), "mean_coverage": coverage}


def intervals(artifacts: Artifacts, *, model: str) -> Values:
    """Rates of one model with intervals."""
    return intervals_of(*cells_of(SOURCES[model][1](artifacts)))


def overlap(artifacts: Artifacts, *, model: str) -> Values:
    """Whether Wilson's intervals of the assertion rates on correct and wrong answers overlap."""
    cr, hr, cw, hw = cells_of(SOURCES[model][1](artifacts))
    correct, wrong = wilson(cr, cr + hr), wilson(cw, cw + hw)
    apart = wrong.high < correct.low or correct.high < wrong.low
    return {"rates": "no overlap" if apart else "overlap"}


def percent(artifacts: Artifacts, *, model: str) -> Values:
    """Three rates of one model in percent, with intervals."""
    cr, hr, cw, hw = cells_of(SOURCES[model][1](artifacts))
    return {
        "p_assert_correct": rate(cr, cr + hr, 100),
        "p_assert_wrong": rate(cw, cw + hw, 100),
        "assertion_rate": rate(cr + cw, cr + hr + cw + hw, 100),
    }


def retracted(artifacts: Artifacts) -> Values:
    """What the retracted file says of itself: totals, and pairs that preference data could use."""
    by_prompt: dict[int, list[Sample]] = {}
    for sample in artifacts.retracted_profile.samples:
        by_prompt.setdefault(sample.prompt_i, []).append(sample)
    cells = [cells_of(samples) for samples in by_prompt.values()]
    samples = artifacts.retracted_profile.samples
    return {
        "n_samples": len(samples),
        "n_correct": sum(sample.correct for sample in samples),
        "n_wrong": sum(not sample.correct for sample in samples),
        "n_assert": sum(sample.verbal == "assert" for sample in samples),
        "n_hedge": sum(sample.verbal == "hedge" for sample in samples),
        "n_prompts": len(cells),
        # Each pair takes one sample of either kind from the same prompt.
        "hallucination_pairs": sum(min(cw, hw) for _, _, cw, hw in cells),
        "overhedge_pairs": sum(min(cr, hr) for cr, hr, _, _ in cells),
        "correctness_pairs": sum(min(cr + hr, cw + hw) for cr, hr, cw, hw in cells),
        "prompts_with_published_cells": _matching_cells(artifacts, by_prompt),
    }


def _matching_cells(artifacts: Artifacts, by_prompt: dict[int, list[Sample]]) -> int:
    """Prompts whose published cells are those of their samples."""
    published = artifacts.raw(RETRACTED)["per_prompt"]
    names = ("confident_right", "hedged_right", "confident_wrong", "hedged_wrong")
    return sum(
        cells_of(samples) == tuple(published[str(i)]["cells"][name] for name in names)
        for i, samples in by_prompt.items()
    )


GROUPS: dict[str, Group] = {
    **{f"2x2.{m}": Group((f,), partial(table, model=m)) for m, (f, _) in SOURCES.items()},
    **{
        f"2x2.{m}.intervals": Group((f,), partial(intervals, model=m))
        for m, (f, _) in SOURCES.items()
    },
    "2x2.gemma.percent": Group((JUDGED,), partial(percent, model="gemma")),
    "2x2.qwen35.overlap": Group((QWEN,), partial(overlap, model="qwen35")),
    "retracted": Group((RETRACTED,), retracted),
}
