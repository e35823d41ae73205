"""What follows from numbers that are only printed: counts, rates of printed cells, tests.

Nothing here is a recomputation from data. It shows whether printed numbers agree with each
other, and gives them the intervals and tests they lack.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from arcs.reproduction.artifacts import Artifacts
from arcs.reproduction.groups.dispositions import intervals_of, rates_of
from arcs.reproduction.groups.group import Group, Values, published_auc, rate, rates_apart
from evals.statistics.permutation import (
    expected_in_sample_direction_effect,
    expected_maximum_of_normals,
)

TABLE = Path(__file__).parent.parent / "numbers" / "printed.toml"


@cache
def table() -> Mapping[str, Any]:
    """Counts and cells that the paper and its notes print."""
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def counts_fitting(percent: str, n: int) -> list[int]:
    """Counts of ``n`` whose percentage prints as ``percent``, a string such as ``36.0``."""
    digits = len(percent.partition(".")[2])
    near = round(float(percent) * n / 100)
    return [k for k in (near - 1, near, near + 1) if f"{100 * k / n:.{digits}f}" == percent]


def percentages(artifacts: Artifacts) -> Values:
    """The one count that each printed percentage can be, with Wilson's interval in percent.

    ``possible`` is false where no count gives the percentage.
    """
    del artifacts
    return {
        f"{percent} of {group['n']}": _as_count(percent, group["n"])
        for group in table()["percentages"].values()
        for percent in group["percent"]
    }


def _as_count(percent: str, n: int) -> Values:
    fitting = counts_fitting(percent, n)
    if len(fitting) != 1:
        return {"possible": False, "fitting": len(fitting)}
    return {"possible": True, "count": fitting[0], **rate(fitting[0], n, 100)}


def differences(artifacts: Artifacts) -> Values:
    """Second rate minus first in points, with Newcombe's interval and Fisher's p."""
    del artifacts
    pairs = table()["differences"]
    return {name: _difference(tuple(a), tuple(b)) for name, (a, b) in pairs.items()}


def _difference(first: tuple[int, int], second: tuple[int, int]) -> Values:
    """``of_printed`` subtracts the rates as they print, with one digit, as the paper does."""
    before, after = (round(100 * k / n, 1) for k, n in (first, second))
    return {**rates_apart(first, second, 100), "of_printed": round(after - before, 1)}


def sums(artifacts: Artifacts) -> Values:
    """Totals of printed parts, to two digits as printed."""
    del artifacts
    return {name: round(sum(parts), 2) for name, parts in table()["sums"].items()}


def means(artifacts: Artifacts) -> Values:
    """Mean and standard deviation of printed folds."""
    del artifacts
    folds = table()["folds"]
    return {
        name: {"mean": float(np.mean(values)), "sd": float(np.std(values))}
        for name, values in folds.items()
    }


def ratios(artifacts: Artifacts) -> Values:
    """Quotients of printed numbers."""
    del artifacts
    return {name: first / second for name, (first, second) in table()["ratios"].items()}


def changes(artifacts: Artifacts) -> Values:
    """Second printed number minus the first."""
    del artifacts
    return {name: second - first for name, (first, second) in table()["changes"].items()}


def tempering(artifacts: Artifacts) -> Values:
    """Rates that the printed cells of the tempering sweeps give."""
    del artifacts
    return {name: rates_of(*cells) for name, cells in table()["tempering"].items()}


def tempering_intervals(artifacts: Artifacts) -> Values:
    """The same with intervals."""
    del artifacts
    return {name: intervals_of(*cells) for name, cells in table()["tempering"].items()}


def aucs(artifacts: Artifacts) -> Values:
    """Intervals of printed AUCs, from the class sizes of their labels."""
    del artifacts
    return {name: published_auc(*entry) for name, entry in table()["aucs"].items()}


def directional_chance(artifacts: Artifacts) -> Values:
    """Cohen's d of a direction fitted and scored on the same noise, by effective dimension."""
    del artifacts
    first, second = table()["directional"]["cohorts"]
    dimensions = table()["directional"]["dimensions"]
    return {
        **{f"d={d}": expected_in_sample_direction_effect(d, first, second) for d in dimensions},
        "expected_maximum_of_48": expected_maximum_of_normals(48),
    }


GROUPS: dict[str, Group] = {
    "printed.percentages": Group((), percentages),
    "printed.differences": Group((), differences),
    "printed.sums": Group((), sums),
    "printed.folds": Group((), means),
    "printed.ratios": Group((), ratios),
    "printed.changes": Group((), changes),
    "printed.tempering": Group((), tempering),
    "printed.tempering.intervals": Group((), tempering_intervals),
    "printed.aucs": Group((), aucs),
    "printed.directional": Group((), directional_chance),
}
