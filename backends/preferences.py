"""Preference pairs to micro-batches: cutting, order and padding, the same on every engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from backends.batching import (
    StepPlan,
    TrainingExample,
    check_examples,
    dropout_seed,
    examples_sha256,
    make_batch,
    require_few_dropped,
    step_orders,
)
from backends.interface import Batch, PreferenceBatch
from backends.training_config import DpoConfig
from models.errors import UserError

References = Mapping[str, tuple[float, float]]
"""Item id -> log-probability (nats) of its chosen and of its rejected response."""


@dataclass(frozen=True)
class PreferencePair:
    """Two encoded answers to one prompt, of which the first is preferred."""

    item_id: str
    chosen: TrainingExample
    rejected: TrainingExample

    @property
    def length(self) -> int:
        """Ids of the longer side: what the pair is padded to alone."""
        return max(len(self.chosen.ids), len(self.rejected.ids))

    @property
    def tokens(self) -> int:
        """Response ids of both sides."""
        return sum(self.chosen.response_mask) + sum(self.rejected.response_mask)


@dataclass(frozen=True)
class CutPairs:
    """What max_length did to a list of pairs."""

    pairs: tuple[PreferencePair, ...]
    dropped: tuple[str, ...]
    """Item ids of pairs that had no response left on a side, or no difference between sides."""
    partly_cut: int
    """Pairs kept that lost some of a response."""


NO_PAIRS = CutPairs((), (), 0)


def cut_pairs(pairs: Sequence[PreferencePair], max_length: int, what: str = "training") -> CutPairs:
    """Cut both sides of every pair at ``max_length`` ids; drop pairs that cannot be compared.

    Raises UserError when there are no pairs, one is malformed or has two equal sides, or more
    than 1 percent would be dropped.
    """
    _check_pairs(pairs, what)
    kept, dropped, partly = [], [], 0
    for pair in pairs:
        cut = PreferencePair(
            pair.item_id, _cut(pair.chosen, max_length), _cut(pair.rejected, max_length)
        )
        sides = (cut.chosen.response_mask, cut.rejected.response_mask)
        if not all(map(any, sides)) or cut.chosen.ids == cut.rejected.ids:
            dropped.append(pair.item_id)
            continue
        partly += cut.tokens < pair.tokens
        kept.append(cut)
    require_few_dropped(dropped, len(pairs), f"{what} pairs", max_length, setting="dpo_max_length")
    return CutPairs(tuple(kept), tuple(dropped), partly)


def plan_pairs(
    pairs: Sequence[PreferencePair], references: References, config: DpoConfig, start: int = 0
) -> Iterator[StepPlan[PreferenceBatch]]:
    """Yield every optimiser step after step ``start``, in the order SFT would take as many items.

    Within a step pairs are put into micro-batches by length.
    """
    train = config.train
    size = train.micro_batch_size
    orders = step_orders(len(pairs), size * train.accumulation, train.epochs, train.seed, start)
    for step, epoch, places in orders:
        chosen = by_length([pairs[i] for i in places])
        batches = tuple(
            make_preferences(
                group,
                references,
                config.beta,
                normaliser=float(len(chosen)),
                seed=dropout_seed(train.seed, step, number),
            )
            for number, group in enumerate(groups(chosen, size))
        )
        tokens = sum(pair.tokens for pair in chosen)
        yield StepPlan(step, epoch, batches, tuple(pair.item_id for pair in chosen), tokens)


def by_length(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """Longest first, so that memory runs out at once or not at all."""
    return sorted(pairs, key=lambda pair: -pair.length)


def groups(pairs: Sequence[PreferencePair], size: int) -> list[Sequence[PreferencePair]]:
    """``pairs`` in groups of ``size``; the last may be smaller."""
    return [pairs[first : first + size] for first in range(0, len(pairs), size)]


def reference_groups(cut: CutPairs, held: CutPairs, size: int) -> list[Sequence[PreferencePair]]:
    """The micro-batches in which the reference's log-probabilities are computed."""
    return groups(by_length([*cut.pairs, *held.pairs]), size)


def pair_rows(pairs: Sequence[PreferencePair], *, normaliser: float, seed: int = 0) -> Batch:
    """[2p, T]: all chosen sides, then all rejected ones."""
    rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    return make_batch(rows, normaliser=normaliser, seed=seed)


def make_preferences(
    pairs: Sequence[PreferencePair],
    references: References,
    beta: float,
    *,
    normaliser: float,
    seed: int = 0,
) -> PreferenceBatch:
    """One micro-batch with its reference log-probabilities."""
    sides = np.array([references[pair.item_id] for pair in pairs], np.float64)
    rows = pair_rows(pairs, normaliser=normaliser, seed=seed)
    return PreferenceBatch(rows, np.concatenate([sides[:, 0], sides[:, 1]]), beta)


def single_pairs(batch: PreferenceBatch) -> list[PreferenceBatch]:
    """Each pair of ``batch`` as a batch of its own."""
    found = []
    for pair in range(batch.pairs):
        sides = [pair, pair + batch.pairs]
        width = int(batch.rows.lengths[sides].max())
        rows = replace(
            batch.rows,
            ids=batch.rows.ids[sides, :width],
            lengths=batch.rows.lengths[sides],
            loss_mask=batch.rows.loss_mask[sides, :width],
        )
        found.append(replace(batch, rows=rows, reference=batch.reference[sides]))
    return found


def pairs_sha256(pairs: Sequence[PreferencePair]) -> str:
    """sha-256 (hex) over item ids, token ids and masks of both sides, in order."""
    sides = ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
    ids = "\n".join(pair.item_id for pair in pairs)
    parts = [ids, *(examples_sha256(side) for side in sides)]
    return hashlib.sha256("\n\n".join(parts).encode()).hexdigest()


def _cut(example: TrainingExample, max_length: int) -> TrainingExample:
    return TrainingExample(
        example.item_id, example.ids[:max_length], example.response_mask[:max_length]
    )


def _check_pairs(pairs: Sequence[PreferencePair], what: str) -> None:
    if not pairs:
        raise UserError(f"there are no {what} pairs")
    for side in ("chosen", "rejected"):
        check_examples([getattr(pair, side) for pair in pairs], f"{what} ({side})")
    for pair in pairs:
        if _prompt(pair.chosen) != _prompt(pair.rejected):
            raise UserError(f"{what} pair {pair.item_id}: its two sides have different prompts")
        if pair.chosen.ids == pair.rejected.ids:
            raise UserError(f"{what} pair {pair.item_id}: chosen and rejected are the same")


def _prompt(example: TrainingExample) -> tuple[int, ...]:
    return example.ids[: example.response_mask.index(True)]
