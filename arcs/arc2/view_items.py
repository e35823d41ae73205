"""Items of an Arc 2 run: its answers, and what the meter and the ablations read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from arcs.arc2.selection import BASE
from arcs.report.stored import StoredRun
from arcs.report.transcripts import Record, items_of
from arcs.report.view import Answer, Block, Item, State

Json = Mapping[str, Any]
Reading = tuple[str, str, Mapping[str, str]]
"""Condition, what was read in words, facets."""


def head_name(head: Sequence[int]) -> str:
    """As heads are written everywhere."""
    return f"L{head[0]}H{head[1]}"


def ablated(head: Sequence[int]) -> str:
    """The condition of a head alone at 0."""
    return f"{head_name(head)} at 0"


def items(
    run: StoredRun, metrics: Json, records: Sequence[Record], heads: Sequence[Sequence[int]]
) -> tuple[Item, ...]:
    """Everything that was asked. ``heads``: those whose ablations are shown."""
    readings: dict[str, list[Reading]] = {}
    for item_id, found in (*_meter(run, metrics), *_ablations(run, heads)):
        readings.setdefault(item_id, []).append(found)
    cohort = {
        item_id: name
        for name in ("lacking", "having")
        for item_id in metrics["cohorts"][f"{name}_items"]
    }
    return tuple(
        _with(one, readings.get(one.id, ()), cohort.get(one.id)) for one in items_of(run, records)
    )


def _with(item: Item, readings: Sequence[Reading], cohort: str | None) -> Item:
    """A reading stands at the answer of its condition, or alone where there is none."""
    answers = list(item.answers)
    for condition, text, facets in readings:
        block = Block("read from log-probabilities", text, "output")
        at = next((i for i, one in enumerate(answers) if one.condition == condition), None)
        if at is None:
            answers.append(Answer(condition, None, (State(facets, (block,)),)))
        else:
            (state,) = answers[at].states
            answers[at] = replace(
                answers[at], states=(replace(state, blocks=(*state.blocks, block)),)
            )
    cohorts = {} if cohort is None else {"cohort": cohort}
    return replace(item, answers=tuple(answers), facets={**item.facets, **cohorts})


def _meter(run: StoredRun, metrics: Json) -> Iterator[tuple[str, Reading]]:
    """The contrast of each item at each point."""
    before: dict[str, float] = {}
    for point in metrics["sweep"]:
        name = f"meter.{point['point']}.jsonl"
        for row in run.lines(name) if run.has(name) else ():
            contrast = row["contrast"]
            text = (
                f"contrast {contrast:+.4f} nats per token\n"
                f"both continuations {row['likelihood']:+.4f} nats per token, on average"
            )
            facets = {"outcome": "positive likelier" if contrast > 0 else "negative likelier"}
            if point["point"] == BASE:
                before[row["item_id"]] = contrast
            elif row["item_id"] in before:
                shift = contrast - before[row["item_id"]]
                text += f"\nagainst lambda 1 {shift:+.4f}"
                facets["change"] = _direction(shift)
            yield row["item_id"], (point["point"], text, facets)


def _ablations(run: StoredRun, heads: Sequence[Sequence[int]]) -> Iterator[tuple[str, Reading]]:
    """What each of some heads, set to 0, does to each item that heads were ablated on."""
    if not run.has("ablations.jsonl"):
        return
    meter = (run.manifest.get("meter") or {}).get("ablated_on") or ()
    on = meter or (run.manifest.get("attribution") or {}).get("ablated_on") or ()
    what = "contrast" if meter else "mean log-probability of the answer"
    rows = {
        None if row["head"] is None else tuple(row["head"]): row["values"]
        for row in run.lines("ablations.jsonl")
    }
    for place, item_id in enumerate(on):
        before = rows[None][place]
        yield item_id, (BASE, f"{what} {before:+.4f} nats per token", {})
        for head in heads:
            value = rows[tuple(head)][place]
            text = f"{what} {value:+.4f} nats per token\nshift {value - before:+.4f}"
            yield item_id, (ablated(head), text, {"change": _direction(value - before)})


def _direction(shift: float) -> str:
    return "up" if shift > 0 else "down" if shift < 0 else "unchanged"
