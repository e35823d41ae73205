"""Whether claims may rest on a judge: its own validation, in the form an arc keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from arcs.gates import load_gates
from evals.judges.labels import Judge
from evals.judges.recorded import RecordedJudge
from evals.judges.references import references
from evals.judges.validation import Bar, validate


@dataclass(frozen=True)
class Held:
    """A judge held to the bar of the gates file."""

    judge: str
    passes: bool
    shortfalls: tuple[str, ...]
    """What keeps it below, by instrument; of recorded labels, that nothing can be asked."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {"judge": self.judge, "passes": self.passes, "shortfalls": list(self.shortfalls)}


def held_to_bar(judge: Judge, instruments: Sequence[str]) -> Held:
    """Validate a judge that costs nothing on the references that ship.

    Recorded labels cannot be asked about references, so they never pass: what they are worth is
    not known here.
    """
    if isinstance(judge, RecordedJudge):
        return Held(str(judge.id), False, ("recorded labels cannot be validated here",))
    gates = load_gates().judge
    bar = Bar(gates.kappa_low, gates.planted_accepted, gates.parsed)
    short: list[str] = []
    for name in instruments:
        given = references(name)
        labels = judge.label([one.question for one in given])
        short += [f"{name}: {one}" for one in validate(judge, given, labels).shortfalls(bar)]
    return Held(str(judge.id), not short, tuple(short))
