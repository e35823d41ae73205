"""Access to the paper's files by kind, and what several of their readers need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from arcs.audits.readers.source import read_json

CLAIM_COUNTS = (3, 4, 5, 6)
"""Numbers of claims that a checklist of the paper can have (PAPER.md 5.5)."""


@dataclass
class Files:
    """The files at hand by kind; remembers which was opened last, for error messages."""

    paths: Mapping[str, Path]
    last: Path | None = field(default=None, init=False)
    _documents: dict[Path, Any] = field(default_factory=dict, init=False)

    def has(self, kind: str) -> bool:
        """Whether there is a file of a kind."""
        return kind in self.paths

    def path(self, kind: str) -> Path:
        """Path of the file of a kind."""
        self.last = self.paths[kind]
        return self.last

    def json(self, kind: str) -> Any:
        """Document of the file of a kind."""
        path = self.path(kind)
        if path not in self._documents:
            self._documents[path] = read_json(path)
        return self._documents[path]


def claim_count(coverages: Sequence[float]) -> int | None:
    """Number of claims of a checklist, from shares of its claims: the only one they allow.

    None where several of ``CLAIM_COUNTS`` do: shares of 0 and 1 say nothing, 0.5 says 4 or 6.
    """
    fitting = [k for k in CLAIM_COUNTS if all(abs(c * k - round(c * k)) < 1e-3 for c in coverages)]
    return fitting[0] if len(fitting) == 1 else None


def common_denominator(rates: Sequence[float], largest: int = 1000) -> int:
    """Return the smallest n for which every rate is a whole number of n items.

    Raises ValueError where no n up to ``largest`` gives every rate.
    """
    found = math.lcm(*(Fraction(rate).limit_denominator(largest).denominator for rate in rates))
    if found > largest or any(abs(r * found - round(r * found)) > 1e-6 for r in rates):
        raise ValueError(f"no common number of items up to {largest} gives the rates {rates}")
    return found
