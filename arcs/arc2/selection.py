"""Which heads are damped, and the controls: random heads of the same layers, and the other end."""

from __future__ import annotations

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
    layer has too few others, all of them are taken and the rest comes from the other layers.
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
    for draw in range(1, draws + 1):
        arms[f"{RANDOM}-{draw}"] = _random(ordered, top, rng)
    return Selection(arms)


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


def points(selection: Selection, scales: Sequence[float]) -> tuple[Point, ...]:
    """Lambda 1, which is the unchanged model for every arm, then each arm at each lambda below."""
    below = [scale for scale in scales if scale < 1]
    made = [Point(arm, scale, heads) for arm, heads in selection.arms.items() for scale in below]
    return (UNCHANGED, *made)
