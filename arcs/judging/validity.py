"""Whether claims may rest on a judge: its labels of the references that ship, against its bar.

Decided on the shipped references alone (:mod:`evals.judges.references`); a claim that rests on a
judge below the bar is INVALID (judge_not_valid). Execution, exact match and the meter need none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache as once
from typing import Any

from arcs.gates import Gates
from arcs.judging.opening import ask
from arcs.progress import Reporter
from evals.judges.cache import LabelCache
from evals.judges.labels import Judge
from evals.judges.references import Reference, records, references
from evals.judges.validation import LEAST_REFERENCES, Bar, validate
from evals.self_verification import verifies
from evals.statistics.agreement import cohen_kappa

SHOWN = (
    "judge", "instrument", "prompt_sha256", "n", "statuses", "parsed", "kappa", "kappa_interval",
    "planted", "mean_cut", "failures", "passes", "shortfalls",
)  # fmt: skip


SVR = "self_verification"
"""The precise measure of self-verification: a rule, on references of its own."""


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


@once
def svr_validity(gates: Gates) -> Mapping[str, Any]:
    """The precise measure of self-verification against its references, held to kappa's bar.

    Nothing is planted among them, and a rule always has an answer.
    """
    rows = records("svr")
    found = cohen_kappa(
        [row["label"] == "VERIFIES" for row in rows], [verifies(row["response"]) for row in rows]
    )
    low = None if found.interval is None else found.interval.low
    passes = low is not None and low >= gates.judge.kappa_low
    return {
        "instrument": SVR,
        "n": found.n,
        "kappa": found.value,
        "kappa_interval": None if found.interval is None else found.interval.to_json(),
        "passes": passes,
        "shortfalls": []
        if passes
        else [f"the lower bound of kappa is {low:.2f}, below {gates.judge.kappa_low:g}"]
        if low is not None
        else ["the lower bound of kappa cannot be computed"],
    }


def unanswered(found: Mapping[str, Any], bar: Bar) -> int:
    """References of an instrument that got no answer, where that is all that stands between the
    judge and its bar (an endpoint was down); else 0. ``found``: as in :class:`JudgeValidity`."""
    errors, n = found["statuses"].get("error", 0), found["n"]
    answered = n - errors
    if not errors:
        return 0
    if not answered or answered < LEAST_REFERENCES <= n:
        return int(errors)  # too few are left to tell
    interval, planted = found["kappa_interval"], found["planted"]
    passes = (
        interval is not None
        and interval["low"] >= bar.kappa_low
        and (planted is None or (planted["value"] or 0) <= bar.planted_accepted)
        and found["statuses"].get("ok", 0) >= bar.parsed * answered
    )
    return int(errors) if passes else 0


def judge_validity(
    judge: Judge,
    instruments: Sequence[str],
    gates: Gates,
    *,
    cache: LabelCache | None = None,
    reporter: Reporter | None = None,
    limit: int | None = None,
) -> JudgeValidity:
    """Let ``judge`` label the shipped references of each instrument (labels in ``cache`` are used).

    ``limit``: this many of them, spread evenly: the interval is wider, so the bar harder to pass.

    Raises CapabilityError where it cannot apply one.
    """
    said, bar = reporter or Reporter(quiet=True), bar_of(gates)
    found = {}
    for name in dict.fromkeys(instruments):
        given = _spread(references(name), limit)
        asked = [one.question for one in given]
        labels = ask(judge, asked, f"validate {name}", said, cache=cache)
        whole = validate(judge, given, labels).to_json(bar)
        found[name] = {key: whole[key] for key in SHOWN}
    return JudgeValidity(found)


def _spread(given: Sequence[Reference], limit: int | None) -> Sequence[Reference]:
    count = len(given) if limit is None else min(limit, len(given))
    return [given[i * len(given) // count] for i in range(count)]
