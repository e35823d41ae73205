"""Several runs as one view: their claims, what differs in how they were made, their numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from arcs.report.view import (
    Answer,
    Cell,
    Chart,
    ClaimCard,
    Item,
    Plot,
    Row,
    Series,
    State,
    Table,
    Unit,
    View,
    interval_text,
    shown,
)

RUN = "run"
"""The facet that tells the runs apart."""
VOLATILE = frozenset({"timing", "command", "metrics"})
"""Sections that differ between any two runs, or are shown elsewhere."""
ABSENT = "-"
FEW = 12
"""Differences that are shown at once; more are folded, so that the numbers stay in sight."""


MANY = 40
"""Rows of a table that is shown at once."""


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
        failures=tuple(f"{name}: {one}" for name, view in runs.items() for one in view.failures),
        notes=tuple(f"{name}: {note}" for name, view in runs.items() for note in view.notes),
        tables=(
            *_verdicts(runs),
            *((_settings(runs, differing),) if differing else ()),
            *_numbers(runs),
        ),
        figures=tuple(_figures(runs)),
        items=_items(runs),
        made_with={name: dict(view.made_with) for name, view in runs.items()},
    )


def _claims(runs: Mapping[str, View]) -> Iterator[ClaimCard]:
    """Every run's first claim first; the others are minor, a table has them side by side."""
    ranks = zip_longest(*([(name, card) for card in view.claims] for name, view in runs.items()))
    for place, rank in enumerate(ranks):
        for found in rank:
            if found is not None:
                name, card = found
                about = f"{name}: {card.about}" if card.about else name
                select = None if card.select is None else {RUN: name, **card.select}
                yield replace(card, about=about, select=select, minor=card.minor or place > 0)


def _verdicts(runs: Mapping[str, View]) -> Iterator[Table]:
    """A row a claim, a column a run; without what is minor in a run itself."""
    cells: dict[str, dict[str, Cell]] = {}
    for name, view in runs.items():
        abouts = Counter(card.about for card in view.claims if not card.minor)
        for card in view.claims:
            if not card.minor:
                own = card.about and abouts[card.about] == 1
                label = card.about if own else f"{card.about}: {card.statement}".lstrip(": ")
                cells.setdefault(label, {})[name] = _verdict(name, card)
    rows = tuple(
        Row(label, tuple(found.get(name, Cell(ABSENT)) for name in runs))
        for label, found in cells.items()
    )
    if rows:
        yield Table("verdicts", "Verdicts", tuple(runs), rows, head="claim",
                    caption="Reasons, number and interval below each.")  # fmt: skip


def _verdict(run: str, card: ClaimCard) -> Cell:
    reasons = ", ".join(card.reasons).replace("_", " ")
    said = f"{shown(card.number)} {interval_text(card.number)}".strip() if card.number else ""
    select = None if card.select is None else {RUN: run, **card.select}
    return Cell(card.verdict, tuple(one for one in (reasons, said) if one), None, select,
                card.verdict)  # fmt: skip


def _figures(runs: Mapping[str, View]) -> Iterator[Plot | Chart]:
    """The claims' numbers under one another, those of one unit together; then curves."""
    rows: dict[Unit, list[Any]] = {}
    for card in _claims(runs):
        if card.number is not None and card.number.low is not None:
            rows.setdefault(card.number.unit, []).append((card.about, card.number, card.select))
    for unit, found in rows.items():
        null = 0.0 if unit in ("points", "nats") else None
        yield Plot("What the claims rest on", tuple(found), null, caption=f"{unit}, with intervals")
    yield from _charts(runs)


def _charts(runs: Mapping[str, View]) -> Iterator[Chart]:
    """The charts that several runs have, the first curve of each run in one of them."""
    found: dict[tuple[str, Unit], list[tuple[str, Chart]]] = {}
    for run, view in runs.items():
        for one in view.figures:
            if isinstance(one, Chart):
                unit = next(point.y.unit for series in one.series for point in series.points)
                found.setdefault((one.name, unit), []).append((run, one))
    for charts in found.values():
        if len(charts) < 2:
            continue
        _, first = charts[0]
        guides = tuple(one for one in first.series if one.kind == "guide")
        curves = tuple(_curve(run, chart.series[0]) for run, chart in charts)
        same = all(chart.levels == first.levels for _, chart in charts)
        band = first.band if all(chart.band == first.band for _, chart in charts) else None
        yield replace(
            first, series=(*curves, *guides), levels=first.levels if same else (), band=band,
            title=first.title if all(c.title == first.title for _, c in charts) else first.name,
            caption=f"{first.series[0].name} of each run; the other curves stand on its own page.",
        )  # fmt: skip


def _curve(run: str, series: Series) -> Series:
    points = tuple(
        one if one.select is None else replace(one, select={RUN: run, **one.select})
        for one in series.points
    )
    return replace(series, name=run, points=points)


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
        having = [run for run, found in cells.items() if found.keys() & keys.keys()]
        rows = tuple(
            Row(
                f"{row}: {column}",
                tuple(_of(run, cells[run].get((name, row, column))) for run in having),
            )
            for _, row, column in keys
        )
        folded = all(t.folded for v in runs.values() for t in v.tables if t.name == name)
        lacking = len(runs) - len(having)
        beside = f"Runs without these numbers are left out: {lacking}." if lacking else ""
        yield Table(name, title, tuple(having), rows,
                    caption=f"{caption} {beside}".strip(),
                    folded=folded or len(rows) > MANY)  # fmt: skip


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
