"""Which items, labels and features the numbers of a probe rest on, where the results hold them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from arcs.audits.results import (
    Instrument,
    Item,
    LabelKind,
    LabelValue,
    ProbeResult,
    Results,
    ResultSet,
    Role,
)
from evals.statistics.cross_validation import fit_and_score

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Labelled:
    """The items of one set that have a given yes-or-no label."""

    source: ResultSet
    label: str
    items: tuple[Item, ...]
    """[n]; where the set holds features, only items that have them."""
    y: NDArray[np.bool_]
    """[n]"""
    x: NDArray[np.float32] | None
    """[n, d]; None where the set holds no features."""

    @property
    def n_positive(self) -> int:
        """Items whose label is true."""
        return int(self.y.sum())

    @property
    def n_negative(self) -> int:
        """Items whose label is false."""
        return len(self.y) - self.n_positive

    @property
    def usable(self) -> bool:
        """Whether there are features, and all of them are finite."""
        return self.x is not None and self.x.size > 0 and bool(np.isfinite(self.x).all())

    @property
    def groups(self) -> list[str] | None:
        """[n] groups of dependent items; None where every item is a group of its own."""
        named = [item.group or item.item_id for item in self.items]
        return named if len(set(named)) < len(named) else None


def as_bool(value: LabelValue | None) -> bool | None:
    """Read a PASS value; anything but true, false, 1 and 0 is missing."""
    return bool(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


def as_number(value: LabelValue | None) -> float | None:
    """Read a label as a number; class names and NaN are missing."""
    if value is None or isinstance(value, str) or math.isnan(value):
        return None
    return float(value)


def binary_labels(one: ResultSet) -> dict[str, tuple[bool | None, ...]]:
    """Every yes-or-no label of a set, [n] in item order: PASS labels and cut shares or scores.

    A cut share goes by the name of the PASS label it gives. Where the set holds that label
    itself, the label is taken and the share left alone.
    """
    passes = {
        name: tuple(map(as_bool, one.values(name)))
        for name, instrument in one.instruments.items()
        if instrument.kind is LabelKind.PASS
    }
    cuts = {
        instrument.threshold_label or name: _cut(one, name, instrument.threshold)
        for name, instrument in one.instruments.items()
        if instrument.threshold is not None and _is_number(instrument)
    }
    return {**cuts, **passes}


def _is_number(instrument: Instrument) -> bool:
    return instrument.kind in (LabelKind.SHARE, LabelKind.SCORE)


def _cut(one: ResultSet, name: str, threshold: float) -> tuple[bool | None, ...]:
    numbers = map(as_number, one.values(name))
    return tuple(None if number is None else number >= threshold for number in numbers)


def graded_labels(one: ResultSet) -> dict[str, tuple[float | None, ...]]:
    """Every label of a set that can be read as a number, [n] in item order."""
    return {
        name: tuple(map(as_number, one.values(name)))
        for name, instrument in one.instruments.items()
        if instrument.kind is not LabelKind.CLASS
    }


def labelled(one: ResultSet, label: str) -> Labelled | None:
    """Items of a set with a label (and features, where it has any); None without such a label."""
    values = binary_labels(one).get(label)
    if values is None:
        return None
    rows = None
    if one.features is not None:
        rows = {item_id: row for row, item_id in enumerate(one.features.item_ids)}
    kept = [
        (item, value)
        for item, value in zip(one.items, values, strict=True)
        if value is not None and (rows is None or item.item_id in rows)
    ]
    x = None
    if one.features is not None and rows is not None:
        x = one.features.x[[rows[item.item_id] for item, _ in kept]]
    return Labelled(
        one, label, tuple(item for item, _ in kept), np.array([v for _, v in kept], bool), x
    )


def family_sets(results: Results, probe: ProbeResult, role: Role) -> list[ResultSet]:
    """Sets of the probe's family that were used in a given role."""
    return [one for one in results.families().get(probe.family, ()) if one.role is role]


def test_items(results: Results, probe: ProbeResult) -> Labelled | None:
    """Return the items a probe was tested on, where the results hold them.

    They are those of the one label of its family's TEST sets that has the probe's own class
    counts; sets with features are looked at first. None where no label has them, or where two
    different labels do.
    """
    found = [
        one
        for test_set in family_sets(results, probe, Role.TEST)
        for label in binary_labels(test_set)
        if (one := labelled(test_set, label))
        and (one.n_positive, one.n_negative) == (probe.n_positive, probe.n_negative)
        and len(one.y)
    ]
    found = [one for one in found if one.x is not None] or found
    same = all(np.array_equal(found[0].y, other.y) for other in found[1:])
    return found[0] if found and same else None


def train_items(results: Results, probe: ProbeResult) -> Labelled | None:
    """Return the items with features a probe was fitted on, where the results hold them.

    The label is that of its test items, else the only yes-or-no label of the TRAIN set.
    """
    test = test_items(results, probe)
    for one in family_sets(results, probe, Role.TRAIN):
        if one.features is None:
            continue
        labels = [test.label] if test else list(binary_labels(one))
        found = labelled(one, labels[0]) if len(labels) == 1 else None
        if found is not None and found.usable and min(found.n_positive, found.n_negative) > 0:
            return found
    return None


def refitted_scores(results: Results, probe: ProbeResult) -> FloatArray | None:
    """[n] scores of a probe's test items from the same logistic regression, fitted again.

    None where the results lack its items, its features or its C.
    """
    train, test, c = train_items(results, probe), test_items(results, probe), regularisation(probe)
    if train is None or test is None or train.x is None or test.x is None or c is None:
        return None
    if not test.usable or train.x.shape[1] != test.x.shape[1]:
        return None
    return fit_and_score(train.x, train.y, test.x, c=c)


def regularisation(probe: ProbeResult) -> float | None:
    """Read C of a logistic regression from "C=0.1"; None where the configuration has none."""
    found = re.search(r"\bC\s*=\s*(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)", probe.configuration)
    return float(found.group(1)) if found and float(found.group(1)) > 0 else None


def title(probe: ProbeResult) -> str:
    """Name a probe as a person would look it up."""
    return f"{probe.name}, {probe.configuration} ({probe.source.name})"


def one_a_test_set(probes: Sequence[ProbeResult]) -> list[ProbeResult]:
    """Of the configurations of one probe tested on one set, only the one of the best AUC.

    What is said of a test set is then said once.
    """
    best: dict[tuple[object, ...], ProbeResult] = {}
    for probe in sorted(probes, key=lambda p: -1.0 if p.test_auc is None else p.test_auc):
        key = probe.family, probe.name, probe.source, probe.n_positive, probe.n_negative
        best[key] = probe
    return [probe for probe in probes if any(probe is one for one in best.values())]


def by_family(probes: Sequence[ProbeResult]) -> dict[str | None, list[ProbeResult]]:
    """Probes by family, in the order given."""
    found: dict[str | None, list[ProbeResult]] = {}
    for probe in probes:
        found.setdefault(probe.family, []).append(probe)
    return found
