"""Checklist coverage: how many of an answer's claims it states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.delivery import Rate
from evals.statistics.bootstrap import bootstrap_mean
from evals.statistics.rates import Interval


@dataclass(frozen=True)
class Covered:
    """One answer: a yes, a no or nothing for each of its claims."""

    item_id: str
    claims: tuple[bool | None, ...]
    finished: bool = True

    @property
    def share(self) -> float | None:
        """Stated claims over asked ones; None where a claim has no label, since a share of fewer
        claims is another scale (PAPER.md 8.1 J7)."""
        if not self.claims or None in self.claims:
            return None
        return sum(map(bool, self.claims)) / len(self.claims)


@dataclass(frozen=True)
class Coverage:
    """A condition's answers together."""

    mean: float | None
    interval: Interval | None
    """BCa over answers; None where fewer than two answers, or none differs."""
    n: int
    missing: int
    """Answers with a claim that has no label."""
    at_least: Mapping[float, Rate]
    """Threshold -> answers with that share of their claims or more."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "mean": self.mean,
            "interval": self.interval.to_json() if self.interval else None,
            "n": self.n,
            "missing": self.missing,
            "at_least": {f"{share:g}": rate.to_json() for share, rate in self.at_least.items()},
        }


def coverage(answers: Sequence[Covered], *, finished_only: bool = False) -> Coverage:
    """Mean coverage, and the share of answers at every threshold that the claims allow.

    Raises ValueError where answers have different numbers of claims: one threshold would mean
    different things (PAPER.md 8.1 J3).
    """
    used = [one for one in answers if one.finished or not finished_only]
    sizes = {len(one.claims) for one in used}
    if len(sizes) > 1:
        raise ValueError(f"checklists of different lengths cannot be put together: {sizes}")
    shares = [one.share for one in used]
    known = [share for share in shares if share is not None]
    k = max(sizes, default=0)
    thresholds = [i / k for i in range(1, k + 1)] if k else []
    try:
        interval = bootstrap_mean(known) if len(known) > 1 else None
    except ValueError:  # nothing varies
        interval = None
    return Coverage(
        mean=sum(known) / len(known) if known else None,
        interval=interval,
        n=len(known),
        missing=len(shares) - len(known),
        at_least={t: Rate(sum(share >= t for share in known), len(known)) for t in thresholds},
    )
