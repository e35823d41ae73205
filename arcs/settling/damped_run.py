"""What a finished run of ``arc2`` says: whether its claim is open, and to what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from arcs.arc2.config import Arc2Config
from arcs.arc2.rules import State, Word
from arcs.claims import Verdict
from arcs.gates import Gates
from arcs.settling.elsewhere import larger_run
from arcs.settling.opened import ENOUGH
from models.errors import UserError

ASKED = (Word.CONTENT_DAMAGE, Word.NOT_REPLICATED, Word.LIKE_RANDOM_HEADS, Word.NO_SEPARABLE_AXIS,
         Word.OVER_HEDGING)  # fmt: skip
"""Words that must be excluded for the claim to be supported."""


def why_not_settled(metrics: Mapping[str, Any]) -> str | None:
    """Why the claim is not settled by more items; None where it is open to them."""
    claim = metrics["claim"]
    decided, named_so = (
        Verdict(claim["verdict"]),
        f"{claim['verdict']} ({', '.join(claim['reasons'])})",
    )
    if decided in (Verdict.SUPPORTED, Verdict.REFUTED):
        return f"{named_so}: {ENOUGH}"
    if decided is Verdict.INVALID:
        return f"{named_so}: more items do not mend an instrument"
    if not metrics["evidence"]["axis"]:
        return f"{named_so}: no axis was measured ({metrics['axis']['why']}), and more items of " \
               "the same kind are no axis: give other --labels"  # fmt: skip
    return None


def require_poolable(
    run: Path, manifest: Mapping[str, Any], metrics: Mapping[str, Any], config: Arc2Config
) -> None:
    """Raise UserError where old and new items together would say nothing sound."""
    same = int(metrics["evidence"]["chosen_on_same"])
    if same:
        raise UserError(
            f"{run}: its heads were chosen on the {same} prompts that it swept, so its own answers "
            f"are no test that new ones could be added to; {larger_run(manifest['config'])}"
        )
    judge = config.label_source.judge
    if judge is not None and judge.kind != "lexical":
        raise UserError(
            f"{run}: its labels are a judge's ({config.labels}), which settle does not ask again "
            f"(of an API it would cost money); {larger_run(manifest['config'])}"
        )


def said_beside(
    manifest: Mapping[str, Any], metrics: Mapping[str, Any]
) -> Sequence[tuple[str, str]]:
    """What stays as it is, and words that keep the claim from being supported whatever comes."""
    states = {one["word"]: one for one in metrics["words"]}
    found = []
    for word in ASKED:
        one = states[word.value]
        # without a right answer over-hedging is not tested yet: more items may have some
        lost = one["state"] == State.NOT_TESTED.value and word is not Word.OVER_HEDGING
        if lost or (word is Word.NO_SEPARABLE_AXIS and one["state"] != State.EXCLUDED.value):
            found.append((word.value, f"{one['state']} ({one['because']}), which more items of the "
                          "sweep do not change, so they can refute the claim and not support "
                          "it"))  # fmt: skip
    asked = (name for name in ("gguf", "tasks") if manifest["config"].get(name) is not None)
    return [*found, *((name, "it stands beside the claim, and stays as it is") for name in asked)]


def only_content_is_open(metrics: Mapping[str, Any], gates: Gates) -> bool:
    """Whether all that is asked of the axis is shown."""
    stored, alpha = metrics["evidence"], gates.test.alpha
    states = {one["word"]: one["state"] for one in metrics["words"]}
    rises = any(one["p_adjusted"] < alpha and one["value"] >= one["smallest"]
                for one in stored["axis"])  # fmt: skip
    trend = any(one["p_adjusted"] < alpha and one["value"] > 0 for one in stored["trend"])
    beyond = all(states[word.value] == State.EXCLUDED.value
                 for word in (Word.NOT_REPLICATED, Word.LIKE_RANDOM_HEADS))  # fmt: skip
    return bool(rises and trend and beyond and stored["content"])
