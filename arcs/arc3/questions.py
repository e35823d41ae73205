"""What is asked: a training set and a fresh set, fixed by item id before anything is generated.

The fresh questions are of *kinds* that the training set does not have (short answers, small tasks),
of another author's procedure (Chef), of names and wordings of their own (recall), or another
benchmark (HumanEval). Which kinds are fresh is decided by a hash of their names, so that no label,
model or seed has a say.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal, TypeVar

from arcs.arc1.problems import encode as encode_problem
from arcs.arc3.config import EXACT_MATCH
from backends.interface import Prompt
from evals.benchmarks import HUMANEVAL, SMALL, load_benchmark
from evals.exact_match import encode_question
from evals.humaneval.problems import Problem
from evals.items.load import built_in
from evals.items.recall import recall_items
from evals.items.records import ChefItem, Item, ShortAnswer, SmallTask
from evals.overlap import exact_pairs
from models.chat import ChatEncoder, EncodedPrompt, Message
from models.directory import ModelDirectory
from models.errors import UserError
from models.question_answer import QUESTION_ANSWER

SetName = Literal["train", "fresh"]
FRESH: SetName = "fresh"
SETS: tuple[SetName, ...] = ("train", FRESH)
FRESH_SHARE = 0.4
"""Least share of each topic's items whose kinds are fresh."""
SHORT_ANSWERS, RECALL = "short-answers", "recall"
T = TypeVar("T")
Asked = ShortAnswer | Problem | ChefItem
"""What questions are made of."""


@dataclass(frozen=True)
class Question:
    """One item as it is asked, encoded once for every engine."""

    item_id: str
    set: SetName
    topic: str
    group: str
    """Items of one group are never on both sides of a grouped split."""
    text: str
    """What a reader of the prompt sees, without instruction and template."""
    prompt: Prompt
    think_open: bool
    record: Any
    """Of :mod:`evals.items.records`, or a :class:`evals.humaneval.problems.Problem`."""

    @property
    def prompt_sha(self) -> str:
        """sha-256 (hex) of the prompt's ids."""
        return hashlib.sha256(",".join(map(str, self.prompt.ids)).encode()).hexdigest()


def questions(asked: str, encoder: ChatEncoder, limit: int | None) -> tuple[Question, ...]:
    """Training questions, then fresh ones; at most ``limit`` of each set.

    Raises UserError where an id or a text is in both sets: a probe would be tested on what it was
    fitted on.
    """
    made = _MAKERS[asked](encoder, limit)
    ids = [one.item_id for one in made]
    if len(set(ids)) < len(ids):
        raise UserError(f"{asked}: an item id is in both sets, or twice in one")
    sides = [[one for one in made if one.set == name] for name in SETS]
    same = exact_pairs(*([one.text for one in side] for side in sides))
    if same:
        pair = same[0]
        raise UserError(
            f"{asked}: {sides[0][pair.first].item_id} of the training set and "
            f"{sides[1][pair.second].item_id} of the fresh set ask the same"
        )
    return made


def encoder_of(directory: ModelDirectory, labels: str) -> ChatEncoder:
    """How a model is asked: short answers as plain text where it has no chat template.

    What is labelled otherwise needs a chat, and without a template that is a CapabilityError.
    """
    return ChatEncoder(directory, raw=QUESTION_ANSWER if labels == EXACT_MATCH else None)


def describe(made: Sequence[Question], asked: str) -> dict[str, Any]:
    """What was asked, for the manifest."""
    found: dict[str, Any] = {"items": asked}
    for name in SETS:
        side = [one for one in made if one.set == name]
        listed = "\n".join(f"{one.item_id} {one.prompt_sha}" for one in side)
        found[name] = {
            "n": len(side),
            "groups": dict(sorted(Counter(one.group for one in side).items())),
            "prompts_sha256": hashlib.sha256(listed.encode()).hexdigest(),
        }
    return found


