"""A figure on disk, as SVG and PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from arcs.figures.style import styled
from models.files import whole_file

# Whatever differs between two runs of the same program: the date, for one.
METADATA: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "png": {"Software": None}}


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write ``folder/name.svg`` and ``folder/name.png``, each whole or not at all.

    The same figure gives the same bytes. Returns both paths, SVG first. Raises ValueError
    when ``name`` is no plain file name.
    """
    if not name or Path(name).name != name:
        raise ValueError(f"not a plain file name: {name!r}")
    return _write(figure, folder, name, "svg"), _write(figure, folder, name, "png")


def _write(figure: Figure, folder: Path, name: str, kind: str) -> Path:
    path = folder / f"{name}.{kind}"
    with styled(), whole_file(path) as temporary:
        figure.savefig(temporary, format=kind, metadata=METADATA[kind])
    return path
