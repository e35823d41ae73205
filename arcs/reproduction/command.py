"""What ``threearc reproduce`` does with its flags."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from arcs import provenance
from arcs.progress import Reporter
from arcs.reproduction.artifacts import FILES, Artifacts, check_sums
from arcs.reproduction.claims import paper_claims
from arcs.reproduction.comparison import rows
from arcs.reproduction.download import download as fetch
from arcs.reproduction.groups import facts_of
from arcs.reproduction.report import Reproduction, render
from arcs.runs import canonical_json, default_path, write_text_atomically
from models.cache import cache_root
from models.errors import UserError

NAMED = "THREEARC_PAPER_ARTIFACTS"


def start(
    *,
    artifacts: Path | None,
    download: bool,
    out: Path | None,
    figures: bool,
    as_json: bool,
    full: bool = False,
) -> None:
    """Recompute, judge, print; figures and reproduce.json go into ``out``."""
    reporter = Reporter()
    found = Artifacts(_folder(artifacts, download, reporter))
    reporter.say(f"Recomputing from {found.folder}")
    complete = not found.absent(file.name for file in FILES)
    claims = paper_claims(facts_of(found)) if complete else []
    warnings = [str(one) for one in check_sums(found.folder)]
    if not claims:
        warnings.append("the paper's claims are judged only with all published files present")
    result = Reproduction(found.folder, rows(found), claims, warnings)
    document = {**result.to_json(), "made_with": provenance.versions()}
    if as_json:
        sys.stdout.write(canonical_json(document))
    else:
        render(result, full=full)
    if out is not None or figures:
        folder = out if out is not None else default_path("reproduce")
        write_text_atomically(folder / "reproduce.json", canonical_json(document))
        if figures and complete:
            from arcs.reproduction.figures import draw_all

            draw_all(found, folder / "figures")
        reporter.say(f"Everything is in {folder} (reproduce.json, figures/).")


def _folder(artifacts: Path | None, download: bool, reporter: Reporter) -> Path:
    if artifacts is not None and download:
        raise UserError("--artifacts names files that are there and --download fetches them: one")
    if download:
        folder = fetch(cache_root() / "paper-artifacts")
        reporter.say(f"The paper's files are in {folder}")
        return folder
    if artifacts is not None:
        return _existing(artifacts, "--artifacts")
    named = os.environ.get(NAMED)
    if named:
        return _existing(Path(named), NAMED)
    kept = cache_root() / "paper-artifacts"
    if kept.is_dir():
        return kept
    raise UserError(
        "the paper's published files are needed: give --download (8 MB from GitHub, once) or "
        "--artifacts DIR"
    )


def _existing(folder: Path, what: str) -> Path:
    """Return the folder, or in a checkout of the paper's repository the one they lie in."""
    if not folder.is_dir():
        raise UserError(f"{what} {folder}: no such folder")
    return folder
