"""Which claims of a run are open to more items, and what is said of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arcs.claims import ReasonCode, Verdict

ENOUGH = "nothing to settle"
_MORE = {
    ReasonCode.FLOOR: "more items do not help at the floor: use easier ones, or a stronger model",
    ReasonCode.CEILING: "more items do not help at the ceiling: use harder ones",
    ReasonCode.UNFINISHED_ANSWERS: "what is missing is the rest of the answers, not more of them: "
    "evaluate again with a larger --n-predict, or --escalate",
    ReasonCode.NO_SIGNAL_IN_TRAINING: "the probe finds nothing in training either, and more fresh "
    "items train nothing: give more training items (a larger --limit), or another --position",
    ReasonCode.CAPABILITY_CLIFF: "fresh questions hardly give one class of answers, which more of "
    "them do not change: ask easier ones, or a stronger model",
    ReasonCode.BETWEEN_KINDS: "what is missing is more kinds of question, not more items: ask "
    "other --items, of more kinds",
    ReasonCode.PLACEBO_SHOWN: "shuffled labels show the effect as well, so more items would show "
    "nothing",
    ReasonCode.INSENSITIVE: "a planted signal was not found either: give more training items (a "
    "larger --limit)",
}


def why_not(claim: Mapping[str, Any]) -> str | None:
    """Why a claim is not settled by more items; None where it is open to them."""
    verdict = Verdict(claim["verdict"])
    reasons = [ReasonCode(reason) for reason in claim["reasons"]]
    if verdict is Verdict.INCONCLUSIVE and reasons == [ReasonCode.UNDERPOWERED]:
        return None
    named = f"{verdict.value} ({', '.join(claim['reasons']).replace('_', ' ')})"
    if verdict in (Verdict.SUPPORTED, Verdict.REFUTED):
        return f"{named}: {ENOUGH}"
    if verdict is Verdict.INVALID:
        return f"{named}: more items do not mend an instrument"
    known = next((_MORE[reason] for reason in reasons if reason in _MORE), None)
    return f"{named}: {known or 'what it lacks is not items alone'}"
