"""The DPO loss on sequence log-probabilities, in float64: the same numbers on every engine.

Rafailov et al. 2023, arXiv 2305.18290, equation 7: for the margin

    m = beta * [(log pi(chosen) - log ref(chosen)) - (log pi(rejected) - log ref(rejected))]

the loss of a pair is -log sigmoid(m). Log-probabilities are sums over response ids, not means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backends.interface import Float64, PreferenceBatch

LN2 = float(np.log(2.0))
"""Loss of a pair on which policy and reference agree."""


@dataclass(frozen=True)
class PreferenceTerms:
    """What each pair of a micro-batch gave; all arrays are [p]."""

    losses: Float64
    rewards_chosen: Float64
    """beta * (log pi - log ref) of the chosen response: the implicit reward (equation 5)."""
    rewards_rejected: Float64
    tokens: int
    """Response ids in all rows."""

    @property
    def loss_sum(self) -> float:
        """Sum of the pairs' losses (nats)."""
        return float(self.losses.sum())


def preference_terms(batch: PreferenceBatch, policy: Float64) -> PreferenceTerms:
    """Losses and rewards of the pairs from the policy's log-probabilities [2p]."""
    rewards = batch.beta * (policy - batch.reference)
    chosen, rejected = rewards[: batch.pairs], rewards[batch.pairs :]
    # -log sigmoid(m) = log(1 + e^-m), without overflow for any m
    with np.errstate(invalid="ignore"):  # what is not a number stops the training, by name
        losses = np.logaddexp(0.0, rejected - chosen)
    return PreferenceTerms(losses, chosen, rejected, int(batch.rows.loss_mask.sum()))


def row_coefficients(batch: PreferenceBatch, policy: Float64) -> Float64:
    """Derivative of (sum of losses) / normaliser by each row's log-probability, [2p].

    By a chosen one: -beta * sigmoid(-m) / normaliser; by its rejected one: the opposite.
    """
    terms = preference_terms(batch, policy)
    # sigmoid(-m) = 1 - e^-loss, which expm1 keeps exact for small losses
    slope = batch.beta * np.expm1(-terms.losses) / batch.rows.normaliser
    return np.concatenate([slope, -slope])
