"""A view for machines and for text editors: CSV, JSON, Markdown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arcs.report.parts import verdict_line
from arcs.report.view import Cell, ClaimCard, Number, Table, View
from arcs.runs import canonical_json

SCHEMA = "threearc-report-1"
COLUMNS = ("run", "kind", "table", "row", "column", "value", "low", "high", "level", "n", "unit")
_MEANS_SOMETHING = re.compile(r"[\\`*<&#]|(?<!\w)_|_(?!\w)|\](?=[(\[:])")
CLAIM_COLUMNS = ("verdict", "reasons", "statement")


def to_json(runs: Mapping[str, View]) -> str:
    """One document: claims and numbers of every run (docs/report.schema.json)."""
    return canonical_json({"schema_version": SCHEMA, "runs": [
        {
            "run": name,
            "kind": view.kind,
            "title": view.title,
            "finished": view.finished,
            "claims": [_claim(card) for card in view.claims],
            "numbers": [_number_json(key, cell) for table in view.tables
                        for key, cell in table.numbers()],
            "notes": [*view.failures, *view.notes],
            "settings": dict(view.settings),
        }
        for name, view in runs.items()
    ]})  # fmt: skip


def _claim(card: ClaimCard) -> dict[str, Any]:
    return {
        "about": card.about,
        "statement": card.statement,
        "verdict": card.verdict,
        "reasons": list(card.reasons),
        "explanation": card.explanation,
        "number": None if card.number is None else _plain(card.number),
        "p_value": card.p_value,
    }


def _number_json(key: tuple[str, str, str], cell: Cell) -> dict[str, Any]:
    table, row, column = key
    assert cell.number is not None  # of Table.numbers
    return {"table": table, "row": row, "column": column, **_plain(cell.number)}


def _plain(number: Number) -> dict[str, Any]:
    return {name: getattr(number, name) for name in ("value", "low", "high", "level", "n", "unit")}


def to_csv(runs: Mapping[str, View]) -> str:
    """One line a number, the claims among them (table ``claims``); missing values are empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, (*COLUMNS, *CLAIM_COLUMNS), lineterminator="\n", restval="")
    writer.writeheader()
    for name, view in runs.items():
        for line in _lines(view):
            row = {"run": name, "kind": view.kind, **line}
            writer.writerow({key: harmless(value) for key, value in row.items()})
    return out.getvalue()


def _lines(view: View) -> Iterator[dict[str, Any]]:
    for card in view.claims:
        number = {} if card.number is None else _plain(card.number)
        yield {
            "table": "claims", "row": card.about, "column": "", **number, "verdict": card.verdict,
            "reasons": " ".join(card.reasons), "statement": card.statement,
        }  # fmt: skip
    for table in view.tables:
        for key, cell in table.numbers():
            yield _number_json(key, cell)


def harmless(value: Any) -> Any:
    """Text that a spreadsheet does not take for a formula; missing is empty."""
    if value is None:
        return ""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value


def to_markdown(view: View) -> str:
    """Claims and tables, to be pasted."""
    parts = [f"# {_inline(view.title)}", _inline(view.subtitle)]
    if not view.finished:
        parts.append("No result yet.")
    parts += [f"**{_inline(line)}**" for line in view.failures]
    parts += ["- " + _inline(verdict_line(card)) for card in view.claims]
    parts += [_inline(note) for note in view.notes]
    for table in view.tables:
        parts += [f"## {_inline(table.title)}", "\n".join(_table(table))]
        if table.caption:
            parts.append(_inline(table.caption))
    return "\n\n".join(_joined(parts)) + "\n"


def _joined(parts: Sequence[str]) -> Iterator[str]:
    """Items of a list stay together."""
    held: list[str] = []
    for part in parts:
        if part.startswith("- "):
            held.append(part)
            continue
        if held:
            yield "\n".join(held)
            held = []
        yield part
    if held:
        yield "\n".join(held)


def _table(table: Table) -> Iterator[str]:
    yield "| " + " | ".join(_cell(one) for one in (table.head, *table.columns)) + " |"
    yield "| --- |" + " ---: |" * len(table.columns)
    for row in table.rows:
        label = row.label + (f" ({row.detail})" if row.detail else "")
        texts = [" ".join((one.text, *one.lines)) for one in row.cells]
        yield "| " + " | ".join(_cell(one) for one in (label, *texts)) + " |"


def _cell(text: str) -> str:
    return _inline(text).replace("|", "\\|")


def _inline(text: str) -> str:
    """Text on one line, in which Markdown and HTML mean nothing.

    An underscore within a word and a bracket that begins no link mean nothing anyway.
    """
    return _MEANS_SOMETHING.sub(r"\\\g<0>", " ".join(text.split()))
