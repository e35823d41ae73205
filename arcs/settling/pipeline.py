"""Plan, run and look, until every open claim is decided or the items run out.

RUN/settle is a run of its own: ``plan.json`` (hashed in the manifest before a new item is opened),
``look-2/``, ``look-3/``, ... (runs of ``eval`` or ``measure``, one a source), ``looks.jsonl`` and
``metrics.json``. Killed and continued it ends in the same bytes.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcs import provenance
from arcs.arc1.evaluations import LINKS
from arcs.arc2.config import ARC as ARC2
from arcs.arc3.config import ARC as ARC3
from arcs.claims import ReasonCode, Verdict
from arcs.gates import load_gates
from arcs.progress import Reporter
from arcs.runs import (
    MANIFEST,
    METRICS,
    TIMING,
    JsonLines,
    RunDirectory,
    canonical_json,
    read_manifest,
)
from arcs.settling import coding, damping, measuring, probing
from arcs.settling.elsewhere import elsewhere
from arcs.settling.looks import Look, look
from arcs.settling.plan import Plan, Planned, Portion
from arcs.settling.statistic import Needs
from arcs.settling.subject import OWN, Piece, Pool, Subject
from models.errors import UserError
from models.fingerprint import file_sha256

SCHEMA = "threearc-settle-1"
ARC, FOLDER, PLAN, LOOKS = "settle", "settle", "plan.json", "looks.jsonl"
KINDS = (coding.EVAL, coding.ARC1, ARC2, ARC3, measuring.MEASURE)


def subject_of(run: Path) -> Subject:
    """What is settled in a run. Raises UserError for a run that has nothing of the kind."""
    manifest = read_manifest(run)
    kind = str(manifest.get("arc"))
    if kind not in KINDS:
        raise UserError(f"{run}: {elsewhere(run, manifest)}")
    manifest = _with_adapters_here(run, manifest)
    gates = load_gates()
    if manifest.get("gates") not in (None, gates.to_json()):
        raise UserError(f"{run}: the gates are no longer those that its claims were held to; "
                        "what they would be now takes a new run")  # fmt: skip
    if kind == measuring.MEASURE:
        return measuring.Measuring.of(run, manifest, gates)
    if kind == ARC2:
        return damping.Damping.of(run, manifest, gates)
    if kind == ARC3:
        return probing.Probing.of(run, manifest, gates)
    return coding.Coding.of(run, manifest, gates)


def _with_adapters_here(run: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """An evaluation in a run of arc1 that was moved: its adapters are where that run is now."""
    arms, config = run.absolute().parent.parent / LINKS, manifest.get("config") or {}
    if not arms.is_dir() or not config.get("adapters"):
        return manifest
    here = [str(arms / Path(one).name) if (arms / Path(one).name).exists() else one
            for one in config["adapters"]]  # fmt: skip
    return {**manifest, "config": {**config, "adapters": here}}


@dataclass(frozen=True)
class Asked:
    """The flags."""

    most: int | None
    """New items at most, of each axis."""
    data: tuple[str, ...]
    """Further sources, files as absolute paths."""

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {"max_items": self.most, "data": list(self.data)}


def begin(subject: Subject, plan: Plan, asked: Asked) -> RunDirectory:
    """Make RUN/settle with its plan, or open the one that is there.

    A plan of which no item was opened gives way to another. Raises UserError where it was planned
    otherwise and items were opened, or the run has changed since.
    """
    path = subject.run / FOLDER
    document = plan.to_json()
    written = canonical_json(document)
    sha = hashlib.sha256(written.encode()).hexdigest()
    files = {name: file_sha256(subject.run / name) for name in (*subject.files, MANIFEST)}
    if (path / MANIFEST).exists() and not _opened(path):
        begun = read_manifest(path)
        if (begun.get("of"), begun.get("config"), begun.get("plan_sha256")) != (
            files, asked.to_json(), sha
        ):  # fmt: skip
            with RunDirectory.resume(path) as left:
                discard_unopened(left)
    if not (path / MANIFEST).exists():
        first = provenance.first_manifest(ARC, asked.to_json(), sys.argv)
        directory = RunDirectory.create(path, {**first, "of": files, "plan_sha256": sha})
        directory.write_json(PLAN, document)
        return directory
    begun = read_manifest(path)
    if begun.get("of") != files:
        raise UserError(f"{path}: its plan is of another state of {subject.run}, which has changed "
                        "since")  # fmt: skip
    if begun.get("config") != asked.to_json():
        was = begun.get("config") or {}
        raise UserError(
            f"{path}: it was planned with --max-items {was.get('max_items') or '-'} and --data "
            f"{', '.join(was.get('data') or ()) or '-'}, and a plan is not changed once answers "
            f"may have been seen; go on with: threearc settle {subject.run}"
        )
    if begun.get("plan_sha256") != sha:
        raise UserError(f"{path}: its items or settings are no longer those that were planned "
                        "with (another version of threearc, or a changed data file)")  # fmt: skip
    directory = RunDirectory.resume(path)
    if not (path / PLAN).exists():
        directory.write_json(PLAN, document)  # killed in between: it is the same, by its hash
    elif (path / PLAN).read_text(encoding="utf-8") != written:
        raise UserError(f"{path / PLAN}: it was changed, and its hash says so; restore it")
    return directory


def discard_unopened(directory: RunDirectory) -> bool:
    """Remove a plan, and what was begun of it, where no new item was opened; whether it was."""
    if _opened(directory.path):
        return False
    shutil.rmtree(directory.path)  # with its lock, which is held until it is closed
    directory.close()
    return True


def _opened(path: Path) -> bool:
    """Whether anything but what is written before the first answer lies in a look's folder."""
    before = (MANIFEST, TIMING)
    return any(entry.is_file() and entry.name not in before and not entry.name.startswith(".")
               for look in path.glob("look-*") for entry in look.rglob("*"))  # fmt: skip


