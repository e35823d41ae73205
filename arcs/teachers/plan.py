"""Which records are to be made, and which of their stages can be asked next."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from arcs.teachers.asking import Question
from arcs.teachers.replies import Replies, Stored
from arcs.teachers.roster import Roster
from arcs.teachers.stages import Stage, Stages
from evals.items.recorded import PromptItem

Kind = Literal["gold", "failure_trace", "counterexample", "boundary"]
PREFIX: Mapping[Kind, str] = {
    "gold": "gold", "failure_trace": "trace", "counterexample": "pair", "boundary": "boundary",
}  # fmt: skip
_VERDICT = re.compile(r"^\W*VERDICT\s*:\W*(WRONG|RIGHT)\W*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Wanted:
    """One record to be made."""

    id: str
    kind: Kind
    prompt: PromptItem
    given: Mapping[str, str]
    """Texts from other records that its stages see: a pair's good answer."""


def wanted(kind: Kind, prompts: Sequence[PromptItem]) -> list[Wanted]:
    """A record of each prompt; its number is the prompt's."""
    return [Wanted(record_id(kind, one.id), kind, one, {}) for one in prompts]


def record_id(kind: Kind, prompt_id: str) -> str:
    """Id of the record of one type made of a prompt."""
    return f"{PREFIX[kind]}-{prompt_id.removeprefix('boundary-')}"


def questions(
    records: Sequence[Wanted], stages: Stages, roster: Roster, replies: Replies
) -> Iterator[tuple[str, Question]]:
    """Teacher and question of every stage that can be asked now."""
    for record in records:
        done = replies.of(record.id)
        texts = texts_of(record, done, stages)
        for stage in stages.chain(record.kind):
            teacher, question = _question(record, stage, roster, texts)
            if teacher is None or question is None:
                continue
            if stage.name in done:
                replies.require_same(question, teacher)
            elif stops_at(record, done) is None:
                yield teacher, question


def _question(
    record: Wanted, stage: Stage, roster: Roster, texts: Mapping[str, str]
) -> tuple[str | None, Question | None]:
    name = roster.of(stage.role)
    if name is None or not set(stage.inputs) <= set(texts):
        return None, None
    teacher = roster.teachers[name]
    budget = teacher.limit(stage.max_tokens)
    job = f"{record.id}/{stage.name}"
    return name, Question(job, stage.messages(texts), teacher.heat(stage.temperature), budget)


def texts_of(record: Wanted, done: Mapping[str, Stored], stages: Stages) -> dict[str, str]:
    """What the stages of a record can see."""
    del stages
    found = {"prompt": record.prompt.prompt, **record.given}
    found.update({name: one.answer.text for name, one in done.items() if not one.empty})
    if "adversarial_serial" in found:
        found["adversarial"] = found["adversarial_serial"]
    return found


def stops_at(record: Wanted, done: Mapping[str, Stored]) -> tuple[str, str] | None:
    """Rule and detail for which no further stage of a record is asked, or None."""
    empty = sorted(name for name, one in done.items() if one.empty)
    if empty:
        return "empty", f"{empty[0]} said nothing"
    if record.kind == "failure_trace" and "student" in done and done["student"].unfinished:
        return "unfinished", "student"
    if record.kind == "failure_trace" and "critic" in done:
        verdict = found_wrong(done["critic"].answer.text)
        if verdict is None:
            return "verdict_unparsed", "the critic's last line is no verdict"
        if not verdict:
            return "no_failure", "the critic finds the attempt right"
    if record.kind == "counterexample" and "planter" in done and done["planter"].unfinished:
        return "unfinished", "planter"
    return None


def found_wrong(critique: str) -> bool | None:
    """Whether a critique's verdict is WRONG; None where it has none, or both."""
    found = {word.upper() for word in _VERDICT.findall(critique)}
    return None if len(found) != 1 else found == {"WRONG"}


def without_verdict(critique: str) -> str:
    """A critique's text alone."""
    return _VERDICT.sub("", critique).strip()
