"""Two cohorts of answers of the unchanged model: those that lack a disposition, those that have it.

The first cohort always *lacks* it, so that a head with a positive effect is more active where the
disposition is missing, and damping it is expected to bring the disposition about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from arcs.arc2.dispositions import MIN_COHORT, Disposition, Labelled, spread
from models.errors import UserError


@dataclass(frozen=True)
class Cohorts:
    """Items of either cohort, by id, in the order of the answers."""

    lacking: tuple[str, ...]
    having: tuple[str, ...]
    left_out: int
    """Answers in neither: of other cells, in the middle third, or without a label."""
    formed_by: str
    instrument: str
    """What the labels come from, to be compared with the sweep's."""

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Both, the lacking ones first."""
        return self.lacking + self.having

    def labels(self) -> list[bool]:
        """True for the lacking ones, in the order of :attr:`item_ids`."""
        return [True] * len(self.lacking) + [False] * len(self.having)

    @classmethod
    def from_json(cls, made: Mapping[str, Any]) -> Cohorts:
        """From :meth:`to_json`."""
        return cls(
            lacking=tuple(made["lacking_items"]),
            having=tuple(made["having_items"]),
            left_out=made["left_out"],
            formed_by=made["formed_by"],
            instrument=made["instrument"],
        )

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "formed_by": self.formed_by,
            "instrument": self.instrument,
            "lacking": len(self.lacking),
            "having": len(self.having),
            "left_out": self.left_out,
            "lacking_items": list(self.lacking),
            "having_items": list(self.having),
        }


def formed(
    disposition: Disposition,
    instrument: str,
    answers: Sequence[Labelled],
    contrasts: Mapping[str, float],
) -> Cohorts:
    """The cohorts of a run. Raises UserError where one is too small, or the measure saturated.

    ``contrasts``: of the unchanged model, for labels of the meter.
    """
    if instrument == "meter":
        return by_thirds(contrasts, str(disposition.axis), answers)
    if disposition.name == "humble":
        return by_cells(answers, instrument)
    return by_text(disposition, answers, instrument)


def by_cells(answers: Sequence[Labelled], instrument: str) -> Cohorts:
    """Confidently wrong (cw) against confidently right (cr) answers, as in the paper.

    Raises UserError where a cell is too small.
    """
    cw = [one.item_id for one in answers if one.right is False and one.asserted]
    cr = [one.item_id for one in answers if one.right and one.asserted]
    return _cohorts(cw, cr, answers, "cells: wrong and asserted, right and asserted", instrument)


def by_text(disposition: Disposition, answers: Sequence[Labelled], instrument: str) -> Cohorts:
    """Answers that do not show the disposition against those that do.

    Raises UserError where the measure is saturated, with the counts.
    """
    found = spread(disposition, answers)
    why = found.saturation(disposition)
    if why is not None:
        raise UserError(
            f"--disposition {disposition.name} cannot be measured on these answers: {why}; give "
            "more prompts (--limit), or other --labels"
        )
    shown = {one.item_id: disposition.shows(one) for one in answers}
    lacking = [name for name, value in shown.items() if value is False]
    having = [name for name, value in shown.items() if value]
    return _cohorts(lacking, having, answers, disposition.measure, instrument)


def by_thirds(values: Mapping[str, float], axis: str, answered: Sequence[Labelled]) -> Cohorts:
    """The third of the items with the lowest contrast on an axis against the highest third.

    ``values``: item -> contrast, of all items of the axis; only those with an answer count.
    """
    ids = [one.item_id for one in answered]
    missing = next((one for one in ids if one not in values), None)
    if missing is not None:
        raise ValueError(f"{missing} has no contrast")
    order = [ids[at] for at in np.argsort([values[one] for one in ids], kind="stable")]
    size = len(order) // 3
    lacking, having = set(order[:size]), set(order[len(order) - size :])
    return _cohorts(
        [one for one in ids if one in lacking],
        [one for one in ids if one in having],
        answered,
        f"lowest and highest third of the meter's contrast on {axis}",
        "meter",
    )


def _cohorts(
    lacking: Sequence[str],
    having: Sequence[str],
    answers: Sequence[Labelled],
    formed_by: str,
    instrument: str,
) -> Cohorts:
    if min(len(lacking), len(having)) < MIN_COHORT:
        raise UserError(
            f"cohorts ({formed_by}): {len(lacking)} and {len(having)} of {len(answers)} answers, "
            f"and {MIN_COHORT} are needed in each; give more prompts (--limit; a "
            "smaller --sweep-limit leaves more), or other --labels"
        )
    rest = len(answers) - len(lacking) - len(having)
    return Cohorts(tuple(lacking), tuple(having), rest, formed_by, instrument)
