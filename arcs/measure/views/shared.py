"""What the reports of all instruments of ``threearc measure`` share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from arcs.evaluate.config import BASE
from arcs.measure.config import conditions_of, parse
from arcs.report import generic
from arcs.report.stored import StoredRun
from arcs.report.view import View
from evals.items.load import built_in, items_sha256
from evals.items.records import Item

Record = Mapping[str, Any]
Records = Mapping[str, Mapping[str, Record]]
"""Condition -> item id -> its record."""
T = TypeVar("T", bound=Item)
CHANGED = "Prompts are not shown: the items that ship have changed since the run."


def view(run: StoredRun, metrics: Mapping[str, Any], **found: Any) -> View:
    """A finished run's page; ``found``: what its instrument adds."""
    config = metrics["config"]
    return View(
        title=generic.title_of(run),
        kind=run.kind,
        subtitle=generic.subtitle_of(
            run, metrics["instrument"], f"{metrics['made_with']['backend']} {config['dtype']}",
            f"{metrics['n_items']} items",
        ),
        finished=True,
        made_with=generic.made_with(run),
        settings=generic.settings_of(run),
        **found,
    )  # fmt: skip


def conditions(metrics: Mapping[str, Any]) -> list[str]:
    """The base first, then in the order of the flags."""
    return [one.name for one in conditions_of(parse(metrics["config"]))]


def records(run: StoredRun, metrics: Mapping[str, Any]) -> Records:
    """Every condition's records, the base's first."""
    return {
        one.name: {row["item_id"]: row for row in run.lines(f"{one.slug}.jsonl")}
        for one in conditions_of(parse(metrics["config"]))
    }


def known(
    name: str, kind: type[T], metrics: Mapping[str, Any], records: Records
) -> Mapping[str, T]:
    """The items by id; none where they are not those that were measured."""
    items = {item.key: item for item in built_in(name, kind)}
    measured = [items[item_id] for item_id in records[BASE] if item_id in items]
    same = items_sha256(measured) == metrics["made_with"]["measurement"].get("items_sha256")
    return items if same else {}
