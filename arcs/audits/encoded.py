"""Audits of what features carry beside the label: the cut of the text, the set they are from.

A linear probe read the paper's 1,500-character cut from SmolLM2's features with AUC 1.000, and
training set against test set with 0.853 (PAPER.md 5.1, 8.2 T3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from arcs.audits.ends import ran_out
from arcs.audits.findings import Audit, Evidence, Finding, Outcome, Severity, outcome
from arcs.audits.results import Features, Item, Results, ResultSet
from arcs.audits.set_pairs import Pair, between, groups_of, train_test_pairs
from arcs.audits.truncation import unfinished, wall_of
from evals.statistics.auc import delong_interval
from evals.statistics.cross_validation import cross_validated_auc
from evals.statistics.rates import Interval

MIN_CLASS = 10
FOLDS = 5
PENALTY = 1.0
FAR_FROM_CHANCE = 0.6
"""The lower end of the interval must lie above this; 0.5 is chance."""
NULL_INFLATION = 1.4
"""Out-of-fold AUCs of noise spread 1.3 to 1.4 times as wide as Mann-Whitney's null: measured on
250 draws each of 10 to 100 rows a class and 4 to 64 columns."""
SURE_Z = 3.5
"""The AUC must lie so many of these wider standard deviations above 0.5."""
ALMOST_PERFECT = 0.9
MOST_ROWS = 600
"""Rows of a class that are used at most, to bound the time; a sample, drawn with seed 0."""
Flags = Sequence[bool | None]


def joined(one: ResultSet) -> tuple[list[Item], NDArray[np.float32]] | None:
    """Items with their feature rows, joined by id; None without features or a common id."""
    if one.features is None:
        return None
    rows = {item_id: row for row, item_id in enumerate(one.features.item_ids)}
    items = [item for item in one.items if item.item_id in rows]
    if not items:
        return None
    return items, one.features.x[[rows[item.item_id] for item in items]]


def _finite(features: Features) -> bool:
    return bool(np.isfinite(features.x).all())


def _flags(one: ResultSet, items: Sequence[Item]) -> dict[str, Flags]:
    wall = wall_of(one)
    at_wall: Flags = ()
    if wall is not None and wall.unit == "characters":
        at_wall = [len(item.response) == wall.length if item.response else None for item in items]
    elif wall is not None:
        at_wall = [
            item.generated_tokens == wall.length if item.generated_tokens else None
            for item in items
        ]
    found: dict[str, Flags] = {
        "response ran out of tokens": [ran_out(item, one.n_predict) for item in items],
        "response has the largest length": at_wall,
        "text breaks off before the end of a sentence": [unfinished(item) for item in items],
    }
    # The same items by another name are not asked for twice.
    return {name: f for i, (name, f) in enumerate(found.items()) if f not in [*found.values()][:i]}


def features_encode_truncation(results: Results) -> Outcome:
    """Predict from the features whether the response was cut."""
    tested = [
        (one, name, items, x, flags)
        for one in results.sets
        if (both := joined(one)) and one.features and _finite(one.features)
        for items, x in [both]
        for name, flags in _flags(one, items).items()
        if _enough(flags, items)
    ]
    findings = [
        finding
        for one, name, items, x, flags in tested
        for finding in _reads(one, name, items, x, flags)
    ]
    broken = [finding for one in results.sets for finding in _not_finite(one)]
    return outcome([*findings, *broken], len(tested) + len(broken))


def _not_finite(one: ResultSet) -> Iterator[Finding]:
    if one.features is not None and not _finite(one.features):
        bad = int((~np.isfinite(one.features.x)).any(axis=1).sum())
        yield Finding(
            Severity.INVALIDATES,
            one.name,
            f"{bad} of {len(one.features.x)} feature rows hold values that are not finite.",
            "Extract the features again in a wider dtype, and refuse rows that are not finite.",
            {"rows": bad, "n": len(one.features.x)},
        )


def _enough(flags: Flags, items: Sequence[Item]) -> bool:
    """Whether both classes have items, and groups, for the folds."""
    if not flags:
        return False
    for value in (True, False):
        chosen = [item for item, flag in zip(items, flags, strict=True) if flag is value]
        if len(chosen) < MIN_CLASS or len(set(groups_of(chosen))) < FOLDS:
            return False
    return True


def _reads(
    one: ResultSet, name: str, items: Sequence[Item], x: NDArray[np.float32], flags: Flags
) -> Iterator[Finding]:
    known = [i for i, flag in enumerate(flags) if flag is not None]
    truth = np.array([bool(flags[i]) for i in known])
    groups = groups_of([items[i] for i in known])
    value, interval = _probe(x[known], truth, groups)
    if interval.low > FAR_FROM_CHANCE and value > _chance_at_most(truth):
        yield Finding(
            Severity.INVALIDATES if interval.low > ALMOST_PERFECT else Severity.BIASES,
            one.name,
            f"The features tell whether a {name}: cross-validated AUC {value:.3f}, 95 percent "
            f"interval {interval.low:.3f} to {interval.high:.3f}, {truth.sum()} of {len(truth)}.",
            "Take features from whole responses at one fixed position, and compare the probe "
            "with one that only sees the cut.",
            _evidence(value, interval, truth, name),
        )


def _evidence(
    value: float, interval: Interval, truth: NDArray[np.bool_], flag: str
) -> dict[str, Evidence]:
    return {
        "auc": value,
        "interval": interval.to_json(),
        "n_positive": int(truth.sum()),
        "n": len(truth),
        "flag": flag,
        "c": PENALTY,
        "folds": FOLDS,
    }


def _probe(
    x: NDArray[np.float32], truth: NDArray[np.bool_], groups: Sequence[str]
) -> tuple[float, Interval]:
    """Out-of-fold AUC of a linear probe with DeLong's interval; groups stay in one fold."""
    rng = np.random.default_rng(0)
    rows = np.sort(np.concatenate([_sample(np.flatnonzero(truth == v), rng) for v in (0, 1)]))
    chosen = [groups[row] for row in rows]
    dependent = chosen if len(set(chosen)) < len(chosen) else None
    found = cross_validated_auc(
        x[rows], truth[rows], c=PENALTY, folds=FOLDS, seeds=(0,), groups=dependent
    )
    return found.mean, delong_interval(found.scores[0], truth[rows])


