"""Audits that hold a probe to cheap predictors: other models' results, length, words.

A label that another model's result on the same prompt predicts is about the prompt; one that
the length of the response predicts is about style. Features that do no better have not been
shown to carry more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from arcs.audits.findings import Audit, Evidence, Finding, Outcome, Severity, outcome
from arcs.audits.probe_data import (
    Labelled,
    binary_labels,
    by_family,
    family_sets,
    graded_labels,
    labelled,
    refitted_scores,
    test_items,
)
from arcs.audits.results import Item, ProbeResult, Results, ResultSet, Role
from evals.statistics.auc import auc, auc_p_value, delong_difference, delong_interval
from evals.statistics.cross_validation import cross_validated_auc

FloatArray = NDArray[np.float64]

ALPHA = 0.05
STRICT_ALPHA = 0.01
"""A baseline counts only where chance is unlikely, over all the baselines that were tried."""
ENOUGH_ITEMS = 0.9
"""Share of a probe's test items that another source must cover to speak about it."""
SMALLEST_CLASS = 5


@dataclass(frozen=True)
class _Tested:
    """The best probe of a family, and the items it was tested on."""

    probe: ProbeResult
    auc: float
    items: Labelled


def _tested(results: Results) -> Iterator[_Tested]:
    """Return one a family: its probe with the best test AUC whose items are at hand."""
    for probes in by_family(results.probes).values():
        found = [
            _Tested(p, p.test_auc, items)
            for p in probes
            if p.test_auc is not None and (items := test_items(results, p)) and _has_classes(items)
        ]
        if found:
            yield max(found, key=lambda one: one.auc)


def _has_classes(items: Labelled) -> bool:
    return min(items.n_positive, items.n_negative) >= SMALLEST_CLASS


def difficulty_baseline(results: Results) -> Outcome:
    """Find probes that another model's results on the same items outdo."""
    pairs = [
        (tested, other)
        for tested in _tested(results)
        for other in results.sets
        if other.family != tested.probe.family and _same_items(tested.items.items, other)
    ]
    found = [f for tested, other in pairs if (f := _difficulty_finding(tested, other)) is not None]
    return outcome(found, len(pairs))


def _same_items(items: Sequence[Item], other: ResultSet) -> bool:
    """Whether a set holds (nearly) all items, by id and prompt, answered by another model.

    Where both sets hold a text it decides: other prompts are other items, and the same
    responses are the same model's, labelled twice.
    """
    shared = [(item, other.by_id[item.item_id]) for item in items if item.item_id in other.by_id]
    if len(shared) < ENOUGH_ITEMS * len(items):
        return False
    answers = [a.response == b.response for a, b in shared if a.response and b.response]
    if answers and sum(answers) > len(answers) / 2:
        return False
    return all(a.prompt == b.prompt for a, b in shared if a.prompt and b.prompt)


def _difficulty_finding(tested: _Tested, other: ResultSet) -> Finding | None:
    position = {item.item_id: row for row, item in enumerate(other.items)}
    rows = [position.get(item.item_id) for item in tested.items.items]
    graded = [
        (label, found)
        for label, values in graded_labels(other).items()
        if (found := _auc_of([None if r is None else values[r] for r in rows], tested.items.y))
    ]
    if not graded:
        return None
    label, (scores, truth) = max(graded, key=lambda one: auc(*one[1]))
    value, p_value = auc(scores, truth), min(1.0, auc_p_value(scores, truth) * len(graded))
    if value <= max(0.5, tested.auc) or p_value >= STRICT_ALPHA:
        return None
    interval = delong_interval(scores, truth)
    return Finding(
        Severity.CAUTION,
        f"{tested.items.source.name}, label {tested.items.label}",
        f"{label} of {other.name}, another model on the same {len(truth)} items, predicts this "
        f"label with AUC {value:.3f} ({interval.low:.3f} to {interval.high:.3f}); the best probe "
        f"has {tested.auc:.3f}: what can be predicted lies in the prompts.",
        "Give another model's result, or another measure of difficulty, as a baseline, and test "
        "what the features add to it.",
        {
            "other_set": other.name,
            "other_label": label,
            "baseline_auc": value,
            "interval": interval.to_json(),
            "p_value": p_value,
            "labels_tried": len(graded),
            "n": len(truth),
            "probe_auc": tested.auc,
            "prompts_compared": _prompts_compared(tested.items.items, other),
        },
    )


def _auc_of(
    values: Sequence[float | None], truth: NDArray[np.bool_]
) -> tuple[FloatArray, NDArray[np.bool_]] | None:
    """Scores and labels of the items that have both; None where a class is too small."""
    known = np.array([value is not None for value in values])
    labels = truth[known]
    if min(int(labels.sum()), int((~labels).sum())) < SMALLEST_CLASS:
        return None
    return np.array([value for value in values if value is not None], dtype=float), labels


def _prompts_compared(items: Sequence[Item], other: ResultSet) -> int:
    """Items whose prompt both sources hold; the rest are matched by id alone."""
    return sum(
        bool(item.prompt and item.item_id in other.by_id and other.by_id[item.item_id].prompt)
        for item in items
    )


@dataclass(frozen=True)
class _Place:
    """Items whose label some features are said to predict."""

    where: str
    items: Labelled
    train: Labelled | None
    """Items to fit a baseline on; None: it is fitted on no item, and its sign is free."""
    auc: float
    scores: FloatArray | None
    """[n] of the features; None where only their AUC is known."""
    scores_are: str


