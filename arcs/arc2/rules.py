"""The words of an Arc 2 verdict as rules with numbers (PAPER.md 4.9 gives the words, no rule).

Each rule is asked of effects that are corrected over the sweep, and answers *holds*, *excluded*
or *open*: that a test does not reject excludes nothing, only an interval does. A rise is a move
toward the disposition. The claim is that damping the chosen heads brings the disposition about
and keeps the content; :func:`verdict` says what the words make of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from arcs.arc2.effects import Effect, fewest_unchanged
from arcs.claims import Verdict


class Word(StrEnum):
    """What can be said of a sweep."""

    FROZEN = "frozen"
    WRONG_DIRECTION = "wrong direction"
    NON_MONOTONIC = "non-monotonic"
    CONTENT_DAMAGE = "content damage"
    NOT_REPLICATED = "not replicated"
    NO_SEPARABLE_AXIS = "no separable axis"
    LIKE_RANDOM_HEADS = "no more than random heads"
    OVER_HEDGING = "over-hedging"
    CLEAN_POSITIVE = "clean positive"


class State(StrEnum):
    """Whether a word holds."""

    HOLDS = "holds"
    EXCLUDED = "excluded"
    OPEN = "open"
    NOT_TESTED = "not tested"


@dataclass(frozen=True)
class Ruling:
    """One word, whether it holds, and why."""

    word: Word
    state: State
    because: str

    def to_json(self) -> dict[str, str]:
        """JSON-able form."""
        return {"word": self.word.value, "state": self.state.value, "because": self.because}


@dataclass(frozen=True)
class Evidence:
    """All that the words are decided from. Dampings are in order, the weakest first."""

    axis: Sequence[Effect]
    """Change of the axis at each lambda below 1; empty: no axis could be measured."""
    steps: Sequence[Effect] = ()
    """Change from each lambda to the next."""
    trend: Effect | None = None
    """Mean slope of the axis over damping."""
    content: Sequence[Sequence[Effect]] = ()
    """Change of accuracy at each lambda: as read, then for every way in which unfinished answers
    could end; or of the log-likelihood. Empty: the content was not measured."""
    content_floor: str | None = None
    """Why a fall could not be seen: too few right answers to begin with."""
    against_random: Sequence[Effect] = ()
    """Chosen heads minus each set of random heads of the same layers, at the strongest damping."""
    random_rank: float | None = None
    """Rank p of the chosen heads' change among those of the sets; None: no sets."""
    over_hedging: Sequence[Effect] | None = None
    """Change of hedging among answers that are right before and after, at each lambda, whatever the
    axis; None where the disposition is not wanted of wrong answers only, or nothing is right or
    wrong."""
    replicates: Sequence[Effect] = ()
    """The change at the strongest damping, by seed or by half of the items."""
    replicate_difference: Effect | None = None
    """Between the two replicates that differ most."""
    replicated_over: str = "halves of the items"
    separable: bool | None = None
    """Whether some head differs, at a corrected p below alpha, by an amount that matters; None: no
    ranking."""
    too_small: str | None = None
    """The largest effect of the heads that do differ, where none of them reaches that amount."""
    largest_separation: float | None = None
    """Largest |d| that simultaneous intervals of all heads still hold; None: not in d, or of
    directions that were estimated."""
    smallest_separation: float = 0.5
    """Smallest d of a head that matters."""
    chosen_on_same: int = 0
    """Prompts of the sweep that the heads were ranked on as well."""
    faults: Sequence[str] = field(default_factory=tuple)
    """Why the instrument failed, in words; any makes the claim INVALID."""


def _shown(effects: Sequence[Effect], kind: str) -> str:
    names = [one.name for one in effects if getattr(one, kind)]
    return ", ".join(names)


def frozen(found: Evidence) -> Ruling:
    """No effect that matters, at any lambda."""
    moved = [one for one in found.axis if one.up or one.down]
    if not found.axis:
        return _not_tested(Word.FROZEN, "no axis was measured")
    if all(one.within for one in found.axis):
        return Ruling(Word.FROZEN, State.HOLDS, "every interval lies inside the smallest effect")
    if moved:
        return Ruling(Word.FROZEN, State.EXCLUDED, f"the axis moved at {_names(moved)}")
    return Ruling(Word.FROZEN, State.OPEN, "no move is shown, and one that matters is not excluded")


def wrong_direction(found: Evidence) -> Ruling:
    """Away from the disposition at some lambda, and toward it at none."""
    if not found.axis:
        return _not_tested(Word.WRONG_DIRECTION, "no axis was measured")
    down, up = _shown(found.axis, "down"), _shown(found.axis, "up")
    if down and not up:
        return Ruling(Word.WRONG_DIRECTION, State.HOLDS, f"it fell at {down}")
    if all(one.not_below for one in found.axis):
        return Ruling(Word.WRONG_DIRECTION, State.EXCLUDED, "a fall that matters is excluded")
    if down:
        return Ruling(Word.WRONG_DIRECTION, State.OPEN, f"it fell at {down} and rose at {up}")
    return Ruling(Word.WRONG_DIRECTION, State.OPEN, "a fall is neither shown nor excluded")


