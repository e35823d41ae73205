"""Gates first, then training, then fresh data, then another model; every step is kept.

gates -> training set, step 1 -> fresh set, steps 2 to 4, modes -> replication, step 5 -> verdict
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from arcs.arc3 import claims
from arcs.arc3.features import path_of
from arcs.arc3.kept import ROOT, Kept, sources_sha256
from arcs.arc3.probing import Study
from arcs.arc3.questions import SETS
from arcs.audits.readers.source import candidates
from arcs.claims import ReasonCode
from arcs.estimates import GateState
from arcs.falsification import axes, edited, modes, protocol, steps
from arcs.falsification.answers import USUAL
from arcs.falsification.config import REPLICATION, FalsifyConfig, flag_of
from arcs.falsification.evidence import (
    Evidence,
    Identity,
    Source,
    common_rows,
    repeated,
    side_of,
    study_of,
    unlike,
)
from arcs.falsification.finished_run import LABELS, FinishedRun
from arcs.falsification.own import Files, Own
from arcs.falsification.protocol import NOT_RUN, Step
from arcs.falsification.registration import registered, registered_with
from arcs.falsification.verdict import claims_of
from arcs.gates import DEFAULT_GATES, Gates, load_gates
from arcs.progress import Bar, Reporter
from arcs.runs import METRICS, RunDirectory
from models.errors import UserError
from models.fingerprint import file_sha256

STEPS = "steps.jsonl"
AWAITED, AWAITED_OTHER = "awaited", "awaited_replication"
SOURCES = ("arcs/falsification", "evals/text_ends.py")
"""Code that decides a step, beside Arc 3's."""
MODES, BASE = "modes", edited.BASE
SCHEMA = "threearc-falsify-1"
Found = dict[str, Any]


class Awaiting(UserError):
    """The fresh set is not there yet: gates and step 1 are kept."""


def run_falsification(config: FalsifyConfig, run: RunDirectory, reporter: Reporter) -> Found:
    """Run or continue ``run``; returns what stands in its metrics.json."""
    gates = load_gates(config.gates or DEFAULT_GATES)
    sha256 = protocol.declare(run, gates, config)
    run.extend_manifest(gates=gates.to_json(), gates_file_sha256=sha256)
    if config.features is not None and AWAITED not in run.manifest():
        # what is not there now, or never will count as that
        lacking = Own(files_of(config, ""), config.axis).fresh_missing()
        run.extend_manifest(**{AWAITED: list(lacking)})
    if config.adapter is not None:
        edited.make(config, run, reporter)
    store = run.json_lines(STEPS)
    with run.timed("steps"), reporter.bar("steps", _parts(config), "steps") as bar:
        source = _source(config, run)
        train = source.train()
        _require_pooled(train, config)
        axis = source.axis()
        _note(run, "train", train, source.identity())
        study = _training_study(train, axis, config, gates)
        other = _replication(config, run)
        code = sources_sha256(ROOT, SOURCES)
        found: dict[str, Found] = {}
        keep = _keeper(Kept.of(study, store, code), found, bar)
        keep(Step.TRAINING, lambda: steps.training(study, gates, train.groups is not None))

        _await(source, run)
        protocol.require_unchanged(run, sha256)
        fresh = source.fresh()
        _note(run, "fresh", fresh, source.identity())
        both = study_of(train, fresh, axis, study)
        keep = _keeper(Kept.of(both, store, code), found, bar)
        keep(Step.FRESH, lambda: steps.fresh(both, gates))
        keep(Step.AXES, lambda: axes.axes(train, fresh, axis, both, gates))
        keep(Step.POOLED, lambda: steps.pooled(both, gates, config.pooled))
        keep(MODES, lambda: {"modes": modes.all_modes(train, fresh, both, found, gates)})
        _await_other(other, run)
        keep = _keeper(Kept.of(both, store, code + _sha256_of(config)), found, bar)
        keep(Step.REPLICATION, lambda: _replicated(other, source, study, gates))
        if config.adapter is not None:
            keep(BASE, lambda: edited.base_beside(run.path, gates, study))
        if other is not None:
            _note_other(run, other, found[Step.REPLICATION])
    faults = [*source.faults(), *_unfit(train, fresh, axis, gates)]
    judged = claims_of(
        found, found[MODES]["modes"], list(dict.fromkeys(faults)), gates, axis=axis,
        ends_known=train.ends_known and fresh.ends_known,
    )  # fmt: skip
    state, why = registered(source, config, gates)
    ran = found[Step.REPLICATION]["state"] != NOT_RUN
    state_of_all, why_of_all = registered_with(state, why, other if ran else None, config, gates)
    metrics = {
        "schema_version": SCHEMA,
        "model": source.identity().to_json(),
        "axis": axis,
        "registration": {"state": state, "why": why, "gates_file_sha256": sha256,
                         "gates_sha256": gates.sha256,
                         "all_five": {"state": state_of_all, "why": why_of_all}},
        "labels_without_rows": fresh.described.get("labels_without_rows"),
        "sets": {"train": _set(train, axis), "fresh": _set(fresh, axis)},
        "steps": [found[step] for step in Step],
        "modes": found[MODES]["modes"],
        **({BASE: found[BASE]} if BASE in found else {}),
        "claims": {name: one.to_json() for name, one in judged.items()},
        "config": config.model_dump(mode="json"),
        "made_with": {k: v for k, v in run.manifest().items()
                      if k not in ("config", "command", "arc")},
    }  # fmt: skip
    run.write_json(METRICS, metrics)
    return metrics


