"""One row of the comparison: what is printed, what is published, what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from evals.statistics.rates import Interval

Value = float | int | str | None


class Status(StrEnum):
    """How a printed number stands to the published files."""

    EXACT = "exact"
    """The published data determine it, and recomputation gives it."""
    CONSISTENT = "consistent only"
    """The data are not published; the printed numbers at least agree with one another."""
    CONTRADICTS = "contradicts"
    """The published data give another value, or paper, notes and files contradict each other."""
    NOT_DETERMINED = "not determined by published files"


@dataclass(frozen=True)
class Row:
    """One number."""

    key: str
    section: str
    quantity: str
    paper: Value
    """As printed; None where the paper does not print it."""
    paper_source: str | None
    published: Value
    """From a summary in a published file."""
    published_source: str | None
    recomputed: Value
    """From the published per-item data, or, for ``CONSISTENT``, from other printed numbers."""
    status: Status
    reason: str
    interval: Interval | None
    """In the units of ``recomputed``; the paper gives none."""
    interval_method: str | None
    n: int | None
    warnings: tuple[str, ...] = ()
    """Files behind this row that are not the published ones; ``reason`` names them too."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "key": self.key,
            "section": self.section,
            "quantity": self.quantity,
            "paper": self.paper,
            "paper_source": self.paper_source,
            "published": self.published,
            "published_source": self.published_source,
            "recomputed": self.recomputed,
            "status": self.status.value,
            "reason": self.reason,
            "interval": self.interval.to_json() if self.interval else None,
            "interval_method": self.interval_method,
            "n": self.n,
            "warnings": list(self.warnings),
        }
