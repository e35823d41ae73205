"""Audits of what was picked because it looked best: thresholds, configurations, heads, controls.

The largest of many noisy numbers is large without any effect. Each audit here says what the
same picking gives on noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from arcs.audits import rankings
from arcs.audits.findings import Audit, Evidence, Finding, Outcome, Severity, outcome
from arcs.audits.probe_data import (
    by_family,
    refitted_scores,
    test_items,
    title,
)
from arcs.audits.results import (
    Intervention,
    OperatingPoint,
    ProbeResult,
    Results,
    Role,
)
from evals.statistics.auc import auc
from evals.statistics.thresholds import asymmetry_gate_false_positive_rate

MIN_P_CORRECT = 0.70
"""The paper's condition for a balanced operating point (PAPER.md 5.3)."""
PERMUTATIONS = 2000


def threshold_on_test_labels(results: Results) -> Outcome:
    """Find operating points that were chosen on the labels they are reported on."""
    places = [(p, p.operating_point) for p in results.probes if p.operating_point]
    found = [
        finding
        for probe, point in places
        if (finding := _threshold_finding(results, probe, point)) is not None
    ]
    return outcome(found, len(places))


def _threshold_finding(
    results: Results, probe: ProbeResult, point: OperatingPoint
) -> Finding | None:
    if point.chosen_on is None:
        return Finding(
            Severity.CAUTION,
            title(probe),
            f"Nothing says which labels the threshold {point.threshold:.3g} was chosen on.",
            "Choose the threshold on out-of-fold scores of the training set, and say so.",
            {"threshold": point.threshold, "asymmetry": point.asymmetry},
        )
    if point.chosen_on is not Role.TEST:
        return None
    null = _asymmetry_nulls(results, probe, point)
    return Finding(
        Severity.CAUTION if probe.null_reported else Severity.BIASES,
        title(probe),
        f"The threshold {point.threshold:.3g} was chosen on the test labels: the asymmetry "
        f"{point.asymmetry:+.3f} is the best of many on the same items{_null_sentence(null)}.",
        "Choose the threshold on out-of-fold scores of the training set; report an oracle "
        "threshold apart, with its permutation null.",
        {
            "threshold": point.threshold,
            "asymmetry": point.asymmetry,
            "n_positive": probe.n_positive,
            "n_negative": probe.n_negative,
            **null,
        },
    )


def _asymmetry_nulls(
    results: Results, probe: ProbeResult, point: OperatingPoint
) -> dict[str, Evidence]:
    """How often a probe that knows nothing does as well, over its own choice of thresholds."""
    positive, negative = probe.n_positive, probe.n_negative
    if not positive or not negative:
        return {}
    gate = point.asymmetry if probe.asymmetry_gate is None else probe.asymmetry_gate
    least = _least_p_correct(point)
    found: dict[str, Evidence] = {
        "gate": gate,
        "gate_is": "the observed value" if probe.asymmetry_gate is None else "the probe's gate",
        "min_p_correct": least,
        "null_pass_rate_uniform_scores": _uniform_pass_rate(positive, negative, gate, least),
    }
    return {**found, **_own_score_null(results, probe, gate, least)}


def _least_p_correct(point: OperatingPoint) -> float:
    """Return the paper's condition, unless the point itself shows that none was held."""
    unbalanced = point.p_assert_correct is not None and point.p_assert_correct < MIN_P_CORRECT
    return 0.0 if unbalanced else MIN_P_CORRECT


@lru_cache(maxsize=256)
def _uniform_pass_rate(positive: int, negative: int, gate: float, least: float) -> float:
    return asymmetry_gate_false_positive_rate(
        positive, negative, gate=gate, min_p_correct=least, permutations=PERMUTATIONS
    )


def _own_score_null(
    results: Results, probe: ProbeResult, gate: float, least: float
) -> dict[str, Evidence]:
    """Permute the labels over the probe's own scores, refitted where features are at hand."""
    scores, test = refitted_scores(results, probe), test_items(results, probe)
    if scores is None or test is None:
        return {}
    rate = asymmetry_gate_false_positive_rate(
        test.n_positive,
        test.n_negative,
        gate=gate,
        min_p_correct=least,
        scores=scores,
        permutations=PERMUTATIONS,
    )
    return {"null_pass_rate_own_scores": rate, "refitted_test_auc": auc(scores, test.y)}


def _null_sentence(null: dict[str, Evidence]) -> str:
    rate = null.get("null_pass_rate_own_scores", null.get("null_pass_rate_uniform_scores"))
    if not isinstance(rate, float):
        return "; without class counts its null cannot be given"
    own = "null_pass_rate_own_scores" in null
    whose = "labels permuted over the probe's own scores" if own else "uniform random scores"
    return f", and {whose} reach {null['gate']:.3g} in {rate:.0%} of draws"


def configuration_on_test(results: Results) -> Outcome:
    """Find families with several configurations on the test set and no way to tell the chosen."""
    families = {
        name: tested
        for name, probes in by_family(results.probes).items()
        if (tested := [p for p in probes if _is_tested(p)])
    }
    found = [
        _configuration_finding(name, probes)
        for name, probes in families.items()
        if len({p.configuration for p in probes}) > 1 and not _chosen_in_training(probes)
    ]
    return outcome(found, len(families))


def _is_tested(probe: ProbeResult) -> bool:
    on_test = probe.operating_point is not None and probe.operating_point.chosen_on is Role.TEST
    return probe.test_auc is not None or on_test


def _chosen_in_training(probes: Sequence[ProbeResult]) -> bool:
    """Whether training results of every candidate are there to choose by."""
    return all(probe.train_auc is not None for probe in probes)


