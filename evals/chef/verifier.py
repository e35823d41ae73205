"""The Chef verifier: what an answer states, held against the shipped reference, rule by rule.

Every statement is correct, unknown or contradicted. Names are matched as whole words and judged in
their own sentence, a temperature in its own clause first (PAPER.md 8.7 V1, V2). What the reference
does not decide is unknown, never wrong. The score may be used only while
:mod:`evals.chef.validation` finds it above its gate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from evals.chef.facts import derivatives, ingredients, regions, techniques
from evals.chef.quantities import cuts, temperatures, times
from evals.chef.reference import load_reference
from evals.chef.statements import Statement
from evals.chef.text import plain, sentences

_RULES = (temperatures, regions, ingredients, derivatives, techniques, cuts, times)


@dataclass(frozen=True)
class Verification:
    """An answer's statements."""

    statements: tuple[Statement, ...]

    @property
    def counts(self) -> Mapping[str, int]:
        """Statements by verdict."""
        found = Counter(one.verdict for one in self.statements)
        return {name: found[name] for name in ("correct", "unknown", "contradicted")}

    @property
    def score(self) -> float | None:
        """(correct + 1) / (correct + contradicted + 2), 0 to 1; None where nothing is decided.

        Laplace's rule: two agreeing statements say more than one. Unknown ones say nothing.
        """
        counts = self.counts
        decided = counts["correct"] + counts["contradicted"]
        return (counts["correct"] + 1) / (decided + 2) if decided else None

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "score": self.score,
            **self.counts,
            "contradictions": [
                one.to_json() for one in self.statements if one.verdict == "contradicted"
            ],
        }


@lru_cache(maxsize=4096)  # filters and provenance ask the same of one text
def verify(answer: str) -> Verification:
    """Check an answer against the reference."""
    known = load_reference()
    found = [
        statement
        for sentence in sentences(plain(answer))
        for rule in _RULES
        for statement in rule(sentence, known)
    ]
    return Verification(tuple(found))
