"""``audit.toml``: a folder says what its files are."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from arcs.audits.readers import tables
from arcs.audits.readers.source import read_text
from arcs.audits.results import (
    Claim,
    EffectRanking,
    Instrument,
    Intervention,
    LabelKind,
    ProbeResult,
    Results,
    ResultSet,
    Role,
)
from models.errors import UserError

FORMAT = "tables described by audit.toml"
NAME = "audit.toml"
COUNTS = ("n", "n_positive", "n_negative", "n_first", "n_second", "direction_dimension")
CLAIM_KINDS = ("paired rate", "rate", "auc")

Record = TypeVar("Record")


class _Strict(BaseModel):
    """Base of the records below: frozen, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class InstrumentEntry(_Strict):
    """``[sets.instruments.NAME]``."""

    kind: LabelKind
    classes: tuple[str, ...] | None = None
    scale: tuple[float, float] | None = None
    judge: str | None = None
    prompt_sha: str | None = None
    threshold: float | None = None
    threshold_label: str | None = None
    default: bool | float | str | None = None
    response_cut: int | None = Field(default=None, ge=1)


class SetEntry(_Strict):
    """``[[sets]]``."""

    file: Path
    name: str | None = None
    role: Role | None = None
    arm: str | None = None
    task: str | None = None
    n_predict: int | None = Field(default=None, ge=1)
    family: str | None = None
    columns: dict[str, str] = {}
    instruments: dict[str, InstrumentEntry] = {}
    features: Path | None = None
    settings: dict[str, str | int | float | bool] = {}
    feature_settings: dict[str, str | int | float | bool] = {}


class AuditFile(_Strict):
    """The whole file.

    ``[[probes]]``, ``[[rankings]]``, ``[[interventions]]`` and ``[[claims]]`` have the fields of
    the types of the same name in :mod:`arcs.audits.results`.
    """

    sets: tuple[SetEntry, ...] = ()
    probes: tuple[dict[str, Any], ...] = ()
    rankings: tuple[dict[str, Any], ...] = ()
    interventions: tuple[dict[str, Any], ...] = ()
    claims: tuple[dict[str, Any], ...] = ()


def applies(path: Path) -> bool:
    """Whether a path is an audit.toml, or a folder with one."""
    return path.name == NAME or (path / NAME).is_file()


def read(path: Path) -> Results:
    """Read the sets that an audit.toml (or the one in a folder) declares.

    Raises UserError for keys and values that are not known, for files that are not there, and
    for whatever is wrong with a table.
    """
    file = path / NAME if path.is_dir() else path
    sets: list[ResultSet] = []
    notes: list[str] = []
    declared = _parse(file)
    for entry in declared.sets:
        found, said = tables.read_sets(_inside(file, entry.file), _declared(file, entry))
        sets.extend(found)
        notes.extend(said)
    return Results(
        path,
        FORMAT,
        sets=tuple(sets),
        probes=_records(file, "probes", ProbeResult, declared.probes),
        rankings=_records(file, "rankings", EffectRanking, declared.rankings),
        interventions=_records(file, "interventions", Intervention, declared.interventions),
        claims=_records(file, "claims", Claim, declared.claims),
        skipped=tuple(notes),
    )


def _records(
    file: Path, table: str, kind: type[Record], entries: Sequence[Mapping[str, Any]]
) -> tuple[Record, ...]:
    """Read entries as the audits' own types; their source is this file."""
    adapter = TypeAdapter(kind)
    made: list[Record] = []
    for number, entry in enumerate(entries, start=1):
        try:
            made.append(adapter.validate_python({**entry, "source": file}))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{file}: {table} {number}: {place}: {first['msg']}") from None
        _require_possible(entry, f"{file}: {table} {number}")
    return tuple(made)


def _require_possible(entry: Any, where: str) -> None:
    """Raise UserError for counts, AUCs and numbers that cannot be."""
    for key, value in entry.items() if isinstance(entry, dict) else ():
        if isinstance(value, list):
            for part in value:
                _require_possible(part, where)
        _require_possible(value, where)
        if isinstance(value, bool) or not isinstance(value, int | float):
            if key == "kind" and value not in CLAIM_KINDS:
                raise UserError(f"{where}: kind: {value!r} is none of {', '.join(CLAIM_KINDS)}")
            continue
        least = 1 if key in ("n", "n_first", "n_second") else 0
        wrong = (
            not math.isfinite(value)
            or (key in COUNTS and value < least)
            or (key in ("train_auc", "test_auc") and not 0 <= value <= 1)
        )
        if wrong:
            raise UserError(f"{where}: {key}: {value} cannot be")


def _parse(file: Path) -> AuditFile:
    try:
        document: dict[str, Any] = tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file}: not TOML ({error}); repair it") from None
    try:
        found = AuditFile.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{file}: {place}: {first['msg']}") from None
    if not any(getattr(found, name) for name in AuditFile.model_fields):
        raise UserError(f"{file}: declares nothing; give it a [[sets]] with a file")
    return found


def _inside(file: Path, named: Path) -> Path:
    found = file.parent / named
    if not found.is_file():
        raise UserError(f"{file}: no file {named}; name one relative to {file.parent}")
    return found


def _declared(file: Path, entry: SetEntry) -> tables.Declared:
    return tables.Declared(
        name=entry.name,
        columns=entry.columns,
        instruments={name: _instrument(name, one) for name, one in entry.instruments.items()},
        settings={name: str(value) for name, value in entry.settings.items()},
        features=None if entry.features is None else _inside(file, entry.features),
        feature_settings={name: str(value) for name, value in entry.feature_settings.items()},
        arm=entry.arm,
        task=entry.task,
        n_predict=entry.n_predict,
        family=entry.family,
        role=entry.role,
    )


def _instrument(name: str, entry: InstrumentEntry) -> Instrument:
    return Instrument(name=name, **entry.model_dump())
