"""Arc 1: HumanEval at n_predict 512, the meta-cognition score, the self-verification rate."""

from __future__ import annotations

from functools import partial

from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.formats import TaskResult
from arcs.reproduction.groups.group import Group, Values, mean, rate, with_interval
from evals.statistics.bootstrap import bootstrap_paired_difference
from evals.statistics.paired import mcnemar_exact, paired_counts, tango_interval
from evals.statistics.rates import Interval

BASE, TRAINED = "phase0_audit/humaneval_baseline.json", "phase0_audit/humaneval_dd_fp16.json"
MCAS, RESULTS = "phase0_audit/mcas_details.json", "phase0_audit/eval_results.json"
ARMS = ("base", "dd")
KINDS = ("all", "tricky", "straightforward")


def _passes(artifacts: Artifacts) -> tuple[list[bool], list[bool]]:
    """Both arms in one order of tasks, joined by task id."""
    base, trained = _by_id(artifacts.humaneval_base), _by_id(artifacts.humaneval_trained)
    if set(base) != set(trained):
        raise ValueError("the two arms have different tasks")
    return list(base.values()), [trained[task] for task in base]


def _by_id(results: list[TaskResult]) -> dict[str, bool]:
    found = {result.task_id: result.passed for result in results}
    if len(found) != len(results):
        raise ValueError("a task occurs twice")
    return found


def humaneval(artifacts: Artifacts) -> Values:
    """Passes of both arms, paired by task."""
    base, trained = _passes(artifacts)
    counts = paired_counts(base, trained)
    return {
        "n": counts.n,
        "base_pass": sum(base),
        "dd_pass": sum(trained),
        "base_pct": 100 * sum(base) / counts.n,
        "dd_pct": 100 * sum(trained) / counts.n,
        "both": counts.both,
        "dd_only": counts.gained,
        "base_only": counts.lost,
        "neither": counts.neither,
        "mcnemar_exact_two_sided_p": mcnemar_exact(counts.gained, counts.lost),
    }


def humaneval_intervals(artifacts: Artifacts) -> Values:
    """The same in percent, with intervals."""
    base, trained = _passes(artifacts)
    counts = paired_counts(base, trained)
    found = tango_interval(counts.gained, counts.lost, counts.n)
    points = Interval(100 * found.low, 100 * found.high, found.level)
    return {
        "base": rate(sum(base), counts.n, 100),
        "dd": rate(sum(trained), counts.n, 100),
        "difference": with_interval(100 * counts.delta, points, "Tango, paired", counts.n),
    }


def _scores(artifacts: Artifacts, arm: str, kind: str) -> list[int]:
    details = artifacts.mcas
    scores = details.baseline_scores if arm == "base" else details.dd_fp16_scores
    pairs = zip(scores, details.prompts, strict=True)
    return [score for score, prompt in pairs if kind in ("all", prompt.type)]


def mcas(artifacts: Artifacts, *, arm: str, kind: str) -> Values:
    """Histogram of the scores 0, 1, 2 and their sum as a percentage of the maximum."""
    scores = _scores(artifacts, arm, kind)
    histogram = [scores.count(value) for value in (0, 1, 2)]
    n = len(scores)
    return {"n": n, "hist": histogram, "pct": (histogram[1] + 2 * histogram[2]) / (2 * n) * 100}


def mcas_intervals(artifacts: Artifacts) -> Values:
    """The percentages with intervals over prompts."""
    return {
        f"{arm}.{kind}": mean(scores, len(scores), 50)
        for arm in ARMS
        for kind in KINDS
        if (scores := _scores(artifacts, arm, kind))
    }


def mcas_difference(artifacts: Artifacts) -> Values:
    """Trained minus base over the same prompts, as a share of the scale (0 to 1)."""
    base, trained = (_scores(artifacts, arm, "all") for arm in ARMS)
    n = len(base)
    shares = [[score / 2 for score in scores] for scores in (base, trained)]
    found = bootstrap_paired_difference(*shares)
    value = (sum(trained) - sum(base)) / (2 * n)
    low, high = 100 * found.low, 100 * found.high
    points = with_interval(100 * value, Interval(low, high, 0.95), "BCa bootstrap, paired", n)
    return {**with_interval(value, found, "BCa bootstrap, paired", n), "points": points}


def svr(artifacts: Artifacts) -> Values:
    """Counts behind the published percentages, of the prompts of the meta-cognition test."""
    n, results = len(artifacts.mcas.prompts), artifacts.phase_zero
    base, trained = (_count(pct, n) for pct in (results.baseline_svr, results.dd_fp16_svr))
    return {
        "n": n,
        "base": base,
        "dd": trained,
        "bitnet": _count(results.dd_bitnet_svr, n),
        "base_rate": rate(base, n, 100),
        "dd_rate": rate(trained, n, 100),
    }


def _count(percent: float, n: int) -> int:
    count = percent * n / 100
    if abs(count - round(count)) > 1e-6:
        raise ValueError(f"{percent} percent is no whole number of {n}")
    return round(count)


def phase_zero(artifacts: Artifacts) -> Values:
    """Differences between published headline numbers, in points rounded as published."""
    results = artifacts.phase_zero
    he, scores = humaneval(artifacts)["dd_pct"], mcas(artifacts, arm="dd", kind="all")["pct"]
    losses = he - results.dd_bitnet_humaneval, scores - results.dd_bitnet_mcas
    return {
        "bitnet_he_degradation": round(losses[0], 1),
        "bitnet_mcas_degradation": round(losses[1], 1),
        "bitnet_max_degradation": round(max(losses), 1),
        "bitnet_he_count": _count(results.dd_bitnet_humaneval, len(artifacts.humaneval_base)),
    }


GROUPS: dict[str, Group] = {
    "arc1.he": Group((BASE, TRAINED), humaneval),
    "arc1.he.intervals": Group((BASE, TRAINED), humaneval_intervals),
    **{
        f"arc1.mcas.{arm}.{kind}": Group((MCAS,), partial(mcas, arm=arm, kind=kind))
        for arm in ARMS
        for kind in KINDS
    },
    "arc1.mcas.intervals": Group((MCAS,), mcas_intervals),
    "arc1.mcas.difference": Group((MCAS,), mcas_difference),
    "arc1.svr": Group((MCAS, RESULTS), svr),
    "arc1.phase_zero": Group((BASE, TRAINED, MCAS, RESULTS), phase_zero),
}
