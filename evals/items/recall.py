"""Recall of a random key: is the asked name's key among those that the prompt gives?

Half of the questions ask for a name whose key is given, half for one that is not. Both kinds have
the same words in the same places and the same length; only whether the asked name occurs twice
tells them apart, which a bag of words cannot see. What is right is decided by comparison, so the
domain is one where a state after the answer *could* know more about its correctness than the prompt
does. Keys and names are drawn from a fixed seed; the fresh set has names and a wording of its own.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from evals.items.records import ShortAnswer

GIVEN = 4
"""Names with a key in each prompt."""
SEED = 11
_TRAIN_NAMES = """
    Ada Boris Carla Dmitri Elena Farid Greta Hugo Irene Jonas Karin Leo Marta Nils Olga Pablo
    Rosa Stefan Tilda Umar Vera Walter Yusuf Zora
"""
_FRESH_NAMES = """
    Alma Bruno Celia Dario Edith Felix Gemma Henrik Ivan Judith Kofi Livia Milo Nadia Oscar
    Petra Quinn Ruben Selma Tomas Ursula Viktor Wanda Ximena
"""


@dataclass(frozen=True)
class Wording:
    """How a key is given, and how it is asked for."""

    name: str
    given: str
    asked: str


_TRAIN = (
    Wording("locker", "{name}'s locker code is {key}.", "What is {name}'s locker code?"),
    Wording("ticket", "{name} holds ticket {key}.", "Which ticket does {name} hold?"),
    Wording("room", "{name} works in room {key}.", "In which room does {name} work?"),
    Wording("badge", "The badge of {name} reads {key}.", "What does the badge of {name} read?"),
    Wording("phone", "{name} has extension {key}.", "Which extension does {name} have?"),
)
_FRESH = (
    Wording("parcel", "Parcel {key} is for {name}.", "Which parcel is for {name}?"),
    Wording("seat", "{name} sits on seat {key}.", "On which seat does {name} sit?"),
    Wording("bike", "{name} rides bicycle {key}.", "Which bicycle does {name} ride?"),
    Wording("desk", "The desk of {name} is number {key}.", "What number is the desk of {name}?"),
)


def recall_items(*, fresh: bool, n: int) -> tuple[ShortAnswer, ...]:
    """The first ``n`` questions of one set; each is the same whatever ``n`` is."""
    names, wordings = (_FRESH_NAMES, _FRESH) if fresh else (_TRAIN_NAMES, _TRAIN)
    kind = "fresh" if fresh else "train"
    return tuple(_item(kind, number, names.split(), wordings) for number in range(1, n + 1))


def _item(kind: str, number: int, names: Sequence[str], wordings: Sequence[Wording]) -> ShortAnswer:
    item_id = f"recall-{kind}-{number:03d}"
    # of the id alone, and the same on every platform
    digest = hashlib.sha256(f"{SEED}/{item_id}".encode()).digest()
    rng = random.Random(int.from_bytes(digest[:8], "big"))
    wording = wordings[number % len(wordings)]
    chosen = rng.sample(names, GIVEN + 1)
    keys = rng.sample(range(1000, 10000), GIVEN + 1)
    present = rng.random() < 0.5
    asked = rng.randrange(GIVEN) if present else GIVEN
    lines = [
        wording.given.format(name=name, key=key)
        for name, key in zip(chosen[:GIVEN], keys[:GIVEN], strict=True)
    ]
    return ShortAnswer(
        id=item_id,
        domain="recall",
        kind=wording.name,
        prompt=f"{' '.join(lines)} {wording.asked.format(name=chosen[asked])}",
        answers=(str(keys[asked]),),
    )
