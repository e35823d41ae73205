"""How far a quantisation moves the base model itself, on fixed text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcs.training_data import built_in_paths, load
from models.chat import ChatEncoder

TEXTS = 16
LONGEST = 192
"""Ids of a text that are read."""
_ROWS = 32
"""Positions whose distributions are held in float64 at a time: 67 MB each at 262,144 ids."""

Logits = NDArray[np.float32]
"""[T, vocab] of one text."""


@dataclass(frozen=True)
class Quality:
    """One quantisation against F16, over every position of the fixed texts."""

    kl: float
    """Mean KL(F16 || quantised) of the next-token distributions, nats."""
    same_top: float
    """Share of positions with the same most probable token."""
    positions: int
    texts: int

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def fixed_texts(encoder: ChatEncoder) -> list[tuple[int, ...]]:
    """Token ids of held-out records of the built-in training data: English, code and cooking."""
    held_out = [record for record in load(built_in_paths()) if record.split == "held_out"]
    step = max(1, len(held_out) // TEXTS)
    return [
        encoder.encode_example(record.prompt, record.response, item=record.id).ids[:LONGEST]
        for record in held_out[::step][:TEXTS]
    ]


def logits_of_both(
    reference: Path,
    other: Path,
    texts: Sequence[Sequence[int]],
    *,
    threads: int | None,
    gpu_layers: int,
) -> Iterator[tuple[Logits, Logits]]:
    """Logits of each text by both GGUF files, F16 KV cache as in an evaluation.

    Both are open at once and one text is read at a time: all texts of a large vocabulary would
    be gigabytes. Raises UserError where a file will not load or memory does not suffice.
    """
    from backends.llamacpp.model import LlamaCppModel, open_gguf

    def opened(gguf: Path) -> LlamaCppModel:
        longest = max(map(len, texts)) + 1
        return open_gguf(gguf, context=longest, width=1, threads=threads, gpu_layers=gpu_layers)

    with opened(reference) as one, opened(other) as two:
        for ids in texts:
            yield one.logits(ids), two.logits(ids)


def quality(pairs: Iterable[tuple[Logits, Logits]]) -> Quality:
    """Compare logits position by position; of each pair, the reference's come first."""
    divergences, same, texts = [], [], 0
    for one, two in pairs:
        texts += 1
        for start in range(0, len(one), _ROWS):
            rows = slice(start, start + _ROWS)
            p, q = _log_softmax(one[rows]), _log_softmax(two[rows])
            divergences.append((np.exp(p) * (p - q)).sum(axis=1))
        same.append(one.argmax(axis=1) == two.argmax(axis=1))
        del one, two  # before the next text's are made
    found = np.concatenate(divergences)
    return Quality(
        kl=float(found.mean()),
        same_top=float(np.concatenate(same).mean()),
        positions=len(found),
        texts=texts,
    )


def _log_softmax(logits: Logits) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found
