"""What a claim of the paper consists of, and the table of all of them.

Each is phrased as an effect ("X changes Y"), so that SUPPORTED and REFUTED mean the same
everywhere; the paper says yes to some and no to others, and :class:`Stands` says whether its
own conclusion holds. Statements are ours; ``source`` says where the paper makes the claim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from arcs.claims import Verdict
from arcs.estimates import JudgedClaim
from arcs.reproduction.groups import Facts


class Says(StrEnum):
    """What the paper says of an effect."""

    YES = "yes"
    NO = "no"
    WITHDRAWN = "withdrawn"
    """It reported the effect first, and then withdrew it as an artifact."""


class Stands(StrEnum):
    """Whether the paper's own conclusion holds on its published data."""

    YES = "stands"
    NO = "contradicted"
    OPEN = "not decided"
    INVALID = "invalid"


@dataclass(frozen=True)
class PaperClaim:
    """One claim of the paper with what its published data say of it."""

    key: str
    source: str
    paper_says: Says
    judged: JudgedClaim
    why: str
    """The reasons, with the numbers."""
    missing: str
    """What would decide it."""

    @property
    def stands(self) -> Stands:
        """Whether the paper's own conclusion holds."""
        verdict = self.judged.verdict
        if self.paper_says is Says.WITHDRAWN and verdict is Verdict.INVALID:
            return Stands.YES
        if verdict is Verdict.INVALID:
            return Stands.INVALID
        if verdict is Verdict.INCONCLUSIVE:
            return Stands.OPEN
        affirmed = self.paper_says is Says.YES
        return Stands.YES if (verdict is Verdict.SUPPORTED) is affirmed else Stands.NO

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "key": self.key,
            "source": self.source,
            "paper_says": self.paper_says.value,
            "conclusion": self.stands.value,
            "why": self.why,
            "missing": self.missing,
            **self.judged.to_json(),
        }


def paper_claims(facts: Facts) -> list[PaperClaim]:
    """Judge every claim; needs all published files."""
    from arcs.reproduction.claims import arc1, arc2, arc3

    makers: Sequence[Callable[[Facts], PaperClaim]] = (*arc1.CLAIMS, *arc2.CLAIMS, *arc3.CLAIMS)
    return [make(facts) for make in makers]
