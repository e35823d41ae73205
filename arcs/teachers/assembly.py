"""From answers to records of the one schema (arcs/training_data), each with its provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from arcs.teachers.filters import (
    HELD_AGAINST,
    TRAINED,
    Context,
    Dropped,
    Made,
    apply,
    drop,
)
from arcs.teachers.plan import Wanted, record_id, stops_at, without_verdict
from arcs.teachers.replies import Replies, Stored
from arcs.teachers.roster import Roster
from arcs.teachers.stages import Stages
from arcs.training_data import Preference, Record
from evals.chef.verifier import verify


@dataclass(frozen=True)
class Assembled:
    """Records of one type that passed, and those that did not."""

    made: list[Made]
    records: list[BaseModel]
    dropped: list[Dropped]


def assemble(
    records: Sequence[Wanted],
    stages: Stages,
    roster: Roster,
    replies: Replies,
    failed: Mapping[str, str],
    context: Context,
    *,
    domain: str,
) -> Assembled:
    """Turn answers into records, dropping those that lack one or that a rule leaves out.

    ``failed``: job -> why it has no answer. ``domain``: the records' ``kind``.
    """
    whole, dropped = [], []
    for wanted in records:
        done = replies.of(wanted.id)
        reason = _lacks(wanted, stages, done, failed)
        if reason is not None:
            dropped.append(drop(wanted, done, *reason))
        else:
            whole.append(_made(wanted, done))
    kept, left_out = apply(whole, context)
    dropped += left_out
    made, rows = [], []
    for one in kept:
        try:
            rows.append(_record(one, stages, roster, domain, replies))
            made.append(one)
        except ValidationError as error:  # the schema has the last word
            first = error.errors()[0]["msg"].removeprefix("Value error, ")
            dropped.append(drop(one.wanted, one.done, "schema", first))
    return Assembled(made, rows, dropped)


def _lacks(
    wanted: Wanted, stages: Stages, done: Mapping[str, Stored], failed: Mapping[str, str]
) -> tuple[str, str] | None:
    stopped = stops_at(wanted, done)
    if stopped is not None:
        return stopped
    for stage in stages.chain(wanted.kind):
        if stage.name not in done:
            reason = failed.get(f"{wanted.id}/{stage.name}")
            if reason is not None:
                return "failed", f"{stage.name}: {reason}"
            return "incomplete", f"{stage.name} was not asked"
    return None


def _made(wanted: Wanted, done: Mapping[str, Stored]) -> Made:
    last = done[TRAINED[wanted.kind]].answer.text
    if wanted.kind == "counterexample":
        return Made(wanted, done, response=wanted.given["synthesizer"], other=last)
    against = HELD_AGAINST.get(wanted.kind)
    return Made(wanted, done, last, done[against].answer.text if against else "")


def _record(made: Made, stages: Stages, roster: Roster, domain: str, replies: Replies) -> BaseModel:
    wanted, done = made.wanted, made.done
    common: dict[str, Any] = {
        "id": wanted.id, "type": wanted.kind, "prompt": wanted.prompt.prompt, "kind": domain,
        "category": wanted.prompt.category or None, "difficulty": wanted.prompt.difficulty,
        "split": wanted.prompt.split or "train",
        "provenance": _provenance(made, stages, roster, replies),
    }  # fmt: skip
    if wanted.kind == "counterexample":
        error = done["error_plan"].answer.text
        return Preference(**common, chosen=made.response, rejected=made.other, error=error)
    if wanted.kind == "failure_trace":
        critique = without_verdict(done["critic"].answer.text) or done["critic"].answer.text
        return Record(**common, response=made.response, attempt=made.other, critique=critique)
    return Record(**common, response=made.response)


def _provenance(made: Made, stages: Stages, roster: Roster, replies: Replies) -> dict[str, Any]:
    """Who wrote what of a record; the run's manifest says the rest.

    ``licences``: of all that wrote a part of it, the prompt's author and, of a pair, the stages of
    the good answer as well.
    """
    by_stage = {}
    for name, stored in sorted(made.done.items()):
        teacher = roster.teachers[stored.teacher]
        by_stage[name] = {
            "teacher": stored.teacher, "model": teacher.model, "licence": teacher.licence,
            "answered_by": stored.answer.model, "finish_reason": stored.answer.finish_reason,
        }  # fmt: skip
    licences = {one["licence"] for one in by_stage.values()}
    writer = roster.of("prompt_writer")
    if writer is not None and made.wanted.prompt.generator == roster.teachers[writer].model:
        licences.add(roster.teachers[writer].licence)
    found: dict[str, Any] = {
        "by": "threearc data generate", "stages": by_stage, "stages_sha256": stages.sha256,
        "prompt_id": made.wanted.prompt.id, "prompt_by": made.wanted.prompt.generator,
        "verifier": verify(made.response).to_json(),
    }  # fmt: skip
    if made.wanted.kind == "counterexample":
        gold = record_id("gold", made.wanted.prompt.id)
        licences |= {roster.teachers[one.teacher].licence for one in replies.of(gold).values()}
        found["chosen_from"] = gold
        found["rejected_verifier"] = verify(made.other).to_json()
    return {**found, "licences": sorted(licences)}
