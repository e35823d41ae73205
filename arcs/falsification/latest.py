"""The latest finished runs of the arcs on one page: their claims, and what would change them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from arcs.audits.catalogue import run_audits
from arcs.audits.readers import read
from arcs.audits.report import Report
from arcs.claims import ReasonCode, Verdict
from arcs.evaluate.report import COLOURS
from arcs.explanations import why
from arcs.falsification.finished_run import FinishedRun
from arcs.report.generic import claims_in
from arcs.report.stored import StoredRun
from arcs.report.view import ClaimCard, interval_text, shown
from arcs.runs import METRICS
from arcs.stored_runs import runs_under
from models.errors import UserError
from models.fingerprint import file_sha256

RUNS = Path("runs")
ARCS = ("arc1", "arc2", "arc3")


@dataclass(frozen=True)
class Latest:
    """What is looked at where nothing was named."""

    runs: Mapping[str, Path]
    """By arc; those that have a finished run."""
    replication: Path | None
    """An Arc 3 run of another family than the latest one's: whole, of an unedited model, with a
    judge that held."""
    notes: tuple[str, ...]
    """What was left out of it, and why: a line each."""


def latest(folder: Path = RUNS) -> Latest:
    """The finished runs of a folder, the last of each arc. Raises UserError where there is none."""
    paths = [path for path in runs_under(folder) if (path / METRICS).is_file()]
    paths.sort(key=lambda path: (path / METRICS).stat().st_mtime_ns)
    found: list[tuple[Path, StoredRun]] = []
    notes: list[str] = []
    for path in paths:
        run = StoredRun(path)
        try:
            if run.kind in ARCS and run.metrics is not None:
                found.append((path, run))
        except UserError as error:
            notes.append(f"{path.name} is left out, since it is damaged: {error}")
    chosen = {run.kind: path for path, run in found}
    if not chosen:
        left = f" ({len(notes)} damaged: {notes[0]})" if notes else ""
        raise UserError(
            f"{folder}: no finished run of {', '.join(ARCS)}{left}; give RUN, or --features, "
            "--fresh and --labels"
        )
    replication = None
    if "arc3" in chosen:
        replication, why = _replication([one for one in found if one[1].kind == "arc3"])
        notes += why
    else:
        notes.append(f"{folder}: no finished run of arc3, so nothing is falsified")
    runs = {arc: chosen[arc] for arc in ARCS if arc in chosen}
    return Latest(runs, replication, tuple(notes))


def _replication(found: Sequence[tuple[Path, StoredRun]]) -> tuple[Path | None, list[str]]:
    """The last run that may replicate the last one of all, and why later ones may not."""
    family = _family(found[-1][1])
    notes: list[str] = []
    for path, run in reversed(found):
        if None in (family, _family(run)) or _family(run) == family:
            continue
        why = _unfit(path, run)
        if why is None:
            return path, notes
        notes.append(f"{path.name} is no replication: {why}")
    notes.append(
        f"no replication: the family of {found[-1][0].name}'s model is not known" if family is None
        else "no replication: no whole run of arc3 on an unedited model of another family"
    )  # fmt: skip
    return None, notes


def _unfit(path: Path, run: StoredRun) -> str | None:
    """Why a run of another family says nothing of another model; None where it may."""
    try:
        FinishedRun(path, "--replication")
    except UserError as error:
        return str(error)
    model, config = run.manifest["model"], run.manifest.get("config") or {}
    if model.get("base") is not None or config.get("adapter") is not None:
        return "its model was edited (--adapter)"
    claim = ((run.metrics or {}).get("claims") or {}).get("transfer") or {}
    if claim.get("verdict") == Verdict.INVALID.value:
        return f"its own claim is INVALID ({', '.join(map(str, claim.get('reasons', ())))})"
    return None


def _family(run: StoredRun) -> str | None:
    model = run.manifest.get("model")
    family = model.get("family") if isinstance(model, Mapping) else None
    return None if family is None else str(family)


def rows(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Every claim of some runs, with what would change it, and what the audits find in each run."""
    return [
        {
            "run": path.name,
            "kind": run.kind,
            "audit": _audited(path),
            "claims": [_claim(card, run, settled)
                       for card in claims_in(run.metrics or {}, main_only=True)],
        }
        for path in paths
        for run in (StoredRun(path),)
        for settled in (_settled(path),)
    ]  # fmt: skip


