"""Whether unfinished responses could change what a comparison of two arms concludes.

DESIGN section 4: unfinished answers are bounded in all four combinations (each arm's all fail
or all pass); a claim is invalid if and only if its conclusion changes within these bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from arcs.audits.ends import stopped_short
from arcs.audits.findings import Finding, Severity
from arcs.audits.pairs import shared_passes
from arcs.audits.results import Item, ResultSet
from arcs.audits.set_pairs import Pair, between, common_items
from arcs.claims import paired_statistic
from arcs.gates import load_gates
from evals.statistics.paired import PairedCounts, paired_counts

Bounds = tuple[bool | None, bool | None]
"""An item's result if its unfinished response fails, and if it passes; None is missing."""


def open_conclusion(pair: Pair, sets: Sequence[ResultSet]) -> Iterator[Finding]:
    """Yield a finding for each PASS label whose conclusion depends on unfinished responses.

    ``sets``: all sets; those of the same arm and task at a larger budget settle responses
    that a smaller one left unfinished.
    """
    items = common_items(*pair)
    for label in shared_passes(*pair) if items else ():
        yield from _open_label(pair, items, label, sets)


def _open_label(
    pair: Pair, items: Sequence[tuple[Item, Item]], label: str, sets: Sequence[ResultSet]
) -> Iterator[Finding]:
    first, second = (
        [_bounds(one, at, label, _larger(at, sets)) for one in side]
        for at, side in zip(pair, zip(*items, strict=True), strict=True)
    )
    corners = [_corner(first, second, i, j) for i in (0, 1) for j in (0, 1)]
    corners = [counts for counts in corners if counts.n]
    gates = load_gates()
    conclusions = {paired_statistic(counts, gates).conclusion for counts in corners}
    if len(conclusions) > 1:
        low, high = (100 * f(counts.delta for counts in corners) for f in (min, max))
        yield Finding(
            Severity.INVALIDATES,
            between(*pair),
            f"What is concluded about {label} depends on how unfinished responses would have "
            f"ended: the difference could be anything from {low:+.1f} to {high:+.1f} points.",
            "Raise n_predict until the conclusion no longer depends on them.",
            {
                "label": label,
                "n": corners[0].n,
                "unfinished": [sum(low != high for low, high in side) for side in (first, second)],
                "difference_low": low / 100,
                "difference_high": high / 100,
            },
        )


def _larger(one: ResultSet, sets: Sequence[ResultSet]) -> list[ResultSet]:
    """Sets of the same arm, task and family at a larger budget, the nearest first."""
    if one.n_predict is None:
        return []
    same = [
        other
        for other in sets
        if (other.arm, other.task, other.family, other.role)
        == (one.arm, one.task, one.family, one.role)
        and other.n_predict is not None
        and other.n_predict > one.n_predict
    ]
    return sorted(same, key=lambda other: other.n_predict or 0)


def _bounds(item: Item, at: ResultSet, label: str, larger: Sequence[ResultSet]) -> Bounds:
    for one in (at, *larger):
        found = one.by_id.get(item.item_id)
        if found is None or found.labels.get(label) is None:
            continue
        if not stopped_short(found, one.n_predict):
            passed = bool(found.labels[label])
            return passed, passed
    return (None, None) if item.labels.get(label) is None else (False, True)


def _corner(
    first: Sequence[Bounds], second: Sequence[Bounds], of_first: int, of_second: int
) -> PairedCounts:
    return paired_counts([b[of_first] for b in first], [b[of_second] for b in second])
