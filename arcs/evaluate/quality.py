"""How far a quantisation moves the base model itself, on fixed text."""

from __future__ import annotations

from collections.abc import Sequence
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


def logits_of(
    gguf: Path, texts: Sequence[Sequence[int]], *, threads: int | None, gpu_layers: int
) -> list[NDArray[np.float32]]:
    """Logits [T, vocab] of each text, F16 KV cache as in an evaluation."""
    from backends.llamacpp.model import open_gguf

    longest = max(map(len, texts)) + 1
    with open_gguf(gguf, context=longest, width=1, threads=threads, gpu_layers=gpu_layers) as model:
        return [model.logits(ids) for ids in texts]


def quality(
    reference: Sequence[NDArray[np.float32]], other: Sequence[NDArray[np.float32]]
) -> Quality:
    """Compare logits position by position."""
    divergences, same = [], []
    for one, two in zip(reference, other, strict=True):
        p, q = _log_softmax(one), _log_softmax(two)
        divergences.append((np.exp(p) * (p - q)).sum(axis=1))
        same.append(one.argmax(axis=1) == two.argmax(axis=1))
    found = np.concatenate(divergences)
    return Quality(
        kl=float(found.mean()),
        same_top=float(np.concatenate(same).mean()),
        positions=len(found),
        texts=len(divergences),
    )


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found
