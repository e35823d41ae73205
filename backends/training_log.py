"""What a training writes down as it goes: one record a step, a validation or a start."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.errors import UserError
from models.files import canonical_json


@dataclass(frozen=True)
class PreferenceMeasures:
    """What the pairs of a DPO step or validation gave; means over pairs."""

    pairs: int
    reward_chosen: float
    """beta * (log pi - log ref) of the chosen responses."""
    reward_rejected: float
    margin: float
    """reward_chosen - reward_rejected."""
    accuracy: float
    """Share of pairs with a positive margin. Where policy and reference are equal, the sign of
    a margin is rounding."""


@dataclass(frozen=True)
class Measures:
    """Loss of a step or a validation."""

    loss: float
    """SFT: mean negative log-likelihood (nats) over response tokens. DPO: mean over pairs."""
    tokens: int
    """Response tokens."""
    preferences: PreferenceMeasures | None = None

    @property
    def finite(self) -> bool:
        """Whether all numbers are numbers: a loss of 0 from an infinite margin is none."""
        rewards = self.preferences
        margin = 0.0 if rewards is None else rewards.margin
        return math.isfinite(self.loss) and math.isfinite(margin)


@dataclass(frozen=True)
class StepRecord:
    """One optimiser step, as it stands in log.jsonl."""

    step: int
    """From 1."""
    epoch: int
    learning_rate: float
    loss: float
    """As in :class:`Measures`, before the update."""
    grad_norm: float
    """Global L2 norm before clipping."""
    tokens: int
    """Response tokens in the step."""
    preferences: PreferenceMeasures | None = None
    """None in SFT."""


@dataclass(frozen=True)
class EvalRecord:
    """Validation loss after ``step`` optimiser steps."""

    step: int
    loss: float
    tokens: int
    preferences: PreferenceMeasures | None = None


@dataclass(frozen=True)
class StartRecord:
    """DPO before any update, dropout off: pairs of a step in the batches of the reference."""

    loss: float
    reward_chosen: float
    reward_rejected: float
    largest_reward: float
    """Largest absolute reward of a response."""
    policy_is_reference: bool
    """By construction; then the loss was held to ln 2 within ``tolerance``."""
    tolerance: float | None


@dataclass(frozen=True)
class Records:
    """All records of a training."""

    steps: tuple[StepRecord, ...]
    evals: tuple[EvalRecord, ...]
    start: StartRecord | None


class TrainingLog:
    """log.jsonl, which a repeat reproduces byte for byte, and timing.jsonl, which it does not."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "log.jsonl"
        self._timing = directory / "timing.jsonl"

    def cut(self, length: int) -> None:
        """Drop what lies behind ``length`` bytes: steps that will be redone, or a torn line."""
        self._path.touch()
        if self._path.stat().st_size < length:
            raise UserError(
                f"{self._path} is shorter than its checkpoint says: it was changed; train in a "
                "new directory"
            )
        with self._path.open("r+b") as stream:
            stream.truncate(length)

    def append(self, record: StepRecord | EvalRecord | StartRecord) -> None:
        """Add one record; SFT's have no preferences."""
        plain = {name: value for name, value in asdict(record).items() if value is not None}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(canonical_json({"kind": _KINDS[type(record)], **plain}) + "\n")

    def time(self, step: int, seconds: float) -> None:
        """Note the wall time of a step."""
        with self._timing.open("a", encoding="utf-8") as stream:
            stream.write(canonical_json({"step": step, "seconds": seconds}) + "\n")

    def sync(self) -> int:
        """Flush the log to disk; returns its length in bytes."""
        self._path.touch()
        with self._path.open("rb") as stream:
            os.fsync(stream.fileno())
        return self._path.stat().st_size

    def seconds(self) -> float:
        """Step time, counting each step once (its last run); torn lines are skipped."""
        seconds: dict[int, float] = {}
        if not self._timing.exists():
            return 0.0
        for line in self._timing.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # a kill tore this line; times are for people, not for results
            seconds[record["step"]] = record["seconds"]
        return sum(seconds.values())

    def records(self) -> Records:
        """Read everything back."""
        steps, evals, start = [], [], None
        for line in self._path.read_text().splitlines():
            record = json.loads(line)
            kind = record.pop("kind")
            if kind == "start":
                start = StartRecord(**{"tolerance": None, **record})
            elif kind == "step":
                steps.append(StepRecord(**_with_preferences(record)))
            else:
                evals.append(EvalRecord(**_with_preferences(record)))
        return Records(tuple(steps), tuple(evals), start)


_KINDS = {StepRecord: "step", EvalRecord: "eval", StartRecord: "start"}


def _with_preferences(record: Mapping[str, Any]) -> dict[str, Any]:
    found = record.get("preferences")
    return {**record, "preferences": None if found is None else PreferenceMeasures(**found)}
