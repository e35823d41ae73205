"""Unused fresh questions for a run of ``arc3`` with labels by exact match."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from arcs.arc3.pipeline import dataset_of, wordings_of
from arcs.arc3.questions import (
    FRESH,
    RECALL,
    SETS,
    SHORT_ANSWERS,
    group_of,
    short_answers,
)
from arcs.settling.subject import OWN
from arcs.settling.unused import Source, file_of, in_hash_order
from evals.items.load import items_sha256, load
from evals.items.records import ShortAnswer
from models.errors import UserError

GENERATED = 4000
"""Generated questions that are offered: enough to exclude an effect where one answer in ten is
right."""
KNOWN_KIND = "of a kind of question that the training set has, so not fresh"


def named(name: str, asked: str) -> str:
    """A ``--data`` as a source. Raises UserError for what is none."""
    if name != RECALL:
        return str(file_of(name))
    if asked == RECALL:
        raise UserError(
            f"--data {RECALL}: that is the run's own set, of which unused questions are taken "
            "anyway; leave it out"
        )
    return RECALL


def items_of(source: str, asked: str) -> tuple[ShortAnswer, ...]:
    """A whole source; of the run's own set, training questions first. Raises UserError."""
    if source == OWN:
        both = short_answers(asked, GENERATED)
        return tuple(one for name in SETS for one in both[name])
    if source == RECALL:
        return tuple(short_answers(RECALL, GENERATED)[FRESH])
    return load(Path(source), ShortAnswer)


def own_source(asked: str, used: Collection[str]) -> Source:
    """In the order in which a larger limit takes them; a training question is never fresh.

    Training questions that could still be generated are not counted as left out.
    """
    items = items_of(OWN, asked)
    fresh = {one.key for one in short_answers(asked, GENERATED)[FRESH]}
    taken = fresh | set(used)
    kept = [one for one in items if one.key in taken or asked != RECALL]
    texts = {one.key: wordings_of(one.prompt, asked) for one in kept}
    barred = {item: KNOWN_KIND for item in texts if item not in taken}
    return Source(
        OWN, dataset_of(asked), items_sha256(list(items)), texts, dict.fromkeys(texts, ""), barred
    )


def other_source(source: str, asked: str, training: Collection[str]) -> Source:
    """A file, or another set; ``training``: kinds of question that training has."""
    items = items_of(source, asked)
    by_id = {one.key: one for one in items}
    order = list(by_id) if source == RECALL else in_hash_order(list(by_id))
    texts = {item: wordings_of(by_id[item].prompt, SHORT_ANSWERS) for item in order}
    barred = {item: KNOWN_KIND for item in order if group_of(by_id[item]) in training}
    title = source if source == RECALL else Path(source).name
    return Source(source, title, items_sha256(list(items)), texts, dict.fromkeys(order, ""), barred)
