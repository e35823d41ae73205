"""Arms that are compared over the same items, at one budget, by one yes-or-no label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from arcs.audits.probe_data import as_bool
from arcs.audits.results import LabelKind, Results, ResultSet
from arcs.audits.set_pairs import arm_pairs
from evals.statistics.paired import PairedCounts, paired_counts


@dataclass(frozen=True)
class Pair:
    """A base arm and another one over their common items."""

    base: ResultSet
    edited: ResultSet
    label: str
    item_ids: tuple[str, ...]
    """[n] items of both arms, in the base arm's order."""
    base_passes: tuple[bool | None, ...]
    """[n]"""
    edited_passes: tuple[bool | None, ...]
    """[n]"""

    @property
    def counts(self) -> PairedCounts:
        """How the arms compare."""
        return paired_counts(self.base_passes, self.edited_passes)

    @property
    def n_predict(self) -> int | None:
        """Budget of both arms."""
        return self.base.n_predict

    @property
    def series(self) -> tuple[str | None, str | None, str | None, str]:
        """What is the same comparison at other budgets: family, task, arm, label."""
        return self.base.family, self.base.task, self.edited.arm, self.label

    @property
    def title(self) -> str:
        """Name the comparison as a person would look it up."""
        at = f" at n_predict {self.n_predict}" if self.n_predict else ""
        task = f"{self.base.task}: " if self.base.task else ""
        return f"{task}{self.edited.arm} against {self.base.arm}, {self.label}{at}"


def pairs(results: Results) -> list[Pair]:
    """Every other arm against the base arm of its task and budget, by each PASS label.

    Which arm is the base is decided in one place (:func:`set_pairs.arm_pairs`).
    """
    return [pair for pair in _all_pairs(results) if pair.counts.n > 0]


def _all_pairs(results: Results) -> Iterator[Pair]:
    for base, edited in arm_pairs(results):
        for label in shared_passes(base, edited):
            yield _pair(base, edited, label)


def shared_passes(base: ResultSet, edited: ResultSet) -> list[str]:
    """Names of the PASS labels that both sets have."""
    return [
        name
        for name, instrument in base.instruments.items()
        if instrument.kind is LabelKind.PASS and name in edited.instruments
    ]


def _pair(base: ResultSet, edited: ResultSet, label: str) -> Pair:
    common = tuple(item.item_id for item in base.items if item.item_id in edited.by_id)
    return Pair(
        base,
        edited,
        label,
        common,
        tuple(as_bool(base.by_id[i].labels.get(label)) for i in common),
        tuple(as_bool(edited.by_id[i].labels.get(label)) for i in common),
    )
