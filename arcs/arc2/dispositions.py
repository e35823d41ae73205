"""The seven dispositions, what each is measured by, and why one cannot be measured on some data.

A *text measure* is a rule that says of an answer whether it shows the disposition; no judge is
asked. A *meter axis* (evals/meter.py) reads it from log-probabilities. The outcome of a sweep is
always measured by the same instrument as the model before it (PAPER.md 8.1 J9), and by the text
measure only where enough of the unchanged model's answers do and do not show the disposition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evals.self_verification import prose, spoken, verifies

MIN_COHORT = 10
"""Fewest answers on either side of a cohort or of a text measure: two for each of five folds."""


@dataclass(frozen=True)
class Labelled:
    """One answer and what the labels say of it; None where there is no label."""

    item_id: str
    seed: int | None
    """Of the sampling; None: greedy."""
    text: str
    ids: tuple[int, ...]
    """Generated, the stop token included."""
    truncated: bool
    loop: bool
    open: bool
    """Cut where more text could change ``right``."""
    right: bool | None
    asserted: bool | None
    coverage: float | None = None
    """Share of a checklist's claims that are stated; None without a checklist."""
    detail: str = ""
    program: str | None = None
    """Extracted from the text and run; None where nothing was."""
    output: str | None = None
    """What running it gave."""

    @property
    def key(self) -> tuple[str, int | None]:
        """What answers under two conditions are joined by."""
        return self.item_id, self.seed

    @property
    def silent(self) -> bool:
        """Without a word: neither asserted nor hedged, and no label has failed."""
        return self.asserted is None and not re.search(r"\w", spoken(self.text))


Shows = Callable[[Labelled], "bool | None"]

_REASON = re.compile(
    r"\b(?:because|since|therefore|so that|which is why|due to|the reason|this means|in order to|"
    r"step \d|first(?:ly)?,|next,|then,|finally,)|^\s*\d+[.)]\s",
    re.IGNORECASE | re.MULTILINE,
)
_WARM = re.compile(
    r"!|\b(?:happy to|glad to|great question|love|delight|enjoy|exciting|wonderful|fantastic)\b",
    re.IGNORECASE,
)


def _hedges(one: Labelled) -> bool | None:
    if one.silent:
        return False
    return None if one.asserted is None else not one.asserted


def _checks(one: Labelled) -> bool | None:
    return verifies(one.text)


def _ends(one: Labelled) -> bool | None:
    return not one.truncated


def _explains(one: Labelled) -> bool | None:
    return _REASON.search(prose(one.text)) is not None


def _asks(one: Labelled) -> bool | None:
    return "?" in prose(one.text)


def _is_warm(one: Labelled) -> bool | None:
    return _WARM.search(prose(one.text)) is not None


def _recovers(one: Labelled) -> bool | None:
    return one.right


@dataclass(frozen=True)
class Disposition:
    """One disposition and its instruments."""

    name: str
    meaning: str
    shows: Shows
    measure: str
    """What ``shows`` goes by, in words."""
    axis: str | None = None
    """Of the meter."""
    of_the_cut: bool = False
    """Whether being cut is itself what is measured, and so leaves nothing unknown."""
    of_the_wrong: bool = False
    """Whether it is wanted of wrong answers only: shown by right ones it is too much of it."""


DISPOSITIONS: Mapping[str, Disposition] = {
    one.name: one
    for one in (
        Disposition("humble", "calibrated uncertainty", _hedges,
                    "the answer is hedged, by the lexical rule of delivery", "hedging",
                    of_the_wrong=True),
        Disposition("adversarial-self", "self-critique, cross-checking", _checks,
                    "a sentence of the answer carries out a check", "self_checking"),
        Disposition("persistent", "completes", _ends,
                    "the answer ends by itself, not by its budget", of_the_cut=True),
        Disposition("deliberate", "stepwise, giving reasons", _explains,
                    "the prose gives a reason or numbered steps"),
        Disposition("curious", "asks instead of assuming", _asks, "the prose holds a question"),
        Disposition("eager", "warmth, engagement", _is_warm,
                    "an exclamation mark or a warm phrase"),
        Disposition("self-improving", "integrates feedback", _recovers,
                    "a failed first answer is put right after what failed is shown; asked with "
                    "--labels execution, on the recovery tasks"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """How many of the answers show a disposition."""

    shown: int
    n: int
    missing: int

    def saturation(self, disposition: Disposition) -> str | None:
        """Why the text measure cannot tell these answers apart; None where it can."""
        if min(self.shown, self.n - self.shown) >= MIN_COHORT:
            return None
        return (
            f"saturated: {self.shown} of {self.n} answers show it ({disposition.measure}); "
            f"{MIN_COHORT} on either side are needed"
        )


def spread(disposition: Disposition, answers: Sequence[Labelled]) -> Spread:
    """Count the answers that show the disposition."""
    found = [disposition.shows(one) for one in answers]
    known = [one for one in found if one is not None]
    return Spread(sum(known), len(known), len(found) - len(known))
