"""The paper's published sweep tables, judged by the words' rules: what do they determine?

Only totals at each lambda are published (PAPER.md 4.8), over the same 100 prompts, so which items
changed is not known. A word is therefore asked for the pairings that the totals allow, from the
fewest to the most items that changed both ways, in every combination over lambdas: it *holds* or is
*excluded* only where it is so in all of them, and is *not determined* otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import numpy as np

from arcs.arc2.effects import family
from arcs.arc2.rules import (
    Evidence,
    Ruling,
    State,
    Word,
    content_damage,
    frozen,
    non_monotonic,
    not_replicated,
    wrong_direction,
)
from arcs.gates import Gates, load_gates

PAIRINGS = 3
"""Tried of each pair of totals: the fewest and the most changed items, and one between. Interval
and p grow with that number, so what holds at both ends holds between them."""
Cells = tuple[int, int, int, int]
"""cr, hr, cw, hw"""


@dataclass(frozen=True)
class Variant:
    """One of the paper's five, with the totals it published."""

    name: str
    paper_says: str
    axis: str
    axis_totals: Mapping[float, int]
    """lambda -> items of 100 on the disposition's side; lambda 1 first."""
    right_totals: Mapping[float, int]
    """lambda -> right items; empty where only means without a spread were published."""
    n: int = 100
    replicate: tuple[int, int] | None = None
    """The axis at the strongest damping, at the first and the second seed."""


def _hedged(cells: Mapping[float, Cells]) -> dict[float, int]:
    return {scale: hr + hw for scale, (_, hr, _, hw) in cells.items()}


def _right(cells: Mapping[float, Cells]) -> dict[float, int]:
    return {scale: cr + hr for scale, (cr, hr, _, _) in cells.items()}


GEMMA: Mapping[float, Cells] = {
    1.0: (60, 6, 29, 5), 0.9: (52, 7, 36, 5), 0.8: (52, 6, 35, 7), 0.5: (54, 5, 33, 8),
}  # fmt: skip
QWEN: Mapping[float, Cells] = {
    1.0: (19, 2, 72, 7), 0.9: (14, 3, 75, 8), 0.8: (12, 3, 75, 10), 0.5: (22, 1, 63, 14),
}  # fmt: skip
QWEN_AGAIN: Cells = (12, 1, 77, 10)
"""lambda 0.5 at another seed, without lambda 1 at that seed."""
HEDGED = "hedged answers"

VARIANTS: tuple[Variant, ...] = (
    Variant("Gemma, humble, magnitude", "frozen; content -7 points", HEDGED, _hedged(GEMMA),
            _right(GEMMA)),
    Variant("Gemma, adversarial-self, magnitude", "wrong direction; content flat",
            "self-verification scored 4 or 5", {1.0: 82, 0.9: 75}, {}),
    Variant("Qwen3.5, humble, magnitude", "non-monotonic", HEDGED, _hedged(QWEN), _right(QWEN)),
    Variant("Qwen3.5, humble, second seed", "wrong direction, worse", HEDGED,
            {1.0: 9, 0.5: QWEN_AGAIN[1] + QWEN_AGAIN[3]},
            {1.0: 21, 0.5: QWEN_AGAIN[0] + QWEN_AGAIN[1]},
            replicate=(15, QWEN_AGAIN[1] + QWEN_AGAIN[3])),
)  # fmt: skip
"""The fifth, Qwen's directional heads, published no sweep."""


@dataclass(frozen=True)
class Determined:
    """One word about one variant."""

    variant: str
    paper_says: str
    quantity: str
    word: Word
    states: tuple[State, ...]
    """Every state that some pairing gives."""

    @property
    def says(self) -> str:
        """``holds``, ``excluded`` or ``not determined``."""
        only = self.states[0] if len(self.states) == 1 else None
        return only.value if only in (State.HOLDS, State.EXCLUDED) else "not determined"

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "variant": self.variant,
            "paper_says": self.paper_says,
            "quantity": self.quantity,
            "word": self.word.value,
            "determined": self.says,
            "possible_states": [state.value for state in self.states],
        }


