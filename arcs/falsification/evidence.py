"""What the steps look at: one set's rows with labels, and what else is known of its answers.

What a source does not say is None, never a default. Rows are joined by item id alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from arcs.arc3.probing import H_LAST, Study
from arcs.arc3.table import Side
from arcs.claims import ReasonCode
from evals.probing.baselines import SCALARS, Answers

BoolArray = NDArray[np.bool_]
Label = bool | None
ALL = "all_layers"
TOKENS, WORDS = "tokens", "words"


@dataclass(frozen=True, eq=False)
class Evidence:
    """One set. Tuples and arrays are in the order of ``item_ids``."""

    item_ids: tuple[str, ...]
    """Of the rows of features."""
    x: Mapping[str, NDArray[np.float32]]
    """By pooling; ``h_last`` [n, d] is what the claim is about."""
    labels: Mapping[str, tuple[Label, ...]]
    """By axis; None is missing."""
    truncated: tuple[bool | None, ...] | None = None
    """Ended by the budget; None where nothing is known of any answer."""
    loops: BoolArray | None = None
    """[n] cut in an exact repetition: more tokens would say nothing new."""
    bounds: Mapping[str, tuple[tuple[Label, ...], tuple[Label, ...]]] = field(default_factory=dict)
    """By axis: labels where every open answer is wrong, and right, as the instrument knows them."""
    groups: tuple[str, ...] | None = None
    """Items of one group (kind of question) are not independent."""
    prompts: tuple[str, ...] | None = None
    responses: tuple[str, ...] | None = None
    """Texts; both sets in the same way."""
    known_prompts: tuple[str, ...] = ()
    """Those that are known where not all are: what can be looked for in the other set."""
    without_prompt: int = 0
    without_response: int = 0
    texts_are_ids: bool = False
    """Prompts and responses are token ids, written as words."""
    lengths: NDArray[np.float64] | None = None
    """[n] of the responses, in ``length_unit``."""
    length_unit: str = TOKENS
    parts: tuple[int | None, ...] | None = None
    """Claims of each item's checklist."""
    instruments: Mapping[str, frozenset[Any]] = field(default_factory=dict)
    """By axis: who labelled (judge, prompt, cut), as far as the source says."""
    without_features: int = 0
    """Items of the set that are known to have no row."""
    described: Mapping[str, Any] = field(default_factory=dict)
    """Where it was read from, with hashes."""
    made_by: Mapping[str, str | None] = field(default_factory=dict)
    """What read the states (``states``), gave the answers (``answers``), and at which position."""

    @property
    def ends_known(self) -> bool:
        """Whether it is known of every answer how it ended."""
        return self.truncated is not None and None not in self.truncated

    @property
    def cut(self) -> BoolArray:
        """[n] ended by the budget while it still said something new; False where unknown."""
        cut = np.array([one is True for one in self.truncated or [None] * len(self.item_ids)])
        return cut if self.loops is None else cut & ~self.loops

    def missing(self, axis: str) -> int:
        """Rows without a label."""
        return self.labels[axis].count(None)


@dataclass(frozen=True)
class Identity:
    """Whose states these are, as far as the source says."""

    name: str
    model: str | None = None
    fingerprint: str | None = None
    family: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return dict(vars(self))


class Source(Protocol):
    """Where both sets come from. Nothing of the fresh set is opened before :meth:`fresh`."""

    def train(self) -> Evidence:
        """The training set. Raises UserError for what is wrong with it."""

    def fresh_missing(self) -> tuple[str, ...]:
        """Files of the fresh set that are not there yet, with their flags."""

    def fresh(self) -> Evidence:
        """The fresh set. Raises UserError for what is wrong with it, or does not fit."""

    def identity(self) -> Identity:
        """Whose states; after :meth:`train`."""

    def axis(self) -> str:
        """The label that the claim is about; after :meth:`train`."""

    def faults(self) -> tuple[ReasonCode, ...]:
        """Instrument faults that the source itself knows of."""

    def registration(self, gates_sha256: str) -> tuple[str, str]:
        """Whether these gates were fixed before the fresh data, and why."""


