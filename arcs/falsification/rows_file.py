"""A file of feature rows with their item ids: NPZ, or safetensors (ours or anyone's)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcs.arc3.probing import H_LAST
from arcs.audits.readers.arrays import FEATURE_NAMES, ID_NAMES, archive
from arcs.falsification.evidence import listed
from models.errors import UserError
from models.fingerprint import file_sha256

OURS = "facts"
"""The metadata key of ``threearc arc3``'s own files."""
NOT_FEATURES = frozenset({"token_scalars"})
"""Of our own files: [n, k], and no hidden state."""


@dataclass(frozen=True, eq=False)
class RowsFile:
    """One set's features."""

    path: Path
    item_ids: tuple[str, ...]
    arrays: Mapping[str, NDArray[np.float32]]
    """``h_last`` [n, d]; others [n, d], or [n, layers, d]."""
    facts: Mapping[str, str]
    """What the file says of itself (model, family, position, ...)."""
    sha256: str
    left_out: tuple[str, ...] = ()
    """Columns [n] beside the rows, which are no features."""


def read_rows(path: Path, flag: str) -> RowsFile:
    """Read a file. Raises UserError beginning with ``flag`` for what is wrong with it."""
    where = f"{flag} {path}"
    if not path.is_file():
        raise UserError(f"{where}: no such file")
    try:
        if path.suffix == ".npz":
            held, facts = _npz(path)
        elif path.suffix == ".safetensors":
            held, facts = _safetensors(path)
        else:
            raise UserError(f"{path}: not .npz or .safetensors; save the rows as one of them")
    except UserError as error:
        raise UserError(f"{flag} {error}") from None
    ids = _ids(held.pop("ids", None), where)
    columns = tuple(sorted(name for name, rows in held.items() if rows.ndim == 1))
    for name in columns:
        del held[name]
    arrays = {_name(name, held): _checked(name, rows, len(ids), where)
              for name, rows in held.items() if name not in NOT_FEATURES}  # fmt: skip
    if H_LAST not in arrays or arrays[H_LAST].ndim != 2:
        there = listed(sorted(arrays)) or "nothing else"
        raise UserError(f"{where}: no h_last [n, d] in it, but {there}; name the states h_last")
    return RowsFile(path, ids, arrays, facts, file_sha256(path), columns)


def _npz(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Arrays, ``ids`` among them, and texts of no dimension."""
    held: dict[str, Any] = archive(path)
    facts = {name: str(held.pop(name)) for name in list(held) if held[name].ndim == 0}
    for name in ID_NAMES:
        if name in held:
            held["ids"] = [str(one) for one in held.pop(name).tolist()]
            break
    return held, facts


def _safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            held: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if OURS in metadata:
            told = json.loads(metadata[OURS])
            held = {name: rows for name, rows in held.items() if rows.ndim > 1}
            facts = {key: json.dumps(value, sort_keys=True)
                     for key, value in told["definition"].items()}  # fmt: skip
            return {**held, "ids": told["item_ids"]}, facts
        ids = json.loads(metadata.pop("item_ids", "null"))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not readable as safetensors ({error})") from None
    return {**held, **({} if ids is None else {"ids": ids})}, metadata


def _ids(found: Any, where: str) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
        raise UserError(
            f"{where}: no item ids; an NPZ holds them as an array ids [n] of texts, safetensors as "
            "a JSON list under item_ids in its metadata"
        )
    twice = sorted({one for one in found if found.count(one) > 1}) if _repeats(found) else []
    if twice:
        raise UserError(f"{where}: {listed(twice)}: more than one row; give each item one")
    if not found:
        raise UserError(f"{where}: no rows")
    return tuple(found)


def _repeats(found: list[str]) -> bool:
    return len(set(found)) < len(found)


def _name(name: str, held: Mapping[str, Any]) -> str:
    """What the claim is about is called h_last, or X, or is the only array there."""
    if H_LAST in held:
        return name
    chosen = next((one for one in FEATURE_NAMES if one in held), None)
    flat = [one for one, rows in held.items() if np.ndim(rows) == 2 and one not in NOT_FEATURES]
    if chosen is None and len(flat) == 1:
        chosen = flat[0]
    return H_LAST if name == chosen else name


def _checked(name: str, rows: NDArray[Any], n: int, where: str) -> NDArray[np.float32]:
    if rows.ndim not in (2, 3):
        raise UserError(f"{where}: {name} has shape {rows.shape}; [n, d] or [n, layers, d] is read")
    if rows.dtype.kind not in "fiu":
        raise UserError(f"{where}: {name} has type {rows.dtype}; features are real numbers")
    if len(rows) != n:
        raise UserError(f"{where}: {name} has {len(rows)} rows and there are {n} ids")
    made = rows.astype(np.float32)
    if rows.size == 0 or not np.isfinite(made).all():
        raise UserError(f"{where}: {name} holds nothing, or values that are not finite in float32")
    return made
