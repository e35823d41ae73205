"""What ``threearc report`` does with its flags."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from arcs.evaluate.config import names_of
from arcs.progress import Reporter
from arcs.report.compare import compared
from arcs.report.formats import to_csv, to_json, to_markdown
from arcs.report.kinds import view_of
from arcs.report.page import page
from arcs.report.stored import as_damage
from arcs.report.view import View
from arcs.report.writing import REPORT, write_page
from models.errors import UserError

FORMATS = ("html", "md", "csv", "json")
COMPARISON = "comparison.html"


def start(paths: Sequence[Path], *, kind: str, out: Path | None) -> None:
    """Write a page, or print one of the other formats.

    A page goes into the run's directory, or that of several runs to ``comparison.html``.
    """
    if kind not in FORMATS:
        raise UserError(f"--format {kind}: give one of {', '.join(FORMATS)}")
    if not paths:
        raise UserError("threearc report needs a run: threearc runs list shows them")
    views = views_of(paths)
    with as_damage(", ".join(map(str, paths))):
        text = _text(views, kind)
    own = kind == "html" and out is None and len(paths) == 1
    if kind == "html" and out is None:
        out = paths[0] / REPORT if own else Path(COMPARISON)
    if out is None:
        sys.stdout.write(text)
        return
    over = out.exists() and not own  # a run's own page is made again and again
    write_page(out, text)
    Reporter().say(f"Written to {out}{', over what was there' if over else ''}.")


def views_of(paths: Sequence[Path]) -> dict[str, View]:
    """What each run shows, by its name."""
    return dict(zip(names_apart(paths), map(view_of, paths), strict=True))


def names_apart(paths: Sequence[Path]) -> list[str]:
    """Names of runs that tell them apart. Raises UserError for one that is given twice."""
    resolved = [path.resolve() for path in paths]
    twice = next((p for p, one in zip(paths, resolved, strict=True) if resolved.count(one) > 1),
                 None)  # fmt: skip
    if twice is not None:
        raise UserError(f"{twice} is given twice")
    return names_of(resolved)


def _text(views: Mapping[str, View], kind: str) -> str:
    if kind == "json":
        return to_json(views)
    if kind == "csv":
        return to_csv(views)
    view = next(iter(views.values())) if len(views) == 1 else compared(views)
    return page(view) if kind == "html" else to_markdown(view)
