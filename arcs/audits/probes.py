"""Audits of what is reported of probes: signal in training, possible numbers, intervals."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from arcs.audits import baselines
from arcs.audits.findings import Audit, Evidence, Finding, Outcome, Severity, outcome
from arcs.audits.probe_data import Labelled, regularisation, title, train_items
from arcs.audits.results import ProbeResult, Reported, Results, ResultSet
from evals.statistics.auc import hanley_mcneil_interval, is_possible_auc
from evals.statistics.cross_validation import cross_validated_auc
from evals.statistics.rates import wilson

PAPER_TRAIN_GATE = 0.65
"""Cross-validated AUC that the paper's protocol asks for in step 1 (PAPER.md 5.4)."""
FOLDS = 5
SEEDS = tuple(range(20))
"""One seed of the folds moves the AUC by 0.03 (PAPER.md 5.7)."""
CERTAIN = 1e-6
"""Rounding left in a number that is written in full."""


def training_cv_gate(results: Results) -> Outcome:
    """Find probes that are judged on new data though nothing shows a signal in training."""
    places = [p for p in results.probes if p.train_auc is not None or p.test_auc is not None]
    cache: dict[tuple[str, str, float], dict[str, Evidence]] = {}
    found = [
        finding for p in places if (finding := _training_finding(results, p, cache)) is not None
    ]
    return outcome(found, len(places))


def _training_finding(
    results: Results, probe: ProbeResult, cache: dict[tuple[str, str, float], dict[str, Evidence]]
) -> Finding | None:
    reported = probe.train_auc
    computed = {} if reported is not None else _computed_cv(results, probe, cache)
    value = reported if reported is not None else computed.get("mean_auc")
    gate = PAPER_TRAIN_GATE if probe.train_auc_gate is None else probe.train_auc_gate
    if isinstance(value, float) and value >= gate:
        return None
    evidence: dict[str, Evidence] = {
        "gate": gate,
        "gate_is": "the paper's protocol" if probe.train_auc_gate is None else "the probe's own",
        "reported_train_auc": reported,
        "test_auc": probe.test_auc,
        **computed,
    }
    if not isinstance(value, float):
        message = (
            "No cross-validated AUC on the training set was reported, and none can be computed"
        )
        return _no_signal(Severity.CAUTION, probe, message, evidence)
    severity = Severity.CAUTION if probe.test_auc is None else Severity.INVALIDATES
    return _no_signal(severity, probe, _below_gate(value, gate, evidence), evidence)


def _below_gate(value: float, gate: float, evidence: dict[str, Evidence]) -> str:
    whose = "its own gate" if evidence["gate_is"] == "the probe's own" else "the paper's gate"
    if evidence["reported_train_auc"] is not None:
        return f"Cross-validation on the training set gives {value:.3f}, below {whose} {gate:.2f}"
    return (
        f"Cross-validation on the training set was not reported and gives {value:.3f} "
        f"+- {evidence['sd_over_seeds']:.3f} over {evidence['seeds']} seeds of the folds (largest "
        f"{evidence['largest']:.3f}), below {whose} {gate:.2f}"
    )


def _no_signal(
    severity: Severity, probe: ProbeResult, message: str, evidence: dict[str, Evidence]
) -> Finding:
    tested = probe.test_auc is not None
    so = ": a low AUC on new data then shows no failed transfer and no capability cliff"
    return Finding(
        severity,
        title(probe),
        f"{message}{so if tested else ''}.",
        "Report repeated cross-validation on the training set first, and test on new data only "
        "what passes there.",
        evidence,
    )


def _computed_cv(
    results: Results, probe: ProbeResult, cache: dict[tuple[str, str, float], dict[str, Evidence]]
) -> dict[str, Evidence]:
    """Cross-validate the probe's configuration on its training set, where that is at hand."""
    train, c = train_items(results, probe), regularisation(probe)
    if train is None or train.x is None or c is None:
        return {}
    key = train.source.name, train.label, c
    if key not in cache:
        try:
            cache[key] = _repeated_cv(train.x, train, c)
        except ValueError as error:  # too few items of a class, or too few groups
            cache[key] = {"not_computed": str(error)}
    return cache[key]


def _repeated_cv(x: NDArray[np.float32], train: Labelled, c: float) -> dict[str, Evidence]:
    found = cross_validated_auc(x, train.y, c=c, folds=FOLDS, seeds=SEEDS, groups=train.groups)
    return {
        "mean_auc": found.mean,
        "sd_over_seeds": found.sd,
        "smallest": found.range[0],
        "largest": found.range[1],
        "seeds": len(SEEDS),
        "out_of_fold_auc_seed_0": float(found.out_of_fold[0]),
        "fold_mean_auc_seed_0": float(found.fold_mean[0]),
        "c": c,
        "n_positive": train.n_positive,
        "n_negative": train.n_negative,
    }


def impossible_auc(results: Results) -> Outcome:
    """Find AUCs that no ranking of the stated numbers of items can give."""
    places = [p for p in results.probes if _step_shows(p)]
    return outcome((_impossible_finding(p) for p in places if not _possible(p)), len(places))


def _rounding(value: float) -> float:
    """Half a unit of the last digit that a number is written with, at least ``CERTAIN`` / 100."""
    exponent = Decimal(repr(value)).as_tuple().exponent
    return 0.5 * 10.0 ** int(exponent) if isinstance(exponent, int) else 0.5