def asked_before(run: Path, asked: Asked) -> Asked:
    """The flags of a settle that was begun, where none are given now."""
    if asked != Asked(None, ()) or not (run / FOLDER / MANIFEST).exists():
        return asked
    begun = read_manifest(run / FOLDER).get("config") or {}
    return Asked(begun.get("max_items"), tuple(begun.get("data") or ()))


def settle(
    subject: Subject, plan: Plan, directory: RunDirectory, reporter: Reporter
) -> dict[str, Any]:
    """Look until all is decided; returns what stands in metrics.json."""
    if (directory.path / METRICS).exists():
        return directory.read_json(METRICS)
    by_look: list[list[Piece]] = [[Piece(OWN, subject.run, first=True)]]
    store = directory.json_lines(LOOKS)
    found = {one.claim.key: [look(subject, one, by_look)] for one in plan.claims}
    _keep(store, 1, found)
    for number, portions in enumerate(plan.looks, start=2):
        left = [one for one in plan.claims if _goes_on(found[one.claim.key])
                and len(one.schedule.sizes) >= number]  # fmt: skip
        if not left:
            break
        reporter.say(f"look {number} of {len(plan.looks) + 1}: {_count(portions, left)} new items")
        with directory.timed(f"look {number}"):
            pieces = _open(subject, plan, portions, left, directory.path / f"look-{number}",
                           reporter)  # fmt: skip
        by_look.append(pieces)
        for one in left:
            found[one.claim.key].append(look(subject, one, _of(one, by_look)))
            reporter.say(_said(one, found[one.claim.key][-1]))
        _keep(store, number, {one.claim.key: found[one.claim.key] for one in left})
    metrics = _metrics(subject, plan, directory, found, by_look)
    directory.write_json(METRICS, metrics)
    return metrics


def _goes_on(looks: Sequence[Look]) -> bool:
    return not looks[-1].decided


def _of(one: Planned, by_look: Sequence[Sequence[Piece]]) -> list[list[Piece]]:
    """What the looks at one claim opened."""
    return [[piece for piece in pieces if piece.first or piece.group in one.claim.groups]
            for pieces in by_look]  # fmt: skip


def _open(
    subject: Subject,
    plan: Plan,
    portions: Sequence[Portion],
    left: Sequence[Planned],
    folder: Path,
    reporter: Reporter,
) -> list[Piece]:
    """Run a look's items, each source's and group's as a run of its own."""
    pools: Mapping[str, Pool] = {pool.source: pool for pool in plan.pools}
    pieces = []
    for place, portion in enumerate(portions):
        for group in dict.fromkeys(portion.groups):
            claims = [one.claim for one in left if group in one.claim.groups]
            if not claims:
                continue
            ids = [item for item, its in zip(portion.ids, portion.groups, strict=True)
                   if its == group]  # fmt: skip
            path = folder / "-".join(part for part in (str(place + 1), group) if part)
            subject.go_on(pools[portion.source], ids, claims, path, reporter)
            pieces.append(Piece(portion.source, path, group=group))
    return pieces


def _count(portions: Sequence[Portion], left: Sequence[Planned]) -> int:
    groups = {group for one in left for group in one.claim.groups}
    return sum(group in groups for portion in portions for group in portion.groups)


