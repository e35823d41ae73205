"""Bring your own: features, labels and responses of any tool, joined by item id."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcs.audits.ends import ran_out, unrecognised
from arcs.audits.results import Item
from arcs.claims import ReasonCode
from arcs.falsification.answers import Answers, axis_of, read_answers, with_responses
from arcs.falsification.evidence import (
    TOKENS,
    WORDS,
    Evidence,
    Identity,
    common_rows,
    listed,
    mixed,
    same_shape,
)
from arcs.falsification.rows_file import RowsFile, read_rows
from evals.overlap import exact_pairs
from models.errors import UserError

SAME_PROMPT = 0.02
"""Share of answers to a prompt that has another one already from which prompts are groups."""
REGISTERED, GATES_FIRST, EXPLORATORY = "preregistered", "gates fixed first", "exploratory"


@dataclass(frozen=True)
class Files:
    """Paths, as flags give them. The fresh set's own labels and responses are optional."""

    features: Path
    fresh: Path
    labels: Path
    fresh_labels: Path | None = None
    responses: Path | None = None
    fresh_responses: Path | None = None
    columns: tuple[str, ...] = ()
    prefix: str = "--"
    """Of the flags: ``--`` or ``--replication-``."""

    def flag(self, name: str) -> str:
        """As the user wrote it."""
        return f"{self.prefix}{name}"


@dataclass
class Own:
    """A :class:`arcs.falsification.evidence.Source` of files."""

    files: Files
    asked: str | None
    untruncated: bool = False
    """The user states that no answer was cut by its budget."""
    awaited: Sequence[str] = ()
    """Files of the fresh set that were not there yet when the gates were fixed."""
    _faults: list[ReasonCode] = field(default_factory=list)
    _labels_there: bool = False
    """--labels had labels of fresh rows, though --fresh-labels was still to be made."""

    @cached_property
    def _train(self) -> tuple[RowsFile, Answers, Evidence]:
        files = self.files
        rows = read_rows(files.features, files.flag("features"))
        answers = self._answers(files.labels, "labels", files.responses, "responses")
        self._axis = axis_of(answers, self.asked, f"{files.flag('labels')} {files.labels}")
        return rows, answers, self._joined(rows, answers, "features")

    def train(self) -> Evidence:
        """Rows of --features."""
        return self._train[2]

    def axis(self) -> str:
        """--axis, or the usual name."""
        self.train()
        return self._axis

    def identity(self) -> Identity:
        """As the file of features says."""
        rows = self._train[0]
        said = rows.facts.get("model")
        fingerprint = rows.facts.get("model_fingerprint")
        return Identity(said or rows.path.stem, said, fingerprint, rows.facts.get("family"))

    def fresh_missing(self) -> tuple[str, ...]:
        """Looks whether the files are there; opens none."""
        files = self.files
        given = {"fresh": files.fresh, "fresh-labels": files.fresh_labels,
                 "fresh-responses": files.fresh_responses}  # fmt: skip
        return tuple(
            f"{files.flag(name)} {path}"
            for name, path in given.items()
            if path is not None and not path.exists()
        )

    def fresh(self) -> Evidence:
        """Rows of --fresh, held to the training set's."""
        files, (mine, answers, train) = self.files, self._train
        rows = read_rows(files.fresh, files.flag("fresh"))
        if files.fresh_labels is not None:
            again = files.fresh_responses
            answers = self._answers(files.fresh_labels, "fresh-labels", again, "fresh-responses")
        elif files.fresh_responses is not None:
            more = read_answers(files.fresh_responses, files.flag("fresh-responses"), files.columns)
            answers = with_responses(answers, more, files.flag("fresh-responses"))
        where = f"{files.flag('fresh')} {files.fresh}"
        _require_one_kind(mine, rows, where)
        early = self._train[1].labels[self._axis] if files.fresh_labels is not None else {}
        self._labels_there = any(early.get(one) is not None for one in rows.item_ids)
        both = sorted(set(mine.item_ids) & set(rows.item_ids))
        if both:
            raise UserError(f"{where}: {listed(both)} also in the training set; keep them apart")
        found = self._joined(rows, answers, "fresh")
        differs = same_shape(train, found)
        if differs is not None:
            raise UserError(f"{where}: {differs}")
        self._hold_together(train, found)
        known = self._train[1].items.keys() | answers.items.keys()
        unused = sorted(known - set(mine.item_ids) - set(rows.item_ids))
        return replace(found, described={**found.described, "labels_without_rows": len(unused)})

    def faults(self) -> tuple[ReasonCode, ...]:
        """Found while the sets were read."""
        return tuple(dict.fromkeys(self._faults))

    def registration(self, gates_sha256: str) -> tuple[str, str]:
        """What this program saw; what its user saw before is not known."""
        features, labels = (
            any(one.startswith(f"{self.files.flag(name)} ") for one in self.awaited)
            for name in ("fresh", "fresh-labels")
        )
        if features and labels and not self._labels_there:
            return REGISTERED, "the fresh set was not there yet when the gates were written"
        if features:
            return GATES_FIRST, (
                "the fresh rows were not there yet when the gates were written, but their labels "
                "were: --fresh-labels names a file that is still to be made, and holds them alone"
            )
        return GATES_FIRST, (
            "the gates were written before the fresh set was opened; it was there already, and "
            "whether anyone had looked at it is not known"
        )

    def _answers(
        self, labels: Path, flag: str, responses: Path | None, more: str
    ) -> Answers:  # fmt: skip
        files = self.files
        found = read_answers(labels, files.flag(flag), files.columns)
        if responses is None:
            return found
        also = read_answers(responses, files.flag(more), files.columns)
        return with_responses(found, also, files.flag(more))

    def _joined(self, rows: RowsFile, answers: Answers, flag: str) -> Evidence:
        axis = self._axis
        where = f"{self.files.flag(flag)} {rows.path}"
        labels = answers.labels.get(axis, {})
        strange = [one for one in rows.item_ids if one not in labels]
        if strange:
            raise UserError(f"{where}: {listed(strange)} not labelled ({axis}); label every row")
        items = [answers.items[one] for one in rows.item_ids]
        odd = unrecognised(items)
        if odd:
            raise UserError(f"{where}: finish reason {odd[0]!r} of its answers is not known; "
                            "call a cut one length and any other stop")  # fmt: skip
        lengths, unit = _lengths(items)
        return Evidence(
            item_ids=rows.item_ids,
            x=rows.arrays,
            labels={
                name: tuple(of.get(one) for one in rows.item_ids)
                for name, of in answers.labels.items()
                if any(one in of for one in rows.item_ids)
            },
            truncated=self._ends(items, answers),
            loops=np.array([bool(one.repetition_loop) for one in items], dtype=np.bool_),
            groups=_texts([one.group or one.topic for one in items]) or _same_prompts(items),
            prompts=_texts([one.prompt for one in items]),
            responses=_texts([one.response for one in items]),
            known_prompts=tuple(one.prompt for one in items if one.prompt is not None),
            without_prompt=sum(one.prompt is None for one in items),
            without_response=sum(one.response is None for one in items),
            lengths=lengths,
            length_unit=unit,
            parts=_parts(items),
            instruments={
                name: frozenset(of[one] for one in rows.item_ids if one in of)
                for name, of in answers.instruments.items()
            },
            described={
                "features": {"path": str(rows.path), "sha256": rows.sha256,
                             "not_read": list(rows.left_out), "says": dict(rows.facts)},
                "labels": dict(answers.described),
                "n": len(rows.item_ids),
            },
            made_by=_made_by(rows.facts),
        )  # fmt: skip

    def _ends(self, items: Sequence[Item], answers: Answers) -> tuple[bool | None, ...] | None:
        found = tuple(ran_out(one, answers.n_predict.get(one.item_id)) for one in items)
        if self.untruncated:
            cut = [one.item_id for one, was_cut in zip(items, found, strict=True) if was_cut]
            if cut:
                raise UserError(
                    f"--untruncated: the files say that {listed(cut)} ran out of tokens; leave it "
                    "out, or correct them"
                )
            return (False,) * len(items)
        return None if set(found) == {None} else found

    def _hold_together(self, train: Evidence, fresh: Evidence) -> None:
        """Faults that show only when both sets are there."""
        axis = self._axis
        if mixed(train, fresh, axis):
            self._faults.append(ReasonCode.MIXED_INSTRUMENTS)
        if exact_pairs(train.known_prompts, fresh.known_prompts) or common_rows(train, fresh):
            self._faults.append(ReasonCode.TRAIN_TEST_OVERLAP)