def non_monotonic(found: Evidence) -> Ruling:
    """One step up and one step down as lambda falls, both shown."""
    if len(found.steps) < 2:
        return _not_tested(Word.NON_MONOTONIC, "fewer than two steps of lambda")
    down, up = _shown(found.steps, "down"), _shown(found.steps, "up")
    if down and up:
        return Ruling(Word.NON_MONOTONIC, State.HOLDS, f"up at {up}, down at {down}")
    if all(one.not_below for one in found.steps) or all(one.not_above for one in found.steps):
        return Ruling(Word.NON_MONOTONIC, State.EXCLUDED, "no step back that matters")
    return Ruling(Word.NON_MONOTONIC, State.OPEN, "a step back is neither shown nor excluded")


def content_damage(found: Evidence) -> Ruling:
    """Fewer right answers at some lambda, however unfinished answers would have ended."""
    if found.content_floor is not None:
        return _not_tested(Word.CONTENT_DAMAGE, found.content_floor)
    if not found.content:
        return _not_tested(Word.CONTENT_DAMAGE, "the content was not measured")
    states = {_content_state(effects) for effects in found.content}
    if states == {State.HOLDS}:
        where = _shown(found.content[0], "down")
        return Ruling(Word.CONTENT_DAMAGE, State.HOLDS, f"it fell at {where}")
    if states == {State.EXCLUDED}:
        return Ruling(Word.CONTENT_DAMAGE, State.EXCLUDED, "a fall that matters is excluded")
    because = "a fall is neither shown nor excluded"
    if len(states) > 1:
        because = "it depends on how unfinished answers would have ended"
    return Ruling(Word.CONTENT_DAMAGE, State.OPEN, because)


def _content_state(effects: Sequence[Effect]) -> State:
    if any(one.down for one in effects):
        return State.HOLDS
    return State.EXCLUDED if all(one.not_below for one in effects) else State.OPEN


def not_replicated(found: Evidence) -> Ruling:
    """Replicates disagree: their difference is shown, and not all point the same way."""
    what = found.replicated_over
    if len(found.replicates) < 2:
        return _not_tested(Word.NOT_REPLICATED, "there is one replicate")
    same = all(one.up for one in found.replicates) or all(one.down for one in found.replicates)
    if same:
        return Ruling(Word.NOT_REPLICATED, State.EXCLUDED, f"all {what} show it")
    between = found.replicate_difference
    if between is not None and (between.up or between.down):
        return Ruling(Word.NOT_REPLICATED, State.HOLDS, f"{what} differ by more than matters")
    return Ruling(Word.NOT_REPLICATED, State.OPEN, f"not all {what} show it, and none contradicts")


def no_separable_axis(found: Evidence) -> Ruling:
    """No head tells the cohorts apart by an amount that matters."""
    if found.separable is None:
        return _not_tested(Word.NO_SEPARABLE_AXIS, "nothing was ranked")
    if found.separable:
        because = "a head differs by more than the best of as many noise heads"
        return Ruling(Word.NO_SEPARABLE_AXIS, State.EXCLUDED, because)
    largest = found.largest_separation
    if largest is not None and largest < found.smallest_separation:
        because = f"every head's d lies within {found.smallest_separation:g}"
        return Ruling(Word.NO_SEPARABLE_AXIS, State.HOLDS, because)
    because = "no head stands out, with a positive effect, of the null of the maximum"
    if found.too_small is not None:
        because = f"heads stand out of the null of the maximum, by {found.too_small} at most"
    if largest is not None:
        because += f", and d up to {largest:.2f} is not excluded"
    return Ruling(Word.NO_SEPARABLE_AXIS, State.OPEN, because)


def like_random_heads(found: Evidence) -> Ruling:
    """The chosen heads must do more than every set of random heads.

    Each set is tested at the full alpha: all tests must pass, so none of them can be the lucky one
    (intersection-union, Berger 1982). That more is *excluded* for one of several sets is read from
    intervals that hold for all sets at once.
    """
    effects = found.against_random
    if not effects:
        return _not_tested(Word.LIKE_RANDOM_HEADS, "no random heads were damped")
    excluded = [one for one in effects if one.not_above]
    if excluded:
        because = f"more than {_names(excluded)}, by what matters, is excluded"
        return Ruling(Word.LIKE_RANDOM_HEADS, State.HOLDS, because)
    unbeaten = [one for one in effects if not (one.p < one.alpha and one.value > 0)]
    if unbeaten:
        because = f"more than {_names(unbeaten)} is neither shown nor excluded"
        return Ruling(Word.LIKE_RANDOM_HEADS, State.OPEN, because)
    because = f"they do more than {_names(effects)}"
    if found.random_rank is not None:
        because += f" (rank p among the sets {found.random_rank:.2g})"
    return Ruling(Word.LIKE_RANDOM_HEADS, State.EXCLUDED, because)


