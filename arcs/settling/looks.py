"""What one look says of one claim, held to the level that the plan gives it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from arcs.claims import ReasonCode, Verdict
from arcs.gates import Gates
from arcs.settling.plan import Planned
from arcs.settling.subject import Piece, Seen, Subject
from evals.statistics.rates import Interval
from evals.statistics.sequential import NO_ALPHA

MENDED = frozenset({ReasonCode.TRUNCATED})
"""Faults that more items can take away: the conclusion may come to be the same however unfinished
answers end."""


@dataclass(frozen=True)
class Look:
    """One look at one claim."""

    seen: Seen
    n_items: int
    delta: float
    counts: Mapping[str, int]
    """Gained and lost items; of an AUC, right and wrong ones."""
    fraction: float
    spent: float
    nominal: float
    level: float
    lowered: bool
    crossed: float | None
    """Exact: that a path without effect, with differences as large, would have crossed by now; of
    an AUC it is not counted."""
    sources: tuple[Mapping[str, Any], ...]
    """Numbers of each source, and the interval over all of them in strata."""
    stratified: Interval | None
    """None for one source, and where a source has too few items for an interval."""

    @property
    def decided(self) -> bool:
        """Whether further looks can change nothing that is said."""
        if self.seen.verdict is Verdict.INVALID:
            return bool(set(self.seen.reasons) - MENDED)
        return self.seen.verdict in (Verdict.SUPPORTED, Verdict.REFUTED)

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "n_items": self.n_items, "delta": self.delta, "interval": self.seen.interval,
            "p_value": self.seen.p_value, **self.counts,
            "verdict": self.seen.verdict.value,
            "reasons": [reason.value for reason in self.seen.reasons],
            "fraction": self.fraction, "alpha_spent": self.spent, "nominal_level": self.nominal,
            "level": self.level, "level_lowered": self.lowered, "exact_crossing": self.crossed,
            "sources": [dict(one) for one in self.sources],
            "stratified_interval": self.stratified.to_json() if self.stratified else None,
        }  # fmt: skip


def look(subject: Subject, one: Planned, by_look: Sequence[Sequence[Piece]]) -> Look:
    """The last of the looks so far. ``by_look``: what each opened, the run itself first."""
    claim, at = one.claim, len(by_look) - 1
    statistic = claim.statistic
    values = [[value for piece in pieces for value in subject.values(claim, piece)]
              for pieces in by_look]  # fmt: skip
    bound = statistic.bound(values, one.levels[: at + 1], one.allowed[: at + 1])
    level = max(bound.level, NO_ALPHA)
    gates = _at_level(subject.gates, level)
    seen = subject.judge(claim, [piece for pieces in by_look for piece in pieces], gates)
    nothing = bound.level <= NO_ALPHA
    if nothing:  # an interval at no level at all says nothing
        seen = replace(seen, interval=None)
    shown = seen.verdict is Verdict.SUPPORTED and not (bound.reachable or claim.one_of_several)
    # the first look has been concluded from by the run itself, and was left open
    if shown or ((nothing or not at) and seen.verdict is not Verdict.INVALID):
        seen = _open(seen)
    sources, strata = _sources(subject, one, by_look, 1 - level)
    # a stratum without an interval (one item of the meter) leaves nothing excluded
    excluded = strata is not None and statistic.excludes(strata, claim.smallest)
    if (
        len(sources) > 1
        and not claim.one_of_several
        and (
            (seen.verdict is Verdict.REFUTED and not excluded)
            or (seen.verdict is Verdict.SUPPORTED and not statistic.shown_within(strata))
        )
    ):
        seen = _open(seen, "not decided, since the sources in strata do not say so too")
    found = statistic.summary([value for added in values for value in added])
    return Look(
        seen, found.n, found.delta, found.counts,
        one.schedule.fractions[at], one.allowed[at], one.levels[at], bound.level, bound.lowered,
        bound.crossed, sources, strata,
    )  # fmt: skip


def stratified(strata: Sequence[tuple[int, float, Interval]]) -> Interval:
    """Interval of the mean over all items from each stratum's items, estimate and interval.

    Distances of the limits from the estimates are added as squares, weighted by the strata's
    shares (MOVER; Zou & Donner 2008, Statistics in Medicine 27:1693). Unlike an interval of the
    pooled items it does not take a difference between the strata for noise.
    """
    total = sum(n for n, _, _ in strata)
    value = sum(n * estimate for n, estimate, _ in strata) / total
    below = math.sqrt(sum((n / total * (e - i.low)) ** 2 for n, e, i in strata))
    above = math.sqrt(sum((n / total * (i.high - e)) ** 2 for n, e, i in strata))
    return Interval(value - below, value + above, strata[0][2].level)


def _sources(
    subject: Subject, one: Planned, by_look: Sequence[Sequence[Piece]], level: float
) -> tuple[tuple[Mapping[str, Any], ...], Interval | None]:
    values: dict[str, list[Any]] = {}
    for piece in (piece for pieces in by_look for piece in pieces):
        values.setdefault(piece.source, []).extend(subject.values(one.claim, piece))
    statistic = one.claim.statistic
    found, strata = [], []
    for source, own in values.items():
        if not own:
            continue
        delta, interval = statistic.of_source(own, level)
        strata.append((len(own), delta, interval))
        found.append({"source": source, "n_items": len(own), "delta": delta,
                      "interval": None if interval is None else interval.to_json()})  # fmt: skip
    known = [(n, mean, interval) for n, mean, interval in strata
             if interval is not None and mean is not None]  # fmt: skip
    whole = len(strata) > 1 and len(known) == len(strata)
    return tuple(found), stratified(known) if whole else None


def _open(seen: Seen, but: str = "") -> Seen:
    """Too few items after all; ``but``: why, where what is said of all together says otherwise."""
    sentence = seen.sentence
    if but:
        sentence = f"{but[0].upper()}{but[1:]}: {sentence[0].lower()}{sentence[1:]}"
    return replace(
        seen, verdict=Verdict.INCONCLUSIVE, reasons=(ReasonCode.UNDERPOWERED,), sentence=sentence
    )


def _at_level(gates: Gates, level: float) -> Gates:
    return replace(gates, test=replace(gates.test, alpha=level))
