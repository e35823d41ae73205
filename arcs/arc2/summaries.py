"""What the answers at one point came to: the 2x2, its rates, coverage, truncation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from arcs.arc2.dispositions import Labelled
from evals.delivery import Judged, Rate, delivery_table
from evals.statistics.bootstrap import bootstrap_mean
from evals.statistics.differences import difference_of_rates
from evals.statistics.rates import Interval, wilson


def summary(answers: Sequence[Labelled], level: float) -> dict[str, Any]:
    """Answers at one point, at one seed or several; intervals of ``level``."""
    known = [one.right for one in answers if one.right is not None]
    said = [one for one in answers if one.asserted is not None]
    asserted = sum(bool(one.asserted) for one in said)
    shares = [one.coverage for one in answers if one.coverage is not None]
    return {
        "answers": len(answers),
        "items": len({one.item_id for one in answers}),
        "right": sum(known) if known else None,
        "labelled": len(known),
        "asserted": asserted if said else None,
        "assertion": _rate(said, [bool(one.asserted) for one in said], level),
        "silent": sum(one.silent for one in answers),
        "table": _table(answers, level) if known else None,
        "coverage": None if not shares else {"mean": float(np.mean(shares)), "n": len(shares)},
        "truncated": sum(one.truncated for one in answers),
        "truncated_share": sum(one.truncated for one in answers) / len(answers),
        "loops": sum(one.loop for one in answers),
        "open": sum(one.open for one in answers),
        "details": dict(sorted(Counter(one.detail for one in answers if one.detail).items())),
    }


def _table(answers: Sequence[Labelled], level: float) -> dict[str, Any]:
    """The 2x2 and its rates.

    Accuracy is over all answers that have it, as the rules read it: a silent one is in no cell, and
    wrong. ``missing`` are answers whose labels failed; silent ones are counted apart.
    """
    counted = delivery_table(
        [Judged(one.item_id, one.right, one.asserted, not one.truncated) for one in answers]
    )
    known = [one for one in answers if one.right is not None]
    both = [one for one in known if one.asserted is not None]
    right, wrong = ([one for one in both if one.right is side] for side in (True, False))
    silent = sum(one.silent and one.right is not None for one in answers)
    asymmetry = counted.asymmetry
    # Newcombe's takes every answer for independent
    interval = (
        difference_of_rates(counted.cr, len(right), counted.cw, len(wrong), level).interval
        if asymmetry is not None and not _repeated(answers)
        else None
    )
    return {
        **counted.to_json(),
        "silent": silent,
        "missing": counted.missing - silent,
        "accuracy": _rate(known, [bool(one.right) for one in known], level),
        "assertion_rate": _rate(both, [bool(one.asserted) for one in both], level),
        "hallucination_rate": _rate(wrong, [bool(one.asserted) for one in wrong], level),
        "over_hedging": _rate(right, [not one.asserted for one in right], level),
        "asymmetry": None
        if asymmetry is None
        else {
            "value": asymmetry[0],
            "interval": None if interval is None else interval.to_json(),
        },
    }


def _rate(answers: Sequence[Labelled], values: Sequence[bool], level: float) -> dict[str, Any]:
    """A share with Wilson's interval, or one over items where they were answered several times."""
    made = Rate(sum(values), len(values)).to_json()
    if values:
        found = (
            clustered(values, [one.item_id for one in answers], level)
            if _repeated(answers)
            else wilson(sum(values), len(values), level)
        )
        made["interval"] = None if found is None else found.to_json()
    return made


def _repeated(answers: Sequence[Labelled]) -> bool:
    return len({one.item_id for one in answers}) < len(answers)


def clustered(values: Sequence[bool], items: Sequence[str], level: float) -> Interval | None:
    """Interval of a share whose answers come in items: whole items are resampled (BCa).

    Where all answers are alike no resampling shows a spread; then Wilson's, each item counted
    once. None where items do not differ otherwise.
    """
    try:
        return bootstrap_mean(np.asarray(values, dtype=np.float64), groups=items, level=level)
    except ValueError:
        count = len(set(items))
        alike = len(set(values)) == 1
        return wilson(count if values[0] else 0, count, level) if alike else None