def paper_words(gates: Gates | None = None) -> list[Determined]:
    """Every word that totals can decide, for each variant and quantity."""
    held = gates or load_gates()
    made = []
    for one in VARIANTS:
        made += _words(one, one.axis, one.axis_totals, held)
        if one.right_totals:
            made += _words(one, "right answers", one.right_totals, held)
        if one.replicate is not None:
            made.append(_replicated(one, one.replicate, held))
    return made


def _words(
    variant: Variant, quantity: str, totals: Mapping[float, int], gates: Gates
) -> list[Determined]:
    content = quantity == "right answers"
    scales = list(totals)
    changes = [
        (f"{scale:g}", _pairings(totals[1.0], totals[scale], variant.n)) for scale in scales[1:]
    ]
    steps = [
        (f"{high:g} to {low:g}", _pairings(totals[high], totals[low], variant.n))
        for high, low in pairwise(scales)
    ]
    asked: list[tuple[Word, Callable[[Evidence], Ruling], str]] = (
        [(Word.CONTENT_DAMAGE, content_damage, "content")]
        if content
        else [(Word.FROZEN, frozen, "axis"), (Word.WRONG_DIRECTION, wrong_direction, "axis")]
    )
    if len(steps) > 1:
        asked.append((Word.NON_MONOTONIC, non_monotonic, "steps"))
    return [
        Determined(
            variant.name, variant.paper_says, quantity, word,
            _states(rule, field, steps if field == "steps" else changes, gates),
        )
        for word, rule, field in asked
    ]  # fmt: skip


def _states(
    rule: Callable[[Evidence], Ruling],
    field: str,
    parts: Sequence[tuple[str, Sequence[np.ndarray]]],
    gates: Gates,
) -> tuple[State, ...]:
    found = set()
    for chosen in product(*(pairings for _, pairings in parts)):
        named = {name: values for (name, _), values in zip(parts, chosen, strict=True)}
        effects = list(
            family(
                named, smallest=gates.smallest_effect.rate, alpha=gates.test.alpha, is_rate=True
            ).values()
        )
        evidence = Evidence(axis=effects)
        if field == "steps":
            evidence = replace(evidence, steps=effects)
        if field == "content":
            evidence = replace(evidence, content=[effects])
        found.add(rule(evidence).state)
    return tuple(sorted(found, key=list(State).index))


def _replicated(variant: Variant, totals: tuple[int, int], gates: Gates) -> Determined:
    """Whether two seeds at one lambda contradict each other, without a lambda 1 at the second."""
    found = set()
    for values in _pairings(*totals, variant.n):
        between = family(
            {"between seeds": values},
            smallest=gates.smallest_effect.rate,
            alpha=gates.test.alpha,
            is_rate=True,
        )["between seeds"]
        evidence = Evidence(axis=[], replicates=[between, between], replicate_difference=between)
        ruling = not_replicated(evidence)
        # the second seed has no lambda 1, so that both show it can never be said
        found.add(ruling.state if between.up or between.down else State.OPEN)
    states = {State.HOLDS if one is State.EXCLUDED else one for one in found}
    return Determined(
        variant.name, variant.paper_says, f"{variant.axis}, between seeds", Word.NOT_REPLICATED,
        tuple(sorted(states, key=list(State).index)),
    )  # fmt: skip


def _pairings(before: int, after: int, n: int) -> list[np.ndarray]:
    """Differences [n] of items that two totals allow, from the fewest changed items to the most."""
    fewest, most = max(0, before - after), min(before, n - after)
    lost = sorted({round(one) for one in np.linspace(fewest, most, PAIRINGS)})
    made = []
    for losses in lost:
        gains = losses + after - before
        values = np.zeros(n)
        values[:losses] = -1
        values[losses : losses + gains] = 1
        made.append(values)
    return made
