"""Unused items for a run of ``arc2``: prompts by its kind of labels, items of its meter axis."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from arcs.arc2.config import Arc2Config
from arcs.arc2.further import Questions
from arcs.held_out import prompts_of
from arcs.settling.measured import RECALLED
from arcs.settling.subject import OWN, RECALL
from arcs.settling.unused import Source, file_of, in_hash_order
from arcs.trained_on import wordings
from evals.benchmarks import SMALL, TITLES, Benchmark, load_benchmark
from evals.items.load import built_in, items_sha256, load
from evals.items.recall import recall_items
from evals.items.records import ChefItem, MeterItem, RecoveryItem, ShortAnswer
from evals.meter import choose
from models.errors import UserError

QUESTIONS = "questions"
"""Group of the prompts that are answered; the other group is the meter's axis."""


def title_of(config: Arc2Config, group: str) -> str:
    """Of the run's own set."""
    return own_title(config) if group == QUESTIONS else f"meter ({group})"


def own_title(config: Arc2Config) -> str:
    """Of the set that the run's prompts are of."""
    if config.labels == "execution":
        return "recovery" if config.disposition == "self-improving" else TITLES[SMALL]
    return "short_answers" if config.labels == "exact-match" else "chef_train"


def kinds(config: Arc2Config, groups: Collection[str]) -> str:
    """What ``--data`` may hold, for people."""
    said = []
    if QUESTIONS in groups:
        said.append({
            "recovery": "recovery tasks (evals/items/data/RECOVERY_CARD.md)",
            TITLES[SMALL]: "tasks in HumanEval's form (docs/eval.md), or humaneval",
            "short_answers": "short answers (evals/items/data/SHORT_ANSWERS_CARD.md), or "
            f"{RECALL}, generated",
            "chef_train": "cooking questions (evals/items/data/CHEF_CARD.md)",
        }[own_title(config)])  # fmt: skip
    if any(group != QUESTIONS for group in groups):
        said.append("meter items (evals/items/data/METER_CARD.md)")
    return "; ".join(said)


def named(name: str, config: Arc2Config, groups: Collection[str]) -> tuple[str, str]:
    """A ``--data`` as a source, and the group that it adds to. Raises UserError for what is none.

    Where both kinds can be given, a file's first record says which it holds.
    """
    if QUESTIONS in groups:
        if name == RECALL and config.labels == "exact-match":
            return RECALL, QUESTIONS
        if name in TITLES and own_title(config) == TITLES[SMALL]:
            if name == SMALL:
                raise UserError(f"--data {SMALL}: that is the run's own set, of which unused tasks "
                                "are taken anyway; leave it out")  # fmt: skip
            return name, QUESTIONS
    path = file_of(name)
    axis = next((group for group in groups if group != QUESTIONS), None)
    if axis is None or (QUESTIONS in groups and not _holds_meter_items(path)):
        return str(path), QUESTIONS
    return str(path), axis


def _holds_meter_items(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            first = next((line for line in lines if line.strip()), "")
        record = json.loads(first)
    except (OSError, ValueError):
        return False  # whatever is wrong with it is said where it is read
    return isinstance(record, dict) and "axis" in record


def whole_set(source: str, config: Arc2Config, group: str) -> Questions:
    """Of either kind. Raises UserError as its loader."""
    return _questions(source, config) if group == QUESTIONS else _meter_items(source, group)


def _meter_items(source: str, axis: str) -> tuple[MeterItem, ...]:
    """Of one axis, in the order in which the run takes them. Raises UserError."""
    if source == OWN:
        return tuple(choose(built_in("meter", MeterItem), (axis,), None))
    found = tuple(one for one in load(Path(source), MeterItem) if one.axis == axis)
    if not found:
        raise UserError(f"--data {source}: it has no item of the axis {axis}, which the run is of")
    return found


def _questions(source: str, config: Arc2Config) -> Questions:
    """A whole set of prompts. Raises UserError as its loader."""
    title = own_title(config)
    if title == TITLES[SMALL]:
        return load_benchmark(SMALL if source == OWN else source)
    if title == "recovery":
        return built_in(title, RecoveryItem) if source == OWN else load(Path(source), RecoveryItem)
    if title == "chef_train":
        return built_in(title, ChefItem) if source == OWN else load(Path(source), ChefItem)
    if source == RECALL:
        return recall_items(fresh=True, n=RECALLED)
    return built_in(title, ShortAnswer) if source == OWN else load(Path(source), ShortAnswer)


def chosen(every: Questions, ids: Sequence[str]) -> Questions:
    """Some of a set, in the order of ``ids``."""
    if isinstance(every, Benchmark):
        tasks = {one.task_id: one for one in every.problems}
        return replace(every, problems=tuple(tasks[one] for one in ids))
    by_id: dict[str, Any] = {one.key: one for one in every}
    return tuple(by_id[one] for one in ids)


def sha256_of(every: Questions) -> str:
    """Of a whole set."""
    return every.dataset_sha256 if isinstance(every, Benchmark) else items_sha256(every)


def source_of(source: str, config: Arc2Config, group: str) -> Source:
    """A whole set, in the order in which its items are taken."""
    found = whole_set(source, config, group)
    if isinstance(found, Benchmark):
        asked, title = wordings(found.problems), found.title
        order = in_hash_order(list(asked))
    else:
        asked = prompts_of(found)
        order = list(asked) if source in (OWN, RECALL) else in_hash_order(list(asked))
        title = title_of(config, group) if source == OWN else Path(source).name
    return Source(source, title, sha256_of(found), {item: asked[item] for item in order},
                  dict.fromkeys(order, group))  # fmt: skip