def _pairs(probe: ProbeResult) -> int:
    return (probe.n_positive or 0) * (probe.n_negative or 0)


def _step_shows(probe: ProbeResult) -> bool:
    """Whether the AUC is written finely enough to tell half pairs apart."""
    if probe.test_auc is None or not _pairs(probe):
        return False
    outside = not 0 <= probe.test_auc <= 1
    return outside or _rounding(probe.test_auc) * _pairs(probe) < 0.25


def _possible(probe: ProbeResult) -> bool:
    value, positive, negative = probe.test_auc, probe.n_positive, probe.n_negative
    if value is None or positive is None or negative is None or not 0 <= value <= 1:
        return False
    tolerance = _rounding(value) * _pairs(probe) + CERTAIN
    return bool(is_possible_auc(value, positive, negative, tolerance))


def _impossible_finding(probe: ProbeResult) -> Finding:
    pairs = (probe.test_auc or 0.0) * _pairs(probe)
    return Finding(
        Severity.INVALIDATES,
        title(probe),
        f"An AUC of {probe.test_auc} of {probe.n_positive} against {probe.n_negative} items is "
        f"{pairs:.4f} correctly ordered pairs, and no ranking gives that: the AUC belongs to "
        "other items, or is a mean of several.",
        "Give the AUC with the class counts of the very items it was computed on.",
        {
            "auc": probe.test_auc,
            "n_positive": probe.n_positive,
            "n_negative": probe.n_negative,
            "ordered_pairs": pairs,
        },
    )


def missing_intervals(results: Results) -> Outcome:
    """Find reported numbers without an interval, and give it where counts determine it."""
    sets = [one for one in results.sets if one.reported]
    probes = [p for p in results.probes if p.test_auc is not None and 0 <= p.test_auc <= 1]
    found = [*_set_findings(sets), *(_auc_finding(p) for p in probes if not p.null_reported)]
    return outcome(found, len(sets) + len(probes))


def _set_findings(sets: list[ResultSet]) -> Iterator[Finding]:
    for one in sets:
        bare = [number for number in one.reported if not number.has_interval]
        if bare:
            yield _bare_numbers(one, bare)


def _bare_numbers(one: ResultSet, bare: list[Reported]) -> Finding:
    n = len(one.items)
    numbers: dict[str, Evidence] = {number.name: _with_wilson(number, n) for number in bare}
    said = "; ".join(_say(name, value) for name, value in list(numbers.items())[:6])
    return Finding(
        Severity.CAUTION,
        f"{one.name} ({one.source.name})",
        f"{len(bare)} of {len(one.reported)} reported numbers have no interval: {said}.",
        "Report every rate with its n and a Wilson interval.",
        {"n": n, "numbers": numbers},
    )


def _with_wilson(number: Reported, n: int) -> dict[str, Evidence]:
    """Return the number, with Wilson's interval where it is a whole count of the set's items.

    A number above 1 is tried as a percentage. A mean that happens to be a whole count would
    get the interval of a rate, which is not narrower than its own (Bhatia and Davis 2000).
    """
    found: dict[str, Evidence] = {"value": number.value}
    scale = 1.0 if 0 <= number.value <= 1 else 100.0
    count = number.value / scale * n
    within = _rounding(number.value) / scale * n
    countable = "auc" not in number.name.lower() and n > 0 and 0 <= number.value <= 100
    if countable and within < 0.5 and abs(count - round(count)) <= within + CERTAIN:
        interval = wilson(round(count), n)
        found |= {"count": round(count), "interval": interval.to_json(), "method": "Wilson"}
        found["read_as"] = "share" if scale == 1.0 else "percentage"
    return found


def _say(name: str, value: Evidence) -> str:
    assert isinstance(value, dict)
    interval = value.get("interval")
    if not interval:
        return f"{name} {value['value']:.4g}"
    return f"{name} {value['value']:.4g} ({interval['low']:.1%} to {interval['high']:.1%})"


def _auc_finding(probe: ProbeResult) -> Finding:
    evidence: dict[str, Evidence] = {"auc": probe.test_auc}
    said = "; without class counts it cannot be given"
    if probe.test_auc is not None and probe.n_positive and probe.n_negative:
        interval = hanley_mcneil_interval(probe.test_auc, probe.n_positive, probe.n_negative)
        evidence |= {
            "interval": interval.to_json(),
            "method": "Hanley-McNeil",
            "n_positive": probe.n_positive,
            "n_negative": probe.n_negative,
        }
        said = f"; by Hanley and McNeil it is {interval.low:.3f} to {interval.high:.3f}"
    return Finding(
        Severity.CAUTION,
        title(probe),
        f"The AUC {probe.test_auc:.3f} is reported without an interval or null{said}.",
        "Report the AUC with a DeLong or bootstrap interval.",
        evidence,
    )


AUDITS: tuple[Audit, ...] = (
    Audit(
        "training-cv-gate",
        "Did the probe find a signal in its own training set before it was tested on new data?",
        "probes with an AUC",
        training_cv_gate,
    ),
    Audit(
        "impossible-auc",
        "Can the AUC come from the stated numbers of positive and negative items?",
        "probes with an AUC in full digits and class counts",
        impossible_auc,
    ),
    Audit(
        "missing-intervals",
        "Has every reported number an interval?",
        "reported numbers",
        missing_intervals,
    ),
    *baselines.AUDITS,
)
