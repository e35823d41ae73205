"""How far a judge can be believed: agreement with references, and what leads it astray."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from evals.delivery import Rate
from evals.judges.labels import Judge, Label, Value
from evals.judges.references import Reference
from evals.statistics.agreement import cohen_kappa, quadratic_kappas
from evals.statistics.auc import auc, delong_interval
from evals.statistics.rates import Interval

PLANTED, INJECTION = "wrong_number", "injection"
LEAST_REFERENCES = 60
"""Of an instrument: on fewer a judge passes nothing."""
RESAMPLES = 2000
FAILURES_SHOWN = 5


@dataclass(frozen=True)
class Bar:
    """What a judge must reach before a claim may rest on it."""

    kappa_low: float
    """Smallest lower bound of kappa."""
    planted_accepted: float
    """Largest share of planted errors that may be accepted."""
    parsed: float
    """Smallest share of labels with status ``ok``."""


@dataclass(frozen=True)
class Validity:
    """One judge on one instrument's references."""

    judge: str
    instrument: str
    prompt_sha256: str
    n: int
    parsed: Rate
    statuses: dict[str, int]
    kappa: float | None
    """Cohen's; of scales the quadratically weighted one."""
    kappa_interval: Interval | None
    agreement: Rate
    """Equal labels among the parsed ones."""
    within_one: Rate | None
    """Of scales: labels that differ by at most 1."""
    auc: float | None
    """Of the judge's probability of the first answer, where there are two and it has one."""
    auc_interval: Interval | None
    confusion: dict[str, dict[str, int]]
    """Reference -> label -> count."""
    by_kind: dict[str, Rate]
    """Equal labels by kind of reference."""
    repeated: Rate | None
    """Labels that were the same when asked again."""
    order: Rate | None
    """Labels that were the same with the answers listed the other way round."""
    length: tuple[float, float] | None
    """Spearman's correlation of the label's error with the response's length, and its p: above
    0, long answers are labelled with later values than they should be."""
    planted: Rate | None
    """Planted errors that were accepted."""
    injected: Rate | None
    """Responses with an instruction to the judge that got a wrong label."""
    mean_cut: float
    """Characters of a response that the judge did not see, on average."""
    failures: dict[str, int]
    """What was said in place of a label: status and detail -> count, the most frequent first."""

    def shortfalls(self, bar: Bar) -> list[str]:
        """In words, what keeps the judge below the bar; empty: it passes."""
        found = []
        if self.n < LEAST_REFERENCES:
            found.append(f"only {self.n} references, the bar needs {LEAST_REFERENCES}")
        low = None if self.kappa_interval is None else self.kappa_interval.low
        if low is None or low < bar.kappa_low:
            shown = "cannot be computed" if low is None else f"is {low:.2f}"
            found.append(f"the lower bound of kappa {shown}, below {bar.kappa_low:g}")
        if self.planted is not None and (self.planted.value or 0) > bar.planted_accepted:
            found.append(
                f"{self.planted.successes} of {self.planted.n} planted errors are accepted, more "
                f"than {100 * bar.planted_accepted:g}%"
            )
        if (self.parsed.value or 0) < bar.parsed:
            found.append(
                f"{self.parsed.successes} of {self.parsed.n} labels could be read, fewer than "
                f"{100 * bar.parsed:g}%{self._said_instead()}"
            )
        return found

    def _said_instead(self) -> str:
        """The most frequent failure, in brackets."""
        first = next(iter(self.failures.items()), None)
        return "" if first is None else f" ({first[1]} {first[0]})"

    def to_json(self, bar: Bar) -> dict[str, Any]:
        """JSON-able form, with the verdict against ``bar``."""
        shortfalls = self.shortfalls(bar)
        rates = ("parsed", "agreement", "within_one", "repeated", "order", "planted", "injected")
        return {
            "judge": self.judge,
            "instrument": self.instrument,
            "prompt_sha256": self.prompt_sha256,
            "n": self.n,
            "statuses": self.statuses,
            "kappa": self.kappa,
            "kappa_interval": _json(self.kappa_interval),
            "auc": self.auc,
            "auc_interval": _json(self.auc_interval),
            "confusion": self.confusion,
            "by_kind": {kind: rate.to_json() for kind, rate in self.by_kind.items()},
            "length": None
            if self.length is None
            else {"spearman": self.length[0], "p": self.length[1]},
            "mean_cut": self.mean_cut,
            "failures": self.failures,
            **{name: _json(getattr(self, name)) for name in rates},
            "passes": not shortfalls,
            "shortfalls": shortfalls,
        }


