"""Audits of labels as decisions: where a share was cut, and whether two judges decide alike.

A cut at 0.5 asks 2 of 4 claims but 3 of 5: on the paper's data that alone moves the positive
rate by about 20 points (PAPER.md 5.5, 8.1 J3). Its rubric and its checklist, read as two
judgements of correctness, agree with a kappa of 0.07 and 0.18 (5.8, J13).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from arcs.audits.findings import Audit, Evidence, Finding, Outcome, Severity, outcome
from arcs.audits.probe_data import as_bool, as_number
from arcs.audits.results import Instrument, LabelKind, Results, ResultSet
from arcs.audits.set_pairs import Pair, between, percent, train_test_pairs
from evals.statistics.agreement import cohen_kappa

RECOVERABLE_PARTS = range(3, 7)
MIN_WITH_PARTS = 5
"""Items with one number of parts before that number counts."""
RATE_MOVED = 0.05
RATE_MOVED_FAR = 0.10
LOW_KAPPA = 0.4
"""Below this agreement is called fair at best (Landis & Koch 1977)."""
HIGH_SCORE = 0.75
"""A score this far up its scale claims success: 4 on a scale of 1 to 5."""
MIN_COMPARED = 20
SYNONYMS = {
    "the answer is correct": ("correct", "factual", "accura", "passed", "coverage", "truth"),
    "the answer refuses": ("refus", "declin"),
}
"""What a label claims, by how a word of its name begins."""


@dataclass(frozen=True)
class Shares:
    """A share label of one set, with the number of parts behind each value."""

    name: str
    threshold: float
    shares: NDArray[np.float64]
    """[n]"""
    parts: NDArray[np.int64]
    """[n]"""
    recovered: bool
    """Numbers of parts were read off the shares: the smallest of 3 to 6 that fits; items
    with a share of 0 or 1 fit every number and are left out."""

    def of(self, parts: int) -> NDArray[np.float64]:
        """Shares of the items with this many parts."""
        own: NDArray[np.float64] = self.shares[self.parts == parts]
        return own

    def lengths(self) -> list[int]:
        """Numbers of parts that enough items have."""
        counts = Counter(self.parts.tolist())
        return sorted(k for k, count in counts.items() if count >= MIN_WITH_PARTS)


def needed(parts: int, threshold: float) -> int:
    """Fewest parts whose share reaches the threshold."""
    return math.ceil(threshold * parts - 1e-9)


def recovered_parts(share: float) -> int | None:
    """Smallest number of 3 to 6 parts that can give this share; None for 0, 1 and no fit."""
    if not 0 < share < 1:
        return None
    fits = (k for k in RECOVERABLE_PARTS if abs(share * k - round(share * k)) < 0.005)
    return next(fits, None)


def shares_of(one: ResultSet, name: str) -> Shares | None:
    """Values of a share label that is cut somewhere, with its parts; None where it is not."""
    instrument = one.instruments[name]
    if instrument.kind is not LabelKind.SHARE or instrument.threshold is None:
        return None
    values = [(item, as_number(item.labels.get(name))) for item in one.items]
    known = [(item.n_parts, value) for item, value in values if value is not None]
    recovered = all(parts is None for parts, _ in known)
    if recovered:
        known = [(recovered_parts(value), value) for _, value in known]
    rows = [(parts, value) for parts, value in known if parts]
    if not rows:
        return None
    parts, shares = zip(*rows, strict=True)
    return Shares(name, instrument.threshold, np.array(shares), np.array(parts), recovered)


def threshold_quantisation(results: Results) -> Outcome:
    """Look for a cut that asks a larger share of some items than of others."""
    found = [(one, s) for one in results.sets for n in one.instruments if (s := shares_of(one, n))]
    findings = [finding for one, shares in found for finding in _unequal(one, shares)]
    pairs = [finding for pair in train_test_pairs(results) for finding in _shifted(pair)]
    return outcome([*findings, *pairs], len(found))


def _unequal(one: ResultSet, shares: Shares) -> Iterator[Finding]:
    lengths = shares.lengths()
    asked = {k: needed(k, shares.threshold) / k for k in lengths}
    if not lengths or max(asked.values()) - min(asked.values()) < 1e-9:
        return
    rows = [_row(shares, k) for k in lengths]
    strict = max(asked.values())
    at_cut, at_strict = (_positives(one, shares.name, t) for t in (shares.threshold, strict))
    yield Finding(
        Severity.BIASES,
        f"{one.name}: {shares.name}",
        f"{shares.name} >= {shares.threshold:g} asks {', '.join(map(_asks, rows))}; a cut at "
        f"{strict:.2f} for every item gives {at_strict} instead of {at_cut} positives.",
        "Give every item the same number of parts, or model the count, and report the curve over "
        "thresholds.",
        {
            "threshold": shares.threshold,
            "by_parts": list(rows),
            "positives": at_cut,
            "positives_at_equal_cut": at_strict,
            "equal_cut": strict,
            "parts_recovered": shares.recovered,
        },
    )


def _row(shares: Shares, parts: int) -> dict[str, Evidence]:
    own = shares.of(parts)
    rate = float(_part_rate([shares]))
    return {
        "parts": parts,
        "needed": needed(parts, shares.threshold),
        "n": len(own),
        "positives": int((own >= shares.threshold - 1e-9).sum()),
        "mean_share": float(own.mean()),
        "rate_by_cut_alone": _rate_at(parts, shares.threshold, rate),
    }


def _asks(row: dict[str, Evidence]) -> str:
    return (
        f"{row['needed']} of {row['parts']} ({row['positives']} of {row['n']} positive, "
        f"{row['rate_by_cut_alone']:.0%} by the cut alone)"
    )


def _part_rate(all_shares: list[Shares]) -> float:
    """Share of parts that are met, over all parts of all items."""
    met = sum(float((one.shares * one.parts).sum()) for one in all_shares)
    return met / sum(int(one.parts.sum()) for one in all_shares)


def _rate_at(parts: int, threshold: float, part_rate: float) -> float:
    """Positive rate of items whose parts are each met, independently, at one rate."""
    return float(binom.sf(needed(parts, threshold) - 1, parts, part_rate))


def _positives(one: ResultSet, name: str, threshold: float) -> int:
    values = (as_number(value) for value in one.values(name))
    return sum(value is not None and value >= threshold - 1e-9 for value in values)


def _shifted(pair: Pair) -> Iterator[Finding]:
    train, test = pair
    for name in (name for name in train.instruments if name in test.instruments):
        first, second = shares_of(train, name), shares_of(test, name)
        if first is None or second is None:
            continue
        rate = _part_rate([first, second])
        expected = [_expected(one, rate) for one in (first, second)]
        moved = abs(expected[1] - expected[0])
        if moved >= RATE_MOVED:
            yield _shift_finding(pair, (first, second), expected)


def _expected(shares: Shares, part_rate: float) -> float:
    counts = Counter(shares.parts.tolist())
    rates = (n * _rate_at(k, shares.threshold, part_rate) for k, n in counts.items())
    return sum(rates) / sum(counts.values())


def _shift_finding(pair: Pair, both: tuple[Shares, Shares], expected: list[float]) -> Finding:
    moved = abs(expected[1] - expected[0])
    name = both[0].name
    mixes = [dict(sorted(Counter(map(str, one.parts.tolist())).items())) for one in both]
    observed = [_positives(one, name, s.threshold) for one, s in zip(pair, both, strict=True)]
    sizes = [len(one.items) for one in pair]
    return Finding(
        Severity.INVALIDATES if moved >= RATE_MOVED_FAR else Severity.BIASES,
        f"{between(*pair)}: {name}",
        f"The sets differ in threshold or in parts per item: at one rate per part the cuts alone "
        f"give {expected[0]:.0%} and {expected[1]:.0%} positives (observed "
        f"{percent(observed[0], sizes[0])} and {percent(observed[1], sizes[1])}).",
        "Use the same number of parts and the same threshold in training and test.",
        {
            "expected_by_cut_alone": [*expected],
            "positives": [*observed],
            "n": [*sizes],
            "thresholds": [one.threshold for one in both],
            "parts": [*mixes],
            "parts_recovered": [one.recovered for one in both],
        },
    )


def claim_of(name: str) -> str | None:
    """What a label of this name claims; None for names that are not in ``SYNONYMS``."""
    words = re.findall(r"[a-z]+", name.lower())
    for claim, beginnings in SYNONYMS.items():
        if any(word.startswith(beginnings) for word in words):
            return claim
    return None


def _decides(one: ResultSet, instrument: Instrument) -> list[bool | None] | None:
    """[n] the label as a decision; None where it is not known what counts as success."""
    values = one.values(instrument.name)
    if instrument.kind is LabelKind.PASS:
        return [as_bool(value) for value in values]
    cut = instrument.threshold
    if cut is None and instrument.kind is LabelKind.SCORE and instrument.scale is not None:
        low, high = instrument.scale
        cut = low + HIGH_SCORE * (high - low)
    # A share stands beside the label that it was cut into as the same measurement.
    if instrument.kind is LabelKind.CLASS or cut is None:
        return None
    if instrument.threshold_label in one.instruments:
        return None
    numbers = [as_number(value) for value in values]
    return [None if number is None else number >= cut for number in numbers]


def judge_disagreement(results: Results) -> Outcome:
    """Compare labels of one set that claim the same of the same responses."""
    compared = [
        (one, first, second)
        for one in results.sets
        for first, second in combinations(one.instruments.values(), 2)
        if (claim := claim_of(first.name)) and claim == claim_of(second.name)
    ]
    kappas = [(c, found) for c in compared if (found := _agreement(*c)) is not None]
    return outcome([f for _, findings in kappas for f in findings], len(kappas))


def _agreement(one: ResultSet, first: Instrument, second: Instrument) -> list[Finding] | None:
    """Findings about one pair; None where it cannot be compared."""
    decided, other = _decides(one, first), _decides(one, second)
    if decided is None or other is None:
        return None
    both = [(a, b) for a, b in zip(decided, other, strict=True) if None not in (a, b)]
    if len(both) < MIN_COMPARED:
        return None
    kappa = cohen_kappa([a for a, _ in both], [b for _, b in both])
    if kappa.value is None or kappa.interval is None or kappa.interval.high >= LOW_KAPPA:
        return []
    return [
        Finding(
            Severity.BIASES,
            f"{one.name}: {first.name} and {second.name}",
            f"Two labels that both say whether {claim_of(first.name)} hardly agree: kappa "
            f"{kappa.value:.2f}, 95 percent interval {kappa.interval.low:.2f} to "
            f"{kappa.interval.high:.2f}, over {kappa.n} items.",
            "Label a sample by hand, and keep the judge that agrees with it.",
            {
                "kappa": kappa.value,
                "interval": kappa.interval.to_json(),
                "n": kappa.n,
                "observed_agreement": kappa.observed_agreement,
            },
        )
    ]


AUDITS: tuple[Audit, ...] = (
    Audit(
        "threshold-quantisation",
        "Does one threshold on a share ask more of some items than of others?",
        "a share label with its threshold",
        threshold_quantisation,
    ),
    Audit(
        "judge-disagreement",
        "Do two labels that claim the same agree?",
        "two labels of one set that claim the same",
        judge_disagreement,
    ),
)
