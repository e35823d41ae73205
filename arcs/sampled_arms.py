"""One arm with several answers an item: rates by item means, intervals over items, pass@k."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from arcs.gates import Gates
from arcs.verdicts import Results
from evals.budgets import check_budgets
from evals.humaneval.outcomes import ItemResult, Outcome
from evals.statistics.bootstrap import bootstrap_mean
from evals.statistics.paired import tango_interval
from evals.statistics.pass_at_k import pass_at_k
from evals.statistics.rates import Interval, wilson

KS = (1, 2, 5, 10, 20, 50, 100)
"""The k of pass@k that are reported, up to the number of samples, which is reported as well."""

Passes = Sequence[bool | None]
"""In the order of the answers; None is a missing result."""


def summarise_sampled(
    results: Results, items: Mapping[str, str], gates: Gates
) -> dict[int, dict[str, Any]]:
    """One arm alone at each of its budgets, JSON-able; ``items``: answer -> its item.

    Keys are those of :meth:`arcs.comparison.ArmSummary.to_json` as far as they are defined, and
    ``samples``, ``answers`` and ``pass_at_k`` (mean over items of the unbiased estimator).
    """
    return {n: _summary(results[n], items, gates.level) for n in check_budgets(sorted(results))}


def _summary(rows: Sequence[ItemResult], items: Mapping[str, str], level: float) -> dict[str, Any]:
    passes = [row.passed for row in rows]
    groups = _grouped([items[row.item_id] for row in rows], passes)
    counts = [(len(known), sum(known)) for known in _known(groups) if known]
    samples = max(map(len, groups.values()))
    rates = [passed / n for n, passed in counts]
    return {
        "n_items": len(groups),
        "samples": samples,
        "answers": len(rows),
        "passed": passes.count(True),
        "missing": passes.count(None),
        "pass_at_1": sum(rates) / len(rates) if rates else None,
        "interval": _mean_interval(rates, level).to_json() if rates else None,
        "pass_at_k": {
            str(k): _at_k(counts, k, level) for k in sorted({*KS, samples}) if k <= samples
        },
        "outcomes": {
            kind.value: count
            for kind in Outcome
            for count in [Counter(row.outcome for row in rows)[kind]]
        },
        "truncated": sum(row.truncated for row in rows),
        "truncated_share": sum(row.truncated for row in rows) / len(rows),
        "loops": sum(row.truncated and row.loop for row in rows),
        "unfinished": sum(row.unfinished for row in rows),
    }


def _at_k(counts: Sequence[tuple[int, int]], k: int, level: float) -> dict[str, Any] | None:
    """pass@k over the items that have k results; None where none has."""
    values = [pass_at_k(n, passed, k) for n, passed in counts if n >= k]
    if not values:
        return None
    return {
        "value": sum(values) / len(values),
        "interval": _mean_interval(values, level).to_json(),
        "n_items": len(values),
    }


def _grouped(of_item: Sequence[str], passes: Passes) -> dict[str, list[bool | None]]:
    groups: dict[str, list[bool | None]] = {}
    for item, passed in zip(of_item, passes, strict=True):
        groups.setdefault(item, []).append(passed)
    return groups


def _known(groups: Mapping[str, Sequence[bool | None]]) -> list[list[bool]]:
    return [[one for one in group if one is not None] for group in groups.values()]


def paired(
    of_item: Sequence[str], base: Passes, edited: Passes
) -> list[tuple[list[bool], list[bool]]]:
    """Both arms' samples of every item that misses none."""
    first, second = _grouped(of_item, base), _grouped(of_item, edited)
    pairs = zip(_known(first), _known(second), first.values(), strict=True)
    return [(b, e) for b, e, all_ in pairs if len(b) == len(e) == len(all_)]


def _mean_interval(values: Sequence[float], level: float) -> Interval:
    """BCa over items. Where nothing varies, Wilson's with each item as one trial (wider)."""
    try:
        found = bootstrap_mean(values, level=level)
    except ValueError:
        found = wilson(round(sum(values)), len(values), level)
    mean = sum(values) / len(values)
    return Interval(min(found.low, mean), max(found.high, mean), level)


def difference_interval(values: Sequence[float], level: float) -> Interval:
    """Interval of the mean of items' differences, BCa over items.

    Where nothing varies, Tango's with each item as one pair (wider).
    """
    mean = sum(values) / len(values)
    try:
        found = bootstrap_mean(values, level=level)
    except ValueError:
        moved = round(abs(sum(values)))
        found = tango_interval(*((moved, 0) if mean > 0 else (0, moved)), len(values), level)
    return Interval(min(found.low, mean), max(found.high, mean), level)
