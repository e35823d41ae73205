"""What an audit says: findings with evidence, severity and the fix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from arcs.audits.results import Results

Evidence = str | int | float | bool | list[Any] | dict[str, Any] | None
"""JSON-able."""


class Severity(StrEnum):
    """How bad a finding is, as in PAPER.md section 8."""

    INVALIDATES = "invalidates"
    """A claim that rests on it cannot stand."""
    BIASES = "biases"
    """A number is off, or says less than it seems to."""
    CAUTION = "caution"
    """Nothing is shown to be wrong, but nothing shows that it is right."""


@dataclass(frozen=True)
class Finding:
    """One artifact pattern found in one place."""

    severity: Severity
    where: str
    """Set, probe, ranking or file, as a person would look it up."""
    message: str
    """One sentence with the numbers: what was found."""
    fix: str
    """One sentence: what to do about it."""
    evidence: dict[str, Evidence] = field(default_factory=dict)
    """The numbers behind the message, for the machine."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "severity": self.severity.value,
            "where": self.where,
            "message": self.message,
            "fix": self.fix,
            "evidence": self.evidence,
        }


@dataclass(frozen=True)
class Outcome:
    """What one audit made of some results."""

    findings: tuple[Finding, ...]
    examined: int
    """Places the audit could look at; 0 means that it does not apply to these results."""


def outcome(findings: Iterable[Finding], examined: int) -> Outcome:
    """Build an outcome; ``findings`` may be a generator."""
    return Outcome(tuple(findings), examined)


@dataclass(frozen=True)
class Audit:
    """One named audit."""

    name: str
    """Lower case with hyphens."""
    question: str
    """What it asks, in one sentence."""
    needs: str
    """What results must hold for it to apply, in a few words."""
    run: Callable[[Results], Outcome]