def over_hedging(found: Evidence) -> Ruling:
    """Answers that stay right are hedged more: not uncertainty, but hedging of everything.

    Asked of the answers, also where the axis is the meter: the meter's texts say nothing of them.
    """
    effects = found.over_hedging
    if effects is None:
        because = "it is no hedging, or nothing is right or wrong"
        return _not_tested(Word.OVER_HEDGING, because)
    if not effects:
        return _not_tested(Word.OVER_HEDGING, "no answer is right before and after")
    up = _shown(effects, "up")
    if up:
        return Ruling(Word.OVER_HEDGING, State.HOLDS, f"right answers are hedged more at {up}")
    if all(one.not_above for one in effects):
        because = "among right answers a rise that matters is excluded"
        return Ruling(Word.OVER_HEDGING, State.EXCLUDED, because)
    because = "among right answers a rise is neither shown nor excluded" + _too_few(effects)
    return Ruling(Word.OVER_HEDGING, State.OPEN, because)


def _too_few(effects: Sequence[Effect]) -> str:
    """Said where so few answers are compared that not even unchanged ones would exclude a move."""
    few = min(effects, key=lambda one: one.n)
    needed = fewest_unchanged(few.smallest, few.interval.level)
    return f" ({few.n} are compared at {few.name}, {needed} are needed)" if few.n < needed else ""


def clean_positive(found: Evidence, others: Mapping[Word, Ruling]) -> Ruling:
    """The axis moves toward the disposition, rising with damping, and nothing speaks against it."""
    against = [
        word
        for word, ruling in others.items()
        if ruling.state is State.HOLDS and word is not Word.NO_SEPARABLE_AXIS
    ]
    if against:
        return Ruling(Word.CLEAN_POSITIVE, State.EXCLUDED, ", ".join(against))
    rises = found.trend is not None and found.trend.p_adjusted < found.trend.alpha
    needed = {
        "a rise that matters": bool(_shown(found.axis, "up")),
        "a rising trend": rises and found.trend is not None and found.trend.value > 0,
        **{
            f"{word} excluded": others[word].state is State.EXCLUDED
            for word in (Word.CONTENT_DAMAGE, Word.NOT_REPLICATED, Word.LIKE_RANDOM_HEADS,
                         Word.NO_SEPARABLE_AXIS, Word.OVER_HEDGING)
            if word is not Word.OVER_HEDGING or found.over_hedging is not None
        },
    }  # fmt: skip
    missing = [name for name, there in needed.items() if not there]
    if missing:
        return Ruling(Word.CLEAN_POSITIVE, State.OPEN, "not shown: " + ", ".join(missing))
    because = "all that is needed is shown"
    if found.chosen_on_same:
        because += f", on {found.chosen_on_same} prompts that the heads were chosen on as well"
    return Ruling(Word.CLEAN_POSITIVE, State.HOLDS, because)


def rulings(found: Evidence) -> list[Ruling]:
    """Every word, the clean positive last."""
    made = [
        rule(found)
        for rule in (frozen, wrong_direction, non_monotonic, content_damage, not_replicated,
                     no_separable_axis, like_random_heads, over_hedging)
    ]  # fmt: skip
    others = {one.word: one for one in made}
    return [*made, clean_positive(found, others)]


@dataclass(frozen=True)
class Arc2Claim:
    """The claim of a sweep and what became of it."""

    statement: str
    verdict: Verdict
    reasons: tuple[str, ...]
    explanation: str

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "statement": self.statement,
            "verdict": self.verdict.value,
            "reasons": list(self.reasons),
            "explanation": self.explanation,
        }


def verdict(statement: str, found: Evidence, made: Sequence[Ruling]) -> Arc2Claim:
    """Validity first; then the clean positive: holds, is excluded, or is open."""
    clean = next(one for one in made if one.word is Word.CLEAN_POSITIVE)
    if found.faults:
        return Arc2Claim(statement, Verdict.INVALID, tuple(found.faults), "; ".join(found.faults))
    if clean.state is State.HOLDS:
        return Arc2Claim(statement, Verdict.SUPPORTED, ("clean positive",), clean.because)
    holding = tuple(one.word.value for one in made if one.state is State.HOLDS and one is not clean)
    if clean.state is State.EXCLUDED:
        because = "; ".join(
            f"{one.word.value}: {one.because}" for one in made if one.state is State.HOLDS
        )
        return Arc2Claim(statement, Verdict.REFUTED, holding, because)
    return Arc2Claim(statement, Verdict.INCONCLUSIVE, holding or ("open",), clean.because)


def _not_tested(word: Word, because: str) -> Ruling:
    return Ruling(word, State.NOT_TESTED, because)


def _names(effects: Sequence[Effect]) -> str:
    return ", ".join(one.name for one in effects)