def side_of(found: Evidence, axis: str) -> Side:
    """The rows that have a label on an axis, for the statistics of Arc 3.

    An answer that was cut may have ended either way unless its instrument knows better. What is
    unknown of the answers is empty or NaN here, and nothing that reads it is asked.
    """
    labels = found.labels[axis]
    kept = np.array([one is not None for one in labels], dtype=np.bool_)
    y = np.array([one is True for one in labels], dtype=np.bool_)
    cut, n = found.cut, len(labels)
    low, high = y & ~cut, y | cut
    if axis in found.bounds:
        low, high = (np.array([one is True for one in side]) for side in found.bounds[axis])
    scalars = np.full((n, len(SCALARS)), np.nan, dtype=np.float32)
    if found.lengths is not None:
        scalars[:, SCALARS.index("tokens")] = found.lengths
    nothing = ("",) * n
    whole = Side(
        item_ids=found.item_ids,
        y=y,
        low=low,
        high=high,
        finished=~cut,
        truncated=np.array([one is True for one in found.truncated or [None] * n], dtype=np.bool_),
        groups=found.groups or found.item_ids,
        x=found.x,
        answers=Answers(
            found.prompts or nothing, found.responses or nothing, nothing,
            np.zeros(n, dtype=np.int64), ((),) * n, scalars,
        ),
        asserted=(None,) * n,
        without_label=labels.count(None),
        without_features=found.without_features,
    )  # fmt: skip
    return whole.where(kept)


def study_of(
    train: Evidence, fresh: Evidence, axis: str, like: Study | None, **sizes: Any
) -> Study:
    """Both sets' rows with a label on an axis; sizes of ``like`` where it is given."""
    both = side_of(train, axis), side_of(fresh, axis)
    if like is not None:
        return Study(*both, like.sizes, like.seed, like.level)
    return Study(*both, **sizes)


def same_shape(train: Evidence, fresh: Evidence) -> str | None:
    """What differs in the features of two sets, in words; None where they fit."""
    for name in sorted(train.x.keys() ^ fresh.x.keys()):
        return f"only one of the sets has {name}"
    for name, rows in sorted(train.x.items()):
        if rows.shape[1:] != fresh.x[name].shape[1:]:
            return f"{name} has width {_width(rows)} in training and {_width(fresh.x[name])} fresh"
    return None


def _width(rows: NDArray[np.float32]) -> str:
    return " x ".join(map(str, rows.shape[1:]))


def mixed(first: Evidence, second: Evidence, axis: str) -> bool:
    """Whether two sets' labels of an axis come from different judges, prompts or cuts."""
    return len(first.instruments.get(axis, frozenset())
               | second.instruments.get(axis, frozenset())) > 1  # fmt: skip


def unlike(first: Evidence, second: Evidence) -> dict[str, list[str | None]]:
    """In what two sets' making differs, as far as their sources say: both sides by name."""
    names = sorted(first.made_by.keys() | second.made_by.keys())
    both = {name: [first.made_by.get(name), second.made_by.get(name)] for name in names}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def common_rows(first: Evidence, second: Evidence) -> int:
    """Rows of h_last that are in both sets, bit for bit: the same answer under two ids."""
    seen = {row.tobytes() for row in first.x[H_LAST]}
    return sum(row.tobytes() in seen for row in second.x[H_LAST])


def repeated(found: Evidence) -> int:
    """Rows of h_last that are another item's of the same set, bit for bit."""
    return len(found.item_ids) - len({row.tobytes() for row in found.x[H_LAST]})


def listed(items: Sequence[str], most: int = 3) -> str:
    """The first of some ids, and how many there are."""
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown}, ... ({len(items)} in all)"
