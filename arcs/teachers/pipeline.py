"""One generation: prompts, answers, pairs, filters, files. Every step goes on where it stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache as once
from typing import Any

from pydantic import BaseModel

from arcs.data.sets import META
from arcs.data.writing import SCHEMA, jsonl
from arcs.gates import Gates, load_gates
from arcs.progress import Reporter
from arcs.runs import METRICS, RunDirectory, canonical_json
from arcs.teachers.asking import Asked
from arcs.teachers.assembly import Assembled, assemble
from arcs.teachers.config import GenerateConfig
from arcs.teachers.endpoint_teacher import EndpointTeacher, allowances
from arcs.teachers.engine_teacher import EngineTeacher, opened_backend, opened_gguf
from arcs.teachers.filters import Context, Dropped, counts
from arcs.teachers.plan import Kind, Wanted, record_id, wanted
from arcs.teachers.prompting import Prompts, prompts_of
from arcs.teachers.purse import Purse, keep_budget, purse_of
from arcs.teachers.replies import Replies
from arcs.teachers.roster import PRESETS, Roster, described, load_roster, require_licence
from arcs.teachers.session import Session
from arcs.teachers.stages import WRITERS, Stages, load_stages
from evals.chef import validation
from models import files
from models.errors import UserError
from models.store import prepare

RECORDS = "records"
DROPPED = "dropped.jsonl"
ROSTERS = "rosters.jsonl"
"""Every teacher file that gave an answer, whole: addresses and prices may change in it. A reply
names its own by sha-256."""
FILES: Mapping[Kind, str] = {
    "gold": "gold.jsonl", "failure_trace": "failure_traces.jsonl",
    "counterexample": "counterexamples.jsonl", "boundary": "boundary.jsonl",
}  # fmt: skip
METRICS_SCHEMA = "threearc-data-generate-3"


def checked(config: GenerateConfig) -> tuple[Roster, str]:
    """The roster. Raises UserError for another licence, or a budget without prices."""
    roster, sha256 = load_roster(config.teachers)
    if config.require_licence is not None:
        require_licence(roster, config.require_licence)
    unpriced = [name for name, one in roster.used().items() if not one.priced]
    if config.budget is not None and unpriced:
        preset = PRESETS.get(config.teachers)
        where = "the teacher file" if preset is None else f"a copy of {preset}, for --teachers"
        raise UserError(
            f"--budget: no budget can be kept, {', '.join(unpriced)} have no prices; give each "
            f"usd_per_million_input and usd_per_million_output in {where}"
        )
    return roster, sha256


def run_generate(
    config: GenerateConfig,
    run: RunDirectory,
    reporter: Reporter,
    *,
    sleep: Callable[[float], object] | None = None,
) -> dict[str, Any]:
    """Generate into ``run`` and return its metrics. ``sleep``: of tests, between tries.

    Raises UserError as teachers do; what was answered until then is kept.
    """
    roster, roster_sha256 = checked(config)
    stages, gates = load_stages(serial=config.serial), load_gates()
    ranking = validation.shipped()
    score_used = ranking.share >= gates.verifier.ranked_right
    run.extend_manifest(
        roster=described(roster, whole=False),
        stages={"sha256": stages.sha256, "serial": stages.serial},
        gates=gates.to_json(),
        verifier={**ranking.to_json(), **validation.identity(), "used": score_used},
    )
    replies = Replies(run, _keeper(run, roster, roster_sha256))
    with ExitStack() as stack:
        purse = purse_of(run, config.budget, replies.booked(roster, config.budget))
        stack.callback(lambda: None if replies else purse.forget())
        if config.budget is not None:  # not before: one that is refused must not stay
            keep_budget(run, config.budget)
        opened = _opener(config, roster, run, reporter, stack, purse, sleep, replies)
        session = Session(roster, stages, replies, opened, reporter)

        def open_all() -> None:
            for name in _needed(config, roster, stages):
                opened(name)

        prompts = prompts_of(config, run, session, open_all)
        plans = plan(config, prompts)
        with run.timed("answers"):
            session.records("gold, traces, boundary", [
                *plans["gold"], *plans["failure_trace"], *plans["boundary"],
            ])  # fmt: skip
        context = Context(score_used)
        found: dict[Kind, Assembled] = {}
        for kind in ("gold", "failure_trace", "boundary"):
            found[kind] = assemble(
                plans[kind], stages, roster, replies, session.failed, context, domain=config.kind
            )
        pairs, without = _pairs(plans["counterexample"], found["gold"])
        with run.timed("pairs"):
            session.records("pairs", pairs)
        made = assemble(pairs, stages, roster, replies, session.failed, context, domain=config.kind)
        found["counterexample"] = Assembled(made.made, made.records, [*without, *made.dropped])
    failed = [(d.id, d.detail) for one in found.values() for d in one.dropped if d.rule == "failed"]
    may_come = sum(
        f"{id_}/{detail.partition(':')[0]}" in session.may_come for id_, detail in failed
    )
    metrics = {
        **_metrics(config, roster, plans, found, prompts, replies, gates, score_used),
        "failed": len(failed), "failed_may_come": may_come,
    }  # fmt: skip
    _write(run, roster, found, metrics)
    return metrics


def _keeper(run: RunDirectory, roster: Roster, sha256: str) -> Callable[[], str]:
    """Keeps the teacher file, whole, once it has an answer; gives its sha-256.

    Not before: a run begun by mistake holds nothing, so that it can be removed again.
    """

    def keep() -> str:
        used = run.json_lines(ROSTERS)
        if not used.records or used.records[-1]["sha256"] != sha256:
            used.append({"sha256": sha256, **described(roster)})
        return sha256

    return once(keep)


def _needed(config: GenerateConfig, roster: Roster, stages: Stages) -> list[str]:
    """Teachers that this run may ask, by name."""
    sizes = {"failure_trace": "failure_traces", "counterexample": "counterexamples",
             "boundary": "boundary"}  # fmt: skip
    kinds = ["gold", *(kind for kind, size in sizes.items() if config.size(size))]
    roles = {stage.role for kind in kinds for stage in stages.chain(kind)}
    return sorted({name for role in roles | WRITERS if (name := roster.of(role)) is not None})


def plan(config: GenerateConfig, prompts: Prompts) -> dict[Kind, list[Wanted]]:
    """Records wanted, of which prompts. Traces and pairs are of the first of gold's."""
    gold, n = list(prompts.gold), len(prompts.gold)
    return {
        "gold": wanted("gold", gold),
        "failure_trace": wanted("failure_trace", gold[: config.size("failure_traces", n)]),
        "counterexample": wanted("counterexample", gold[: config.size("counterexamples", n)]),
        "boundary": wanted("boundary", prompts.boundary),
    }


