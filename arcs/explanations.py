"""Verdicts in one sentence, for people."""

from __future__ import annotations

from arcs.claims import ReasonCode, Statistic, Verdict

_WHY = {
    ReasonCode.EFFECT_SHOWN: "the difference is significant and as large as the one that matters",
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
    ReasonCode.INFRASTRUCTURE: "too many items have no result because sandbox or checker failed",
    ReasonCode.DIFFERENT_ITEMS: "the arms, or the budgets, hold different items",
    ReasonCode.INSTRUMENT_DIFFERS: "the arms were evaluated with different settings",
}
# With more than one budget the interaction has decided; this is a caution then.
_CAUTION = "no finish reasons were stored, so only the comparison of budgets tells of truncation"


def statement(smallest_effect: float, n_predict: int) -> str:
    """Say what is claimed."""
    points = f"{100 * smallest_effect:g} points"
    return f"the edit changes pass@1 at n_predict {n_predict} by at least {points}"


def explain(
    verdict: Verdict,
    reasons: tuple[ReasonCode, ...],
    statistic: Statistic | None,
    smallest_effect: float,
    n_to_settle: int | None,
) -> str:
    """Give the reasons, the number with its interval and p, and what would settle the claim."""
    why = [_why(reason, first=position == 0) for position, reason in enumerate(reasons)]
    parts = ["; ".join(why)]
    if statistic is not None:
        parts.append(describe(statistic))
    if n_to_settle is not None:
        parts.append(f"about {n_to_settle:,} items would settle it")
    elif verdict is Verdict.INCONCLUSIVE and ReasonCode.UNDERPOWERED in reasons:
        points = f"{100 * smallest_effect:g}"
        parts.append(
            f"an effect so near {points} points is settled by no practical number of items"
        )
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


def _why(reason: ReasonCode, first: bool) -> str:
    if reason is ReasonCode.FINISH_REASONS_UNKNOWN and not first:
        return _CAUTION
    return _WHY[reason]
