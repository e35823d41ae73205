"""What an audit looks at: results of anyone, in one neutral form.

Readers turn the paper's files, our own runs, tables and other tools' logs into these types;
audits see nothing else. What a source does not say is None: never a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LabelValue = str | float | bool
"""A class name, a score, or passed / not passed."""


class Role(StrEnum):
    """What a set of items was used for."""

    TRAIN = "train"
    """A model, probe or judge was fitted or chosen on it."""
    TEST = "test"
    """It was meant to be unseen by whatever was fitted."""


class LabelKind(StrEnum):
    """What the values of a label are."""

    CLASS = "class"
    SCORE = "score"
    """A number on a scale."""
    SHARE = "share"
    """A share of an item's claims or tests, 0 to 1."""
    PASS = "pass"
    """True or False."""


@dataclass(frozen=True)
class Instrument:
    """What made a label. None: the source does not say."""

    name: str
    """The label's name: "passed", "coverage", "verbal", ..."""
    kind: LabelKind
    classes: tuple[str, ...] | None = None
    """Every class the instrument says it can return (``CLASS`` only)."""
    scale: tuple[float, float] | None = None
    """Lowest and highest possible value (``SCORE`` and ``SHARE``)."""
    judge: str | None = None
    """Model or program that gave the label, with its version."""
    prompt_sha: str | None = None
    """Hash of the judge's prompt or rubric."""
    threshold: float | None = None
    """Where a share or score was cut into a decision, value >= threshold."""
    threshold_label: str | None = None
    """Name of the PASS label that the cut gives."""
    default: LabelValue | None = None
    """Value that is given when the judge fails, where it is known that one is given."""
    response_cut: int | None = None
    """Characters of the response that the judge saw, where it saw a cut one."""

    @property
    def identity(self) -> tuple[str | None, str | None, int | None]:
        """Two labels of one name measure the same thing only where this is equal."""
        return self.judge, self.prompt_sha, self.response_cut


@dataclass(frozen=True)
class Item:
    """One prompt with its response and what was said of it."""

    item_id: str
    prompt: str | None = None
    response: str | None = None
    finish_reason: str | None = None
    """"stop", "length", or what else the source stores; None where it stores nothing."""
    generated_tokens: int | None = None
    repetition_loop: bool | None = None
    """The response ran out of tokens going round in an exact loop: a failure, not unfinished
    (DESIGN section 4). None where nobody looked."""
    topic: str | None = None
    """A short description of what the item is about, from another source than the prompt."""
    group: str | None = None
    """Items of one group are not independent (several samples of one prompt)."""
    n_parts: int | None = None
    """Number of claims or tests behind a SHARE label."""
    labels: Mapping[str, LabelValue | None] = field(default_factory=dict)
    """By instrument name; None is missing (judge failed, not parsed, never asked)."""


@dataclass(frozen=True)
class Features:
    """Feature rows with the ids of the items they belong to."""

    x: NDArray[np.float32]
    """[n, d]"""
    item_ids: tuple[str, ...]
    """[n]; joined to items by id, never by position."""
    ids_are_positions: bool = False
    """The source stores no ids and the reader numbered the rows: an unchecked join."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings of the run that extracted them (dtype, quantisation, position, ...)."""


@dataclass(frozen=True)
class Reported:
    """A number that the source reports."""

    name: str
    value: float
    has_interval: bool


