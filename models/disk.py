"""Refuse before writing what would not fit on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from models.errors import UserError

RESERVE = 64 * 2**20
"""Bytes left free after the write, so that logs and metadata still fit."""


def require_free(path: str | Path, n_bytes: int, what: str) -> None:
    """Raise UserError unless ``n_bytes`` and a reserve are free on the disk of ``path``.

    ``path`` need not exist yet; its nearest existing parent is measured.
    """
    path = Path(path).absolute()
    existing = next(p for p in (path, *path.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < n_bytes + RESERVE:
        raise UserError(
            f"not enough disk space for {what}: needs {format_bytes(n_bytes + RESERVE)},"
            f" {format_bytes(free)} free at {existing}; free some space or choose another disk"
            " (THREEARC_CACHE for models, --out for runs)"
        )


def format_bytes(n: int) -> str:
    """Return e.g. ``538 MB`` (decimal units, as disk makers and ``ls -H`` count)."""
    size = float(n)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit in ("B", "kB", "MB") else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
