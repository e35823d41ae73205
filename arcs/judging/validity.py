"""Whether claims may rest on a judge: its labels of the references that ship, against its bar.

Decided on the shipped references alone (:mod:`evals.judges.references`); a claim that rests on a
judge below the bar is INVALID (judge_not_valid). Execution, exact match and the meter need none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arcs.gates import Gates
from arcs.judging.opening import ask
from arcs.progress import Reporter
from evals.judges.cache import LabelCache
from evals.judges.labels import Judge
from evals.judges.references import references
from evals.judges.validation import Bar, validate

SHOWN = (
    "judge", "instrument", "prompt_sha256", "n", "statuses", "parsed", "kappa", "kappa_interval",
    "planted", "mean_cut", "passes", "shortfalls",
)  # fmt: skip


@dataclass(frozen=True)
class JudgeValidity:
    """By instrument, what :meth:`evals.judges.validation.Validity.to_json` says."""

    instruments: Mapping[str, Mapping[str, Any]]

    def failing(self, needed: Iterable[str]) -> list[str]:
        """Instruments among ``needed`` that the judge fails, or was not validated on."""
        return [
            name
            for name in needed
            if name not in self.instruments or not self.instruments[name]["passes"]
        ]

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {name: dict(one) for name, one in self.instruments.items()}


def bar_of(gates: Gates) -> Bar:
    """The bar in the gates file."""
    return Bar(gates.judge.kappa_low, gates.judge.planted_accepted, gates.judge.parsed)


def judge_validity(
    judge: Judge,
    instruments: Sequence[str],
    gates: Gates,
    *,
    cache: LabelCache | None = None,
    reporter: Reporter | None = None,
) -> JudgeValidity:
    """Let ``judge`` label the shipped references of each instrument (labels in ``cache`` are used).

    Raises CapabilityError where it cannot apply one.
    """
    said, bar = reporter or Reporter(quiet=True), bar_of(gates)
    found = {}
    for name in dict.fromkeys(instruments):
        given = references(name)
        asked = [one.question for one in given]
        labels = ask(judge, asked, f"validate {name}", said, cache=cache)
        whole = validate(judge, given, labels).to_json(bar)
        found[name] = {key: whole[key] for key in SHOWN}
    return JudgeValidity(found)