def fresh_kinds(items: Iterable[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    """Which (topic, kind) are fresh: of each topic, in the order of a hash, until enough items.

    A kind of one name is one kind in all its topics: where the first of them (by name) puts it,
    the others have it too.
    """
    counts = Counter(items)
    chosen: set[tuple[str, str]] = set()
    side: dict[str, bool] = {}
    for topic in sorted({topic for topic, _ in counts}):
        kinds = sorted((key for key in counts if key[0] == topic), key=lambda k: _hash("/".join(k)))
        taken = sum(counts[key] for key in kinds if side.get(key[1]))
        total = sum(counts[key] for key in kinds)
        for key in kinds:
            if key[1] not in side:
                side[key[1]] = taken < FRESH_SHARE * total
                taken += counts[key] if side[key[1]] else 0
            if side[key[1]]:
                chosen.add(key)
    return frozenset(chosen)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _first(items: Sequence[T], limit: int | None) -> Sequence[T]:
    return items if limit is None else items[:limit]


def _short_answers(encoder: ChatEncoder, limit: int | None) -> tuple[Question, ...]:
    return tuple(
        _short(name, item, encoder)
        for name, side in short_answers(SHORT_ANSWERS, None).items()
        for item in _first(side, limit)  # topics are interleaved in the file
    )


def _recall(encoder: ChatEncoder, limit: int | None) -> tuple[Question, ...]:
    n = 240 if limit is None else limit
    return tuple(
        _short(name, item, encoder)
        for name, side in short_answers(RECALL, n).items()
        for item in side
    )


@cache
def short_answers(asked: str, generated: int | None) -> dict[SetName, Sequence[ShortAnswer]]:
    """Both sets of what is labelled by exact match, in the order in which a limit takes them.

    ``generated``: of recall, how many are made for each set.
    """
    if asked == RECALL:
        n = 0 if generated is None else generated
        return {name: recall_items(fresh=name == "fresh", n=n) for name in SETS}
    items = built_in("short_answers", ShortAnswer)
    fresh = fresh_kinds((item.domain, item.kind) for item in items)
    return {
        name: [item for item in items if ((item.domain, item.kind) in fresh) == (name == "fresh")]
        for name in SETS
    }


def group_of(item: ShortAnswer) -> str:
    """Its kind; those of generated questions have names of their own."""
    return f"{RECALL}/{item.kind}" if item.domain == RECALL else item.kind


def more_fresh(
    items: Iterable[Asked], encoder: ChatEncoder, kinds: Mapping[str, str]
) -> tuple[Question, ...]:
    """Further fresh questions, of any source, asked as the others; ``kinds``: of tasks, by id."""

    def of(one: Asked) -> Question:
        if isinstance(one, Problem):
            return _task(FRESH, one, kinds[one.task_id], encoder)
        if isinstance(one, ChefItem):
            return _cooking(FRESH, one, encoder)
        return _short(FRESH, one, encoder)

    return tuple(map(of, items))


def _short(name: SetName, item: ShortAnswer, encoder: ChatEncoder) -> Question:
    topic = item.kind if item.domain == RECALL else item.domain
    encoded = encode_question(encoder, item)
    return _question(name, item, topic, group_of(item), item.prompt, encoded)


def chef_sides() -> dict[SetName, Sequence[ChefItem]]:
    """Both sets of cooking questions."""
    return {"train": built_in("chef_train", ChefItem), "fresh": built_in("chef_fresh", ChefItem)}


def _chef(encoder: ChatEncoder, limit: int | None) -> tuple[Question, ...]:
    return tuple(
        _cooking(name, item, encoder)
        for name, side in chef_sides().items()
        for item in _first(side, limit)
    )


def _cooking(name: SetName, item: ChefItem, encoder: ChatEncoder) -> Question:
    encoded = encoder.encode_prompt([Message("user", item.prompt)])
    return _question(name, item, item.category, item.category, item.prompt, encoded)


def _question(
    name: SetName, item: Item, topic: str, group: str, text: str, encoded: EncodedPrompt
) -> Question:
    return Question(
        item.key, name, topic, group, text, Prompt(item.key, encoded.ids), encoded.think_open, item
    )


def small_task_kinds() -> dict[str, str]:
    """Kind of each small task, by its id."""
    return {task.key: task.kind for task in built_in("small_tasks", SmallTask)}


def task_sides(asked: str) -> tuple[dict[SetName, Sequence[Problem]], dict[str, str]]:
    """Both sets of what is executed, each whole, and every task's kind."""
    kinds, problems = small_task_kinds(), load_benchmark(SMALL).problems
    if asked == HUMANEVAL:
        others = load_benchmark(HUMANEVAL).problems
        kinds |= {one.task_id: HUMANEVAL for one in others}
        return {"train": problems, "fresh": others}, kinds
    fresh = fresh_kinds(("code", kind) for kind in kinds.values())
    return {
        name: [one for one in problems
               if (("code", kinds[one.task_id]) in fresh) == (name == FRESH)]
        for name in SETS
    }, kinds  # fmt: skip


def _tasks(asked: str, encoder: ChatEncoder, limit: int | None) -> tuple[Question, ...]:
    sides, kinds = task_sides(asked)
    return tuple(
        _task(name, problem, kinds[problem.task_id], encoder)
        for name in SETS
        for problem in _spread(sides[name], limit)
    )


def _spread(problems: Sequence[Problem], limit: int | None) -> Sequence[Problem]:
    """``limit`` of them in the order of a hash of their ids, not the easy beginning of a set."""
    if limit is None or limit >= len(problems):
        return problems
    chosen = {one.task_id for one in sorted(problems, key=lambda p: _hash(p.task_id))[:limit]}
    return [one for one in problems if one.task_id in chosen]


def _task(name: SetName, problem: Problem, kind: str, encoder: ChatEncoder) -> Question:
    made = encode_problem(encoder, problem, "chat")
    return Question(
        problem.task_id, name, kind, kind, problem.prompt, made.prompt, made.think_open, problem
    )


_MAKERS: Mapping[str, Callable[[ChatEncoder, int | None], tuple[Question, ...]]] = {
    SHORT_ANSWERS: _short_answers,
    RECALL: _recall,
    "chef": _chef,
    "small-tasks": partial(_tasks, "small-tasks"),
    HUMANEVAL: partial(_tasks, HUMANEVAL),
}