def _parts(config: FalsifyConfig) -> int:
    """All steps, the modes, and the base beside an edited model."""
    return len(Step) + (1 if config.adapter is None else 2)


def _keeper(
    kept: Kept, found: dict[str, Found], bar: Bar
) -> Callable[[str, Callable[[], Found]], None]:
    """Computes a step once in a run, and puts it where the next ones find it."""

    def keep(name: str, make: Callable[[], Found]) -> None:
        found[str(name)] = kept.part(str(name), make)
        bar.advance(1, str(name))

    return keep


def _source(config: FalsifyConfig, run: RunDirectory) -> Source:
    if config.source is not None:
        return FinishedRun(config.source)
    if config.adapter is not None:
        return edited.EditedRun(run.path / edited.EDITED, "--adapter")
    return Own(files_of(config, ""), config.axis, config.untruncated, run.manifest()[AWAITED])


def files_of(config: FalsifyConfig, prefix: str) -> Files:
    """Paths of one's own; ``prefix``: empty, or of the replication."""
    of = {name: getattr(config, prefix + name) for name in Files.__dataclass_fields__
          if name not in ("columns", "prefix")}  # fmt: skip
    flag = "--" if not prefix else f"{flag_of(prefix.rstrip('_'))}-"
    return Files(**of, columns=config.columns, prefix=flag)


def _training_study(train: Evidence, axis: str, config: FalsifyConfig, gates: Gates) -> Study:
    """Of the training set alone: its fresh side is the training side, and nothing reads it."""
    side = side_of(train, axis)
    return Study(side, side, config.sizes, config.seed, gates.level)


def _await(source: Source, run: RunDirectory) -> None:
    """Stop, with all that is decided so far on disk, where the fresh set is still to be made."""
    lacking = source.fresh_missing()
    if not lacking:
        return
    raise Awaiting(
        f"{' and '.join(lacking)}: not there yet. Gates and step 1 are fixed in {run.path} "
        f"({protocol.FILE}); make the fresh set, then go on with threearc falsify --run {run.path}"
    )


def _note(run: RunDirectory, name: str, found: Evidence, identity: Identity) -> None:
    run.extend_manifest(**{name: found.described, "model": identity.to_json()})


def _await_other(other: Source | None, run: RunDirectory) -> None:
    lacking = () if other is None else other.fresh_missing()
    if lacking:
        raise Awaiting(
            f"{' and '.join(lacking)}: not there yet. Gates and steps 1 to 4 are in {run.path}; "
            f"make it, then go on with threearc falsify --run {run.path}"
        )


def _note_other(run: RunDirectory, other: Source, found: Found) -> None:
    run.extend_manifest(replication={"model": other.identity().to_json(),
                                     **(found.get("sources") or {})})  # fmt: skip


def _replication(config: FalsifyConfig, run: RunDirectory) -> Source | None:
    """Step 5's source. Which of its fresh files were not there with the gates is written down."""
    if config.replication is not None:
        return FinishedRun(config.replication, "--replication")
    if config.replication_features is None:
        return None
    files = files_of(config, "replication_")
    if AWAITED_OTHER not in run.manifest():
        lacking = Own(files, config.axis, config.untruncated).fresh_missing()
        run.extend_manifest(**{AWAITED_OTHER: list(lacking)})
    return Own(files, config.axis, config.untruncated, run.manifest()[AWAITED_OTHER])


