"""The protocol: what every step asks for, written down and hashed before fresh data are opened."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from arcs.arc3.probing import FOLDS, H_LAST
from arcs.estimates import Estimate, Gate, GateState, hold_to_gate
from arcs.falsification.config import FalsifyConfig
from arcs.gates import Gates
from arcs.runs import RunDirectory, canonical_json
from evals.probing.probes import PRIMARY
from evals.statistics.auc import FEW
from evals.statistics.rates import Interval
from models.errors import UserError

FILE = "gates.json"
LAST_K = 4
"""Layers of a pooled state, where the rows hold single layers."""


class Step(StrEnum):
    """In this order."""

    TRAINING = "training"
    FRESH = "fresh"
    AXES = "axes"
    POOLED = "pooled"
    REPLICATION = "replication"


NAMES: Mapping[Step, str] = {
    Step.TRAINING: "1 training",
    Step.FRESH: "2 fresh",
    Step.AXES: "3 axes",
    Step.POOLED: "4 pooled",
    Step.REPLICATION: "5 other model",
}
NOT_RUN = "not run"
RULES = {
    "state": "a step is passed where the whole interval of every number is on the right side of "
    "its gate, failed where that of one is wholly on the other, else not decidable; not run, with "
    "the reason, where what it needs is not there",
    "errors": "that nothing is wrong and a step fails has a chance of alpha at most, over all "
    "steps: half of it is that of the AUC of step 2, a quarter of the rest each that of the other "
    "gates of step 2 and of steps 3, 4 and 5, shared equally by a step's gates; so these fail by "
    "a wider interval",
    "kinds": "a step that passes, and each axis of step 3, must be shown within kinds of question, "
    "or over whole kinds, as well, where they are known; else it is not decidable",
    "cut answers": "steps 3, 4 and 5 that pass, or fail, must do so however cut answers ended; "
    "else they are not decidable; in step 3 those of one axis may have ended otherwise than those "
    "of another, and what fails in all readings must be one gate",
    "few": f"an AUC's interval is DeLong's, and with fewer than {FEW} items of a class the "
    "smallest that holds Newcombe's too",
    "control": "nothing is refuted where a label that was written into the states is not found",
    "training": "a pass is asked for and is no evidence; its failing leaves all else undecided",
    "fresh": "one probe, fitted on the whole training set; its threshold is chosen on out-of-fold "
    "training scores: of those that assert asserted_right of the right answers, the one of "
    "smallest asymmetry; of the right fresh answers it must assert as many, by the estimate",
    "axes": "every axis passes cross-validation and transfer, and no two axes' out-of-fold scores "
    "correlate as much as axis_correlation; an axis that cannot be tested, or whose labels in the "
    "two sets are not of one instrument, leaves it undecided",
    "pooled": "as fresh, with the mean of the last layers",
    "replication": "as fresh, with the states and labels, of the same axis, of a model of another "
    "family; where a family is not known it is not run; it refutes only where the other model's "
    "own training carries the signal",
    "verdict": "this model: REFUTED where step 2, 3 or 4 failed, SUPPORTED where 1 and 2 and "
    "whatever of 3 and 4 could be run passed; all five: step 5 too",
}
"""What follows from what; a part of the file that is hashed."""


def declaration(gates: Gates, config: FalsifyConfig) -> dict[str, Any]:
    """Everything that is decided before fresh data are opened."""
    return {
        "schema_version": "threearc-falsify-gates-1",
        "gates": gates.to_json(),
        "rules": RULES,
        "choices": {
            "features": H_LAST,
            "probe": PRIMARY,
            "folds": FOLDS,
            "pooled": config.pooled,
            "axis": config.axis,
            "columns": list(config.columns),
            "seed": config.seed,
            "profile": config.profile,
            "cv_seeds": config.sizes.cv_seeds,
            "permutations": config.sizes.permutations,
            "untruncated": config.untruncated,
        },
    }


def declare(run: RunDirectory, gates: Gates, config: FalsifyConfig) -> str:
    """Write the file, or hold what is there to it; returns the sha-256 of its bytes.

    Raises UserError where it is another one: a changed gate makes a new run.
    """
    text = canonical_json(declaration(gates, config)).encode()
    path = run.path / FILE
    if not path.exists():
        run.write_json(FILE, declaration(gates, config))
    found = path.read_bytes()
    if found != text:
        raise UserError(
            f"{path}: these are not the gates that this threearc would write; a changed gate makes "
            "a new run: start one with --out"
        )
    return hashlib.sha256(found).hexdigest()


def require_unchanged(run: RunDirectory, sha256: str) -> None:
    """Raise UserError where the gates are not those any more that were hashed."""
    path = run.path / FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise UserError(f"{path}: changed since it was hashed; start a new run with --out")


@dataclass(frozen=True)
class Held:
    """A number held to its gate."""

    gate: Gate
    estimate: Estimate | None
    """None where there is nothing to hold; then not decidable."""
    why: str = ""
    by_estimate: bool = False
    """Passed where the estimate is at the gate: what a training threshold was chosen for just so
    cannot lie beyond it with a whole interval."""
    wider: Interval | None = None
    """What must be wholly on the wrong side for the gate to fail; None: the estimate's own."""

    @property
    def state(self) -> GateState:
        """By the whole interval."""
        if self.estimate is None:
            return GateState.NOT_DECIDABLE
        state = hold_to_gate(self.estimate.interval, self.gate)
        if state is GateState.FAILED and self.wider is not None:
            state = hold_to_gate(self.wider, self.gate)
        if self.by_estimate and state is GateState.NOT_DECIDABLE:
            enough = self.estimate.value >= self.gate.threshold
            return GateState.PASSED if enough else state
        return state

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "gate": self.gate.name,
            "threshold": self.gate.threshold,
            "at_least": self.gate.at_least,
            "state": self.state.value,
            "held_by": "estimate" if self.by_estimate else "interval",
            "fails_by": None if self.wider is None else self.wider.to_json(),
            "why": self.why or None,
            "estimate": None if self.estimate is None else self.estimate.to_json(),
        }


def level_to_fail(gates: Gates, n: int) -> float:
    """Confidence level of the interval by which one of ``n`` gates of a step fails (``errors``).

    One-sided, such a gate errs with (1 - level) / 2 = alpha / 2 / 4 / n (Bonferroni).
    """
    return 1 - gates.test.alpha / (4 * n)


def combined(found: Sequence[Held]) -> GateState:
    """Of all gates of a step."""
    states = [one.state for one in found]
    if GateState.FAILED in states:
        return GateState.FAILED
    return GateState.PASSED if set(states) == {GateState.PASSED} else GateState.NOT_DECIDABLE


def step_json(step: Step, held: Sequence[Held], **more: Any) -> dict[str, Any]:
    """A step that was run."""
    return {
        "step": step.value,
        "state": combined(held).value,
        "reason": next((one.why for one in held if one.why), None),
        "gates": [one.to_json() for one in held],
        **more,
    }


def not_run(step: Step, reason: str, **more: Any) -> dict[str, Any]:
    """A step that could not be run."""
    return {"step": step.value, "state": NOT_RUN, "reason": reason, "gates": [], **more}
