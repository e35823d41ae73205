"""Whether answers that are compared, or continued, come from one instrument.

An arm's stages (``engine.<arm>.<budget>`` of an evaluation's manifest; ``engine_<arm>`` and
``engine_<arm>_<budget>`` of Arc 1's) are what
:meth:`backends.llamacpp.model.LlamaCppModel.describe` said when each was decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcs.runs import ANEW, canonical_json
from models.errors import UserError

EDIT = frozenset({"adapter_sha256", "gguf_sha256", "tempering", "merged_fingerprint"})
"""What an edit may change."""
ROOM = frozenset({"context", "context_per_sequence"})
"""What a larger budget changes; texts do not depend on it (docs/eval.md, --escalate)."""

Engine = Mapping[str, Any]


@dataclass(frozen=True)
class Only:
    """Items of a set that a run goes on with, and what another run asks of its instrument."""

    items: frozenset[str]
    """Ids."""
    check: Callable[[str, Engine, Mapping[str, Any]], None]
    """Given arm, engine and the run's manifest before anything is decoded or measured; raises
    UserError where they are not the other run's."""


def settings_sha256(arm: str, stages: Sequence[Engine]) -> str:
    """Hash of what an edit must not change, over all stages of an arm, the first one first.

    Equal for two arms only if their first stages agree in all but the edit, and each arm's
    later stages agree with its first in all but the room for text.
    """
    document: dict[str, Any] = {"first": _without(stages[0], EDIT)}
    strange = strangers(stages)
    if strange:  # the arm's name, since two arms that change in the same way are no better
        document |= {"arm": arm, "later": strange}
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()


def strangers(stages: Sequence[Engine]) -> list[Engine]:
    """An arm's later stages that differ from its first in more than the room for text."""
    first, *later = stages
    return [stage for stage in later if _without(stage, ROOM) != _without(first, ROOM)]


def require_same_stage(run: Path, arm: str, first: Engine, now: Engine) -> None:
    """Raise UserError where ``now`` would continue what another instrument began."""
    key = _difference(_without(first, ROOM), _without(now, ROOM))
    if key is not None:
        raise UserError(
            f"--run {run}: {arm} was begun with {key} {first.get(key)} and would go on with "
            f"{now.get(key)}; continue it where it was begun, or {ANEW}"
        )


def require_same_instrument(run: Path, arms: tuple[str, str], one: Engine, two: Engine) -> None:
    """Raise UserError where an edit would be decoded with other than what it is compared with."""
    key = _difference(_without(one, EDIT), _without(two, EDIT))
    if key is not None:
        raise UserError(
            f"--run {run}: {arms[0]} was decoded with {key} {one.get(key)}, and {arms[1]}, which "
            f"is compared with it, would be with {two.get(key)}; continue the run where it was "
            f"begun, or {ANEW}"
        )


def differing(first: Engine, now: Engine) -> str | None:
    """What of ``first``, apart from the room for text, ``now`` has otherwise; None: nothing."""
    return next((key for key in sorted(first) if key not in ROOM and first[key] != now.get(key)),
                None)  # fmt: skip


def _without(engine: Engine, keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in engine.items() if key not in keys}


def _difference(one: Engine, two: Engine) -> str | None:
    keys = sorted(one.keys() | two.keys())
    return next((key for key in keys if one.get(key) != two.get(key)), None)
