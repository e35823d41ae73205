"""Which model an adapter belongs to, found from what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backends.adapter_files import StoredAdapter
from backends.adapters.proof import Say
from models.directory import ModelDirectory
from models.errors import UserError
from models.hub import is_hub_id
from models.registry import lookup
from models.store import prepare


def find_base(stored: StoredAdapter, model: str | None, say: Say) -> ModelDirectory:
    """Prepare ``model``, or the first base that the adapter's sidecar or settings name.

    Raises UserError when nothing is named, or nothing that is named can be found.
    """
    if model is not None:
        return prepare(model, say=say)
    named = list(dict.fromkeys(_names(stored)))
    for name in named:
        if _is_model(name):
            say(f"base model: {name}")
            return prepare(name, say=say)
    said = f"names {' and '.join(named)}, not found here" if named else "names no base model"
    raise UserError(f"adapter {stored.path} {said}: give the base with --model")


def _names(stored: StoredAdapter) -> Iterator[str]:
    """What may be prepared, the most exact first."""
    sidecar = stored.sidecar
    candidates = (
        None if sidecar is None else sidecar.base_source,
        None if sidecar is None else sidecar.base_name,
        stored.contents.declared_base,
    )
    for name in candidates:
        if name and name != "embedded":  # the embedded model is found by its name
            yield name


def _is_model(name: str) -> bool:
    if lookup(name) is not None:
        return True
    try:
        path = Path(name).expanduser()
        if path.is_dir() or path.is_file():
            return True
    except (OSError, RuntimeError, ValueError):
        return False
    return not path.is_absolute() and is_hub_id(name)
