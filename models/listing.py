"""What ``threearc models`` shows: the registry, and what of it is on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.cache import cache_root
from models.embedded import find_embedded
from models.hub import cached_snapshot
from models.joined import JOINED, find_parts, joined_path
from models.registry import MODELS, ModelSpec, lookup
from models.store import read_record

State = Literal["prepared", "embedded", "downloaded", "not on disk"]


@dataclass(frozen=True)
class Row:
    """One model of the listing."""

    name: str
    parameters: int | None
    """Nominal; None for a user's own model."""
    licence: str | None
    family: str
    hub_id: str | None
    gated: bool
    state: State
    """``prepared``: ready to open; ``embedded``: its file came in PyPI packages;
    ``downloaded``: in the hub's cache, not yet prepared."""
    size: int
    """Bytes that this form takes on disk (links counted in full)."""
    notes: str
    terms: str | None = None
    """Address of terms of use that the user has to keep."""


def listing(cache: Path | None = None) -> list[Row]:
    """Registry models first, then the user's own prepared ones. Contacts nobody."""
    root = cache or cache_root()
    records = _records(root)
    rows = [_registry_row(spec, records, root) for spec in MODELS]
    rows += [_own_row(*item) for item in records if lookup(item[1]["name"]) is None]
    return rows


def _records(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    folders = sorted((root / "prepared").glob("[!.]*")) if (root / "prepared").is_dir() else []
    found = [(folder, read_record(folder)) for folder in folders]
    return [(folder, record) for folder, record in found if record is not None]


def _registry_row(spec: ModelSpec, records: list[tuple[Path, dict[str, Any]]], root: Path) -> Row:
    state, size = _on_disk(spec, records, root)
    return Row(
        spec.name, spec.parameters, spec.licence, spec.family, spec.hub_id, spec.gated,
        state, size, spec.notes, spec.terms or None,
    )  # fmt: skip


def _on_disk(
    spec: ModelSpec, records: list[tuple[Path, dict[str, Any]]], root: Path
) -> tuple[State, int]:
    prepared = [folder for folder, record in records if record["name"] == spec.name]
    if prepared:
        return "prepared", sum(_size(folder) for folder in prepared)
    files = _embedded_files(spec, root) if spec.embedded else []
    if files:
        return "embedded", sum(file.stat().st_size for file in files)
    snapshot = cached_snapshot(spec.hub_id, spec.revision)
    if snapshot is not None and any(snapshot.glob("*.safetensors")):
        return "downloaded", _size(snapshot)
    return "not on disk", 0


def _embedded_files(spec: ModelSpec, root: Path) -> list[Path]:
    """The one file, or all its parts; none where anything is missing."""
    of = JOINED.get(spec.name)
    if of is not None and (whole := joined_path(of, root)).is_file():
        return [whole]
    found = [find_embedded()] if of is None else find_parts(of)
    return [file for file in found if file is not None] if all(found) else []


def _own_row(folder: Path, record: dict[str, Any]) -> Row:
    return Row(
        record["name"], None, None, record["family"], record.get("hub_id"), False,
        "prepared", _size(folder), f"from {record['source']}",
    )  # fmt: skip


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