def _sha256_of(config: FalsifyConfig) -> str:
    """Of every file that step 5 reads."""
    digest = hashlib.sha256()
    for name in ("replication", *REPLICATION):
        path = getattr(config, name)
        if path is None:
            continue
        of_run = [path / METRICS, path / LABELS, *(path_of(path, one) for one in SETS)]
        for file in of_run if name == "replication" else candidates(path):
            digest.update(f"{name} {file}\n{file_sha256(file)}\n".encode())
    return digest.hexdigest()


def _replicated(other: Source | None, mine: Source, like: Study, gates: Gates) -> Found:
    """Step 5: the other model's own training and fresh set, by the gates of step 2."""
    if other is None:
        return protocol.not_run(Step.REPLICATION, "no other model was given (--replication)")
    train = other.train()
    identity = other.identity()
    told = {"model": identity.to_json(), "made_by": dict(train.made_by),
            "unlike": unlike(mine.train(), train)}  # fmt: skip
    if common_rows(mine.train(), train):
        raise UserError(
            f"--replication: {identity.name} has rows of features that are those of "
            f"{mine.identity().name}; give another model's"
        )
    axis = other.axis()
    why = _no_replication(mine.identity(), identity) or _other_axis(mine.axis(), axis)
    if why is not None:
        return protocol.not_run(Step.REPLICATION, why, **told)
    fresh = other.fresh()
    both = study_of(train, fresh, axis, like)
    faults = [*other.faults(), *_unfit(train, fresh, axis, gates)]
    if faults:
        return protocol.not_run(
            Step.REPLICATION, f"its instrument failed: {', '.join(faults)}", **told
        )
    found = steps.in_every_reading(both, gates, Step.REPLICATION)
    own = steps.training(both, gates, grouped=False)
    cliff = bool(claims.cliff(both, gates.test.alpha))
    ends_known = train.ends_known and fresh.ends_known
    if found["state"] in (GateState.PASSED.value, GateState.FAILED.value) and not ends_known:
        found = {**found, "state": GateState.NOT_DECIDABLE.value,
                 "reason": "how its answers ended is not known"}  # fmt: skip
    sources = {"train": train.described, "fresh": fresh.described}
    return {**found, **told, "no_signal": own["no_signal"], "training_state": own["state"],
            "cliff": cliff, "axis": axis, "ends_known": ends_known,
            "sources": sources}  # fmt: skip


def _no_replication(mine: Identity, other: Identity) -> str | None:
    """Why another model's states replicate nothing; None where they may."""
    if mine.fingerprint is not None and mine.fingerprint == other.fingerprint:
        return f"the other states are those of the same model ({other.name})"
    if mine.model is not None and mine.model == other.model:
        return f"the other states are those of the same model ({other.model})"
    for one in (mine, other):
        if one.family is None:
            return (
                f"the family of {one.name} is not known, and another family is asked for: say it "
                "in the features' file (family)"
            )
    if mine.family == other.family:
        return f"both models are of the family {other.family}; another family is asked for"
    return None


def _other_axis(mine: str, other: str) -> str | None:
    """Why labels of the other model are not of what is claimed; the usual names are of one."""
    if mine == other or {mine, other} <= set(USUAL):
        return None
    return f"its labels are of {other}, and the claim is about {mine}"


def _unfit(train: Evidence, fresh: Evidence, axis: str, gates: Gates) -> list[ReasonCode]:
    """Faults of any source: labels that are missing, items that are others again."""
    found, most = [], gates.validity.max_missing_share
    if steps.unlabelled(train, fresh, axis, gates) is not None:
        found.append(ReasonCode.INFRASTRUCTURE)
    if any(repeated(one) > most * len(one.item_ids) for one in (train, fresh)):
        found.append(ReasonCode.REPEATED_ITEMS)
    return found


def _require_pooled(train: Evidence, config: FalsifyConfig) -> None:
    """A name that is none would have step 4 left out."""
    name, why = steps.pooled_name(train.x, config.pooled)
    if name is None and config.pooled is not None:
        raise UserError(why)


def _set(found: Evidence, axis: str) -> Found:
    labels = found.labels[axis]
    return {
        "n": len(labels),
        "right": labels.count(True),
        "wrong": labels.count(False),
        "without_label": found.missing(axis),
        "without_features": found.without_features,
        "without_prompt": found.without_prompt,
        "cut": int(found.cut.sum()) if found.ends_known else None,
        "ends_known": found.ends_known,
        "axes": sorted(found.labels),
        "features": sorted(found.x),
        "made_by": dict(found.made_by),
        "repeated_rows": repeated(found),
    }
