"""Unused fresh questions for a run of ``arc3``: short answers, tasks that are run, or cooking."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from arcs.arc3.config import EXECUTION, ITEMS, JUDGE
from arcs.arc3.pipeline import dataset_of, wordings_of
from arcs.arc3.questions import (
    FRESH,
    RECALL,
    SETS,
    SHORT_ANSWERS,
    Asked,
    SetName,
    chef_sides,
    group_of,
    short_answers,
    small_task_kinds,
    task_sides,
)
from arcs.settling.subject import OWN
from arcs.settling.unused import Source, file_of, in_hash_order
from arcs.trained_on import wordings
from evals.benchmarks import HUMANEVAL, SMALL, TITLES, Benchmark, load_benchmark
from evals.humaneval.problems import Problem
from evals.items.load import items_sha256, load
from evals.items.records import ChefItem, ShortAnswer
from models.errors import UserError

GENERATED = 4000
"""Generated questions that are offered: enough to exclude an effect where one answer in ten is
right."""
KNOWN_KIND = "of a kind of question that the training set has, so not fresh"
CHEF = ITEMS[JUDGE][0]
BENCHMARKS: Mapping[str, str] = {"small-tasks": SMALL, HUMANEVAL: HUMANEVAL}
"""What is asked -> the benchmark that its fresh tasks are of."""


@dataclass(frozen=True)
class Items:
    """A whole source."""

    of: Sequence[Asked]
    sha256: str
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Of tasks, by id."""
    benchmark: Benchmark | None = None
    """That tasks are of."""

    @property
    def by_id(self) -> dict[str, Asked]:
        """In the source's order."""
        return {one.task_id if isinstance(one, Problem) else one.key: one for one in self.of}

    def picked(self, ids: Sequence[str]) -> Items:
        """Some of them."""
        by_id = self.by_id
        found = [by_id[one] for one in ids]
        tasks = tuple(one for one in found if isinstance(one, Problem))
        of = None if self.benchmark is None else replace(self.benchmark, problems=tasks)
        return replace(self, of=found, benchmark=of)


def executed(asked: str) -> bool:
    """Whether answers are programs."""
    return asked in ITEMS[EXECUTION]


def kinds(asked: str) -> str:
    """What a file of further items holds, for people."""
    if executed(asked):
        return "tasks in HumanEval's form (docs/eval.md), or humaneval"
    if asked == CHEF:
        return "cooking questions with checklists (evals/items/data/CHEF_CARD.md)"
    return ("short answers (evals/items/data/SHORT_ANSWERS_CARD.md) of kinds that training has "
            f"not, or {RECALL}, generated")  # fmt: skip


def named(name: str, asked: str) -> str:
    """A ``--data`` as a source. Raises UserError for what is none."""
    own = BENCHMARKS[asked] if executed(asked) else asked
    known = TITLES if executed(asked) else () if asked == CHEF else (RECALL,)
    if name not in known:
        return str(file_of(name))
    if name == own:
        raise UserError(
            f"--data {name}: that is the run's own set, of which unused questions are taken "
            "anyway; leave it out"
        )
    return name


def items_of(source: str, asked: str) -> Items:
    """A whole source; of the run's own set, training questions first. Raises UserError."""
    if executed(asked):
        return _tasks_of(source, asked)
    found: tuple[Any, ...]
    if source == OWN:
        found = tuple(one for name in SETS for one in _sides(asked)[name])
    elif source == RECALL:
        found = tuple(short_answers(RECALL, GENERATED)[FRESH])
    else:
        found = load(Path(source), ChefItem if asked == CHEF else ShortAnswer)
    return Items(found, items_sha256(found))


def _sides(asked: str) -> Mapping[SetName, Sequence[Asked]]:
    """Both sets of the run's own, whole."""
    if executed(asked):
        return task_sides(asked)[0]
    return chef_sides() if asked == CHEF else short_answers(asked, GENERATED)


def _tasks_of(source: str, asked: str) -> Items:
    found = load_benchmark(BENCHMARKS[asked] if source == OWN else source)
    if source == OWN:
        sides, of_all = task_sides(asked)
        every = [one for name in SETS for one in sides[name]]
        return Items(every, found.dataset_sha256, of_all, found)
    named_so = small_task_kinds() if source == SMALL else {}
    of_these = {one.task_id: named_so.get(one.task_id, source if source in TITLES else found.title)
                for one in found.problems}  # fmt: skip
    return Items(found.problems, found.dataset_sha256, of_these, found)


def own_source(asked: str, used: Collection[str]) -> Source:
    """In the order in which a larger limit takes them; a training question is never fresh.

    Training questions that could still be generated, and those of another set than the fresh
    ones', are not counted as left out.
    """
    found = items_of(OWN, asked)
    fresh = set(replace(found, of=_sides(asked)[FRESH]).by_id)
    taken = fresh | set(used)
    others = asked in (RECALL, HUMANEVAL)
    kept = [item for item in found.by_id if item in taken or not others]
    if executed(asked):
        kept = in_hash_order(kept)
    texts = _texts(found, kept, asked)
    barred = {item: KNOWN_KIND for item in texts if item not in taken}
    title = "chef_fresh" if asked == CHEF else dataset_of(asked)
    if found.benchmark is not None:
        title = found.benchmark.title
    return Source(OWN, title, found.sha256, texts, dict.fromkeys(texts, ""), barred)


def other_source(source: str, asked: str, training: Collection[str]) -> Source:
    """A file, or another set; ``training``: kinds of question that training has, which those of
    cooking share by design (their fresh set is another author's)."""
    found = items_of(source, asked)
    order = list(found.by_id) if source == RECALL else in_hash_order(list(found.by_id))
    texts = _texts(found, order, CHEF if asked == CHEF else SHORT_ANSWERS)
    known = {item: found.kinds[item] if isinstance(one, Problem) else group_of(one)
             for item, one in found.by_id.items() if not isinstance(one, ChefItem)}  # fmt: skip
    barred = {item: KNOWN_KIND for item, kind in known.items() if kind in training}
    title = source if source == RECALL else Path(source).name
    if found.benchmark is not None:
        title = found.benchmark.title
    return Source(source, title, found.sha256, texts, dict.fromkeys(order, ""), barred)


def _texts(found: Items, ids: Sequence[str], asked: str) -> dict[str, tuple[str, ...]]:
    """Item -> its wordings, in the order of ``ids``."""
    every = found.by_id
    chosen = [every[item] for item in ids]
    tasks = wordings([one for one in chosen if isinstance(one, Problem)])
    return {
        item: tuple(tasks[item]) if item in tasks else wordings_of(one.prompt, asked)
        for item, one in zip(ids, chosen, strict=True)
    }
