"""The prompts of a run: written, compared, split and stored before any of them is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arcs.data.kinds import KINDS
from arcs.data.lines import read_good
from arcs.data.splitting import Plan, split
from arcs.data.writing import jsonl
from arcs.held_out import held_out_sets
from arcs.runs import RunDirectory
from arcs.teachers.asking import Question
from arcs.teachers.config import GenerateConfig
from arcs.teachers.prompts import (
    CALL,
    Cell,
    Draft,
    Rejected,
    Set,
    author,
    cells,
    from_templates,
    select,
    written,
)
from arcs.teachers.session import Session
from evals.items.recorded import PromptItem
from evals.overlap import near_duplicates
from models.errors import UserError
from models.files import canonical_json, write_atomically

PROMPTS, FRESH, REJECTED = "prompts.jsonl", "fresh_prompts.jsonl", "rejected_prompts.jsonl"
ROUNDS = 3
"""How often a teacher is asked for what is still missing."""
SPARE = 4
"""Fillings of templates that are tried for each prompt wanted."""
_OURS = ("boundary-", "fresh-")
"""What ids of generated prompts begin with, but for gold's."""
_WRITERS: Mapping[Set, tuple[str, str]] = {
    "gold": ("prompt_writer", "write_prompts"),
    "boundary": ("prompt_writer", "write_boundary_prompts"),
    "fresh": ("fresh_writer", "write_fresh_prompts"),
}


@dataclass(frozen=True)
class Prompts:
    """Prompts of a run, as stored."""

    gold: tuple[PromptItem, ...]
    boundary: tuple[PromptItem, ...]
    fresh: tuple[PromptItem, ...]
    rejected: tuple[Mapping[str, Any], ...]

    def to_json(self, config: GenerateConfig) -> dict[str, Any]:
        """Counts for ``metrics.json``."""
        by_rule: dict[str, int] = {}
        for one in self.rejected:
            by_rule[one["rule"]] = by_rule.get(one["rule"], 0) + 1
        trained = [*self.gold, *self.boundary]
        return {
            "wanted": {
                name: config.size(name, len(self.gold)) for name in ("gold", "boundary", "fresh")
            },
            "found": {
                "gold": len(self.gold), "boundary": len(self.boundary), "fresh": len(self.fresh),
            },
            "rejected": dict(sorted(by_rule.items())),
            "split": {
                part: sum(one.split == part for one in trained) for part in ("train", "held_out")
            },
            "generators": sorted({one.generator for one in trained}),
            "fresh_generators": sorted({one.generator for one in self.fresh}),
            "fresh_near_duplicates": len(
                near_duplicates([o.prompt for o in self.fresh], [o.prompt for o in trained])
            ),
            "generator_not_independent": _dependent(trained, self.fresh),
        }  # fmt: skip


def _dependent(trained: Sequence[PromptItem], fresh: Sequence[PromptItem]) -> bool | None:
    """Whether one author wrote prompts of both; None without a fresh set or an author."""
    mine, theirs = ({one.generator for one in items} for items in (trained, fresh))
    if not mine or not theirs or "" in mine | theirs:
        return None
    return not mine.isdisjoint(theirs)


def prompts_of(
    config: GenerateConfig, run: RunDirectory, session: Session, open_all: Callable[[], None]
) -> Prompts:
    """The run's prompts: read where they are stored, else made, split and stored.

    ``open_all`` opens the teachers; called before anything is written, so that a mistake in one
    leaves no prompts behind. Raises UserError as the teachers, and where there are too few to
    split.
    """
    path = run.path / PROMPTS
    if not path.exists():
        _make(config, run, session, open_all)
    stored = read_good(path, KINDS["prompt"]).records
    fresh = run.path / FRESH
    return Prompts(
        tuple(one for one in stored if one.set == "gold"),
        tuple(one for one in stored if one.set == "boundary"),
        read_good(fresh, KINDS["prompt"]).records if fresh.stat().st_size else (),
        tuple(run.json_lines(REJECTED).records),
    )


