"""The rule-based verifier of Chef answers, before and after training."""

from __future__ import annotations

from functools import partial

import numpy as np

from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.formats import VerifierRow
from arcs.reproduction.groups.group import Group, Values, mean, rate, with_interval
from evals.statistics.bootstrap import bootstrap_paired_difference
from evals.statistics.paired import mcnemar_exact, paired_counts

FILES = {"baseline": "eval_baseline.json", "full_ddv2": "eval_full_ddv2.json"}


def _rows(artifacts: Artifacts, condition: str) -> list[VerifierRow]:
    base = condition == "baseline"
    return (artifacts.verifier_base if base else artifacts.verifier_trained).rows


def _incorrect(row: VerifierRow) -> int:
    return row.incorrect_technique + row.incorrect_regional + row.incorrect_ingredient


def run(artifacts: Artifacts, *, condition: str) -> Values:
    """Means over the answers of one condition."""
    rows = _rows(artifacts, condition)
    scores, n = np.array([row.score for row in rows]), len(rows)
    return {
        "avg_score": float(scores.mean()),
        "sd": float(scores.std(ddof=1)),
        "pass_rate": sum(row.passed for row in rows) / n,
        "avg_invented": sum(row.invented_count for row in rows) / n,
        "invented_zero": sum(row.invented_count == 0 for row in rows) / n,
        "incorrect_total": sum(map(_incorrect, rows)),
    }


def run_intervals(artifacts: Artifacts, *, condition: str) -> Values:
    """The same with intervals, and the shares that no answer can fail."""
    rows = _rows(artifacts, condition)
    n = len(rows)
    return {
        "avg_score": mean([row.score for row in rows], n),
        "pass_rate": rate(sum(row.passed for row in rows), n),
        "avg_invented": mean([row.invented_count for row in rows], n),
        "invented_zero": rate(sum(row.invented_count == 0 for row in rows), n),
        "technique_clean": rate(sum(row.incorrect_technique == 0 for row in rows), n),
        "regional_clean": rate(sum(row.incorrect_regional == 0 for row in rows), n),
        "ingredient_clean": rate(sum(row.incorrect_ingredient == 0 for row in rows), n),
    }


def _paired(artifacts: Artifacts) -> list[tuple[VerifierRow, VerifierRow]]:
    """Rows of both conditions joined by prompt."""
    base = {row.prompt: row for row in _rows(artifacts, "baseline")}
    trained = {row.prompt: row for row in _rows(artifacts, "full_ddv2")}
    if set(base) != set(trained):
        raise ValueError("the two conditions have different prompts")
    return [(row, trained[prompt]) for prompt, row in base.items()]


def paired(artifacts: Artifacts) -> Values:
    """Mean difference of the scores over prompts and its standard error."""
    differences = np.array([after.score - before.score for before, after in _paired(artifacts)])
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return {"mean": float(differences.mean()), "se": float(error)}


def paired_intervals(artifacts: Artifacts) -> Values:
    """The same with an interval, its t, and the exact McNemar p of the pass rates."""
    pairs = _paired(artifacts)
    scores = [before.score for before, _ in pairs], [after.score for _, after in pairs]
    found, summary = bootstrap_paired_difference(*scores), paired(artifacts)
    counts = paired_counts([b.passed for b, _ in pairs], [a.passed for _, a in pairs])
    return {
        "mean": with_interval(summary["mean"], found, "BCa bootstrap, paired", len(pairs)),
        "t": summary["mean"] / summary["se"],
        "pass_p": mcnemar_exact(counts.gained, counts.lost),
    }


GROUPS: dict[str, Group] = {
    **{f"verifier.{c}": Group((f,), partial(run, condition=c)) for c, f in FILES.items()},
    **{
        f"verifier.{c}.intervals": Group((f,), partial(run_intervals, condition=c))
        for c, f in FILES.items()
    },
    "verifier.paired_diff_dd_minus_base": Group(tuple(FILES.values()), paired),
    "verifier.paired.intervals": Group(tuple(FILES.values()), paired_intervals),
}