def _pairs(plans: Sequence[Wanted], gold: Assembled) -> tuple[list[Wanted], list[Dropped]]:
    """Pairs whose good answer passed, and those that have none: nothing is paid for these."""
    good = {one.wanted.id: one.response for one in gold.made}
    found, without = [], []
    for one in plans:
        chosen = good.get(record_id("gold", one.prompt.id))
        if chosen is None:
            without.append(
                Dropped(one.id, one.kind, "chosen_dropped", "its gold record was dropped",
                        one.prompt.id, one.prompt.prompt, {})
            )  # fmt: skip
        else:
            found.append(Wanted(one.id, one.kind, one.prompt, {"synthesizer": chosen}))
    return found, without


def _opener(
    config: GenerateConfig,
    roster: Roster,
    run: RunDirectory,
    reporter: Reporter,
    stack: ExitStack,
    purse: Purse | None,
    sleep: Callable[[float], object] | None,
    replies: Replies,
) -> Callable[[str], Asked]:
    """Teachers by name, each opened once, its identity written into the manifest."""
    found: dict[str, Asked] = {}
    shared = allowances(roster.used())

    def opened(name: str) -> Asked:
        if name not in found:
            teacher = roster.teachers[name]
            one: Asked
            if teacher.kind == "endpoint":
                one = EndpointTeacher(
                    name, teacher, purse=purse, sleep=sleep,
                    has_answered=name in replies.usage(), allowance=shared[name],
                )  # fmt: skip
            else:
                directory = prepare(teacher.model, say=reporter.say)
                make = opened_gguf if teacher.kind == "gguf" else opened_backend
                one = EngineTeacher(
                    teacher,
                    lambda: stack.enter_context(make(teacher, directory, reporter.say)),
                    seed=config.seed,
                )
            run.extend_manifest(**{f"teacher.{name}": one.describe()})
            found[name] = one
        return found[name]

    return opened


def _metrics(
    config: GenerateConfig,
    roster: Roster,
    plans: Mapping[Kind, Sequence[Wanted]],
    found: Mapping[Kind, Assembled],
    prompts: Prompts,
    replies: Replies,
    gates: Gates,
    score_used: bool,
) -> dict[str, Any]:
    ranking = validation.shipped()
    usage = replies.usage()
    return {
        "schema_version": METRICS_SCHEMA,
        "profile": config.profile,
        "prompts": prompts.to_json(config),
        "records": {
            kind: {
                "wanted": len(plans[kind]),
                "kept": len(one.records),
                "train": sum(row.split == "train" for row in one.records),  # type: ignore[attr-defined]
                "filters": [c.to_json() for c in counts(kind, len(plans[kind]), one.dropped)],
            }
            for kind, one in found.items()
        },
        "teachers": {
            name: {"model": one.model, "kind": one.kind, "licence": one.licence,
                   "roles": sorted(r for r, n in described(roster)["roles"].items() if n == name),
                   **usage.get(name, {"answers": 0})}
            for name, one in roster.used().items()
        },
        "licences": sorted({one.licence for one in roster.used().values()}),
        "usd": round(replies.spent(), 6),
        "verifier": {
            **ranking.to_json(), "gate": gates.verifier.ranked_right, "used": score_used,
        },
    }  # fmt: skip


def _write(
    run: RunDirectory,
    roster: Roster,
    found: Mapping[Kind, Assembled],
    metrics: Mapping[str, Any],
) -> None:
    folder = run.path / RECORDS
    folder.mkdir(exist_ok=True)
    for kind, one in found.items():
        content = jsonl(one.records)
        path = folder / FILES[kind]
        if not one.records:  # no file: a file without records is an error to every reader
            path.unlink(missing_ok=True)
            path.with_name(path.name + META).unlink(missing_ok=True)
            continue
        files.write_atomically(path, content)
        files.write_atomically(
            path.with_name(path.name + META),
            canonical_json(_meta(content, one.records, roster)).encode(),
        )
    dropped = [d for one in found.values() for d in one.dropped]
    lines = "".join(files.canonical_json(one.to_json()) + "\n" for one in dropped)
    files.write_atomically(run.path / DROPPED, lines.encode())
    run.write_json(METRICS, metrics)


def _meta(content: bytes, records: Sequence[BaseModel], roster: Roster) -> dict[str, Any]:
    licences = sorted({licence for row in records
                       for licence in row.provenance["licences"]})  # type: ignore[attr-defined]  # fmt: skip
    return {
        "schema": SCHEMA,
        "author": "teachers: " + ", ".join(one.model for one in roster.used().values()),
        "licence": " and ".join(licences),
        "sha256": hashlib.sha256(content).hexdigest(),
        "note": "licences are those of the teachers that wrote these records",
    }
