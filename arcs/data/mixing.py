"""One training file of several, in stated amounts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arcs.data.sets import DataSet, open_set
from arcs.data.writing import write_set
from arcs.training_data.reading import normal_prompt
from models.errors import UserError

MIXED = ("training", "preference")


@dataclass(frozen=True)
class Part:
    """How much of which set."""

    name: str
    amount: float | None
    """A share where it is below 1, else records; None: all."""


def part(text: str) -> Part:
    """``NAME``, ``NAME:200`` or ``NAME:0.5``. Raises UserError for another amount."""
    name, colon, amount = text.rpartition(":")
    if not colon or not amount or "/" in amount:
        return Part(text, None)
    try:
        value = float(amount)
    except ValueError:
        return Part(text, None)
    if not (0 < value < 1 or (value >= 1 and value.is_integer())):
        raise UserError(f"{text}: give a number of records, or a share between 0 and 1")
    return Part(name, value)


def mix(parts: Sequence[Part], *, seed: int, out: Path, one_per_prompt: bool) -> dict[str, Any]:
    """Write the mixture and its description; returns the description.

    Each set is permuted by numpy's PCG64 with ``seed`` and its first records are taken; the
    mixture is permuted again, so that a prefix of it is mixed too. The lines are the sets' own,
    byte for byte. ``one_per_prompt``: of records with one prompt the first part's is taken.
    Raises UserError for sets of two kinds, an id or a prompt that clash, or too few records.
    """
    if len(parts) < 2:
        raise UserError("mix: name at least two sets or files")
    found = [open_set(one.name) for one in parts]
    kinds = {one.kind.name for one in found}
    if len(kinds) > 1 or not kinds <= set(MIXED):
        raise UserError(
            f"mix: these hold {', '.join(sorted(kinds))}; one of {' and '.join(MIXED)} is mixed"
        )
    chosen: list[tuple[Any, str]] = []
    sources, seen = [], set[str]()
    for number, (one, wanted) in enumerate(zip(found, parts, strict=True)):
        taken, skipped = _taken(one, wanted, seed, number, seen if one_per_prompt else None)
        chosen += taken
        sources.append(_source(one, wanted, taken, skipped))
    _check([record for record, _ in chosen])
    order = np.random.default_rng([seed, len(parts)]).permutation(len(chosen))
    content = "".join(chosen[i][1].rstrip("\r") + "\n" for i in order).encode()
    records = [record for record, _ in chosen]
    described = {
        "kind": found[0].kind.name,
        "records": len(records),
        "seed": seed,
        "one_per_prompt": one_per_prompt,
        "types": dict(sorted(Counter(str(one.type) for one in records).items())),
        "split": dict(sorted(Counter(one.split for one in records).items())),
        "sources": sources,
    }
    authors = [one.author for one in found]
    licences = [one.licence for one in found]
    write_set(
        out, content, described,
        author=None if None in authors else "; ".join(dict.fromkeys(map(str, authors))),
        licence=None if None in licences else " and ".join(sorted(set(map(str, licences)))),
    )  # fmt: skip
    return {**described, "sha256": hashlib.sha256(content).hexdigest(), "out": str(out)}


def _taken(
    one: DataSet, wanted: Part, seed: int, number: int, seen: set[str] | None
) -> tuple[list[tuple[Any, str]], int]:
    """A part's records with their lines, and how many were passed over for their prompt."""
    pairs = list(zip(one.records, one.contents.raw, strict=True))
    size = len(pairs)
    if wanted.amount is not None:
        share = wanted.amount < 1
        size = max(1, round(wanted.amount * len(pairs))) if share else int(wanted.amount)
    order = np.random.default_rng([seed, number]).permutation(len(pairs))
    taken: list[tuple[Any, str]] = []
    skipped = 0
    for i in order:
        if len(taken) == size:
            break
        prompt = normal_prompt(pairs[i][0].prompt)
        if seen is not None and prompt in seen:
            skipped += 1
            continue
        if seen is not None:
            seen.add(prompt)
        taken.append(pairs[i])
    if wanted.amount is not None and len(taken) < size:
        raise UserError(f"{wanted.name}: {size} records are wanted, {len(taken)} can be taken")
    return taken, skipped


def _source(
    one: DataSet, wanted: Part, taken: Sequence[tuple[Any, str]], skipped: int
) -> dict[str, Any]:
    return {
        "name": one.name, "sha256": one.contents.sha256, "records": len(one.records),
        "asked": wanted.amount, "taken": len(taken), "same_prompt_passed_over": skipped,
        "author": one.author, "licence": one.licence,
    }  # fmt: skip


def _check(records: Sequence[Any]) -> None:
    """Raise UserError where an id occurs twice, or a prompt is both trained on and held out."""
    ids: set[str] = set()
    trained = {normal_prompt(one.prompt): one.id for one in records if one.split == "train"}
    for one in records:
        if one.id in ids:
            raise UserError(f"mix: id {one.id!r} occurs in two sets; rename one")
        ids.add(one.id)
        twin = trained.get(normal_prompt(one.prompt)) if one.split == "held_out" else None
        if twin is not None:
            raise UserError(
                f"mix: {twin!r} (train) and {one.id!r} (held_out) have one prompt; leave one out"
            )
