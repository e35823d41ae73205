"""The planted effect and its placebo: two more adapters, which test the instruments.

A tool that mostly says "no effect" must be able to say "yes": an adapter trained to hedge must be
seen to hedge, and one trained in the same way on the same prompts without the hedging must not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arcs.arc1.config import Arc1Config, absolute_paths
from arcs.arc1.metrics import TrainingSummary
from arcs.arc1.recipes import PLACEBO, PLANTED, recipe
from arcs.arc1.training import Trainer, records_of, train_or_take
from arcs.subruns import sub_run

FOLDER = "controls"
NAMES: Mapping[str, str] = {"planted": PLANTED, "placebo": PLACEBO}
"""Arm -> recipe."""
SEEN_ON: Sequence[tuple[str, str, int]] = (("meter", "hedging", 1), ("chef", "assertion_rate", -1))
"""Evaluation, claim, and the sign of what hedging does to it."""


@dataclass(frozen=True)
class Control:
    """One trained control."""

    adapter: Path
    training: TrainingSummary


def train_controls(trainer: Trainer) -> dict[str, Control]:
    """Train what is not trained yet, by arm; none without ``--planted``."""
    if not trainer.config.planted:
        return {}
    made = {}
    for arm, name in NAMES.items():
        settings = settings_of(trainer.config, name)
        path = trainer.run.path / FOLDER / arm
        with (
            sub_run(path, "arc1-control", settings.model_dump(mode="json")) as own,
            trainer.run.timed(f"train {arm}"),
        ):
            trainer.reporter.say(f"control: {name}")
            trained = train_or_take(
                replace(trainer, config=settings, run=own, shared={}), records_of(settings), ()
            )
        assert trained.sft is not None  # its method is sft
        made[arm] = Control(trained.adapter, trained.sft)
    return made


def settings_of(config: Arc1Config, name: str) -> Arc1Config:
    """The run's model, engine and seed, and the control's recipe."""
    own = {
        **Arc1Config().model_dump(),
        **{key: getattr(config, key) for key in _SHARED},
        **absolute_paths(recipe(name)),
        "recipe": name,
        "evaluations": (),
    }
    return Arc1Config.model_validate(own)


_SHARED = ("model", "backend", "dtype", "base_bits", "thinking", "seed", "checkpoint_every")


def held_to_controls(
    evaluations: Mapping[str, Mapping[str, Any]], controls: Mapping[str, Control]
) -> dict[str, Any]:
    """By instrument, whether it sees the planted effect and not the placebo; {} without them."""
    if not controls:
        return {}
    instruments = {}
    for evaluation, quantity, sign in SEEN_ON:
        if evaluation in evaluations:
            claims = {arm: _claim(evaluations[evaluation], arm, quantity) for arm in NAMES}
            instruments[f"{evaluation}: {quantity}"] = {
                **{arm: claim["verdict"] for arm, claim in claims.items()},
                "passes": _passes(claims, sign),
                "claims": claims,
            }
    return {
        "instruments": instruments,
        "training": {arm: one.training.model_dump(mode="json") for arm, one in controls.items()},
    }


def _claim(evaluation: Mapping[str, Any], arm: str, quantity: str) -> dict[str, Any]:
    claims = evaluation["conditions"][arm]["comparison"]["claims"][quantity]
    found: dict[str, Any] = claims[-1] if isinstance(claims, list) else claims
    return found


def _passes(claims: Mapping[str, Mapping[str, Any]], sign: int) -> bool | None:
    """Whether the planted effect is seen, and none of the placebo's, in whatever direction.

    None where nothing was tested: a claim is INVALID, or too few items could show the effect.
    """
    if any(claim["verdict"] == "INVALID" for claim in claims.values()):
        return None
    if claims["placebo"]["verdict"] == "SUPPORTED":
        return False
    return (
        None if claims["planted"]["verdict"] == "INCONCLUSIVE" else _seen(claims["planted"], sign)
    )


def _seen(claim: Mapping[str, Any], sign: int) -> bool:
    return bool(claim["verdict"] == "SUPPORTED" and sign * claim["delta"] > 0)
