"""Labels of an Arc 2 capsule made again from its stored ids, where no model is asked for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arcs.arc2.dispositions import Labelled
from arcs.arc2.sources import Execution
from arcs.capsules.sweep_numbers import Held
from arcs.capsules.sweeping import LABEL

LEXICAL = "lexical"
HOW: Mapping[str, str] = {
    "exact-match": "right by exact match, and delivered by the lexical rule, as stated",
    "meter": "delivered as stated, by the lexical rule; what the meter reads is read apart",
    "judge": "labelled as stated, by the lexical judge",
    "execution": "of all points in the sample labelled as stated, their programs run in this "
    "sandbox",
}


def again(held: Held, chosen: Sequence[str]) -> dict[str, Any]:
    """Stated labels beside those that this machine gives: to every answer, by a rule; to those of
    the sample, by running their programs."""
    config, source = held.config, held.prepared.source
    common = {"by": config.labels, "questions": len(source.prompts)}
    judge = config.label_source.judge
    if judge is not None and judge.kind != LEXICAL:
        return {
            **common, "n": 0, "same": 0, "differing": [], "reproduces": None,
            "why": f"labels by {config.labels} are as stated; they were not made again",
        }  # fmt: skip
    runs = isinstance(source, Execution)
    n, differing = 0, []
    for (arm, seed), answers in held.completions.items():
        of = [one for one in answers if not runs or one.item_id in chosen]
        stated = {one.item_id: one for one in held.stated[arm, seed]}
        for here in source.label(of, seed, arm) if of else ():
            n += 1
            told = stated[here.item_id]
            if any(getattr(told, key) != getattr(here, key) for key in LABEL):
                differing.append({"item_id": here.item_id, "arm": _at(arm, seed),
                                  "stated": _said(told), "here": _said(here)})  # fmt: skip
    how = HOW[source.name]
    if isinstance(source, Execution):
        how += f" ({source.level.name})"
    return {
        **common, "n": n, "same": n - len(differing), "differing": differing,
        "reproduces": not differing, "how": how, "why": None,
    }  # fmt: skip


def _at(arm: str, seed: int | None) -> str:
    return arm if seed is None else f"{arm}, seed {seed}"


def _said(one: Labelled) -> str:
    right = {True: "right", False: "wrong", None: "neither right nor wrong"}[one.right]
    asserted = {True: "asserted", False: "hedged", None: "undelivered"}[one.asserted]
    coverage = () if one.coverage is None else (f"coverage {one.coverage:.2f}",)
    return ", ".join([right, asserted, *coverage, *(["open"] if one.open else [])])