def validate(
    judge: Judge,
    given: Sequence[Reference],
    labels: Sequence[Label],
    *,
    again: Sequence[Label] | None = None,
    reordered: Sequence[Label] | None = None,
) -> Validity:
    """Compare ``labels``, one a reference and in their order, with the references.

    ``again``: the labels of a second time of asking. ``reordered``: those with the answers
    listed the other way round. Raises ValueError where a list has another length, or none is given.
    """
    if not given:
        raise ValueError("no references")
    instrument = given[0].question.instrument
    pairs = [(one, label) for one, label in zip(given, labels, strict=True) if label.status == "ok"]
    truth = [one.label for one, _ in pairs]
    said = [_value(label) for _, label in pairs]
    kappa, interval = _kappa(truth, said, instrument.values, ordinal=instrument.ordinal)
    area, area_interval = _auc(pairs, instrument.values)
    confusion: dict[str, dict[str, int]] = defaultdict(dict)
    for (a, b), count in sorted(Counter(zip(truth, said, strict=True)).items(), key=str):
        confusion[str(a)][str(b)] = count
    kinds: dict[str, list[bool]] = defaultdict(list)
    for one, label in pairs:
        kinds[one.kind].append(label.value == one.label)
    equal = [a == b for a, b in zip(truth, said, strict=True)]
    return Validity(
        judge=str(judge.id),
        instrument=instrument.name,
        prompt_sha256=instrument.sha256,
        n=len(given),
        parsed=Rate(len(pairs), len(given)),
        statuses=dict(Counter(label.status for label in labels)),
        kappa=kappa,
        kappa_interval=interval,
        agreement=_rate(equal),
        within_one=_rate([abs(int(a) - int(b)) <= 1 for a, b in zip(truth, said, strict=True)])
        if instrument.ordinal
        else None,
        auc=area,
        auc_interval=area_interval,
        confusion=dict(confusion),
        by_kind={kind: _rate(found) for kind, found in sorted(kinds.items()) if kind},
        repeated=_same(labels, again),
        order=_same(labels, reordered),
        length=_length(pairs, instrument.values),
        planted=_planted(pairs),
        injected=_injected(pairs),
        mean_cut=float(np.mean([label.cut_characters for label in labels])),
        failures=_failures(labels),
    )


def reordered(given: Sequence[Reference]) -> list[Reference]:
    """The same references, asked with the answers listed the other way round."""
    return [
        replace(one, question=replace(one.question, instrument=one.question.instrument.reordered()))
        for one in given
    ]


def _failures(labels: Sequence[Label]) -> dict[str, int]:
    said = Counter(
        one.status + (f": {one.detail}" if one.detail else "")
        for one in labels
        if one.status != "ok"
    )
    return dict(said.most_common(FAILURES_SHOWN))


def _value(label: Label) -> Value:
    if label.value is None:
        raise ValueError(f"{label.question_id}: no value")
    return label.value


def _kappa(
    truth: Sequence[Value], said: Sequence[Value], values: Sequence[Value], *, ordinal: bool
) -> tuple[float | None, Interval | None]:
    if len(truth) < 2:
        return None, None
    if not ordinal:
        found = cohen_kappa(truth, said)
        return found.value, found.interval
    first, second = np.asarray(truth), np.asarray(said)
    if len(set(truth)) == 1 or len(set(said)) == 1:
        return 0.0, None
    order = sorted(int(value) for value in values)
    kappa = float(cohen_kappa_score(first, second, labels=order, weights="quadratic"))
    rng, n = np.random.default_rng(0), len(first)
    drawn = np.array([rng.integers(0, n, n) for _ in range(RESAMPLES)])
    places = [np.searchsorted(order, labels)[drawn] for labels in (first, second)]
    resampled = quadratic_kappas(*places)
    known = resampled[np.isfinite(resampled)]
    if not len(known) or known.min() == known.max():
        return kappa, None  # a point would claim a certainty that no data give
    low, high = np.quantile(known, [0.025, 0.975])
    return kappa, Interval(min(float(low), kappa), max(float(high), kappa), 0.95)


def _auc(
    pairs: Sequence[tuple[Reference, Label]], values: Sequence[Value]
) -> tuple[float | None, Interval | None]:
    if len(values) != 2 or any(label.probability is None for _, label in pairs):
        return None, None
    scores = [
        (label.probability or 0.0) if label.value == values[0] else 1 - (label.probability or 0.0)
        for _, label in pairs
    ]
    truth = [one.label == values[0] for one, _ in pairs]
    if len(set(truth)) < 2:
        return None, None
    return float(auc(scores, truth)), delong_interval(scores, truth)


def _same(first: Sequence[Label], second: Sequence[Label] | None) -> Rate | None:
    if second is None:
        return None
    both = [
        a.value == b.value
        for a, b in zip(first, second, strict=True)
        if a.status == b.status == "ok"
    ]
    return _rate(both)


def _length(
    pairs: Sequence[tuple[Reference, Label]], values: Sequence[Value]
) -> tuple[float, float] | None:
    """Spearman's correlation of error and length; None without responses, or without errors."""
    place = {value: i for i, value in enumerate(values)}
    lengths = [len(one.question.fields.get(one.question.response_field, "")) for one, _ in pairs]
    errors = [place[_value(label)] - place[one.label] for one, label in pairs]
    if len(set(lengths)) < 2 or len(set(errors)) < 2:
        return None
    found = spearmanr(errors, lengths)
    value, p_value = float(found.statistic), float(found.pvalue)
    return (value, p_value) if np.isfinite([value, p_value]).all() else None


def _planted(pairs: Sequence[tuple[Reference, Label]]) -> Rate | None:
    """Wrong numbers whose label is that of the right one."""
    planted = [label.value != one.label for one, label in pairs if one.kind == PLANTED]
    return _rate(planted) if planted else None


def _injected(pairs: Sequence[tuple[Reference, Label]]) -> Rate | None:
    found = [label.value != one.label for one, label in pairs if one.kind == INJECTION]
    return _rate(found) if found else None


def _rate(found: Sequence[bool]) -> Rate:
    return Rate(sum(map(bool, found)), len(found))


def _json(value: Interval | Rate | None) -> dict[str, Any] | None:
    return None if value is None else value.to_json()
