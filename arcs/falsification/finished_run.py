"""A finished run of Arc 3, from its files alone: no model, no tokenizer, any machine.

Ids stand for words. What the run's own claims found wrong with the instrument is inherited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from arcs import provenance
from arcs.arc3 import features
from arcs.arc3.config import ARC, MORE, require_run
from arcs.arc3.questions import FRESH, SETS, SetName
from arcs.arc3.table import FLOAT_KINDS
from arcs.claims import ReasonCode, Verdict
from arcs.estimates import FAULTS
from arcs.falsification.evidence import Evidence, Identity, Label
from arcs.falsification.own import EXPLORATORY, REGISTERED
from arcs.runs import METRICS, RunDirectory
from evals.truncation import repetition_loop
from models.errors import UserError
from models.fingerprint import file_sha256

LABELS = "labels.json"
RIGHT, ASSERTED = "right", "asserted"


class FinishedRun:
    """A :class:`arcs.falsification.evidence.Source` of a run directory."""

    arc: str = ARC
    sets: Sequence[SetName] = SETS
    """That it has."""

    def __init__(self, path: Path, flag: str = "RUN") -> None:
        self.path, self.flag = path, flag
        needed = (METRICS, LABELS, *(features.path_of(path, name).name for name in self.sets))
        self.manifest = require_run(path, flag, *needed, arc=self.arc)

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return RunDirectory(self.path, -1).read_json(name)
        except UserError as error:
            raise UserError(f"{self.flag} {error}") from None

    @cached_property
    def _labels(self) -> dict[str, Any]:
        found = self._json(LABELS)
        if not isinstance(found.get(RIGHT), dict):
            raise UserError(f"{self.flag} {self.path}: {LABELS} has no labels; the run is damaged")
        return found

    @cached_property
    def _train(self) -> Evidence:
        return self._read("train")

    def train(self) -> Evidence:
        """Training answers."""
        return self._train

    def fresh_missing(self) -> tuple[str, ...]:
        """A finished run has all."""
        return ()

    def fresh(self) -> Evidence:
        """Fresh answers, of the same definition."""
        made = self._read("fresh")
        definitions = [one.described["definition"] for one in (self._train, made)]
        features.require_one_definition(*definitions)
        return made

    def identity(self) -> Identity:
        """Of the run's manifest."""
        model = self.manifest["model"]
        return Identity(model["name"], model["name"], model["fingerprint"], model.get("family"))

    def axis(self) -> str:
        """Right or wrong."""
        return RIGHT

    def faults(self) -> tuple[ReasonCode, ...]:
        """Of the run's own claim, but truncation, which is looked at anew."""
        claim = self._json(METRICS)["claims"]["transfer"]
        if claim["verdict"] != Verdict.INVALID.value:
            return ()
        found = [ReasonCode(one) for one in claim["reasons"]]
        return tuple(one for one in found if one in FAULTS and one is not ReasonCode.TRUNCATED)

    def registration(self, gates_sha256: str) -> tuple[str, str]:
        """Its manifest is written before its fresh answers are, with the gates and the commit."""
        stored, here = self.manifest.get("gates") or {}, provenance.code_state()
        same_gates = "protocol" in stored and stored.get("sha256") == gates_sha256
        code = self.manifest.get("code") or {}
        same_rules = code.get("git_commit") is not None and code == here and not here["git_dirty"]
        if same_gates and same_rules and self.manifest.get("ids_from") is None:
            return REGISTERED, (
                "the run's manifest has held these gates, and this very commit of threearc, since "
                "before its answers were made"
            )
        return EXPLORATORY, (
            "results on these fresh answers were there before these gates were written"
        )

    def _read(self, name: SetName) -> Evidence:
        path = features.path_of(self.path, name)
        found = features.read(path)
        _require_whole(found, f"{self.flag} {path}")
        right: Mapping[str, Label] = self._labels[RIGHT]
        known = [*found.item_ids, *found.missing]
        strange = [one for one in known if one not in right]
        if strange:
            raise UserError(f"{self.flag} {self.path}: {strange[0]} has no entry in {LABELS}")
        prompts, answers = _split(found.arrays)
        cut = tuple(reason == "length" for reason in found.finish_reasons)
        return Evidence(
            item_ids=found.item_ids,
            x={kind: found.arrays[kind] for kind in FLOAT_KINDS if kind in found.arrays},
            labels={axis: self._of(axis, found.item_ids) for axis in self._axes},
            truncated=cut,
            loops=np.array(
                [was_cut and repetition_loop(ids) is not None
                 for was_cut, ids in zip(cut, answers, strict=True)], dtype=np.bool_
            ),
            bounds=self._bounds(found.item_ids),
            groups=self._texts("group", found.item_ids),
            prompts=tuple(map(_words, prompts)),
            responses=tuple(map(_words, answers)),
            texts_are_ids=True,
            lengths=np.array([len(ids) for ids in answers], dtype=np.float64),
            instruments={RIGHT: frozenset({str(self.manifest["config"]["labels"])})},
            without_features=len(found.missing),
            described={
                "features": {"path": str(path), "sha256": file_sha256(path)},
                "labels": {"path": str(self.path / LABELS),
                           "sha256": file_sha256(self.path / LABELS),
                           "instrument": self.manifest.get("labels")},
                "metrics": {"path": str(self.path / METRICS),
                            "sha256": file_sha256(self.path / METRICS)},
                "definition": dict(found.definition),
                "n": len(found.item_ids),
            },
            made_by={
                "states": self.manifest.get("backend"),
                "answers": (self.manifest.get("ids_from") or self.manifest).get("backend"),
                "position": found.definition.get("position"),
            },
        )  # fmt: skip

    @property
    def _axes(self) -> tuple[str, ...]:
        """Right or wrong; asserted or not, where its rule or judge is above its bar."""
        delivery = (self._json(METRICS).get("made_with") or {}).get("delivery")
        held = delivery is None or delivery["passes"]
        return tuple(one for one in (RIGHT, ASSERTED) if one in self._labels and
                     (one == RIGHT or held))  # fmt: skip

    def _of(self, key: str, items: tuple[str, ...]) -> tuple[Label, ...]:
        return tuple(self._labels[key][one] for one in items)

    def _bounds(
        self, items: tuple[str, ...]
    ) -> dict[str, tuple[tuple[Label, ...], tuple[Label, ...]]]:
        """As the run's instrument knows them; runs before they were stored have none."""
        if not all(key in self._labels for key in ("low", "high")):
            return {}
        return {RIGHT: (self._of("low", items), self._of("high", items))}

    def _texts(self, key: str, items: tuple[str, ...]) -> tuple[str, ...] | None:
        return None if key not in self._labels else tuple(self._labels[key][one] for one in items)


