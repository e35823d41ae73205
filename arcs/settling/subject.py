"""What settling asks of a finished run, whatever kind it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from arcs.claims import ClaimVerdict, Verdict
from arcs.gates import Gates
from arcs.progress import Reporter
from arcs.settling.statistic import Auc, Means, Rates, Statistic, Values

OWN = "own"
"""Source of the set that the run itself was about."""
RECALL = "recall"
"""Source of generated short answers (evals/items/recall.py)."""


@dataclass(frozen=True)
class OpenClaim:
    """A claim of the run that too few items left undecided."""

    key: str
    """What it is called: the condition, and quantisation or axis."""
    condition: str
    part: str
    """Quantisation of an evaluation, axis of the meter; empty otherwise."""
    group: str
    """Which items it is about: those of an axis, or all (empty)."""
    stated: Mapping[str, Any]
    """The run's own claim."""
    smallest: float
    """The smallest effect that matters, in units of the differences; of an AUC, above chance."""
    unit: float | None
    """Of whole steps for the exact test, where differences are no yes and no; else None."""
    family: int = 1
    """Claims that share one alpha."""
    auc: bool = False
    """Of scores against labels; there are no differences then."""
    family_of: str = "axes"
    """What the claims of the family, or the changes of one claim, differ in."""
    in_points: bool = False
    """Differences of rates although they have a unit: means over several answers an item."""
    beside: tuple[str, ...] = ()
    """Groups whose items it rests on as well; they grow with its own, in proportion at most."""
    one_of_several: str = ""
    """What is counted, where the claim asks for more than this one number; then its own rules say
    what all items together show."""
    fewest: int = 0
    """Items in all without which something else that the claim asks for cannot be decided."""

    @property
    def groups(self) -> tuple[str, ...]:
        """All groups whose items it rests on, its own first."""
        return (self.group, *self.beside)

    @property
    def statistic(self) -> Statistic:
        """What is counted of its items."""
        if self.auc:
            return Auc()
        return Rates() if self.unit is None else Means(self.unit)


@dataclass(frozen=True)
class Pool:
    """Items of one source that the run has not used."""

    source: str
    """:data:`OWN`, the name of a shipped set, or a file's absolute path."""
    title: str
    sha256: str
    """Of the whole set."""
    items: Mapping[str, tuple[str, ...]]
    """Ids by group, in the order in which they are taken."""
    left_out: Mapping[str, int]
    """Why items are not counted -> how many."""

    def count(self, group: str) -> int:
        """Unused items of a group."""
        return len(self.items.get(group, ()))


@dataclass(frozen=True)
class Piece:
    """Where answers of a claim lie: the run itself, or what was run for it."""

    source: str
    path: Path
    first: bool = False
    group: str = ""
    """Of its items, where it is not the run itself."""


@dataclass(frozen=True)
class Seen:
    """What all items so far say of a claim, at one level."""

    verdict: Verdict
    reasons: tuple[StrEnum, ...]
    interval: Mapping[str, float] | None
    p_value: float | None
    sentence: str
    """For people: why, and the number."""

    @classmethod
    def of(cls, found: ClaimVerdict) -> Seen:
        """From a claim about a paired rate."""
        interval = found.interval.to_json() if found.interval else None
        return cls(found.verdict, found.reasons, interval, found.p_value, why(found.explanation))


def why(explanation: str) -> str:
    """A claim's explanation up to the number of items that would settle it: settle has its own."""
    return explanation.split(". About", maxsplit=1)[0].rstrip(".")


class Subject(Protocol):
    """A finished run with claims that are open to more items."""

    @property
    def run(self) -> Path:
        """Its directory."""

    @property
    def kind(self) -> str:
        """Which command made it."""

    @property
    def gates(self) -> Gates:
        """What its claims were held to."""

    @property
    def claims(self) -> tuple[OpenClaim, ...]:
        """Those that too few items left open."""

    @property
    def others(self) -> Sequence[tuple[str, str]]:
        """Name of every other claim, and why it needs no settling or cannot be settled so."""

    @property
    def files(self) -> Sequence[str]:
        """Names of the run's files that its claims rest on."""

    @property
    def first_counts(self) -> Mapping[str, int]:
        """Items of the run, by group."""

    @property
    def seconds_per_item(self) -> float | None:
        """As the run took, over the conditions of all open claims; None where it is not known."""

    @property
    def kinds(self) -> str:
        """What a file of further items holds, for people."""

    def pools(self, data: Sequence[str], say: Reporter) -> list[Pool]:
        """Unused items: of the run's own set, then of each of ``data``."""

    def require_same_edits(self) -> None:
        """Raise UserError where the model or an adapter is no longer the run's."""

    def values(self, claim: OpenClaim, piece: Piece) -> Values:
        """Differences item by item, edited minus base, of complete pairs; of an AUC, (score, right)
        of the answers that have both."""

    def judge(self, claim: OpenClaim, pieces: Sequence[Piece], gates: Gates) -> Seen:
        """All pieces together, by the rules of the run itself."""

    def go_on(
        self,
        pool: Pool,
        ids: Sequence[str],
        claims: Sequence[OpenClaim],
        path: Path,
        reporter: Reporter,
    ) -> None:
        """Run or continue items of a pool in ``path``, under the conditions of ``claims``."""