def _require_one_kind(train: RowsFile, fresh: RowsFile, where: str) -> None:
    """Raise UserError where the files say different things of how their rows were made."""
    for key in sorted(train.facts.keys() | fresh.facts.keys()):
        if train.facts.get(key) != fresh.facts.get(key):
            raise UserError(
                f"{where}: its {key} is {fresh.facts.get(key, 'not stated')} and that of the "
                f"training set is {train.facts.get(key, 'not stated')}; extract both alike"
            )


def _made_by(facts: Mapping[str, str]) -> dict[str, str | None]:
    """As the features' file says; files of Arc 3 say it as JSON."""
    said: dict[str, Any] = {}
    for name in ("engine", "dtype", "position"):
        try:
            said[name] = json.loads(facts.get(name, "null"))
        except ValueError:
            said[name] = facts[name]
    if isinstance(said["engine"], dict):
        said |= {name: said["engine"].get(name) for name in ("dtype", "engine")}
    named = [str(said[name]) for name in ("engine", "dtype") if said[name] is not None]
    position = said["position"]
    return {"states": " ".join(named) or None, "answers": None,
            "position": None if position is None else str(position)}  # fmt: skip


def _texts(found: Sequence[str | None]) -> tuple[str, ...] | None:
    """All of them, or None where one is missing."""
    return None if not found or None in found else tuple(str(one) for one in found)


def _same_prompts(items: Sequence[Item]) -> tuple[str, ...] | None:
    """The prompts as groups, where too many have several answers for these to count as items."""
    prompts = _texts([one.prompt for one in items])
    if prompts is None or len(items) - len(set(prompts)) <= SAME_PROMPT * len(items):
        return None
    return prompts


def _lengths(items: Sequence[Item]) -> tuple[NDArray[np.float64] | None, str]:
    """Generated tokens where every item says so, else words of its response, else nothing."""
    tokens = [one.generated_tokens for one in items]
    if tokens and None not in tokens:
        return np.array(tokens, dtype=np.float64), TOKENS
    texts = [one.response for one in items]
    if texts and None not in texts:
        return np.array([len(str(one).split()) for one in texts], dtype=np.float64), WORDS
    return None, TOKENS


def _parts(items: Sequence[Item]) -> tuple[int | None, ...] | None:
    found = tuple(one.n_parts for one in items)
    return None if set(found) == {None} else found