def _make(
    config: GenerateConfig, run: RunDirectory, session: Session, open_all: Callable[[], None]
) -> None:
    known = {w: f"{name}: {item}" for name, asked in held_out_sets().items()
             for item, wordings in asked.items() for w in wordings}  # fmt: skip
    rejected: list[Rejected] = []
    gold: list[PromptItem] = []
    taken: list[Draft] = []
    if config.prompts is not None:
        gold = _own(config, known)
        taken = [Draft("gold", one.category, "medium", one.prompt) for one in gold]
    open_all()
    drafts: list[Draft] = []
    sets: tuple[Set, ...] = ("boundary",) if config.prompts is not None else ("gold", "boundary")
    for name in sets:
        found, left_out = _drafts(name, config, session, [*taken, *drafts], known)
        drafts += found
        rejected += left_out
    items = [*gold, *_items(drafts, session, config.seed)]
    known |= {one.prompt: one.id for one in items}
    fresh, left_out = _drafts("fresh", config, session, [], known)
    rejected += left_out
    plan = Plan((1 - config.held_out, config.held_out), ("train", "held_out"), config.seed,
                stratify="category" if all(one.category for one in items) else None)  # fmt: skip
    where = split(items, KINDS["prompt"], plan).where
    items = [one.model_copy(update={"split": where[one.id]}) for one in items]
    lines = "".join(canonical_json(_rejected(one)) + "\n" for one in rejected)
    write_atomically(run.path / REJECTED, lines.encode())
    write_atomically(run.path / FRESH, jsonl(_items(fresh, session, config.seed)))
    write_atomically(run.path / PROMPTS, jsonl(items))  # last: where it is, all is


def _own(config: GenerateConfig, known: Mapping[str, str]) -> list[PromptItem]:
    """The user's prompts. Raises UserError for one that is kept for evaluation."""
    assert config.prompts is not None
    items = read_good(config.prompts, KINDS["prompt"]).records
    items = items[: config.gold] if config.gold is not None else items
    taken = next((one.id for one in items if one.id.startswith(_OURS) or "/" in one.id), None)
    if taken is not None:
        raise UserError(
            f"--prompts {config.prompts}: id {taken!r}: ids that begin with {' or '.join(_OURS)} "
            "are of prompts made here, and / parts a record from its stage; name it otherwise"
        )
    shared = near_duplicates([one.prompt for one in items], list(known))
    if shared:
        other = list(known.values())[shared[0].second]
        raise UserError(
            f"--prompts {config.prompts}: {items[shared[0].first].id} is a prompt of {other}, kept "
            "for evaluation; remove it"
        )
    if config.held_out and any(one.split for one in items):
        raise UserError(f"--prompts {config.prompts}: leave the splits out, they are made here")
    config.require_prompts(len(items))
    return [one.model_copy(update={"set": "gold"}) for one in items]


def _items(drafts: Sequence[Draft], session: Session, seed: int) -> list[PromptItem]:
    """Drafts with ids, mixed, so that a prefix of the file is like the whole (PAPER.md 8.4 L1)."""
    found: list[PromptItem] = []
    for name, prefix in (("gold", ""), ("boundary", _OURS[0]), ("fresh", _OURS[1])):
        mine = [one for one in drafts if one.set == name]
        order = np.random.default_rng([seed, len(name)]).permutation(len(mine))
        found += [
            PromptItem(
                id=f"{prefix}{number:04d}", prompt=mine[i].text, set=name,
                category=mine[i].category,
                difficulty=None if name == "boundary" else mine[i].difficulty,
                generator=_generator(mine[i].set, session),
            )
            for number, i in enumerate(order, start=1)
        ]  # fmt: skip
    return found


def _generator(name: Set, session: Session) -> str:
    teacher = session.roster.of(_WRITERS[name][0])
    return author(name) if teacher is None else session.roster.teachers[teacher].model


