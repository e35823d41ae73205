"""Prompts by category and difficulty: from the offline generator, or written by a teacher."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from arcs.teachers.roster import DATA
from evals.items.load import french_cuisine
from evals.overlap import near_duplicates

Set = Literal["gold", "boundary", "fresh"]
Difficulty = Literal["easy", "medium", "hard"]
SHARES: Mapping[Difficulty, float] = {"easy": 0.3, "medium": 0.4, "hard": 0.3}
"""Of each category, as in PAPER.md 2.2."""
FILES: Mapping[Set, Path] = {
    "gold": DATA / "prompts.toml",
    "boundary": DATA / "prompts.toml",
    "fresh": DATA / "fresh_prompts.toml",
}
SHORTEST = 10
"""Characters of a prompt."""
CALL = 20
"""Prompts that one call may write."""
ALIKE = 0.6
"""Jaccard index of character 6-grams above which a new prompt is too like an earlier one. Higher
than the bound between sets, since two fillings of one short template share most of their words."""
_SLOTS = {
    "dish": ("regional_dishes",), "sauce": ("mother_sauces",), "technique": ("techniques",),
    "preparation": ("preparations",), "cut": ("knife_cuts",), "point": ("temperatures",),
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """How many prompts of one category and difficulty are wanted."""

    set: Set
    category: str
    difficulty: Difficulty
    n: int
    about: str
    templates: tuple[str, ...]


@dataclass(frozen=True)
class Draft:
    """A prompt before it has an id."""

    set: Set
    category: str
    difficulty: Difficulty
    text: str


@cache
def _tables(name: Set) -> dict[str, Any]:
    return tomllib.loads(FILES[name].read_text(encoding="utf-8"))


def author(name: Set) -> str:
    """Who wrote the offline generator of a set."""
    return str(_tables(name)["author"])


def cells(name: Set, n: int) -> list[Cell]:
    """Spread ``n`` prompts over categories by their shares, then over difficulties.

    Largest remainders; so every ``n`` is met exactly. Boundary prompts have no difficulty of their
    own and count as medium.
    """
    tables = _tables(name)["boundary" if name == "boundary" else "categories"]
    counts = _apportion(n, [table.get("share", 1) for table in tables.values()])
    found = []
    for (category, table), wanted in zip(tables.items(), counts, strict=True):
        if name == "boundary":
            found.append(
                Cell(name, category, "medium", wanted, table["about"], tuple(table["prompts"]))
            )
            continue
        levels: tuple[Difficulty, ...] = get_args(Difficulty)
        for level, number in zip(
            levels, _apportion(wanted, [SHARES[one] for one in levels]), strict=True
        ):
            found.append(Cell(name, category, level, number, table["about"], tuple(table[level])))
    return [cell for cell in found if cell.n]


def _apportion(n: int, weights: Sequence[float]) -> list[int]:
    exact = [n * one / sum(weights) for one in weights]
    counts = [int(one) for one in exact]
    order = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in order[: n - sum(counts)]:
        counts[i] += 1
    return counts


def from_templates(cell: Cell, seed: int, many: int) -> list[Draft]:
    """``many`` fillings of a cell's templates, in an order that numpy's PCG64 draws."""
    random = np.random.default_rng(
        [seed, *f"{cell.set}/{cell.category}/{cell.difficulty}".encode()]
    )
    found: dict[str, None] = {}
    order = random.permutation(len(cell.templates))
    for i in range(4 * many):
        template = cell.templates[order[i % len(order)]]
        found.setdefault(_filled(template, cell.set, random))
        if len(found) == many:
            break
    return [Draft(cell.set, cell.category, cell.difficulty, text) for text in found]


def _filled(template: str, name: Set, random: np.random.Generator) -> str:
    """A template with each slot drawn once; a slot's second use ("{dish2}") is another."""
    drawn: dict[str, str] = {}
    for slot in re.findall(r"\{(\w+)\}", template):
        pool = [one for one in _pool(slot.rstrip("2"), name) if one not in drawn.values()]
        drawn.setdefault(slot, pool[int(random.integers(len(pool)))])
    text = template.format_map(drawn)
    return text[0].upper() + text[1:]


@cache
def _pool(slot: str, name: Set) -> tuple[str, ...]:
    if slot in _SLOTS:
        entries = french_cuisine()[_SLOTS[slot][0]].values()
        return tuple(re.sub(r"\s*\(.*?\)", "", entry["name"]) for entry in entries)
    return tuple(_tables(name)["seeds"][slot])


def written(answer: str) -> list[str] | None:
    """Prompts in a teacher's answer: a JSON array of texts, alone, fenced, or in other text.

    None where there is no such array.
    """
    bare = re.sub(r"^\s*```\w*\s*|\s*```\s*$", "", answer.strip())
    for candidate in (bare, *_bracketed(answer)):
        try:
            value = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
            return [" ".join(one.split()) for one in value]
    return None


def _bracketed(answer: str) -> list[str]:
    start, end = answer.find("["), answer.rfind("]")
    return [answer[start : end + 1]] if 0 <= start < end else []


@dataclass(frozen=True)
class Rejected:
    """A prompt that was not taken."""

    draft: Draft
    rule: str
    detail: str


def select(
    drafts: Mapping[Cell, Sequence[Draft]], taken: Sequence[Draft], forbidden: Mapping[str, str]
) -> tuple[list[Draft], list[Rejected]]:
    """Take each cell's number of prompts, in order, leaving out the short, the like and the known.

    ``taken``: prompts of other sets, which count as earlier. ``forbidden``: prompts of sets that
    are kept for evaluation -> which item that is.
    """
    flat = [(cell, draft) for cell, offered in drafts.items() for draft in offered]
    texts = [draft.text for _, draft in flat]
    alike = _alike(texts, [one.text for one in taken])
    shared = {p.first: p for p in reversed(near_duplicates(texts, list(forbidden)))}
    items = list(forbidden.values())
    kept: list[int] = []
    rejected: list[Rejected] = []
    counts: dict[Cell, int] = {}
    for i, (cell, draft) in enumerate(flat):
        if counts.get(cell, 0) == cell.n:
            continue
        twin = next((j for j in (-1, *kept) if (i, j) in alike), None)
        if len(draft.text) < SHORTEST:
            rejected.append(Rejected(draft, "too_short", f"{len(draft.text)} characters"))
        elif twin is not None:
            other = alike[i, twin]
            rejected.append(Rejected(draft, "near_duplicate", f"like: {other[:100]}"))
        elif i in shared:
            item = items[shared[i].second]
            detail = f"{shared[i].similarity:.2f} like {item}, kept for evaluation"
            rejected.append(Rejected(draft, "contaminated", detail))
        else:
            kept.append(i)
            counts[cell] = counts.get(cell, 0) + 1
    return [flat[i][1] for i in kept], rejected


def _alike(texts: Sequence[str], taken: Sequence[str]) -> dict[tuple[int, int], str]:
    """(draft, earlier draft) -> the earlier text; -1 stands for any prompt of another set."""
    found = {
        (pair.first, pair.second): texts[pair.second]
        for pair in near_duplicates(texts, texts, threshold=ALIKE)
        if pair.second < pair.first
    }
    for pair in near_duplicates(texts, taken, threshold=ALIKE):
        found[pair.first, -1] = taken[pair.second]
    return found
