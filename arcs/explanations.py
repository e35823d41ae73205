"""Verdicts in one sentence, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arcs.claims import ReasonCode, Statistic, Verdict

_WHY = {
    ReasonCode.EFFECT_SHOWN: "the difference is significant, and the estimate is as large as one "
    "that matters",
    ReasonCode.EFFECT_EXCLUDED: "the interval excludes every difference that matters",
    ReasonCode.UNDERPOWERED: "too few items to show the effect or to exclude it",
    ReasonCode.FLOOR: "both arms are so low that a drop that matters could not be seen; "
    "use easier items or a stronger model, more items do not help",
    ReasonCode.CEILING: "both arms are so high that a gain that matters could not be seen; "
    "use harder items, more items do not help",
    ReasonCode.UNFINISHED_ANSWERS: "the effect is excluded as the answers stand, but not if the "
    "unfinished ones all passed in one arm and failed in the other; raise n_predict",
    ReasonCode.FINISH_REASONS_UNKNOWN: "no finish reasons were stored, so truncation cannot be "
    "told from failure; evaluate again, keeping them, or at a second n_predict",
    ReasonCode.TRUNCATED: "the conclusion depends on how unfinished answers would have ended; "
    "raise n_predict",
    ReasonCode.TRUNCATION_ARTIFACT: "the difference between the arms is not the same at the "
    "largest n_predict, so this budget makes part of it",
    ReasonCode.INFRASTRUCTURE: "too many items have no result because sandbox, checker or judge "
    "failed",
    ReasonCode.DIFFERENT_ITEMS: "the arms, or the budgets, hold different items",
    ReasonCode.INSTRUMENT_DIFFERS: "the arms were evaluated with different settings",
    ReasonCode.MIXED_INSTRUMENTS: "labels of different judges, prompts or cuts are compared",
    ReasonCode.MIXED_RUNS: "the numbers come from different runs",
    ReasonCode.JUDGE_NOT_VALID: "the judge was not validated, or fails its bar",
    ReasonCode.CONSTANT_CLASS: "the instrument returned one class only",
    ReasonCode.IN_SAMPLE: "it was scored on the items it was fitted on",
    ReasonCode.TRAIN_TEST_OVERLAP: "training and test items overlap",
    ReasonCode.REPEATED_ITEMS: "some items are others again, under other ids; give each once",
    ReasonCode.MISALIGNED: "labels were joined to the wrong items",
    ReasonCode.NOT_PUBLISHED: "the data behind it are not published",
    ReasonCode.SELECTED_WITHOUT_NULL: "the best of many was taken without a null",
    ReasonCode.CHOSEN_ON_TEST: "threshold or configuration was chosen on the test labels",
    ReasonCode.NO_SIGNAL_IN_TRAINING: "the probe carries no signal on its training items either",
    ReasonCode.NOT_REPLICATED: "it was not replicated",
    ReasonCode.UNIFORM_OUTPUT: "answers of both classes are alike",
    ReasonCode.UNBALANCED: "fewer of the right answers are asserted than a balanced gate must",
    ReasonCode.CAPABILITY_CLIFF: "too few items of one class are left on fresh prompts",
    ReasonCode.BETWEEN_KINDS: "the score tells kinds of question apart, and with so few kinds that "
    "is not enough",
    ReasonCode.NO_POSITION: "too many answers lack the position that is read; choose --position "
    "last_content, or raise n_predict",
    ReasonCode.INSENSITIVE: "a planted effect was not found either, so nothing is excluded",
    ReasonCode.PLACEBO_SHOWN: "shuffled labels show the effect as well",
}
# With more than one budget the interaction has decided; this is a caution then.
_CAUTION = "no finish reasons were stored, so only the comparison of budgets tells of truncation"


def statement(smallest_effect: float, n_predict: int) -> str:
    """Say what is claimed, and what counts as a change."""
    return (
        f"the edit changes pass@1 at n_predict {n_predict} "
        f"(a change that matters: {100 * smallest_effect:g} points)"
    )


def explain(
    verdict: Verdict,
    reasons: tuple[ReasonCode, ...],
    statistic: Statistic | None,
    smallest_effect: float,
    n_to_settle: int | None,
    n_to_exclude: int | None,
) -> str:
    """Give the reasons, the number with its interval and p, and what would settle the claim."""
    why = [_why(reason, first=position == 0) for position, reason in enumerate(reasons)]
    parts = ["; ".join(why)]
    if statistic is not None:
        parts.append(describe(statistic))
    if n_to_settle is not None:
        parts.append(f"about {n_to_settle:,} items would settle it")
    elif verdict is Verdict.INCONCLUSIVE and ReasonCode.UNDERPOWERED in reasons:
        points = f"{100 * smallest_effect:g} points"
        border = f"a true difference as near {points} as this one is settled by no practical number"
        planned = f"; if there is none, about {n_to_exclude:,} items would exclude {points}"
        parts.append(border + (planned if n_to_exclude is not None else ""))
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def describe(statistic: Statistic) -> str:
    """Give the difference in points, with interval, p and discordant items."""
    counts, interval = statistic.counts, statistic.interval
    return (
        f"difference {100 * counts.delta:+.1f} points "
        f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}], "
        f"McNemar p = {statistic.p_value:.2g}, {counts.gained} gained and {counts.lost} lost "
        f"of {counts.n} items"
    )


def because(
    claim: Mapping[str, Any],
    own: Mapping[ReasonCode, str] | None = None,
    items: str = "fresh items",
) -> str:
    """A stored :class:`arcs.estimates.JudgedClaim`: its number, why, and what would settle it.

    ``own``: half sentences that fit this claim better than those of all commands.
    """
    said, found = [], claim["estimate"]
    if found is not None:
        sign = "" if found["null"] else "+"
        test = "" if found["test"] is None else f"{found['test']} p = {p_text(found['p_value'])}, "
        said.append(
            f"{found['quantity']} {found['value']:{sign}.3f} {interval_text(found['interval'])}, "
            f"{test}n = {found['n']}"
        )
    reasons = [ReasonCode(reason) for reason in claim["reasons"]]
    said.append("; ".join((own or {}).get(reason) or why(reason) for reason in reasons))
    if claim["n_to_settle"] is not None:
        said.append(f"about {claim['n_to_settle']:,} {items} would settle it")
    return ". ".join(one[0].upper() + one[1:] for one in said if one) + "."


def interval_text(one: Mapping[str, Any]) -> str:
    """Three decimals."""
    return f"[{one['low']:.3f}, {one['high']:.3f}]"


def p_text(value: float) -> str:
    """Two digits."""
    return f"{value:.2g}" if value >= 0.001 else f"{value:.0e}"


def why(reason: ReasonCode) -> str:
    """Say what a reason code means, as half a sentence."""
    return _WHY[reason]


def _why(reason: ReasonCode, first: bool) -> str:
    if reason is ReasonCode.FINISH_REASONS_UNKNOWN and not first:
        return _CAUTION
    return _WHY[reason]