def _chance_at_most(truth: NDArray[np.bool_]) -> float:
    """Largest AUC that noise is allowed; above 1 where there are too few rows to tell."""
    n, positive = len(truth), int(truth.sum())
    return 0.5 + SURE_Z * NULL_INFLATION * sqrt((n + 1) / (12 * positive * (n - positive)))


def _sample(rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    return rows if len(rows) <= MOST_ROWS else rng.choice(rows, MOST_ROWS, replace=False)


def features_encode_membership(results: Results) -> Outcome:
    """Tell training features from test features of the same width."""
    pairs = [pair for pair in train_test_pairs(results) if _comparable(pair)]
    return outcome([finding for pair in pairs for finding in _membership(pair)], len(pairs))


def _comparable(pair: Pair) -> bool:
    first, second = (one.features for one in pair)
    if first is None or second is None or first.x.shape[1] != second.x.shape[1]:
        return False
    enough = all(len(set(_row_groups(one))) >= max(MIN_CLASS, FOLDS) for one in pair)
    return enough and _finite(first) and _finite(second)


def _row_groups(one: ResultSet) -> list[str]:
    """[n] the group of each feature row; rows without an item are groups of their own."""
    ids = one.features.item_ids if one.features else ()
    items = (one.by_id.get(item_id, Item(item_id)) for item_id in ids)
    return [f"{one.name}: {group}" for group in groups_of(items)]


def _membership(pair: Pair) -> Iterator[Finding]:
    train, test = pair
    if train.features is None or test.features is None:
        return
    x = np.concatenate([train.features.x, test.features.x])
    truth = np.arange(len(x)) >= len(train.features.x)
    value, interval = _probe(x, truth, [*_row_groups(train), *_row_groups(test)])
    if interval.low > FAR_FROM_CHANCE and value > _chance_at_most(truth):
        yield Finding(
            Severity.BIASES,
            between(train, test),
            f"The features tell training rows from test rows: cross-validated AUC {value:.3f}, 95 "
            f"percent interval {interval.low:.3f} to {interval.high:.3f}, "
            f"{len(truth) - truth.sum()} and {truth.sum()} rows.",
            "Extract both sets with the same function from whole responses to prompts of one "
            "source, and report this AUC beside the transfer.",
            _evidence(value, interval, truth, "row is from the test set"),
        )


AUDITS: tuple[Audit, ...] = (
    Audit(
        "features-encode-truncation",
        "Do the features carry whether the response was cut?",
        "features, and responses of which some are cut",
        features_encode_truncation,
    ),
    Audit(
        "features-encode-membership",
        "Can training features be told from test features?",
        "features of a training and a test set",
        features_encode_membership,
    ),
)
