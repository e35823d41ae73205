"""Which heads are damped, and the controls: random heads of the same layers, and the other end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.interface import Head
from models.errors import UserError

BASE, TOP, BOTTOM, RANDOM = "base", "top", "bottom", "random"


@dataclass(frozen=True)
class Selection:
    """Sets of heads by arm: ``top``, ``bottom``, ``random-1`` and so on."""

    arms: Mapping[str, tuple[Head, ...]]
    random_sets: int
    """How many different random sets there are."""

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {arm: [list(head) for head in heads] for arm, heads in self.arms.items()}

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers that the sweep touches."""
        return tuple(sorted({head.layer for heads in self.arms.values() for head in heads}))


def select(ordered: Sequence[Head], k: int, draws: int, seed: int) -> Selection:
    """The k first of a ranking, the k last, and ``draws`` random sets in the layers of the first.

    A random set has as many heads in each layer as the chosen one, none of them chosen; where a
    layer has too few others, all of them are taken and the rest comes from the other layers. No two
    sets are the same; where there are fewer than ``draws``, there are fewer arms.
    Raises UserError where there are not k heads on either side.
    """
    if len(ordered) < 2 * k:
        raise UserError(
            f"--top-k {k}: {len(ordered)} heads are ranked, and {2 * k} are needed for the chosen "
            "ones and the other end"
        )
    top, bottom = tuple(ordered[:k]), tuple(ordered[-k:])
    rng = np.random.default_rng(seed)
    arms = {TOP: top, BOTTOM: bottom}
    possible, found = _possible(ordered, top), dict[tuple[Head, ...], None]()
    while len(found) < min(draws, possible):
        found[_random(ordered, top, rng)] = None
    arms |= {f"{RANDOM}-{draw}": heads for draw, heads in enumerate(found, 1)}
    return Selection(arms, possible)


def _possible(ordered: Sequence[Head], top: Sequence[Head]) -> int:
    """How many sets :func:`_random` can draw: k of the others, with at least so many of a layer as
    the chosen ones have there (or all that it has)."""
    wanted = Counter(head.layer for head in top)
    others = Counter(head.layer for head in set(ordered) - set(top))
    ways = {0: 1}  # heads taken so far -> sets
    short = sum(max(0, count - others[layer]) for layer, count in wanted.items())
    for layer, have in others.items():
        least = min(wanted[layer], have)
        more: dict[int, int] = {}
        for taken, count in ways.items():
            for here in range(least, min(have, least + short) + 1):
                more[taken + here] = more.get(taken + here, 0) + count * math.comb(have, here)
        ways = more
    return ways.get(len(top), 0)


def _random(
    ordered: Sequence[Head], top: Sequence[Head], rng: np.random.Generator
) -> tuple[Head, ...]:
    others = sorted(set(ordered) - set(top))
    drawn: list[Head] = []
    for layer, count in sorted(Counter(head.layer for head in top).items()):
        here = [head for head in others if head.layer == layer]
        taken = min(count, len(here))
        drawn += [here[int(at)] for at in rng.choice(len(here), size=taken, replace=False)]
    left = [head for head in others if head not in drawn]
    short = len(top) - len(drawn)
    drawn += [left[int(at)] for at in rng.choice(len(left), size=short, replace=False)]
    return tuple(sorted(drawn))


@dataclass(frozen=True)
class Point:
    """One point of the sweep: an arm's heads at one factor."""

    arm: str
    scale: float
    heads: tuple[Head, ...]

    @property
    def name(self) -> str:
        """For records and files."""
        return self.arm if self.arm == BASE else f"{self.arm}-{self.scale:g}"

    @property
    def factors(self) -> dict[Head, float]:
        """What the engine multiplies by."""
        return dict.fromkeys(self.heads, self.scale)


UNCHANGED = Point(BASE, 1.0, ())


def points(
    selection: Selection, scales: Sequence[float], controls: str = "all"
) -> tuple[Point, ...]:
    """Lambda 1, which is the unchanged model for every arm, then each arm at each lambda below.

    ``controls`` ``strongest``: all arms but the chosen heads at the smallest lambda alone.
    """
    below = [scale for scale in scales if scale < 1]
    few = [min(below)] if controls == "strongest" else below
    made = [
        Point(arm, scale, heads)
        for arm, heads in selection.arms.items()
        for scale in (below if arm == TOP else few)
    ]
    return (UNCHANGED, *made)
