"""Whether the verifier ranks answers known to be good above answers known to be bad."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from evals.chef.reference import load_reference
from evals.chef.verifier import verify
from evals.statistics.rates import wilson
from models.fingerprint import file_sha256

PAIRS = Path(__file__).resolve().parent / "data" / "verifier_pairs.jsonl"


@dataclass(frozen=True)
class Pair:
    """Two answers that differ in what ``wrong`` names."""

    id: str
    split: str
    """``dev``: the rules were made with it; ``test``: it alone is counted."""
    kind: str
    good: str
    bad: str
    wrong: str


@dataclass(frozen=True)
class Ranking:
    """How pairs were ranked."""

    n: int
    right: int
    tied: int
    """Both sides have one score, or a side has none: not ranked right."""
    wrong: tuple[str, ...]
    """Ids of pairs not ranked right."""

    @property
    def share(self) -> float:
        """Of the pairs that were ranked right."""
        return self.right / self.n

    def to_json(self) -> dict[str, Any]:
        """JSON-able form, with a 95 % Wilson interval."""
        interval = wilson(self.right, self.n)
        return {
            "n": self.n, "ranked_right": self.share, "low": interval.low, "high": interval.high,
            "tied": self.tied, "not_right": list(self.wrong),
        }  # fmt: skip


def load_pairs(split: str | None = "test") -> tuple[Pair, ...]:
    """The pairs that ship; None: of both splits."""
    lines = PAIRS.read_text(encoding="utf-8").split("\n")
    pairs = [Pair(**json.loads(line)) for line in lines if line.strip()]
    return tuple(one for one in pairs if split is None or one.split == split)


def rank(pairs: Sequence[Pair]) -> Ranking:
    """Score both sides of each pair. Raises ValueError for none."""
    if not pairs:
        raise ValueError("no pairs to rank")
    right, tied, wrong = 0, 0, []
    for pair in pairs:
        good, bad = verify(pair.good).score, verify(pair.bad).score
        if good is not None and bad is not None and good > bad:
            right += 1
            continue
        tied += good is None or bad is None or good == bad
        wrong.append(pair.id)
    return Ranking(len(pairs), right, tied, tuple(wrong))


@cache
def shipped() -> Ranking:
    """The ranking of the shipped test pairs."""
    return rank(load_pairs())


def identity() -> dict[str, Any]:
    """What the verifier's scores depend on, for provenance."""
    reference, cues = load_reference().sha256
    return {"reference_sha256": reference, "cues_sha256": cues, "pairs_sha256": file_sha256(PAIRS)}
