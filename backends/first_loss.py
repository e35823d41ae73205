"""DPO's loss before any update: ln 2 where policy and reference are the same model (B30)."""

from __future__ import annotations

from collections.abc import Sequence

from backends.objectives import Preferences
from backends.preference_loss import LN2, PreferenceTerms
from backends.training_log import StartRecord
from models.errors import UserError

LOSS_TOLERANCE = {"float32": 1e-3, "float16": 5e-3, "bfloat16": 2e-2}
"""How far from ln 2 the first DPO loss may be where policy and reference are equal, at beta 0.1
and in proportion to it. Both are computed in the same batches, so on a CPU they are equal to
the last bit, and what is left is for devices that repeat themselves less exactly. Batches of other
shapes would not do: there a response of SmolLM2-135M is off by 0.5 nats (rms, 1.3 at most) in
bfloat16, as much as a reference that is another model may be."""
REWARD_TOLERANCE = 4.0
"""The largest reward of a row may be this many times as far from 0."""


def first_loss(
    objective: Preferences, terms: Sequence[PreferenceTerms], same: bool, dtype: str
) -> StartRecord:
    """Record the first loss; raise UserError unless it is ln 2 where ``same`` says so."""
    measures = objective.measure(terms)
    rewards = measures.preferences
    assert rewards is not None
    sides = [side for term in terms for side in (term.rewards_chosen, term.rewards_rejected)]
    largest = max(float(abs(side).max()) for side in sides)
    allowed = LOSS_TOLERANCE.get(dtype, LOSS_TOLERANCE["bfloat16"])
    allowed *= objective.config.beta / 0.1
    off = max(abs(measures.loss - LN2), largest / REWARD_TOLERANCE)
    if same and not off <= allowed:
        raise UserError(
            f"DPO's loss before any update is {measures.loss:.6f} with rewards up to "
            f"{largest:.2g}, not ln 2 = {LN2:.6f} and 0 (within {allowed:g}): the policy is not "
            "the reference it is said to start from; compute the reference again"
        )
    return StartRecord(
        loss=measures.loss,
        reward_chosen=rewards.reward_chosen,
        reward_rejected=rewards.reward_rejected,
        largest_reward=largest,
        policy_is_reference=same,
        tolerance=allowed if same else None,
    )
