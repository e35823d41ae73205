"""Free answers that a judge labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from arcs.evaluate.config import BASE
from arcs.measure.config import CHEF, DELIVERY, MCAS, RECOVERY, conditions_of, parse
from arcs.measure.views import free_tables, shared
from arcs.measure.views.shared import Record
from arcs.report import generic, judged, parts
from arcs.report.stored import StoredRun
from arcs.report.view import Answer, Block, Item, State, View
from evals.items.records import ChefItem, McasItem, RecoveryItem
from evals.items.records import Item as SetItem
from evals.judges.labels import Label

SETS: Mapping[str, tuple[str, type[SetItem], tuple[str, ...]]] = {
    CHEF: ("chef_fresh", ChefItem, ("category", "difficulty", "certainty")),
    MCAS: ("mcas", McasItem, ("type", "domain")),
    RECOVERY: ("recovery", RecoveryItem, ("kind",)),
}
"""Instrument -> the set it asks, and what its items can be filtered by."""


def free_answers(run: StoredRun, metrics: Mapping[str, Any]) -> View:
    """Claims and numbers as they stand in the metrics, and the answers with their labels.

    Budgets are those of ``measurement.n_predict``. Where smaller ones cut the text is known to the
    tokenizer only, so the page shows the longest text, and what was said of each.
    """
    found = generic.view(run)
    conditions = conditions_of(parse(metrics["config"]))
    budgets = _budgets(metrics)
    answers: dict[str, list[Answer]] = {}
    for one in conditions:
        if not run.has(f"{one.slug}.jsonl"):
            continue
        labels = judged.labels_of(run, f"{one.slug}.labels.jsonl")
        for row in run.lines(f"{one.slug}.jsonl"):
            answers.setdefault(row["item_id"], []).append(_free(one.name, row, budgets, labels))
    known, notes = _known(metrics, answers), found.notes
    if not known and metrics["instrument"] != DELIVERY:  # whose prompts are not ours
        notes = (*notes, shared.CHANGED)
    items = tuple(_item(item_id, said, known.get(item_id)) for item_id, said in answers.items())
    if metrics["instrument"] not in SETS:
        return replace(found, items=items, notes=notes)
    own = tuple(free_tables.tables(metrics))
    figure = parts.plot_of("Against the base", own[0], "difference", "points", null=0.0) if (
        own[0].name == "differences"
    ) else None  # fmt: skip
    return replace(
        found, items=items, notes=notes, claims=tuple(free_tables.claims(metrics)),
        subtitle=generic.subtitle_of(
            run, metrics["instrument"], f"{metrics['made_with']['backend']} "
            f"{metrics['config']['dtype']}", f"{metrics['n_items']} items",
        ),
        tables=(*own, *(replace(one, folded=True) for one in found.tables)),
        figures=((figure,) if figure else ()) + found.figures,
    )  # fmt: skip


def _known(metrics: Mapping[str, Any], answers: Mapping[str, Any]) -> Mapping[str, Any]:
    """The set's items by id; none where it is not known, or has changed."""
    if metrics["instrument"] not in SETS:
        return {}
    name, kind, _ = SETS[metrics["instrument"]]
    return shared.known(name, kind, metrics, {BASE: answers})


def _item(item_id: str, said: Sequence[Answer], known: Any) -> Item:
    if known is None:
        return Item(item_id, None, tuple(said))
    facets = next(names for _, kind, names in SETS.values() if isinstance(known, kind))
    return Item(item_id, known.prompt, tuple(said), {name: getattr(known, name) for name in facets})


def _budgets(metrics: Mapping[str, Any]) -> tuple[int, ...]:
    found = (metrics["made_with"].get("measurement") or {}).get("n_predict", ())
    return (found,) if isinstance(found, int) else tuple(found)


def _free(
    condition: str, row: Record, budgets: Sequence[int], labels: Mapping[str, Sequence[Label]]
) -> Answer:
    """One answer at each n_predict; labels hang at the smallest at which it is the same text."""
    states = []
    for n in budgets:
        length = len(row["ids"])
        cut = length > n or (row["finish_reason"] == "length" and length >= n)
        first = n if length > n else min(one for one in budgets if one >= length)
        said = labels.get(f"{condition}/{row['item_id']}@{first}", ())
        tried = (row.get("tries") or {}).get(str(n))
        facets: dict[str, str | tuple[str, ...]] = {
            "n_predict": str(n),
            "outcome": tried["outcome"] if tried else "cut" if cut else "finished",
            **({"cut": "unfinished" if cut else "finished"} if tried else {}),
        }
        if said:
            facets["label"] = judged.facet_of(said)
        ran = (Block("what running it gave", tried["detail"], "output"),) if tried else ()
        states.append(State(facets, (*ran, *judged.blocks_of(said))))
    marks: tuple[tuple[int, str], ...] = ()
    if row["finish_reason"] == "length" and budgets:
        marks = ((len(row["text"]), f"n_predict {budgets[-1]} ended here"),)
    return Answer(condition, row["text"], tuple(states), marks)
