"""Rows of both sets, joined by item id: labels, features, texts. Nothing is joined by position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcs.arc3.features import SCALARS_NAME, Features
from arcs.arc3.labelling import Labelled, Labelling
from arcs.arc3.questions import SETS, SetName
from arcs.arc3.responses import Response
from evals.delivery import Judged
from evals.probing.baselines import Answers

BoolArray = NDArray[np.bool_]
FLOAT_KINDS = ("h_last", "mean_normed", "paper_mixed", "all_layers")


@dataclass(frozen=True, eq=False)
class Side:
    """One set's usable rows, in item order."""

    item_ids: tuple[str, ...]
    y: BoolArray
    """[n] right."""
    low: BoolArray
    high: BoolArray
    """[n] right where every open answer is wrong, or right."""
    finished: BoolArray
    """[n] ended by itself, or in a loop that would say nothing new."""
    truncated: BoolArray
    groups: tuple[str, ...]
    x: Mapping[str, NDArray[np.float32]]
    answers: Answers
    asserted: tuple[bool | None, ...]
    without_label: int
    without_features: int

    @property
    def n_right(self) -> int:
        """Right answers."""
        return int(self.y.sum())

    @property
    def smaller_class(self) -> int:
        """Items of the rarer label."""
        return min(self.n_right, len(self.y) - self.n_right)

    def judged(self, asserts: Sequence[bool] | BoolArray | None = None) -> list[Judged]:
        """For the 2 x 2 table; ``asserts``: what a gate lets stand of what is asserted."""
        lets = [True] * len(self.y) if asserts is None else [bool(one) for one in asserts]
        return [
            Judged(item, bool(right), None if said is None else said and let, bool(done))
            for item, right, said, let, done in zip(
                self.item_ids, self.y, self.asserted, lets, self.finished, strict=True
            )
        ]

    def where(self, kept: BoolArray) -> Side:
        """The rows that are kept."""
        rows = np.flatnonzero(kept).tolist()

        def pick(values: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(values[row] for row in rows)

        a = self.answers
        return replace(
            self,
            item_ids=pick(self.item_ids), y=self.y[kept], low=self.low[kept], high=self.high[kept],
            finished=self.finished[kept], truncated=self.truncated[kept], groups=pick(self.groups),
            x={name: values[kept] for name, values in self.x.items()}, asserted=pick(self.asserted),
            answers=Answers(
                pick(a.prompts), pick(a.responses), pick(a.topics), a.prompt_tokens[kept],
                pick(a.ids), a.scalars[kept], None if a.difficulty is None else a.difficulty[kept],
            ),
        )  # fmt: skip

    def relabelled(self, y: BoolArray) -> Side:
        """The same rows with other labels."""
        return replace(self, y=y)


Difficulty = Callable[[Response], float | None]


def sides(
    found: Sequence[Response],
    labelling: Labelling,
    features: Mapping[SetName, Features],
    difficulty: Difficulty | None = None,
) -> dict[SetName, Side]:
    """The rows of each set of ``features`` that have a label and a row; the others are counted.

    With ``difficulty``, rows without it have none: the baseline is then left out unless all have.
    """
    rows = list(zip(found, labelling.of, labelling.asserted, strict=True))
    if any(one.question.item_id != label.item_id for one, label, _ in rows):
        raise ValueError("labels are not in the order of the responses")
    return {
        name: _side(
            [row for row in rows if row[0].question.set == name], features[name], difficulty
        )
        for name in SETS
        if name in features
    }


def _side(
    rows: Sequence[tuple[Response, Labelled, bool | None]],
    features: Features,
    difficulty: Difficulty | None,
) -> Side:
    place = {item: row for row, item in enumerate(features.item_ids)}
    labelled = [row for row in rows if row[1].right is not None]
    kept = [row for row in labelled if row[0].question.item_id in place]
    at = [place[one.question.item_id] for one, _, _ in kept]
    asked = [one.question for one, _, _ in kept]
    hard = None if difficulty is None else [difficulty(one) for one, _, _ in kept]
    known = None
    if hard is not None and None not in hard:
        known = np.array(hard, dtype=np.float64)
    answers = Answers(
        prompts=tuple(one.text for one in asked),
        responses=tuple(one.text for one, _, _ in kept),
        topics=tuple(one.topic for one in asked),
        prompt_tokens=np.array([len(one.prompt.ids) for one in asked], dtype=np.int64),
        ids=tuple(one.sequence.ids for one, _, _ in kept),
        scalars=features.arrays[SCALARS_NAME][at],
        difficulty=known,
    )

    def column(values: Sequence[bool | None]) -> BoolArray:
        return np.array(values, dtype=np.bool_)

    return Side(
        item_ids=tuple(one.item_id for one in asked),
        y=column([label.right for _, label, _ in kept]),
        low=column([label.low for _, label, _ in kept]),
        high=column([label.high for _, label, _ in kept]),
        finished=column([not one.truncated or one.loop for one, _, _ in kept]),
        truncated=column([one.truncated for one, _, _ in kept]),
        groups=tuple(one.group for one in asked),
        x={name: features.arrays[name][at] for name in FLOAT_KINDS if name in features.arrays},
        answers=answers,
        asserted=tuple(said for _, _, said in kept),
        without_label=len(rows) - len(labelled),
        without_features=len(labelled) - len(kept),
    )
