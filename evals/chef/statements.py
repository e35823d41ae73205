"""What one sentence of an answer states, and whether the reference agrees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Check = Literal["temperature", "region", "ingredients", "derivative", "technique", "cut", "time"]
CHECKS: tuple[Check, ...] = (
    "temperature", "region", "ingredients", "derivative", "technique", "cut", "time",
)  # fmt: skip
Verdict = Literal["correct", "unknown", "contradicted"]


@dataclass(frozen=True)
class Statement:
    """One thing stated about one name."""

    check: Check
    subject: str
    """Key of the reference's entry, ``section.key``; empty where no entry is meant."""
    verdict: Verdict
    said: str
    """The sentence, or the number in it."""
    known: str = ""
    """What the reference has."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return vars(self).copy()
