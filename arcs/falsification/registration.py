"""What the order of gates and answers is worth, for this model and for all five steps."""

from __future__ import annotations

from arcs.falsification.config import FalsifyConfig
from arcs.falsification.evidence import Source
from arcs.falsification.finished_run import FinishedRun
from arcs.falsification.own import EXPLORATORY, GATES_FIRST, REGISTERED
from arcs.gates import Gates

WORTH = (REGISTERED, GATES_FIRST, EXPLORATORY)
"""From most to least."""
CHOSEN = "axis, pooling, gates, profile or seed were chosen after the run"


def registered(source: Source, config: FalsifyConfig, gates: Gates) -> tuple[str, str]:
    """What the order of gates and answers is worth, and why."""
    state, why = source.registration(gates.sha256)
    if state == EXPLORATORY:
        return state, why
    if config.source is not None and _chosen_after(source, config):
        return EXPLORATORY, CHOSEN
    if not config.chosen:
        return state, why
    if config.adapter is not None:
        return EXPLORATORY, (
            "pooling, gates or seed were chosen, and whether these questions were asked before is "
            "not known"
        )
    return state, why


def registered_with(
    state: str, why: str, other: Source | None, config: FalsifyConfig, gates: Gates
) -> tuple[str, str]:
    """The same of all five steps: not worth more than the other model's own order."""
    if other is None:
        return state, why
    theirs, because = other.registration(gates.sha256)
    if config.replication is not None and _chosen_after(other, config):
        theirs, because = EXPLORATORY, CHOSEN
    if WORTH.index(theirs) <= WORTH.index(state):
        return state, why
    return theirs, f"of the other model: {because}"


def _chosen_after(source: Source, config: FalsifyConfig) -> bool:
    """Whether anything is not the default; a profile may be the run's own."""
    made = source.manifest["config"].get("profile") if isinstance(source, FinishedRun) else None
    return config.chosen or config.profile not in (FalsifyConfig.model_fields["profile"].default,
                                                   made)  # fmt: skip
