"""What a training minimises. The loop in backends/training.py knows only :class:`Objective`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from backends.batching import (
    Cut,
    StepPlan,
    examples_sha256,
    plan_steps,
    single_rows,
    steps_per_epoch,
    validation_batches,
)
from backends.interface import Batch, LanguageModel, LossTerms, PreferenceBatch
from backends.preference_loss import PreferenceTerms, preference_terms
from backends.preferences import (
    CutPairs,
    References,
    by_length,
    groups,
    make_preferences,
    pairs_sha256,
    plan_pairs,
    reference_groups,
    single_pairs,
)
from backends.training_config import DpoConfig, TrainConfig
from backends.training_log import Measures, PreferenceMeasures

B = TypeVar("B", Batch, PreferenceBatch)
T = TypeVar("T", LossTerms, PreferenceTerms)


class Objective(Protocol[B, T]):
    """Batches and their loss. ``B`` is a micro-batch, ``T`` what one gave."""

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""

    def plans(self, start: int = 0) -> Iterator[StepPlan[B]]:
        """Every optimiser step after step ``start``."""

    def validation(self) -> Iterator[B]:
        """The held-out items; nothing where there are none."""

    def validation_ids(self) -> Sequence[str]:
        """Item ids of the held-out items, in the order of :meth:`validation`."""

    def accumulate(self, model: LanguageModel, batches: Sequence[B]) -> Iterator[T]:
        """Forward and backward of each micro-batch of a step; what each gave."""

    def evaluate(self, model: LanguageModel, batch: B) -> T:
        """Forward only, dropout off."""

    def measure(self, terms: Sequence[T]) -> Measures:
        """Put micro-batches together."""

    def items(self, batch: B) -> list[B]:
        """Each item of ``batch`` as a batch of its own."""

    def rows(self, batch: B) -> Batch:
        """What is run forward."""

    def data(self) -> dict[str, Any]:
        """What must be equal for a resumed run (JSON-able)."""

    def counts(self) -> dict[str, Any]:
        """What became of the data, for the manifest (JSON-able)."""


@dataclass(frozen=True)
class Supervised:
    """Mean negative log-likelihood of response ids (SFT)."""

    cut: Cut
    held: Cut
    config: TrainConfig

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return _steps(len(self.cut.examples), self.config)

    def plans(self, start: int = 0) -> Iterator[StepPlan[Batch]]:
        """Every optimiser step after step ``start``."""
        config = self.config
        return plan_steps(
            self.cut.examples,
            epochs=config.epochs,
            micro_batch_size=config.micro_batch_size,
            accumulation=config.accumulation,
            seed=config.seed,
            start=start,
        )

    def validation(self) -> Iterator[Batch]:
        """Held-out examples, longest first."""
        return validation_batches(self.held.examples, self.config.micro_batch_size)

    def validation_ids(self) -> Sequence[str]:
        """Their ids."""
        ordered = sorted(self.held.examples, key=lambda example: -len(example.ids))
        return [example.item_id for example in ordered]

    def accumulate(self, model: LanguageModel, batches: Sequence[Batch]) -> Iterator[LossTerms]:
        """Forward and backward."""
        return model.accumulate_step(batches)

    def evaluate(self, model: LanguageModel, batch: Batch) -> LossTerms:
        """Forward only."""
        return model.evaluate_loss(batch)

    def measure(self, terms: Sequence[LossTerms]) -> Measures:
        """Mean over all response ids."""
        tokens = sum(term.tokens for term in terms)
        return Measures(sum(term.nll_sum for term in terms) / max(tokens, 1), tokens)

    def items(self, batch: Batch) -> list[Batch]:
        """Single rows."""
        return single_rows(batch)

    def rows(self, batch: Batch) -> Batch:
        """The batch itself."""
        return batch

    def data(self) -> dict[str, Any]:
        """Config and data."""
        return {
            "objective": "sft",
            "config": asdict(self.config),
            "training_data": examples_sha256(self.cut.examples),
            "held_out_data": examples_sha256(self.held.examples),
        }

    def counts(self) -> dict[str, Any]:
        """Examples kept, cut and dropped."""
        return {
            "examples": len(self.cut.examples),
            "examples_dropped": list(self.cut.dropped),
            "examples_partly_cut": self.cut.partly_cut,
            "held_out_examples": len(self.held.examples),
            "held_out_dropped": list(self.held.dropped),
            "held_out_partly_cut": self.held.partly_cut,
        }


@dataclass(frozen=True)
class Preferences:
    """Mean DPO loss of pairs (backends/preference_loss.py)."""

    cut: CutPairs
    held: CutPairs
    config: DpoConfig
    references: References
    reference: dict[str, Any]
    """What the reference is, and the hash of its log-probabilities."""

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return _steps(len(self.cut.pairs), self.config.train)

    def plans(self, start: int = 0) -> Iterator[StepPlan[PreferenceBatch]]:
        """Every optimiser step after step ``start``."""
        return plan_pairs(self.cut.pairs, self.references, self.config, start)

    def validation(self) -> Iterator[PreferenceBatch]:
        """Held-out pairs, longest first."""
        for group in groups(by_length(self.held.pairs), self.config.train.micro_batch_size):
            yield make_preferences(group, self.references, self.config.beta, normaliser=1.0)

    def validation_ids(self) -> Sequence[str]:
        """Their ids."""
        return [pair.item_id for pair in by_length(self.held.pairs)]

    def first(self) -> tuple[list[PreferenceBatch], list[str]]:
        """A step's worth of pairs in the very batches of the reference, and their ids."""
        train = self.config.train
        found = reference_groups(self.cut, self.held, train.micro_batch_size)[: train.accumulation]
        batches = [
            make_preferences(group, self.references, self.config.beta, normaliser=1.0)
            for group in found
        ]
        return batches, [pair.item_id for group in found for pair in group]

    def accumulate(
        self, model: LanguageModel, batches: Sequence[PreferenceBatch]
    ) -> Iterator[PreferenceTerms]:
        """Forward and backward."""
        return map(preference_terms, batches, model.accumulate_preferences_step(batches))

    def evaluate(self, model: LanguageModel, batch: PreferenceBatch) -> PreferenceTerms:
        """Forward only."""
        return preference_terms(batch, model.sequence_logprobs(batch.rows))

    def measure(self, terms: Sequence[PreferenceTerms]) -> Measures:
        """Means over all pairs."""
        chosen = np.concatenate([term.rewards_chosen for term in terms])
        rejected = np.concatenate([term.rewards_rejected for term in terms])
        rewards = PreferenceMeasures(
            pairs=len(chosen),
            reward_chosen=float(chosen.mean()),
            reward_rejected=float(rejected.mean()),
            margin=float((chosen - rejected).mean()),
            accuracy=float((chosen > rejected).mean()),
        )
        loss = float(np.concatenate([term.losses for term in terms]).mean())
        return Measures(loss, sum(term.tokens for term in terms), rewards)

    def items(self, batch: PreferenceBatch) -> list[PreferenceBatch]:
        """Single pairs."""
        return single_pairs(batch)

    def rows(self, batch: PreferenceBatch) -> Batch:
        """Both sides of the pairs."""
        return batch.rows

    def data(self) -> dict[str, Any]:
        """Config, data and reference."""
        return {
            "objective": "dpo",
            "config": asdict(self.config),
            "training_data": pairs_sha256(self.cut.pairs),
            "held_out_data": pairs_sha256(self.held.pairs),
            "reference": self.reference,
        }

    def counts(self) -> dict[str, Any]:
        """Pairs kept, cut and dropped."""
        return {
            "pairs": len(self.cut.pairs),
            "pairs_dropped": list(self.cut.dropped),
            "pairs_partly_cut": self.cut.partly_cut,
            "held_out_pairs": len(self.held.pairs),
            "held_out_dropped": list(self.held.dropped),
            "held_out_partly_cut": self.held.partly_cut,
        }


def _steps(items: int, config: TrainConfig) -> int:
    return config.epochs * steps_per_epoch(items, config.micro_batch_size * config.accumulation)
