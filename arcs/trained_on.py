"""Training prompts that a benchmark also asks: found before training, and again at evaluation.

Before the first step every training prompt is compared with every problem, exactly and by
near duplicates. What was trained on then goes with the adapter (``threearc_adapter.json``) as
hashes of the prompts, so that any later evaluation can ask whether it tests on training prompts.
The paper's Chef evaluation was the last 100 lines of its training file (PAPER.md 8.4 L1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from arcs.training_data.reading import normal_prompt
from evals.humaneval.problems import Problem
from evals.humaneval.prompts import chat_instruction
from models.errors import UserError

KEY = "trained_on"
"""Of the sidecar's ``extra``."""
SCHEMA = "threearc-trained-on-1"
_DIGITS = 16
"""Hex digits kept of each hash: a chance match of 100,000 prompts with 1,000 problems has
probability 5e-12."""
NAMED = 3
Asked = Mapping[str, Sequence[str]]
"""What a benchmark asks: item id -> the prompt as it is published, then its other wordings."""


class Trained(Protocol):
    """Anything trained on that has an id and a prompt."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def prompt(self) -> str:
        """What the model is asked."""


@dataclass(frozen=True)
class Shared:
    """An evaluated item that was trained on."""

    item: str
    """Id of the item that is evaluated."""
    how: Literal["exact", "near", "hash", "recorded"]
    """``hash``: an exact match by the hashes an adapter carries. ``recorded``: found, and
    allowed, when the adapter was trained."""
    record: str | None = None
    """Id of the training record, where it is known."""
    similarity: float | None = None
    """Jaccard index of character 6-grams."""

    def __str__(self) -> str:
        by = "" if self.record is None else f" is {self.record!r}"
        near = "" if self.how != "near" else f" nearly (similarity {self.similarity:.2f})"
        return f"{self.item}{by}{near}"

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def wordings(problems: Sequence[Problem]) -> Asked:
    """What HumanEval's problems, or tasks in its form, ask: as published, and in the chat style."""
    return {one.task_id: (one.prompt, chat_instruction(one)) for one in problems}


def shared_prompts(records: Sequence[Trained], asked: Asked) -> list[Shared]:
    """Items that training records also ask, exactly or nearly; each once, in the items' order.

    Near: Jaccard index of character 6-grams of the published prompt above 0.35, what many
    texts have in common left out.
    """
    from evals.overlap import exact_pairs, near_duplicates  # scikit-learn takes a second

    trained = [one.prompt for one in records]
    texts = [(item, text) for item, wording in asked.items() for text in wording]
    found: dict[str, Shared] = {}
    for pair in exact_pairs(trained, [text for _, text in texts]):
        item = texts[pair.second][0]
        found.setdefault(item, Shared(item, "exact", records[pair.first].id, 1.0))
    items, published = list(asked), [wording[0] for wording in asked.values()]
    for pair in near_duplicates(trained, published, drop_common=True):
        item, similarity = items[pair.second], round(pair.similarity, 4)
        found.setdefault(item, Shared(item, "near", records[pair.first].id, similarity))
    return [found[item] for item in items if item in found]


def describe(
    prompts: Iterable[str], shared: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """What an adapter carries of what it was trained on.

    ``shared``: benchmark -> what was found (:meth:`Shared.to_json`) and allowed, near
    duplicates too, which hashes cannot show later.
    """
    hashes = sorted({_hash(prompt) for prompt in prompts})
    return {
        "schema": SCHEMA,
        "normalisation": "lower case, white space as one space; sha-256, 16 hex digits",
        "prompts": len(hashes),
        "hashes": "".join(hashes),
        "shared": {name: [one["item"] for one in found] for name, found in shared.items()},
    }


def recorded_overlap(adapter: Path, benchmark: str, asked: Asked) -> list[Shared] | None:
    """Items that an adapter was trained on, by what it carries; None where it carries nothing.

    Only prompts that are the same but for case and white space are found, and what was found
    when it was trained. Raises UserError where the adapter or its record is damaged.
    """
    from backends.adapter_files import read_adapter

    sidecar = read_adapter(adapter).sidecar
    carried = None if sidecar is None else sidecar.extra.get(KEY)
    if carried is None:
        return None
    hashes, known = _read(adapter, carried, benchmark)
    found = []
    for item, wording in asked.items():
        if hashes & {_hash(text) for text in wording}:
            found.append(Shared(item, "hash"))
        elif item in known:
            found.append(Shared(item, "recorded"))
    return found


def examine(
    what: str,
    found: Sequence[Shared] | None,
    asked: Asked,
    *,
    allowed: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Refuse what was trained on evaluated problems, or say aloud that it goes on.

    ``found``: of :func:`shared_prompts` or :func:`recorded_overlap` for ``what``. Returns the
    entry for the manifest. Raises UserError where there is an overlap and it is not allowed.
    """
    if found is None:
        say(
            f"note: {what} does not say what it was trained on, so whether these problems were "
            "among it is not known"
        )
    elif found and not allowed:
        named = "; ".join(map(str, found[:NAMED]))
        more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise UserError(
            f"{what}: {len(found)} of the {len(asked)} problems that are evaluated are among "
            f"the training prompts ({named}{more}); remove them from the training data, or go on "
            "with --allow-overlap, as INVALID"
        )
    elif found:
        say(
            f"WARNING: {what}: {len(found)} of the {len(asked)} problems that are evaluated "
            "are among the training prompts; every claim will be INVALID (train_test_overlap), "
            "as --allow-overlap accepts"
        )
    return {"known": found is not None, "shared": [one.to_json() for one in found or ()]}


def summary(carried: Any) -> str:
    """One line for people, of what :func:`describe` gave."""
    count = carried.get("prompts") if isinstance(carried, Mapping) else None
    return f"hashes of {count} prompts" if isinstance(count, int) else "unreadable"


def _hash(prompt: str) -> str:
    return hashlib.sha256(normal_prompt(prompt).encode()).hexdigest()[:_DIGITS]


def _read(adapter: Path, carried: Any, benchmark: str) -> tuple[set[str], set[str]]:
    """Hashes, and problems of a benchmark that were found when it was trained."""
    try:
        text, shared = carried["hashes"], carried["shared"].get(benchmark, [])
        if carried["schema"] != SCHEMA or len(text) != _DIGITS * carried["prompts"]:
            raise ValueError
        hashes = {text[i : i + _DIGITS] for i in range(0, len(text), _DIGITS)}
        return hashes, set(shared)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(
            f"{adapter}: what it says of its training prompts ({KEY} in threearc_adapter.json) is "
            "damaged; restore the file"
        ) from None
