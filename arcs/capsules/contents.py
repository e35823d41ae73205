"""One file that holds what a claim rests on: ids, hashes, gates, labels, states, verdicts.

Plain JSON; states are base64 of little-endian float32. ``content_sha256`` is of everything else in
canonical form, so that a file that was changed by hand or damaged is not taken for the run's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcs.arc3 import features
from arcs.arc3.pipeline import LABELS
from arcs.arc3.probing import H_LAST
from arcs.arc3.questions import SETS, SetName
from arcs.arc3.responses import RESPONSES
from arcs.audits.readers.source import read_json
from arcs.capsules import coding, falsified, measured, sweeping
from arcs.capsules.arrays import packed, unpacked
from arcs.report.generic import claims_in
from arcs.report.stored import StoredRun
from arcs.runs import METRICS, canonical_json, read_manifest, write_text_atomically
from models.errors import UserError
from models.fingerprint import file_sha256

SCHEMA = "threearc-capsule-2"
CAPSULE = "capsule.json"
SHA = "content_sha256"
ARC3 = "arc3"


@dataclass(frozen=True)
class Row:
    """One answer with the state that was read of it."""

    item_id: str
    set: SetName
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    position: int
    """In prompt and response."""
    finish_reason: str
    near_ties: int | None
    right: bool | None
    state: NDArray[np.float32]
    """[d] h_last"""


def make(run: Path) -> dict[str, Any]:
    """The capsule of a finished run. Raises UserError for other kinds of run, and damage."""
    manifest = read_manifest(run)
    kind = str(manifest.get("arc"))
    if kind == falsified.KIND:
        source = falsified.source_of(run, manifest)
        if source is not None:
            of_source = make(source)
            of_source[falsified.SECTION] = falsified.contents(run, manifest)
            del of_source[SHA]
            return {**of_source, SHA: _sha(of_source)}
        made = falsified.own(run, manifest)
    elif kind in coding.KINDS:
        made = coding.contents(run, manifest)
    elif kind == measured.KIND:
        made = measured.contents(run, manifest)
    elif kind == sweeping.KIND:
        made = sweeping.contents(run, manifest)
    elif kind == ARC3:
        made = _states(run)
    else:
        raise UserError(
            f"{run}: capsules are of runs of arc1, arc2, arc3, eval, falsify, measure meter and "
            f"measure short-answers, not of {kind}"
        )
    found = {
        "schema_version": SCHEMA,
        "kind": kind,
        "run": run.resolve().name,
        "manifest": manifest,
        "gates": manifest.get("gates"),
        **made,
    }
    return {**found, SHA: _sha(found)}


def _states(run: Path) -> dict[str, Any]:
    paths = [features.path_of(run, name) for name in SETS]
    needed = [run / METRICS, run / LABELS, run / RESPONSES, *paths]
    lacking = [path.name for path in needed if not path.is_file()]
    if lacking:
        raise UserError(f"{run}: no {lacking[0]}; finish the run with threearc arc3 --run {run}")
    stored = StoredRun(run)
    metrics = stored.metrics or {}
    told = {row["item_id"]: row for row in stored.lines(RESPONSES)}
    labels = read_json(run / LABELS)["right"]
    return {
        "files": {path.name: file_sha256(path) for path in needed},
        "claims": metrics["claims"],
        "sets": metrics["sets"],
        "definition": features.read(paths[0]).definition,
        "rows": [_packed(one) for name in SETS for one in _rows(run, name, told, labels)],
    }


def _rows(
    run: Path, name: SetName, told: Mapping[str, Any], labels: Mapping[str, Any]
) -> Iterator[Row]:
    found = features.read(features.path_of(run, name))
    arrays, at = found.arrays, 0
    for place, item in enumerate(found.item_ids):
        length, start = int(arrays["lengths"][place]), int(arrays["response_starts"][place])
        ids = tuple(arrays["ids"][at : at + length].tolist())
        at += length
        yield Row(
            item, name, ids[:start], ids[start:], int(arrays["positions"][place]),
            found.finish_reasons[place], told[item]["near_ties"], labels[item],
            arrays[H_LAST][place],
        )  # fmt: skip


def _packed(one: Row) -> dict[str, Any]:
    return {
        **vars(one),
        "prompt": list(one.prompt),
        "response": list(one.response),
        "state": packed(one.state),
    }


def write(capsule: Mapping[str, Any], path: Path) -> None:
    """Write it whole or not at all. Raises UserError where that cannot be done."""
    try:
        write_text_atomically(path, canonical_json(capsule))
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({error.strerror})") from None


@dataclass(frozen=True)
class Capsule:
    """As it was read."""

    path: Path
    document: Mapping[str, Any]
    rows: tuple[Row, ...]
    """Of Arc 3."""

    @property
    def kind(self) -> str:
        """``arc1``, ``arc2``, ``arc3``, ``eval``, ``measure``, or ``falsify``: features of
        anyone's."""
        return str(self.document["kind"])

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Of the run."""
        found: Mapping[str, Any] = self.document["manifest"]
        return found

    def of(self, name: SetName) -> list[Row]:
        """One set's labelled rows."""
        return [one for one in self.rows if one.set == name and one.right is not None]


def read(path: Path) -> Capsule:
    """Read a capsule. Raises UserError for any other file, and for one that was changed."""
    document = read_json(path)
    if not isinstance(document, dict) or document.get("schema_version") != SCHEMA:
        raise UserError(f"{path}: not a capsule of this version ({SCHEMA}); make one with capsule")
    content = {key: value for key, value in document.items() if key != SHA}
    if document.get(SHA) != _sha(content):
        raise UserError(f"{path}: its content is not what its hash says; it was changed or damaged")
    rows = document["rows"] if document["kind"] == ARC3 else ()
    return Capsule(path, document, tuple(_unpacked(row) for row in rows))


def _unpacked(row: Mapping[str, Any]) -> Row:
    ids: dict[str, Sequence[int]] = {name: tuple(row[name]) for name in ("prompt", "response")}
    return Row(**{**row, **ids, "state": unpacked(row["state"])})


def _sha(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def verdicts(capsule: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and verdict of every claim, those of a falsification first."""
    section = capsule.get(falsified.SECTION)
    own = [] if section is None else [*claims_in({falsified.KIND: section["claims"]})]
    cards = [*own, *claims_in(capsule["claims"])]
    return [(card.about or card.statement, card.verdict) for card in cards]