@dataclass(frozen=True)
class ResultSet:
    """The items of one arm at one budget, or of one labelled data set."""

    name: str
    source: Path
    items: tuple[Item, ...]
    instruments: Mapping[str, Instrument] = field(default_factory=dict)
    role: Role | None = None
    arm: str | None = None
    """Sets of different arms over the same items are compared as pairs: "base" with others."""
    task: str | None = None
    """Benchmark or data set; arms are compared within a task only."""
    n_predict: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings of the run that made responses and labels (dtype, quantisation, decoding, ...)."""
    reported: tuple[Reported, ...] = ()
    features: Features | None = None
    family: str | None = None
    """Sets of one family belong to one experiment: its train and test sets, its arms. None:
    the only experiment there is."""

    @cached_property
    def by_id(self) -> Mapping[str, Item]:
        """Items by id."""
        return {item.item_id: item for item in self.items}

    def values(self, instrument: str) -> list[LabelValue | None]:
        """Labels of one instrument in item order; None is missing."""
        return [item.labels.get(instrument) for item in self.items]

    def stores_finish_reasons(self) -> bool:
        """Whether every item says why its response ended."""
        return bool(self.items) and all(item.finish_reason for item in self.items)


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and what a probe does at it."""

    threshold: float
    asymmetry: float
    """Share asserted among wrong items minus share asserted among correct ones."""
    p_assert_wrong: float | None = None
    p_assert_correct: float | None = None
    chosen_on: Role | None = None
    """Which labels the threshold was chosen on; TEST is an oracle."""


@dataclass(frozen=True)
class ProbeResult:
    """One configuration of one probe, as reported."""

    name: str
    source: Path
    configuration: str
    """For instance "C=0.1"."""
    run: str
    """Identifies the run (features, labels, seed) that the numbers come from."""
    train_auc: float | None = None
    """Cross-validated on the training set; None where it was not reported."""
    test_auc: float | None = None
    n_positive: int | None = None
    n_negative: int | None = None
    operating_point: OperatingPoint | None = None
    auc_gate: float | None = None
    asymmetry_gate: float | None = None
    train_auc_gate: float | None = None
    null_reported: bool = False
    """Whether a permutation null or interval is reported with it."""
    family: str | None = None
    """Configurations of one family were candidates for one claim."""


@dataclass(frozen=True)
class Effect:
    """One candidate of a ranking: a head, a layer, a direction."""

    name: str
    effect: float
    """Standardised difference (Cohen's d) between the two groups."""


@dataclass(frozen=True)
class EffectRanking:
    """Candidates ranked by an effect, of which the best were taken."""

    name: str
    source: Path
    effects: tuple[Effect, ...]
    n_first: int
    """Items in the first group (for the paper: confidently wrong)."""
    n_second: int
    signed: bool = True
    """Ranked by signed value rather than by size."""
    null_reported: bool = False
    direction_dimension: int | None = None
    """Dimension of the space a direction was fitted in, where effects are projections on a
    direction that was fitted on the same items; None where nothing was fitted."""
    cross_fitted: bool = False


@dataclass(frozen=True)
class Intervention:
    """Outcome of one setting of a sweep (of lambda, alpha, ...) at one seed."""

    name: str
    source: Path
    sweep: str
    """Settings of one sweep are compared with one another."""
    strength: float
    is_control: bool
    """The strength at which nothing is changed."""
    seed: int | None
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """Something the source claims, with the number behind it."""

    statement: str
    source: Path
    effect: float
    """As a difference of shares, or of AUC from 0.5."""
    kind: str
    """"paired rate", "rate" or "auc"."""
    n: int
    n_positive: int | None = None


@dataclass(frozen=True)
class Results:
    """Everything found at one path."""

    path: Path
    format: str
    """What it was read as: "paper artifacts", "threearc run", "inspect_ai log", ..."""
    sets: tuple[ResultSet, ...] = ()
    probes: tuple[ProbeResult, ...] = ()
    rankings: tuple[EffectRanking, ...] = ()
    interventions: tuple[Intervention, ...] = ()
    claims: tuple[Claim, ...] = ()
    skipped: tuple[str, ...] = ()
    """Files and records that were not read, each with the reason."""

    def families(self) -> Mapping[str | None, tuple[ResultSet, ...]]:
        """Sets by family."""
        found: dict[str | None, list[ResultSet]] = {}
        for one in self.sets:
            found.setdefault(one.family, []).append(one)
        return {name: tuple(sets) for name, sets in found.items()}