def _keep(store: JsonLines, number: int, found: Mapping[str, Sequence[Look]]) -> None:
    """One line a look, once; a continued run must come to the same."""
    record = {"look": number, "claims": {key: looks[-1].to_json() for key, looks in found.items()}}
    before = [one for one in store.records if one["look"] == number]
    if not before:
        store.append(record)
    elif canonical_json(before[0]) != canonical_json(record):
        raise UserError(f"{store.path}: look {number} comes to something else than before; the run "
                        "was changed or damaged")  # fmt: skip


def _metrics(
    subject: Subject,
    plan: Plan,
    directory: RunDirectory,
    found: Mapping[str, Sequence[Look]],
    by_look: Sequence[Sequence[Piece]],
) -> dict[str, Any]:
    manifest = directory.manifest()
    return {
        "schema_version": SCHEMA,
        "run": subject.run.resolve().name,
        "kind": subject.kind,
        "plan_sha256": manifest["plan_sha256"],
        "claims": {
            one.claim.key: _concluded(subject, one, plan.beyond(one), found[one.claim.key],
                                      _of(one, by_look[: len(found[one.claim.key])]))
            for one in plan.claims
        },
        "not_settled": [{"claim": name, "why": why} for name, why in subject.others],
        "config": manifest["config"],
        "made_with": {k: v for k, v in manifest.items() if k not in ("config", "command", "arc")},
    }  # fmt: skip


def _concluded(
    subject: Subject,
    one: Planned,
    beyond: int,
    looks: Sequence[Look],
    by_look: Sequence[Sequence[Piece]],
) -> dict[str, Any]:
    """``beyond``: unused items that the plan did not open."""
    last, claim = looks[-1], one.claim
    lacking: Needs | None = None
    if last.seen.reasons == (ReasonCode.UNDERPOWERED,):  # a floor or cut answers lack no items
        values = [value for pieces in by_look for piece in pieces
                  for value in subject.values(claim, piece)]  # fmt: skip
        lacking = claim.statistic.needs(values, claim.smallest, alpha=one.levels[-1] or one.alpha,
                                        power=subject.gates.test.power)  # fmt: skip
        lacking = lacking.at_least(claim.fewest)
    missing = {
        "to_show": _beyond(lacking.to_show if lacking else None, last.n_items),
        "to_exclude": _beyond(lacking.to_exclude if lacking else None, last.n_items),
    }
    return {
        "statement": claim.stated["statement"],
        "verdict": last.seen.verdict.value,
        "reasons": [reason.value for reason in last.seen.reasons],
        "explanation": _sentence(one, looks, missing, beyond),
        "n_items": last.n_items,
        **({"statistic": "AUC"} if claim.auc else {}),
        "delta": last.delta,
        "interval": last.seen.interval,
        "p_value": last.seen.p_value,
        "gate": {"smallest_effect": claim.smallest, "alpha": one.alpha, "level": last.level},
        "looks_planned": len(one.schedule.sizes),
        "looks": [made.to_json() for made in looks],
        "missing": missing if lacking else None,
        "unused_beyond_plan": beyond,
        "first": {key: claim.stated[key] for key in
                  ("verdict", "reasons", "n_items", "delta", "interval", "p_value")},
        "alpha_charged_to_first": one.allowed[0],
        "either_run_false": one.either,
    }  # fmt: skip


def _beyond(needed: int | None, n: int) -> int | None:
    return None if needed is None else max(0, needed - n)


def _sentence(
    one: Planned, looks: Sequence[Look], missing: Mapping[str, int | None], beyond: int
) -> str:
    last, number = looks[-1], len(looks)
    level = f"{last.level:.2g}"
    said = f"{last.seen.sentence}. Look {number} of {len(one.schedule.sizes)}, at level {level}"
    if last.decided and number < len(one.schedule.sizes):
        said += "; further items are not needed"
    if last.seen.verdict is not Verdict.INCONCLUSIVE:
        return said + "."
    show, exclude = missing["to_show"], missing["to_exclude"]
    lacks = []
    if show:
        lacks.append(f"{show:,} more would show an effect of this size, if it is the true one")
    if exclude:
        lacks.append(f"{exclude:,} more would exclude one that matters, if there is none")
    over = "no items are left" if not beyond else (
        f"the plan's items are used up, and all alpha with them ({beyond:,} unused items are left "
        "for a run of its own)"
    )  # fmt: skip
    return f"{said}; {over}" + (": " + ", ".join(lacks) if lacks else "") + "."


def _said(one: Planned, made: Look) -> str:
    return f"{one.claim.key}: {made.seen.verdict.value} after {made.n_items} items"
