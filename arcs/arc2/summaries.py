"""What the answers at one point came to: the 2x2, its rates, coverage, truncation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from arcs.arc2.dispositions import Labelled
from evals.delivery import Judged, Rate, delivery_table
from evals.statistics.bootstrap import bootstrap_mean
from evals.statistics.rates import Interval, wilson


def summary(answers: Sequence[Labelled]) -> dict[str, Any]:
    """Answers at one point, at one seed or several."""
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
        "assertion": _rate(said, [bool(one.asserted) for one in said]),
        "silent": sum(one.silent for one in answers),
        "table": _table(answers) if known else None,
        "coverage": None if not shares else {"mean": float(np.mean(shares)), "n": len(shares)},
        "truncated": sum(one.truncated for one in answers),
        "truncated_share": sum(one.truncated for one in answers) / len(answers),
        "loops": sum(one.loop for one in answers),
        "open": sum(one.open for one in answers),
        "details": dict(sorted(Counter(one.detail for one in answers if one.detail).items())),
    }


def _table(answers: Sequence[Labelled]) -> dict[str, Any]:
    """The 2x2 and its rates; intervals over items where an item was answered several times."""
    found = delivery_table(
        [Judged(one.item_id, one.right, one.asserted, not one.truncated) for one in answers]
    ).to_json()
    if not _repeated(answers):
        return found
    both = [one for one in answers if one.right is not None and one.asserted is not None]
    right, wrong = ([one for one in both if one.right is side] for side in (True, False))
    found["accuracy"] = _rate(both, [bool(one.right) for one in both])
    found["assertion_rate"] = _rate(both, [bool(one.asserted) for one in both])
    found["hallucination_rate"] = _rate(wrong, [bool(one.asserted) for one in wrong])
    found["over_hedging"] = _rate(right, [not one.asserted for one in right])
    if found["asymmetry"] is not None:
        found["asymmetry"]["interval"] = None  # Newcombe's takes every answer for independent
    return found


def _rate(answers: Sequence[Labelled], values: Sequence[bool]) -> dict[str, Any]:
    """A share with Wilson's interval, or one over items where they were answered several times."""
    made = Rate(sum(values), len(values)).to_json()
    if values and _repeated(answers):
        interval = clustered(values, [one.item_id for one in answers])
        made["interval"] = None if interval is None else interval.to_json()
    return made


def _repeated(answers: Sequence[Labelled]) -> bool:
    return len({one.item_id for one in answers}) < len(answers)


def clustered(values: Sequence[bool], items: Sequence[str]) -> Interval | None:
    """Interval of a share whose answers come in items: whole items are resampled (BCa).

    Where all answers are alike no resampling shows a spread; then Wilson's, each item counted
    once. None where items do not differ otherwise.
    """
    try:
        return bootstrap_mean(np.asarray(values, dtype=np.float64), groups=items)
    except ValueError:
        count = len(set(items))
        return wilson(count if values[0] else 0, count) if len(set(values)) == 1 else None