def _configuration_finding(name: str | None, probes: Sequence[ProbeResult]) -> Finding:
    configurations = sorted({p.configuration for p in probes})
    aucs: dict[str, Evidence] = {p.configuration: p.test_auc for p in probes}
    return Finding(
        Severity.BIASES,
        name or probes[0].name,
        f"{len(configurations)} configurations ({', '.join(configurations)}) have test results, "
        "and no training result says which of them was chosen beforehand: the best one is a "
        "choice made on the test labels.",
        "Choose one configuration by cross-validation on the training set before the test set "
        "is scored, and report the others as exploratory.",
        {"configurations": list(configurations), "test_auc": aucs},
    )


def different_runs(results: Results) -> Outcome:
    """Find families whose best AUC and best asymmetry belong to different runs or settings."""
    families = [
        (name, best_auc, best_asymmetry)
        for name, probes in by_family(results.probes).items()
        if (best_auc := _best_auc(probes)) and (best_asymmetry := _best_asymmetry(probes))
    ]
    found = [
        _different_runs_finding(name, *pair)
        for name, *pair in families
        if _identity(pair[0]) != _identity(pair[1])
    ]
    return outcome(found, len(families))


def _best_auc(probes: Sequence[ProbeResult]) -> ProbeResult | None:
    """Return the probe with the best AUC on the test set, else the best in training."""
    tested = [(p.test_auc, p) for p in probes if p.test_auc is not None]
    trained = [(p.train_auc, p) for p in probes if p.train_auc is not None]
    return max(tested or trained, key=lambda pair: pair[0], default=(0.0, None))[1]


def _best_asymmetry(probes: Sequence[ProbeResult]) -> ProbeResult | None:
    points = [(p.operating_point.asymmetry, p) for p in probes if p.operating_point]
    return min(points, key=lambda pair: pair[0], default=(0.0, None))[1]


def _identity(probe: ProbeResult) -> tuple[str, str]:
    return probe.run, probe.configuration


def _different_runs_finding(name: str | None, first: ProbeResult, second: ProbeResult) -> Finding:
    runs = first.run != second.run
    best = first.train_auc if first.test_auc is None else first.test_auc
    asymmetry = second.operating_point.asymmetry if second.operating_point else None
    return Finding(
        Severity.INVALIDATES if runs else Severity.BIASES,
        name or first.name,
        f"The best AUC ({best:.3f}) belongs to {_describe(first)} and the best asymmetry "
        f"({asymmetry:+.3f}) to {_describe(second)}: the two together describe no probe.",
        "Give both numbers for one run and one configuration.",
        {
            "auc": best,
            "auc_from": {"run": first.run, "configuration": first.configuration},
            "asymmetry": asymmetry,
            "asymmetry_from": {"run": second.run, "configuration": second.configuration},
        },
    )


def _describe(probe: ProbeResult) -> str:
    return f"{probe.configuration} of run {probe.run}"


def missing_control(results: Results) -> Outcome:
    """Find sweeps in which a treatment has no control of its own seed and settings."""
    sweeps: dict[str, list[Intervention]] = {}
    for one in results.interventions:
        sweeps.setdefault(one.sweep, []).append(one)
    found = [finding for name, ones in sweeps.items() for finding in _sweep_findings(name, ones)]
    return outcome(found, len(sweeps))


def _sweep_findings(name: str, ones: Sequence[Intervention]) -> Iterator[Finding]:
    controls = [one for one in ones if one.is_control]
    treatments = [one for one in ones if not one.is_control]
    where = f"{name} ({ones[0].source.name})"
    bare = [one for one in treatments if all(c.seed != one.seed for c in controls)]
    if bare:
        yield _no_control(where, bare, anywhere=bool(controls))
    pairs = [(t, c) for t in treatments for c in controls if t.seed == c.seed]
    differing: dict[str, Evidence] = {
        key: {"treatment": t.settings[key], "control": c.settings[key]}
        for t, c in pairs
        for key in sorted(t.settings.keys() & c.settings.keys())
        if t.settings[key] != c.settings[key]
    }
    if differing:
        yield Finding(
            Severity.BIASES,
            where,
            f"Treatment and control differ in more than the treatment: {', '.join(differing)}.",
            "Run the control with the settings of the treatment.",
            {"settings": differing},
        )


def _no_control(where: str, bare: Sequence[Intervention], *, anywhere: bool) -> Finding:
    seeds = sorted({"not stated" if one.seed is None else str(one.seed) for one in bare})
    missing = f"no control at seed {', '.join(seeds)}" if anywhere else "no control at all"
    names = [one.name for one in bare]
    return Finding(
        Severity.BIASES if anywhere else Severity.INVALIDATES,
        where,
        f"{len(bare)} of the sweep's treatments ({', '.join(names[:5])}) have {missing}: what "
        "the seed did and what the treatment did cannot be told apart.",
        "Run the control at every seed, with identical decoding.",
        {"treatments": list(names), "seeds": list(seeds), "any_control": anywhere},
    )


AUDITS: tuple[Audit, ...] = (
    *rankings.AUDITS,
    Audit(
        "threshold-on-test-labels",
        "Was an operating point chosen on the labels it is reported on?",
        "probes with an operating point",
        threshold_on_test_labels,
    ),
    Audit(
        "configuration-on-test",
        "Do several configurations have test results, with none declared beforehand?",
        "probes with test results",
        configuration_on_test,
    ),
    Audit(
        "different-runs",
        "Do the best AUC and the best asymmetry belong to one run and configuration?",
        "probes with an AUC and an operating point",
        different_runs,
    ),
    Audit(
        "missing-control",
        "Has every treatment a control of its own seed and settings?",
        "interventions of a sweep",
        missing_control,
    ),
)
