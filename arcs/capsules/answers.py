"""Answers of a capsule beside those that a machine gives: counted id by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SAME_ANSWERS = 0.5
"""Least share that must come out id by id where both sides are in float32. Measured: all of them,
torch beside MLX and llama.cpp (docs/falsify.md); near-ties part some, never most. Answers that
were written by hand come out for none."""
FEWEST = 4
"""Answers of an arm from which the share is asked of it alone: of fewer, a near-tie is half."""


@dataclass(frozen=True)
class Pair:
    """One answer, both times."""

    item_id: str
    stored: Sequence[int]
    here: Sequence[int]
    near_ties: int | None
    """Of the stored one."""
    arm: str | None = None
    """Where the run has several."""

    @property
    def same(self) -> bool:
        """Id by id."""
        return list(self.stored) == list(self.here)

    def told(self) -> dict[str, Any]:
        """Where it parts, JSON-able."""
        pairs = enumerate(zip(self.stored, self.here, strict=False))
        shorter = min(len(self.stored), len(self.here))
        at = next((at for at, (a, b) in pairs if a != b), shorter)
        arm = {} if self.arm is None else {"arm": self.arm}
        return {**arm, "item_id": self.item_id, "near_ties": self.near_ties, "from_token": at}


def compared(
    pairs: Sequence[Pair], *, exact: bool, not_replayed: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Which answers come out; where one does not, whether it held near-ties.

    ``exact``: made and replayed in float32, where at least :data:`SAME_ANSWERS` of all, and of
    every arm with :data:`FEWEST`, is promised. ``not_replayed``: arms, and why.
    """
    differing = [one for one in pairs if not one.same]
    arms = {arm: [one for one in pairs if one.arm == arm] for arm in {one.arm for one in pairs}}
    groups = [list(pairs), *(those for those in arms.values() if len(those) >= FEWEST)]
    return {
        "n": len(pairs),
        "identical": len(pairs) - len(differing),
        "least_share": SAME_ANSWERS if exact else None,
        "reproduces": all(map(_enough, groups)) if exact else None,
        "differing": [one.told() for one in differing],
        "not_replayed": dict(not_replayed or {}),
    }


def _enough(pairs: Sequence[Pair]) -> bool:
    return sum(one.same for one in pairs) >= SAME_ANSWERS * len(pairs)


def dtype_of(backend: object) -> str:
    """Of ``torch bfloat16``, ``gguf f32``, ``float32``."""
    name = str(backend).split()[-1]
    return {"f32": "float32"}.get(name, name)


def in_float32(*backends: object) -> bool:
    """Whether all of them compute in it."""
    return {dtype_of(one) for one in backends} == {"float32"}
