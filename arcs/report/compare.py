"""Several runs as one view: their claims, what differs in how they were made, their numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from arcs.report.view import Answer, Cell, ClaimCard, Item, Plot, Row, State, Table, Unit, View

RUN = "run"
"""The facet that tells the runs apart."""
VOLATILE = frozenset({"timing", "command", "metrics"})
"""Sections that differ between any two runs, or are shown elsewhere."""
ABSENT = "-"
FEW = 12
"""Differences that are shown at once; more are folded, so that the numbers stay in sight."""


def compared(runs: Mapping[str, View]) -> View:
    """The views by name, on one page.

    Numbers are matched by table, row and column, items by id and prompt: an id that stands for
    another prompt in another run stays apart.
    """
    differing = differences({name: view.made_with for name, view in runs.items()})
    return View(
        title=f"{len(runs)} runs compared",
        kind="comparison",
        subtitle=" · ".join(f"{name} ({view.kind})" for name, view in runs.items()),
        finished=all(view.finished for view in runs.values()),
        claims=tuple(_claims(runs)),
        notes=tuple(f"{name}: {note}" for name, view in runs.items() for note in view.notes),
        tables=(*((_settings(runs, differing),) if differing else ()), *_numbers(runs)),
        figures=tuple(_figures(runs)),
        items=_items(runs),
        made_with={name: dict(view.made_with) for name, view in runs.items()},
    )


def _claims(runs: Mapping[str, View]) -> Iterator[ClaimCard]:
    """Every run's first claim first."""
    ranks = zip_longest(*([(name, card) for card in view.claims] for name, view in runs.items()))
    for rank in ranks:
        for found in rank:
            if found is not None:
                name, card = found
                about = f"{name}: {card.about}" if card.about else name
                select = None if card.select is None else {RUN: name, **card.select}
                yield replace(card, about=about, select=select)


def _figures(runs: Mapping[str, View]) -> Iterator[Plot]:
    """The claims' numbers under one another, those of one unit together."""
    rows: dict[Unit, list[Any]] = {}
    for card in _claims(runs):
        if card.number is not None and card.number.low is not None:
            rows.setdefault(card.number.unit, []).append((card.about, card.number, card.select))
    for unit, found in rows.items():
        null = 0.0 if unit in ("points", "nats") else None
        yield Plot("What the claims rest on", tuple(found), null, caption=f"{unit}, with intervals")


# -- how they were made ---------------------------------------------------------------------------


def differences(made_with: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Leaves of how runs were made that are not the same in all; values as text, by run.

    ``made_with``: by run, as in :class:`arcs.report.view.View`.
    """
    flat = [
        {
            key: text
            for section, value in made.items()
            if section not in VOLATILE
            for key, text in leaves(value, section)
        }
        for made in made_with.values()
    ]
    keys = sorted({key for one in flat for key in one}, key=_settings_first)
    found = {key: tuple(one.get(key, ABSENT) for one in flat) for key in keys}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def _settings_first(key: str) -> tuple[bool, str]:
    return not key.startswith("settings."), key


def leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Path and text of every value in a JSON document; lists of plain values are one value."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, (list, tuple)) and any(isinstance(one, Mapping) for one in value):
        for place, inner in enumerate(value):
            yield from leaves(inner, f"{path}.{place}")
    elif isinstance(value, str):
        yield path, value
    else:
        yield path, json.dumps(value, ensure_ascii=False)


def _settings(runs: Mapping[str, View], found: Mapping[str, Sequence[str]]) -> Table:
    return Table(
        name="made with",
        title="What differs in how they were made",
        head="setting",
        columns=tuple(runs),
        rows=tuple(
            Row(key, tuple(Cell(_short(text)) for text in values)) for key, values in found.items()
        ),
        caption="Everything else that the manifests hold is the same, dates and seconds aside.",
        folded=len(found) > FEW,
    )


def _short(text: str) -> str:
    return text if len(text) <= 48 else f"{text[:32]}… ({len(text)} characters)"


# -- numbers --------------------------------------------------------------------------------------


def _numbers(runs: Mapping[str, View]) -> Iterator[Table]:
    """A table for each table of numbers: its rows and columns down, the runs across."""
    titles: dict[str, tuple[str, str]] = {}
    for view in runs.values():
        for table in view.tables:
            titles.setdefault(table.name, (table.title, table.caption))
    cells = {
        run: {key: cell for table in view.tables for key, cell in table.numbers()}
        for run, view in runs.items()
    }
    for name, (title, caption) in titles.items():
        keys = dict.fromkeys(key for one in cells.values() for key in one if key[0] == name)
        if not keys:
            continue
        rows = tuple(
            Row(
                f"{row}: {column}",
                tuple(_of(run, found.get((name, row, column))) for run, found in cells.items()),
            )
            for _, row, column in keys
        )
        yield Table(name, title, tuple(runs), rows, caption=caption,
                    folded=all(t.folded for v in runs.values() for t in v.tables
                               if t.name == name))  # fmt: skip


def _of(run: str, cell: Cell | None) -> Cell:
    if cell is None:
        return Cell(ABSENT)
    return cell if cell.select is None else replace(cell, select={RUN: run, **cell.select})


# -- items ----------------------------------------------------------------------------------------


def _items(runs: Mapping[str, View]) -> tuple[Item, ...]:
    """Each item once with the answers of all runs, in the order of the runs."""
    prompts: dict[str, set[str | None]] = {}
    for view in runs.values():
        for item in view.items:
            prompts.setdefault(item.id, set()).add(item.prompt)
    merged: dict[tuple[str, str | None], Item] = {}
    for run, view in runs.items():
        for item in view.items:
            key = (item.id, item.prompt)
            before = merged.get(key)
            own = _answers(run, item)
            name = item.id if len(prompts[item.id]) == 1 else f"{item.id} ({run})"
            merged[key] = (
                Item(name, item.prompt, own, {}, item.blocks)
                if before is None
                else replace(before, answers=(*before.answers, *own))
            )
    return tuple(merged.values())


def _answers(run: str, item: Item) -> tuple[Answer, ...]:
    """The run's answers; what the item is filtered by goes with them, since runs may differ."""
    return tuple(
        replace(
            answer,
            condition=f"{run}: {answer.condition}",
            states=tuple(
                State(
                    {RUN: run, "condition": answer.condition, **item.facets, **one.facets},
                    one.blocks,
                )
                for one in answer.states
            ),
        )
        for answer in item.answers
    )
