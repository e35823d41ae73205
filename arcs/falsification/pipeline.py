"""Gates first, then training, then fresh data, then another model; every step is kept.

gates -> training set, step 1 -> fresh set, steps 2 to 4, modes -> replication, step 5 -> verdict
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arcs.arc3 import claims, probing
from arcs.arc3.kept import Kept
from arcs.arc3.probing import Study
from arcs.claims import ReasonCode
from arcs.estimates import GateState
from arcs.falsification import edited, modes, protocol, steps
from arcs.falsification.config import FalsifyConfig, flag_of
from arcs.falsification.evidence import (
    Evidence,
    Identity,
    Source,
    common_rows,
    side_of,
    study_of,
)
from arcs.falsification.finished_run import FinishedRun
from arcs.falsification.own import EXPLORATORY, Files, Own
from arcs.falsification.protocol import NOT_RUN, Step
from arcs.falsification.verdict import claims_of
from arcs.gates import DEFAULT_GATES, Gates, load_gates
from arcs.progress import Bar, Reporter
from arcs.runs import METRICS, RunDirectory
from models.errors import UserError

STEPS = "steps.jsonl"
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
    if config.adapter is not None:
        edited.make(config, run, reporter)
    store = run.json_lines(STEPS)
    with run.timed("steps"), reporter.bar("steps", _parts(config), "steps") as bar:
        source = _source(config, run)
        train = source.train()
        axis = source.axis()
        _note(run, "train", train, source.identity())
        study = _training_study(train, axis, config, gates)
        found: dict[str, Found] = {}
        keep = _keeper(Kept.of(study, store), found, bar)
        keep(Step.TRAINING, lambda: steps.training(study, gates, train.groups is not None))

        _await(source, run)
        protocol.require_unchanged(run, sha256)
        fresh = source.fresh()
        _note(run, "fresh", fresh, source.identity())
        both = study_of(train, fresh, axis, study)
        keep = _keeper(Kept.of(both, store), found, bar)
        keep(Step.FRESH, lambda: steps.fresh(both, gates))
        keep(Step.AXES, lambda: steps.axes(train, fresh, axis, both, gates))
        keep(Step.POOLED, lambda: steps.pooled(both, gates, config.pooled))
        keep(MODES, lambda: {"modes": modes.all_modes(train, fresh, both, found, gates)})
        other = _replication(config)
        keep(Step.REPLICATION, lambda: _replicated(other, source, study, gates))
        if config.adapter is not None:
            keep(BASE, lambda: edited.base_beside(run.path, gates, study))
        if other is not None:
            _note_other(run, other, found[Step.REPLICATION])
    faults = [*source.faults(), *_missing(train, fresh, axis, gates)]
    judged = claims_of(
        found, found[MODES]["modes"], list(dict.fromkeys(faults)), gates, axis=axis,
        ends_known=train.ends_known and fresh.ends_known,
    )  # fmt: skip
    state, why = registered(source, config, gates)
    metrics = {
        "schema_version": SCHEMA,
        "model": source.identity().to_json(),
        "axis": axis,
        "registration": {"state": state, "why": why, "gates_file_sha256": sha256,
                         "gates_sha256": gates.sha256},
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


def registered(source: Source, config: FalsifyConfig, gates: Gates) -> tuple[str, str]:
    """What the order of gates and answers is worth, and why."""
    state, why = source.registration(gates.sha256)
    if state == EXPLORATORY or not config.chosen:
        return state, why
    if config.source is not None:
        return EXPLORATORY, "axis, pooling, gates or seed were chosen after the run"
    if config.adapter is not None:
        return EXPLORATORY, (
            "pooling, gates or seed were chosen, and whether these questions were asked before is "
            "not known"
        )
    return state, why


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
    awaited = run.manifest().get("awaited", ())
    return Own(_files(config, ""), config.axis, config.untruncated, awaited)


def _files(config: FalsifyConfig, prefix: str) -> Files:
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
    if "awaited" not in run.manifest():  # what was not there at first is what counts
        run.extend_manifest(awaited=list(lacking))
    raise Awaiting(
        f"{' and '.join(lacking)}: not there yet. Gates and step 1 are fixed in {run.path} "
        f"({protocol.FILE}); make the fresh set, then go on with threearc falsify --run {run.path}"
    )


def _note(run: RunDirectory, name: str, found: Evidence, identity: Identity) -> None:
    run.extend_manifest(**{name: found.described, "model": identity.to_json()})


def _note_other(run: RunDirectory, other: Source, found: Found) -> None:
    run.extend_manifest(replication={"model": other.identity().to_json(),
                                     **(found.get("sources") or {})})  # fmt: skip


def _replication(config: FalsifyConfig) -> Source | None:
    if config.replication is not None:
        return FinishedRun(config.replication, "--replication")
    if config.replication_features is None:
        return None
    return Own(_files(config, "replication_"), config.axis, config.untruncated)


def _replicated(other: Source | None, mine: Source, like: Study, gates: Gates) -> Found:
    """Step 5: the other model's own training and fresh set, by the gates of step 2."""
    if other is None:
        return protocol.not_run(Step.REPLICATION, "no other model was given (--replication)")
    train = other.train()
    identity = other.identity()
    told = {"model": identity.to_json()}
    if common_rows(mine.train(), train):
        raise UserError(
            f"--replication: {identity.name} has rows of features that are those of "
            f"{mine.identity().name}; give another model's"
        )
    why = _same(mine.identity(), identity)
    if why is not None:
        return protocol.not_run(Step.REPLICATION, why, **told)
    lacking = other.fresh_missing()
    if lacking:
        raise UserError(f"{lacking[0]}: no such file")
    axis = other.axis()
    fresh = other.fresh()
    both = study_of(train, fresh, axis, like)
    faults = [*other.faults(), *_missing(train, fresh, axis, gates)]
    if faults:
        return protocol.not_run(
            Step.REPLICATION, f"its instrument failed: {', '.join(faults)}", **told
        )
    found = steps.held_out(both, gates, Step.REPLICATION)
    no_signal = found["state"] == NOT_RUN or (probing.permuted(both)["p_value"] >= gates.test.alpha)
    cliff = bool(claims.cliff(both, gates.test.alpha))
    readings = [steps.held_out(one, gates, Step.REPLICATION)["state"]
                for one in claims.readings(both).values()]  # fmt: skip
    if found["state"] == GateState.PASSED.value and set(readings) - {GateState.PASSED.value}:
        found = {**found, "state": GateState.NOT_DECIDABLE.value,
                 "reason": "it passes only as its cut answers were taken"}  # fmt: skip
    ends_known = train.ends_known and fresh.ends_known
    if found["state"] == GateState.PASSED.value and not ends_known:
        found = {**found, "state": GateState.NOT_DECIDABLE.value,
                 "reason": "how its answers ended is not known"}  # fmt: skip
    sources = {"train": train.described, "fresh": fresh.described}
    return {**found, **told, "no_signal": no_signal, "cliff": cliff, "axis": axis,
            "ends_known": ends_known, "sources": sources}  # fmt: skip


def _same(mine: Identity, other: Identity) -> str | None:
    """Why another model's states replicate nothing; None where they may."""
    if mine.fingerprint is not None and mine.fingerprint == other.fingerprint:
        return f"the other states are those of the same model ({other.name})"
    if mine.family is not None and mine.family == other.family:
        return f"both models are of the family {other.family}; another family is asked for"
    return None


def _missing(train: Evidence, fresh: Evidence, axis: str, gates: Gates) -> tuple[ReasonCode, ...]:
    limit = gates.validity.max_missing_share
    over = [found.missing(axis) > limit * len(found.item_ids) for found in (train, fresh)]
    return (ReasonCode.INFRASTRUCTURE,) if any(over) else ()


def _set(found: Evidence, axis: str) -> Found:
    labels = found.labels[axis]
    return {
        "n": len(labels),
        "right": labels.count(True),
        "wrong": labels.count(False),
        "without_label": found.missing(axis),
        "without_features": found.without_features,
        "cut": int(found.cut.sum()) if found.ends_known else None,
        "ends_known": found.ends_known,
        "axes": sorted(found.labels),
        "features": sorted(found.x),
    }