def _drafts(
    name: Set,
    config: GenerateConfig,
    session: Session,
    taken: Sequence[Draft],
    known: Mapping[str, str],
) -> tuple[list[Draft], list[Rejected]]:
    wanted = cells(name, config.size(name))
    teacher = session.roster.of(_WRITERS[name][0])
    if teacher is None:
        offered = {one: from_templates(one, config.seed, SPARE * one.n + SPARE) for one in wanted}
        return select(offered, taken, known)
    offered = {one: [] for one in wanted}
    unread: list[Rejected] = []
    for number in range(ROUNDS):
        kept, _ = select(offered, taken, known)
        missing = {
            one: one.n - sum((d.category, d.difficulty) == (one.category, one.difficulty)
                             for d in kept)
            for one in wanted
        }  # fmt: skip
        calls = {q.job: (q, one) for one, n in missing.items()
                 for q in _calls(one, n, number, session, config.seed)}  # fmt: skip
        if not calls:
            break
        asked = [(teacher, q) for q, _ in calls.values() if session.replies.get(q.job) is None]
        if asked:
            session.wave(f"{name} prompts, round {number + 1}", asked)
        for job, (_, cell) in calls.items():
            stored = session.replies.get(job)
            texts = written(stored.answer.text) if stored is not None else None
            if texts is None:
                said = session.failed.get(job) or (stored.answer.text if stored else "")
                draft = Draft(cell.set, cell.category, cell.difficulty, said)
                unread.append(Rejected(draft, "unreadable", "no JSON array of texts"))
                continue
            offered[cell] += [Draft(cell.set, cell.category, cell.difficulty, t) for t in texts]
    kept, rejected = select(offered, taken, known)
    _require_answers(name, session, short=sum(one.n for one in wanted) - len(kept))
    return kept, [*unread, *rejected]


def _require_answers(name: Set, session: Session, *, short: int) -> None:
    """Raise UserError where prompts are missing that an answer may still bring: once they are
    stored, nobody asks again."""
    waiting = sorted(job for job in session.may_come if job.startswith(f"prompts-{name}-"))
    if short and waiting:
        raise UserError(
            f"{name} prompts: {short} are missing, and {len(waiting)} requests for them had no "
            f"answer ({waiting[0]}: {session.failed[waiting[0]]}); what was answered is kept: "
            "continue when the teacher answers again"
        )


def _calls(cell: Cell, n: int, number: int, session: Session, seed: int) -> list[Question]:
    """Questions for ``n`` prompts of a cell, at most CALL at a time."""
    stage = session.stages.by_name[_WRITERS[cell.set][1]]
    teacher = session.roster.teachers[str(session.roster.of(stage.role))]
    found = []
    for part, start in enumerate(range(0, n, CALL)):
        shown = from_templates(cell, seed + number, 2)
        texts = {
            "n": str(min(CALL, n - start)), "category": cell.category, "about": cell.about,
            "difficulty": cell.difficulty, "examples": "\n".join(f"- {d.text}" for d in shown),
        }  # fmt: skip
        job = f"prompts-{cell.set}-{cell.category}-{cell.difficulty}-{number}-{part}/{stage.name}"
        limit = teacher.limit(stage.max_tokens)
        heat = teacher.heat(stage.temperature)
        found.append(Question(job, stage.messages(texts), heat, limit))
    return found


def _rejected(one: Rejected) -> dict[str, Any]:
    return {
        "set": one.draft.set, "category": one.draft.category, "difficulty": one.draft.difficulty,
        "prompt": one.draft.text, "rule": one.rule, "detail": one.detail,
    }  # fmt: skip


def folder_prompts(path: Path) -> tuple[list[PromptItem], list[PromptItem]]:
    """Prompts and fresh prompts of a finished or begun run. Raises UserError."""
    fresh = path / FRESH
    return (
        list(read_good(path / PROMPTS, KINDS["prompt"]).records),
        list(read_good(fresh, KINDS["prompt"]).records) if fresh.stat().st_size else [],
    )
