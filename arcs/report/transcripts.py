"""Items of a run that left ``transcripts.jsonl`` (:mod:`arcs.transcripts`), ready to be shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arcs.report import judged
from arcs.report.stored import StoredRun
from arcs.report.view import Answer, Block, Item, State
from arcs.transcripts import TRANSCRIPTS
from evals.judges.labels import Label

Record = Mapping[str, Any]
LABELS = "labels.jsonl"
ABSENT = (
    f"This run has no {TRANSCRIPTS}: an earlier version of threearc made it, and its answers "
    "stand in it as token ids only. No number can lead to its answer."
)
RIGHT: Mapping[bool | None, str] = {True: "right", False: "wrong", None: "no label"}
DELIVERED: Mapping[bool | None, str] = {True: "asserted", False: "hedged", None: "no label"}
CHANGES: Mapping[tuple[bool, bool], str] = {
    (False, True): "gained", (True, False): "lost", (True, True): "both right",
    (False, False): "both wrong",
}  # fmt: skip


def records_of(run: StoredRun) -> tuple[Record, ...]:
    """Its lines, in the order of the items; none where there is no such file."""
    return tuple(run.lines(TRANSCRIPTS)) if run.has(TRANSCRIPTS) else ()


def items_of(run: StoredRun, records: Sequence[Record]) -> tuple[Item, ...]:
    """Every item with its answers."""
    labels = judged.labels_of(run, LABELS)
    return tuple(_item(record, labels) for record in records)


def _item(record: Record, labels: Mapping[str, Sequence[Label]]) -> Item:
    known = {(one["condition"], one.get("seed")): one for one in record["answers"]}
    answers = tuple(
        _answer(record["item_id"], one, known.get((one.get("against"), one.get("seed"))), labels)
        for one in record["answers"]
    )
    facets = {
        name: value if isinstance(value, str) else tuple(value)
        for name, value in record["facets"].items()
    }
    blocks = tuple(Block(title, text, kind) for title, kind, text in record["blocks"])
    return Item(record["item_id"], record["prompt"], answers, facets, blocks)


def _answer(
    item_id: str, one: Record, before: Record | None, labels: Mapping[str, Sequence[Label]]
) -> Answer:
    cut, seed = bool(one.get("truncated")), one.get("seed")
    said = labels.get(one.get("response", item_id), ())
    facets: dict[str, str | tuple[str, ...]] = {
        "condition": one["condition"],
        "n_predict": str(one["n_predict"]),
        "outcome": RIGHT[one["right"]],
        "delivery": "silent" if one.get("silent") else DELIVERED[one["asserted"]],
        "cut": ("loop" if one.get("loop") else "unfinished") if cut else "finished",
        **({} if seed is None else {"seed": str(seed)}),
        **({"read as": one["detail"]} if one.get("detail") else {}),
        **({"open": "yes"} if one.get("open") else {}),
        **one.get("facets", {}),
    }
    if said:
        facets["label"] = judged.facet_of(said)
    if "changed" in one:
        facets["text"] = "changed" if one["changed"] else "same"
    if before is not None and one["right"] is not None and before["right"] is not None:
        facets["change"] = CHANGES[before["right"], one["right"]]
    marks = ((len(one["text"]), f"n_predict {one['n_predict']} ended here"),) if cut else ()
    name = one["condition"] if seed is None else f"{one['condition']}, seed {seed}"
    return Answer(name, one["text"], (State(facets, (*_blocks(one), *judged.blocks_of(said))),),
                  marks)  # fmt: skip


def _blocks(one: Record) -> Iterator[Block]:
    if one.get("score") is not None:
        yield Block("probability of being right, by the probe", f"{one['score']:.4f}", "output")
    if one.get("coverage") is not None:
        yield Block("share of the checklist that is stated", f"{one['coverage']:.3f}", "output")
    if one.get("program"):
        yield Block("program that was run", one["program"], "code")
    if one.get("output"):
        yield Block("what running it gave", one["output"], "output")