@dataclass(frozen=True)
class _Baseline:
    name: str
    scores: FloatArray
    """[n]"""


def surface_baseline(results: Results) -> Outcome:
    """Find labels that length or words of the response predict as well as the features do."""
    places = [*_probe_places(results), *_feature_places(results)]
    tried = [(place, baseline) for place in places for baseline in _surface_scores(place)]
    found = [
        finding
        for place, baseline in tried
        if (finding := _surface_finding(place, baseline, len(tried))) is not None
    ]
    return outcome(found, len(places))


def _has_responses(items: Labelled | None) -> bool:
    return items is not None and all(item.response is not None for item in items.items)


def _probe_places(results: Results) -> Iterator[_Place]:
    for tested in _tested(results):
        if not _has_responses(tested.items):
            continue
        train = _training_texts(results, tested)
        scores = refitted_scores(results, tested.probe)
        value = tested.auc if scores is None else auc(scores, tested.items.y)
        where = f"{tested.items.source.name}, label {tested.items.label}"
        said = "the reported AUC" if scores is None else "the probe, fitted again"
        yield _Place(where, tested.items, train, value, scores, said)


def _training_texts(results: Results, tested: _Tested) -> Labelled | None:
    for one in family_sets(results, tested.probe, Role.TRAIN):
        found = labelled(one, tested.items.label)
        if found and _has_responses(found) and _has_classes(found):
            return found
    return None


def _feature_places(results: Results) -> Iterator[_Place]:
    """Sets with features and labels of which no probe is reported: cross-validate one."""
    probed = {probe.family for probe in results.probes}
    for one in results.sets:
        if one.features is None or one.family in probed:
            continue
        for label in binary_labels(one):
            found = labelled(one, label)
            if found is None or found.x is None or not found.usable:
                continue
            if not _has_responses(found) or not _has_classes(found):
                continue
            scores = _cross_validated(found.x, found)
            value = 0.5 if scores is None else auc(scores, found.y)
            # Without a signal in the features there is nothing for a baseline to explain.
            if scores is not None and value > 0.5 and auc_p_value(scores, found.y) < ALPHA:
                where = f"{one.name}, label {label}"
                yield _Place(where, found, None, value, scores, "the features, cross-validated")


def _cross_validated(x: NDArray[np.float32], items: Labelled) -> FloatArray | None:
    """[n] out-of-fold scores of a probe; None where the groups are too few to be split."""
    try:
        found = cross_validated_auc(x, items.y, groups=items.groups)
    except ValueError:
        return None
    return np.asarray(found.scores[0], dtype=float)


def _surface_scores(place: _Place) -> Iterator[_Baseline]:
    fitted_on = place.items if place.train is None else place.train
    sign = 1.0 if auc(_lengths(fitted_on), fitted_on.y) >= 0.5 else -1.0
    yield _Baseline("response length", sign * _lengths(place.items))
    texts = [] if place.train is None else [item.response or "" for item in place.train.items]
    if place.train is not None and re.search(r"\w", " ".join(texts)):
        vectors = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+")
        words = make_pipeline(vectors, LogisticRegression(C=1.0)).fit(texts, place.train.y)
        scores = words.predict_proba([item.response for item in place.items.items])[:, 1]
        yield _Baseline("words of the response (TF-IDF)", np.asarray(scores, dtype=float))


def _lengths(items: Labelled) -> FloatArray:
    return np.array([len(item.response or "") for item in items.items], dtype=float)


def _surface_finding(place: _Place, baseline: _Baseline, tried: int) -> Finding | None:
    truth = place.items.y
    value = auc(baseline.scores, truth)
    p_value = min(1.0, auc_p_value(baseline.scores, truth) * tried)
    if value <= 0.5 or p_value >= STRICT_ALPHA or not _as_good(place, baseline, value):
        return None
    interval = delong_interval(baseline.scores, truth)
    evidence: dict[str, Evidence] = {
        "baseline": baseline.name,
        "baseline_auc": value,
        "interval": interval.to_json(),
        "p_value": p_value,
        "baselines_tried": tried,
        "features_auc": place.auc,
        "features_auc_is": place.scores_are,
        "sign_chosen_on": "the same items" if place.train is None else "the training set",
        "n_positive": place.items.n_positive,
        "n_negative": place.items.n_negative,
    }
    return Finding(
        Severity.CAUTION,
        place.where,
        f"The {baseline.name} predicts the label with AUC {value:.3f} ({interval.low:.3f} to "
        f"{interval.high:.3f}), not worse than the features ({place.auc:.3f}).",
        "Show what the features add to length and words, on items matched in both.",
        evidence,
    )


def _as_good(place: _Place, baseline: _Baseline, value: float) -> bool:
    """Whether the features are not shown to be better than the baseline."""
    if value >= place.auc:
        return True
    if place.scores is None:
        return place.auc in delong_interval(baseline.scores, place.items.y)
    return delong_difference(place.scores, baseline.scores, place.items.y).p_value >= ALPHA


AUDITS: tuple[Audit, ...] = (
    Audit(
        "difficulty-baseline",
        "Do another model's results on the same items predict the label better than the probe?",
        "probes with test items, and another family's labels of the same items",
        difficulty_baseline,
    ),
    Audit(
        "surface-baseline",
        "Do length or words of the responses predict the label as well as the features do?",
        "features or probes, labels and responses of the same items",
        surface_baseline,
    ),
)
