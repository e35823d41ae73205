"""Which items of a source are unused: not asked yet, not nearly asked yet, not trained on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from arcs.settling.subject import OWN, RECALL, Pool
from arcs.trained_on import Asked, recorded_overlap, shared_prompts
from evals.benchmarks import TITLES
from models.errors import UserError

USED = "asked in the run"
LIKE_USED = "nearly the same as an item of the run or of an earlier source"
TRAINED = "among an adapter's training prompts"
COPY = "the same or nearly the same as an item before it in the file"
SHIPPED = frozenset({OWN, *TITLES, RECALL})
"""Sources whose items are known to be different ones, however alike their words are."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """One set as it was read."""

    source: str
    title: str
    sha256: str
    asked: Asked
    """Item -> its wordings, in the order in which items are taken."""
    groups: Mapping[str, str]
    """Item -> its group."""
    barred: Mapping[str, str] = field(default_factory=dict)
    """Item -> why it can never be taken."""


@dataclass(frozen=True)
class _Asked:
    id: str
    prompt: str


def in_hash_order(ids: Sequence[str]) -> list[str]:
    """As ``--limit`` of an evaluation takes them: free of a seed and of the file's order."""
    return sorted(ids, key=lambda one: hashlib.sha256(one.encode()).hexdigest())


def pools(
    own: Source,
    used: Sequence[str],
    more: Sequence[Source],
    adapters: Sequence[Path],
    say: Say,
) -> list[Pool]:
    """The own set's and each further source's unused items.

    ``used``: ids of the own set. Items of one shipped set are different items; items of another
    source are held against all before them, exactly and nearly, those of a file also against each
    other. Raises UserError as its parts.
    """
    taken = set(used)
    known = {item: own.asked[item] for item in used}
    found = []
    for source in (own, *more):
        out: dict[str, str] = {}
        if source.source == OWN:
            out = dict.fromkeys((item for item in source.asked if item in taken), USED)
        else:
            out |= _like(known, source.asked)
        out = dict(source.barred) | out | _trained(source, adapters, say)
        if source.source not in SHIPPED:
            out |= _copies(source, [item for item in source.asked if item not in out])
        left = [item for item in source.asked if item not in out]
        items: dict[str, tuple[str, ...]] = {}
        for group in dict.fromkeys(source.groups.values()):
            items[group] = tuple(item for item in left if source.groups[item] == group)
        found.append(
            Pool(source.source, source.title, source.sha256, items, dict(Counter(out.values())))
        )
        known |= {f"{source.source}:{item}": source.asked[item] for item in left}
    return found


def _like(known: Asked, asked: Asked) -> dict[str, str]:
    rows = [_Asked(item, text) for item, texts in known.items() for text in texts[:1]]
    shared = shared_prompts(rows, asked)
    return {one.item: USED if one.how == "exact" else LIKE_USED for one in shared}


def _copies(source: Source, items: Sequence[str]) -> dict[str, str]:
    """Items of a group that an item kept before them asks too: one of each such set is kept."""
    from evals.overlap import duplicates_inside, exact_pairs  # scikit-learn takes a second

    found: dict[str, str] = {}
    for group in dict.fromkeys(source.groups[item] for item in items):
        own = [item for item in items if source.groups[item] == group]
        texts = [source.asked[item][0] for item in own]
        # equal texts apart: those shorter than a shingle, or all boilerplate, have none to compare
        alike = (*exact_pairs(texts, texts), *duplicates_inside(texts, drop_common=True))
        pairs = {(pair.second, pair.first) for pair in alike if pair.first < pair.second}
        for second, first in sorted(pairs):
            if own[first] not in found:
                found[own[second]] = COPY
    return found


def _trained(source: Source, adapters: Sequence[Path], say: Say) -> dict[str, str]:
    found: dict[str, str] = {}
    for adapter in adapters:
        shared = recorded_overlap(adapter, source.title, source.asked)
        if shared is None:
            say(
                f"note: {adapter} does not say what it was trained on, so whether items of "
                f"{source.title} were among it is not known"
            )
        found |= {one.item: TRAINED for one in shared or ()}
    return found


def file_of(name: str) -> Path:
    """A data file, absolute. Raises UserError where there is none."""
    path = Path(name).absolute()
    if not path.is_file():
        raise UserError(f"--data {name}: no such file")
    return path
