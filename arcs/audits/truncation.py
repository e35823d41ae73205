"""Audits of responses that were cut: by the token budget, or by whoever stored the text.

The paper's headline (+15.3 points at n_predict 512) was a budget that ran out; its finish
reasons were never stored (PAPER.md 3.3, 8.2 T1). A text cut for display and then used as data
leaves another mark, a wall of equal lengths (T3, T4).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from arcs.audits.bounds import open_conclusion
from arcs.audits.ends import stopped_short, unrecognised
from arcs.audits.findings import Audit, Evidence, Finding, Outcome, Severity, outcome
from arcs.audits.pairs import shared_passes
from arcs.audits.results import Item, Results, ResultSet
from arcs.audits.set_pairs import Pair, arm_pairs, between, common_items, percent
from evals.statistics.paired import mcnemar_exact, paired_counts
from evals.statistics.rates import wilson
from evals.text_ends import ends_a_sentence, looks_unfinished

MAX_CUT_SHARE = 0.05
"""Gate of PAPER.md 8.2 T1."""
MOSTLY_UNFINISHED = 0.5
ARM_DIFFERENCE_P = 0.01
WALL_P = 1e-4
WALL_SHORTEST = {"characters": 100, "tokens": 32}
"""Below this, short answers are naturally of one length."""
MIN_TIES = 3
SMALLEST_P = 1e-300
NARROWEST_SPREAD = 0.02
"""Lengths of different free texts are taken to spread over at least 2 percent of the longest."""
STORE_REASONS = "Store finish_reason and the number of generated tokens with every response."


@dataclass(frozen=True)
class Cuts:
    """What is known about the ends of the responses of one set."""

    cut: int
    n: int
    """Items about which something is known."""
    how: str
    """"finish reasons", "token counts" or "texts"."""


def unfinished(item: Item) -> bool | None:
    """Whether the stored text breaks off; None where there is none or nothing can be said."""
    return looks_unfinished(item.response) if item.response else None


def _count(flags: Sequence[bool | None], how: str) -> Cuts:
    known = [flag for flag in flags if flag is not None]
    return Cuts(sum(known), len(known), how)


def _stored_cuts(one: ResultSet) -> Cuts:
    how = "finish reasons" if any(item.finish_reason for item in one.items) else "token counts"
    return _count([stopped_short(item, one.n_predict) for item in one.items], how)


def _text_cuts(one: ResultSet) -> Cuts:
    return _count([unfinished(item) for item in one.items], "texts")


def _evidence(cuts: Cuts) -> dict[str, Evidence]:
    found = wilson(cuts.cut, cuts.n) if cuts.n else None
    return {
        "cut": cuts.cut,
        "n": cuts.n,
        "judged_by": cuts.how,
        "interval": found.to_json() if found else None,
    }


def truncated_responses(results: Results) -> Outcome:
    """Look at how responses ended: finish reasons, token counts, or the texts themselves."""
    sets = [one for one in results.sets if one.items]
    pairs = arm_pairs(results)
    judged = {id(one) for pair in pairs if shared_passes(*pair) for one in pair}
    findings = [
        finding
        for one in sets
        for finding in (
            *_stored(one, id(one) in judged),
            *_not_stored(one),
            *_unknown_reasons(one),
            *_contradicted(one),
        )
    ]
    arms = [finding for pair in pairs for finding in _arms_differ(pair)]
    bounds = [finding for pair in pairs for finding in open_conclusion(pair, results.sets)]
    return outcome([*findings, *arms, *bounds], len(sets))


def _stored(one: ResultSet, judged_in_pairs: bool) -> Iterator[Finding]:
    """Over 5 percent; where arms are compared, what could change decides (open_conclusion)."""
    cuts = _stored_cuts(one)
    if cuts.n and cuts.cut / cuts.n > MAX_CUT_SHARE:
        found = wilson(cuts.cut, cuts.n)
        yield Finding(
            Severity.BIASES if judged_in_pairs else Severity.INVALIDATES,
            one.name,
            f"{percent(cuts.cut, cuts.n)} responses ran out of tokens by {cuts.how}, 95 percent "
            f"interval {found.low:.3f} to {found.high:.3f}; at most 5 percent may.",
            "Generate again with a larger n_predict, and report the result over several budgets.",
            {**_evidence(cuts), "n_predict": one.n_predict},
        )


def _not_stored(one: ResultSet) -> Iterator[Finding]:
    unknown = sum(not item.finish_reason for item in one.items)
    if not unknown:
        return
    cuts = _text_cuts(one)
    shown = (
        f"; of the texts, {percent(cuts.cut, cuts.n)} break off before the end of a sentence"
        if cuts.n
        else ", and no prose shows how the responses ended"
    )
    yield Finding(
        _text_severity(cuts),
        one.name,
        f"{unknown} of {len(one.items)} items store no finish reason{shown}.",
        STORE_REASONS,
        {
            **_evidence(cuts),
            "without_finish_reason": unknown,
            "items": len(one.items),
            "end_a_sentence": sum(ends_a_sentence(item.response or "") for item in one.items),
        },
    )


def _unknown_reasons(one: ResultSet) -> Iterator[Finding]:
    strange = unrecognised(one.items)
    if strange:
        number = sum(item.finish_reason in strange for item in one.items)
        yield Finding(
            Severity.CAUTION,
            one.name,
            f"{percent(number, len(one.items))} items have a finish reason that is not known: "
            f"{', '.join(strange[:5])}. Whether they were cut is not known either.",
            "Store stop for an answer that ended and length for one that ran out of tokens.",
            {"unknown_reasons": list(strange), "n": number, "items": len(one.items)},
        )


def _text_severity(cuts: Cuts) -> Severity:
    # A finished list or table may lack a full stop, so texts alone prove a cut only in bulk.
    low = wilson(cuts.cut, cuts.n).low if cuts.n else 0.0
    if low > MOSTLY_UNFINISHED:
        return Severity.INVALIDATES
    return Severity.BIASES if low > MAX_CUT_SHARE else Severity.CAUTION


def _contradicted(one: ResultSet) -> Iterator[Finding]:
    cuts, stored = _text_cuts(one), _stored_cuts(one)
    if not one.stores_finish_reasons() or not cuts.n or stored.cut / stored.n > MAX_CUT_SHARE:
        return
    if wilson(cuts.cut, cuts.n).low > MOSTLY_UNFINISHED:
        yield Finding(
            Severity.BIASES,
            one.name,
            f"Finish reasons say that {percent(stored.cut, stored.n)} were cut, but "
            f"{percent(cuts.cut, cuts.n)} stored texts break off before the end of a sentence.",
            "Store whole responses, or find out why they end early, before they are used as data.",
            _evidence(cuts),
        )


def _arms_differ(pair: Pair) -> Iterator[Finding]:
    base, other = pair
    items = common_items(base, other)
    for how, flags in (("finish reasons or token counts", _ran_out_pairs), ("texts", _text_pairs)):
        counts = paired_counts(*flags(pair, items))
        p = mcnemar_exact(counts.gained, counts.lost)
        if p < ARM_DIFFERENCE_P:
            first, second = counts.lost + counts.both, counts.gained + counts.both
            yield Finding(
                Severity.BIASES if shared_passes(*pair) else Severity.INVALIDATES,
                between(base, other),
                f"By {how} the arms are cut unequally: {percent(first, counts.n)} against "
                f"{percent(second, counts.n)} of the common items, McNemar p = {p:.2g}.",
                "Raise n_predict until neither arm is cut, then compare the arms again.",
                {"first": first, "second": second, "n": counts.n, "p": p, "judged_by": how},
            )
            return


def _ran_out_pairs(
    pair: Pair, items: Sequence[tuple[Item, Item]]
) -> tuple[list[bool | None], list[bool | None]]:
    base, other = pair
    first = [stopped_short(item, base.n_predict) for item, _ in items]
    return first, [stopped_short(item, other.n_predict) for _, item in items]


def _text_pairs(
    pair: Pair, items: Sequence[tuple[Item, Item]]
) -> tuple[list[bool | None], list[bool | None]]:
    if all(one.stores_finish_reasons() for one in pair):
        return [], []
    return [unfinished(item) for item, _ in items], [unfinished(item) for _, item in items]


@dataclass(frozen=True)
class Wall:
    """Responses that all have the largest length there is."""

    length: int
    unit: str
    at_wall: int
    """Different texts of exactly that length."""
    n: int
    p: float
    """Probability of so many ties at the largest length, at most, without a cut."""


def find_wall(lengths: Sequence[int], unit: str) -> Wall | None:
    """Look for more ties at the largest length than a smooth distribution of lengths gives.

    Null: no length is likelier than twice the mean density of the densest half of the other
    lengths, so ties at the largest are at most Binomial(n, that density). The densest half is
    taken to be at least ``NARROWEST_SPREAD`` of the longest wide, for sets with few others.
    None for no wall, for lengths too short to tell, or for fewer than ``MIN_TIES`` ties.
    """
    longest = max(lengths, default=0)
    at_wall = sum(length == longest for length in lengths)
    if longest < WALL_SHORTEST[unit] or at_wall < MIN_TIES:
        return None
    others = np.array([length for length in lengths if length != longest])
    width = max(_densest_half(others), NARROWEST_SPREAD * longest)
    p = max(SMALLEST_P, float(binom.sf(at_wall - 1, len(lengths), min(1.0, 1.0 / width))))
    return Wall(longest, unit, at_wall, len(lengths), p) if p < WALL_P else None


def _densest_half(lengths: np.ndarray) -> float:
    """Width of the shortest stretch that holds half of the lengths; 0 for fewer than four."""
    if len(lengths) < 4:
        return 0.0
    ordered = np.sort(lengths)
    half = len(ordered) // 2
    return float((ordered[half:] - ordered[: len(ordered) - half]).min())


def wall_of(one: ResultSet) -> Wall | None:
    """Find the wall in characters, or else in tokens; equal texts count once."""
    texts = Counter(item.response for item in one.items if item.response)
    tokens = {
        (item.response or item.item_id): item.generated_tokens
        for item in one.items
        if item.generated_tokens
    }
    wall = find_wall([len(text) for text in texts], "characters")
    if wall or one.stores_finish_reasons():
        return wall  # finish reasons say more about token budgets than lengths do
    return find_wall(list(tokens.values()), "tokens")


def length_wall(results: Results) -> Outcome:
    """Look for many responses of exactly the largest length."""
    sets = [one for one in results.sets if _has_lengths(one)]
    walls = ((one, wall_of(one)) for one in sets)
    return outcome([_wall_finding(one, wall) for one, wall in walls if wall], len(sets))


def _has_lengths(one: ResultSet) -> bool:
    return any(item.response or item.generated_tokens for item in one.items)


def _wall_finding(one: ResultSet, wall: Wall) -> Finding:
    large = wall.at_wall / wall.n > MAX_CUT_SHARE
    return Finding(
        Severity.INVALIDATES if large else Severity.BIASES,
        one.name,
        f"{percent(wall.at_wall, wall.n)} responses have exactly the largest length, {wall.length} "
        f"{wall.unit}; a smooth distribution of lengths gives that with p < {wall.p:.1g}.",
        "Use the whole responses: never store a text that was cut for display as data.",
        {
            "length": wall.length,
            "unit": wall.unit,
            "at_wall": wall.at_wall,
            "n": wall.n,
            "p": wall.p,
        },
    )


AUDITS: tuple[Audit, ...] = (
    Audit(
        "truncated-responses",
        "Did responses run out of tokens, and more often in one arm than in the other?",
        "items",
        truncated_responses,
    ),
    Audit(
        "length-wall",
        "Do many responses have exactly the same, largest length?",
        "responses or token counts",
        length_wall,
    ),
)
