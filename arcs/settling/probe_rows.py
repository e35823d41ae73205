"""Rows of a run of ``arc3`` and of what was added to it: labels, states, the probe's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from arcs.arc3 import features
from arcs.arc3.probing import H_LAST
from arcs.arc3.questions import FRESH
from arcs.arc3.table import Side
from arcs.falsification.evidence import side_of
from arcs.falsification.finished_run import RIGHT, FinishedRun, MoreAnswers
from arcs.instrument import differing
from arcs.settling.subject import Piece
from evals.probing.probes import PRIMARY, PROBES, scores_on
from models.errors import UserError

Scored = list[tuple[float, bool]]


@dataclass(frozen=True)
class Rows:
    """Read once each."""

    run: Path
    _sides: dict[Path, Side] = field(default_factory=dict)
    _scores: dict[Path, Scored] = field(default_factory=dict)

    @cached_property
    def train(self) -> Side:
        """Of the run; nothing is ever added."""
        return _h_last(side_of(FinishedRun(self.run).train(), RIGHT))

    def fresh(self, piece: Piece) -> Side:
        """Of one piece. Raises UserError where its states are not what the run's are."""
        if piece.path not in self._sides:
            self._sides[piece.path] = self._own if piece.first else self._read(piece.path)
        return self._sides[piece.path]

    def scored(self, piece: Piece) -> Scored:
        """Of each fresh answer, the primary probe's score, fitted on all of training, and whether
        it is right."""
        if piece.path not in self._scores:
            side = self.fresh(piece)
            scores: list[float] = []
            if len(side.y):
                x, y = self.train.x[H_LAST], self.train.y
                scores = scores_on(PROBES[PRIMARY](), x, y, side.x[H_LAST]).tolist()
            self._scores[piece.path] = list(zip(scores, side.y.tolist(), strict=True))
        return self._scores[piece.path]

    def require_same(self, definition: Mapping[str, Any]) -> None:
        """Raise UserError where features of new answers are not what the run's are."""
        own, new = ({key: value for key, value in one.items() if key != "engine"}
                    for one in (self._definition, definition))  # fmt: skip
        features.require_one_definition(own, new)
        was, now = self._definition.get("engine", {}), definition.get("engine", {})
        other = differing(was, now)
        if other is not None:
            raise UserError(
                f"{self.run}: its features were read with {other} {was.get(other)}, and those of "
                f"new answers with {now.get(other)}; settle where it was run, or run arc3 anew"
            )

    @cached_property
    def _own(self) -> Side:
        return _h_last(side_of(FinishedRun(self.run).fresh(), RIGHT))

    @cached_property
    def _definition(self) -> Mapping[str, Any]:
        return features.read(features.path_of(self.run, FRESH)).definition

    def _read(self, path: Path) -> Side:
        found = features.read(features.path_of(path, FRESH))
        self.require_same(found.definition)
        if not found.item_ids:
            nothing = self._own.where(np.zeros(len(self._own.y), dtype=np.bool_))
            return replace(nothing, without_label=0, without_features=len(found.missing))
        return _h_last(side_of(MoreAnswers(path).fresh(), RIGHT))


def pooled(sides: Sequence[Side]) -> Side:
    """The answers of all pieces, their ids told apart by the piece they are of."""

    def join(name: str) -> Any:
        return np.concatenate([getattr(one, name) for one in sides])

    def chain(name: str) -> tuple[Any, ...]:
        return tuple(value for one in sides for value in getattr(one, name))

    answers = [one.answers for one in sides]
    return Side(
        item_ids=tuple(f"{place}:{item}" for place, one in enumerate(sides)
                       for item in one.item_ids),
        y=join("y"), low=join("low"), high=join("high"), finished=join("finished"),
        truncated=join("truncated"), groups=chain("groups"),
        x={H_LAST: np.concatenate([one.x[H_LAST] for one in sides])},
        answers=replace(
            answers[0],
            prompts=tuple(text for one in answers for text in one.prompts),
            responses=tuple(text for one in answers for text in one.responses),
            topics=tuple(topic for one in answers for topic in one.topics),
            prompt_tokens=np.concatenate([one.prompt_tokens for one in answers]),
            ids=tuple(ids for one in answers for ids in one.ids),
            scalars=np.concatenate([one.scalars for one in answers]),
        ),
        asserted=chain("asserted"),
        without_label=sum(one.without_label for one in sides),
        without_features=sum(one.without_features for one in sides),
    )  # fmt: skip


def _h_last(side: Side) -> Side:
    """Without the layers that the claim does not read."""
    return replace(side, x={H_LAST: side.x[H_LAST]})
