"""h_last of prompts and of finished texts, beside the loop a researcher writes, and a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from arcs.bench.timing import REPEATS, Say, by_turns, rates
from backends.batching import TrainingExample
from backends.interface import Float32, HiddenPoint, LanguageModel

Sequences = Sequence[Sequence[int]]


class PlainReader(Protocol):
    """The library's own ways, from ``backends.<engine>.plain``."""

    def states_by_row(self, sequences: Sequences) -> Float32:
        """States [n, d] after the final norm at each last id, one sequence after the other."""

    def last_states(self, sequences: Sequences) -> Float32:
        """The same from one padded batch without the head."""


def measure_extraction(
    ours: LanguageModel,
    plain: PlainReader,
    rows: Sequence[TrainingExample],
    *,
    n_layers: int,
    say: Say,
) -> dict[str, Any]:
    """Rates over ``rows``; what both ways computed is compared too."""
    point = HiddenPoint(n_layers, True)

    def extract(sequences: Sequences) -> Float32:
        last = [len(sequence) - 1 for sequence in sequences]
        return ours.hidden_states(sequences, last, [point])[:, 0]

    def beside(other: Callable[[Sequences], Float32], sequences: Sequences) -> dict[str, Any]:
        other(sequences[:1]), extract(sequences[:1])
        turns, (states, others) = by_turns(lambda: extract(sequences), lambda: other(sequences))
        read = sum(map(len, sequences))
        return {**rates(turns, read), "difference": _difference(states, others)}

    texts = [row.ids for row in rows]
    prompts = [row.ids[: row.response_mask.index(True)] for row in rows]
    for what, sequences in (("prompts", prompts), ("texts", texts)):
        tokens = sum(map(len, sequences))
        say(f"h_last of {len(rows)} {what}, {tokens} tokens, {REPEATS} times each way")
    return {
        "extraction_prompts": beside(plain.states_by_row, prompts),
        "extraction": beside(plain.states_by_row, texts),
        "extraction_batched": beside(plain.last_states, texts),
    }


def _difference(states: Float32, others: Float32) -> float:
    """Largest difference over the range of ours."""
    return float(np.abs(states - others).max() / np.ptp(states))
