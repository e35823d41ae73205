"""Data files with a description beside them, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from arcs.data.sets import meta_path
from arcs.runs import canonical_json
from models.errors import UserError
from models.files import write_atomically, write_directory_atomically

SCHEMA = "threearc-data-1"


def jsonl(records: Iterable[BaseModel]) -> bytes:
    """One record a line, keys as in files, defaults left out."""
    lines = (
        json.dumps(
            record.model_dump(mode="json", by_alias=True, exclude_defaults=True),
            ensure_ascii=False, allow_nan=False,
        )
        for record in records
    )  # fmt: skip
    return "".join(line + "\n" for line in lines).encode()


def write_set(
    out: Path, content: bytes, meta: Mapping[str, Any], *, author: str | None, licence: str | None
) -> str:
    """Write ``out`` and its description; returns the content's sha-256 (hex).

    What is there with the same content is left. Raises UserError where ``out`` holds other
    content: nothing is overwritten.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    described = {
        "schema": SCHEMA, "author": author, "licence": licence, "sha256": sha256, **meta,
    }  # fmt: skip
    require_free_name(out, content)
    try:
        write_atomically(out, content)
        write_atomically(meta_path(out), canonical_json(described).encode())
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    return sha256


def require_free_name(out: Path, content: bytes) -> None:
    """Raise UserError where ``out`` is there with other content."""
    try:
        taken = out.exists() and (not out.is_file() or out.read_bytes() != content)
    except OSError as error:
        raise UserError(f"{out}: cannot be read ({error.strerror})") from None
    if taken:
        raise UserError(f"--out {out}: is there with other content; name another or remove it")


def write_folder(out: Path, files: Mapping[str, bytes]) -> None:
    """Write the new folder ``out`` whole; one with just this content is left as it is.

    Raises UserError where ``out`` holds anything else: nothing is overwritten.
    """
    try:
        if out.exists():
            there = {one.name: one.read_bytes() for one in out.iterdir()} if out.is_dir() else None
            if there == files:
                return
            if there != {}:
                raise UserError(
                    f"--out {out}: is there and holds something else; name another, what "
                    "results rest on is never replaced"
                )

        def fill(folder: Path) -> None:
            for name, content in files.items():
                (folder / name).write_bytes(content)

        write_directory_atomically(out, fill)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from None
