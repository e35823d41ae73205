"""NPZ files: feature rows with or without ids, and columns beside them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcs.audits.readers.source import require_same_length
from arcs.audits.results import Features
from models.errors import UserError

FEATURE_NAMES = ("X", "x", "features")
ID_NAMES = ("ids", "item_ids", "item_id")


@dataclass(frozen=True)
class Arrays:
    """What an NPZ file holds."""

    path: Path
    x: NDArray[np.float32] | None
    """[n, d]"""
    columns: Mapping[str, NDArray[Any]]
    """Name -> [n]; ids among them, if there are any."""


def archive(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an NPZ file by name, as it is.

    Raises UserError for pickled objects (reading them would run code of whoever made the file)
    and for a file that is no archive, or a damaged one.
    """
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: not a readable NPZ file (no archive); write it again")
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: np.asarray(found[name]) for name in found.files}
    except ValueError as error:
        if "pickle" not in str(error):
            raise UserError(f"{path}: not a readable NPZ file ({error}); write it again") from None
        raise UserError(
            f"{path}: holds pickled objects, which could run code; save plain numbers and texts"
        ) from None
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, AttributeError) as error:
        raise UserError(f"{path}: not a readable NPZ file ({error}); write it again") from None


def load(path: Path) -> Arrays:
    """Read an NPZ file of one [n, d] array at most and [n] columns.

    Raises UserError as :func:`archive` does, for other shapes, and for parts of different length.
    """
    held = archive(path)
    matrices = [name for name, array in held.items() if array.ndim == 2]
    name = next((n for n in FEATURE_NAMES if n in matrices), None) or next(iter(matrices), None)
    odd = [n for n, array in held.items() if n != name and array.ndim != 1]
    if odd or not held:
        raise UserError(
            f"{path}: {odd[0] + ' has another shape' if odd else 'is empty'}; one [n, d] array of "
            "features and [n] columns are read"
        )
    require_same_length(path, {n: len(array) for n, array in held.items()})
    x = None if name is None else _numbers(path, name, held[name])
    return Arrays(path, x, {n: array for n, array in held.items() if n != name})


def _numbers(path: Path, name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiub":
        raise UserError(f"{path}: {name} has type {array.dtype}; features are real numbers")
    return array.astype(np.float32)


def stored_ids(arrays: Arrays) -> tuple[str, ...] | None:
    """Return the ids a file stores, [n]; None where it stores none."""
    name = next((name for name in ID_NAMES if name in arrays.columns), None)
    if name is None:
        return None
    ids = tuple(str(value) for value in arrays.columns[name].tolist())
    if len(set(ids)) != len(ids):
        raise UserError(f"{arrays.path}: {name} has an id twice; one row an item is needed")
    return ids


def features_of(
    arrays: Arrays,
    item_ids: Sequence[str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Features:
    """Feature rows by stored id, or numbered in order where the file stores none.

    ``item_ids`` [n] are the items the rows should belong to. Raises UserError where there are
    no features, where numbered rows are not as many as items, and where no stored id is one
    of an item.
    """
    if arrays.x is None:
        raise UserError(f"{arrays.path}: has no [n, d] array of features; save one as X")
    ids = stored_ids(arrays)
    said = dict(settings or {})
    if ids is None:
        numbered = tuple(item_ids or map(str, range(len(arrays.x))))
        require_same_length(arrays.path, {"features": len(arrays.x), "items": len(numbered)})
        return Features(arrays.x, numbered, ids_are_positions=True, settings=said)
    if item_ids is not None and not set(ids) & set(item_ids):
        raise UserError(f"{arrays.path}: none of its ids ({ids[0]!r}, ...) is one of an item")
    return Features(arrays.x, ids, settings=said)


def read_features(
    path: Path, item_ids: Sequence[str], settings: Mapping[str, str] | None = None
) -> Features:
    """Read the features of some items from an NPZ file; errors as in :func:`features_of`."""
    return features_of(load(path), item_ids, settings)