class MoreAnswers(FinishedRun):
    """Further fresh answers of a finished run: no training set, and the run's own definition."""

    arc, sets = MORE, (FRESH,)

    def fresh(self) -> Evidence:
        """Whether they fit the run's is the caller's to ask."""
        return self._read(FRESH)


def _require_whole(found: features.Features, where: str) -> None:
    """Raise UserError where rows and ids do not match, or rows are no numbers."""
    n = len(found.item_ids)
    rows = {name: found.arrays[name] for name in FLOAT_KINDS if name in found.arrays}
    if len(set(found.item_ids)) < n or {len(found.finish_reasons), *map(len, rows.values())} != {n}:
        raise UserError(f"{where}: its rows do not match its {n} ids; the run is damaged")
    odd = [name for name, values in rows.items() if not np.isfinite(values).all()]
    if odd:
        raise UserError(f"{where}: {odd[0]} holds values that are not finite; the run is damaged")


def _split(arrays: Mapping[str, Any]) -> tuple[list[list[int]], list[list[int]]]:
    """Ids of every prompt, and of every response."""
    prompts, answers, at = [], [], 0
    for length, start in zip(arrays["lengths"], arrays["response_starts"], strict=True):
        ids = arrays["ids"][at : at + int(length)].tolist()
        prompts.append(ids[: int(start)])
        answers.append(ids[int(start) :])
        at += int(length)
    return prompts, answers


def _words(ids: list[int]) -> str:
    return " ".join(f"t{one}" for one in ids)