def _settled(path: Path) -> Mapping[str, Any]:
    """What threearc settle has come to, by statement; {} where it was not done, or not finished.

    ``why``: it is of another state of the run, or damaged, and nothing is taken from it.
    """
    from arcs.settling.pipeline import FOLDER

    own = StoredRun(path / FOLDER)
    if not own.has(METRICS):
        return {}
    try:
        changed = [
            name
            for name, sha256 in own.manifest["of"].items()
            if not (path / name).is_file() or file_sha256(path / name) != sha256
        ]
        claims = (own.metrics or {})["claims"].values()
        found = {one["statement"]: {key: one[key] for key in ("verdict", "reasons", "n_items")}
                 for one in claims}  # fmt: skip
    except UserError as error:
        return {"why": str(error)}
    except (KeyError, TypeError, AttributeError) as error:
        return {"why": f"{own.path}: lacks {error}; it is damaged"}
    if changed:
        return {"why": f"{changed[0]} has changed since it was settled"}
    return {"claims": found}


def _audited(path: Path) -> dict[str, Any]:
    """Findings by severity; why there are none where the run cannot be audited."""
    try:
        results = read(path)
    except UserError as error:
        return {"counts": None, "why": str(error)}
    return {"counts": Report(results, run_audits(results)).counts(), "why": None}


def _claim(card: ClaimCard, run: StoredRun, settled: Mapping[str, Any]) -> dict[str, Any]:
    number = card.number
    return {
        "about": card.about,
        "statement": card.statement,
        "verdict": card.verdict,
        "reasons": list(card.reasons),
        "number": None if number is None else f"{shown(number)} {interval_text(number)}".strip(),
        "changes": _changes(card, run),
        "settled": settled.get("claims", {}).get(card.statement),
        "not_settled": settled.get("why"),
    }


def _changes(card: ClaimCard, run: StoredRun) -> str:
    """What would change a verdict: items that would settle it, or what decided it.

    Arc 2 gives its reasons in words with rules of their own: where nothing is decided, those that
    are still open say what is missing.
    """
    settles = dict(card.facts).get("items that would settle it")
    if settles:
        return f"about {settles} items would settle it"
    words = (run.metrics or {}).get("words")
    if words and card.verdict == Verdict.INCONCLUSIVE.value:
        still = [f"{one['word']}: {one['because']}" for one in words if one["state"] == "open"]
        return f"open are {'; '.join(still)}" if still else card.explanation
    known = [one for one in card.reasons if one in list(ReasonCode)]
    if len(known) < len(card.reasons):
        return card.explanation or "; ".join(card.reasons)
    return "; ".join(why(ReasonCode(one)) for one in known)


def table(found: Sequence[Mapping[str, Any]]) -> Table:
    """For people."""
    made = Table(
        title="The latest runs: claims, and what would change them",
        caption="audit: findings that invalidate, bias, or call for caution (threearc audit RUN)",
        box=SIMPLE_HEAD, title_justify="left", pad_edge=False,
    )  # fmt: skip
    made.add_column("run", overflow="fold", min_width=10)
    made.add_column("verdict", overflow="fold", min_width=12)
    made.add_column("claim, and what would change it", overflow="fold")
    for run in found:
        name = f"{run['run']}\n{_counts(run['audit'])}"
        for claim in run["claims"]:
            about = f"{claim['about']}: " if claim["about"] else ""
            number = f" {claim['number']}." if claim["number"] else ""
            made.add_row(
                escape(name),
                Text(claim["verdict"], style=COLOURS.get(claim["verdict"], "")),
                escape(f"{about}{claim['statement']}.{number} {_sentence(claim['changes'])}"
                       f"{_later(claim)}"),
            )  # fmt: skip
            name = ""
        if not run["claims"]:
            made.add_row(escape(name), "-", "no claim in its metrics")
    return made


def not_audited(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each run of an arc that the audits could not read, with the reason."""
    return [
        f"{run['run']} was not audited: {run['audit']['why']}."
        for run in found
        if run["kind"] in ARCS and run["audit"]["counts"] is None
    ]


def _later(claim: Mapping[str, Any]) -> str:
    """What threearc settle made of it."""
    if claim["not_settled"] is not None:
        return f" What settle came to is left out: {claim['not_settled']}."
    found = claim["settled"]
    if found is None:
        return ""
    reasons = ", ".join(found["reasons"]).replace("_", " ")
    return f" Settled: {found['verdict']} ({reasons}), n = {found['n_items']}."


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _counts(audit: Mapping[str, Any]) -> str:
    counts = audit["counts"]
    return "audit: -" if counts is None else f"audit: {'/'.join(map(str, counts.values()))}"
