"""The table for people."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from arcs.evaluate.report import COLOURS
from arcs.paper.table import NOT_MEASURED, OUTSIDE, WITHIN

Found = Mapping[str, Any]
_STYLE = {WITHIN: "green", OUTSIDE: "yellow", NOT_MEASURED: "dim"}
_WORD_WIDTH = len(NOT_MEASURED)


def report(metrics: Found) -> Group:
    """The table, what was substituted, the arcs' own verdicts."""
    notes, reasons = _notes(metrics), _reasons(metrics)
    parts: list[RenderableType] = [_table(metrics, notes, reasons)]
    parts += [Text(f"{number}: {note}") for note, number in notes.items()]
    parts += [Text(f"{letter}: {reason}") for reason, letter in reasons.items()]
    parts += [Text(line) for line in _sentences(metrics)]
    parts += _verdicts(metrics)
    return Group(*parts)


def _notes(metrics: Found) -> dict[str, int]:
    """Everything substituted, once, with its number."""
    every = [note for row in metrics["rows"] for note in row["substituted"]]
    return {note: number for number, note in enumerate(dict.fromkeys(every), start=1)}


def _reasons(metrics: Found) -> dict[str, str]:
    """Why rows are not measured, each once, with its letters."""
    every = [row["why_not"] for row in metrics["rows"] if row["why_not"]]
    return {why: _letters(place) for place, why in enumerate(dict.fromkeys(every))}


def _letters(place: int) -> str:
    """a to z, then aa, ab, ..."""
    first, last = divmod(place, 26)
    return (chr(96 + first) if first else "") + chr(97 + last)


def _table(metrics: Found, notes: Mapping[str, int], reasons: Mapping[str, str]) -> Table:
    of, name = metrics["recipe"]["of"], metrics["model"]["name"]
    title = f"The paper's {of}" + (f", its recipe on {name}" if name != of else "")
    table = Table(
        title=escape(title),
        caption="ours: 95% intervals; the word: where the paper's number lies (with i: the "
        "independent figure), not whether it is right; numbers and letters: below",
        box=SIMPLE_HEAD, title_justify="left", pad_edge=False,
    )  # fmt: skip
    table.add_column("quantity, checkpoint", overflow="fold")
    for column in ("paper", "inde-\npendent", "ours"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("substi-\ntuted", overflow="fold", width=8)
    table.add_column("", no_wrap=True)  # wrapped in _word: rich would cut words where it is narrow
    for row in metrics["rows"]:
        numbers = ", ".join(str(notes[one]) for one in row["substituted"])
        table.add_row(
            escape(f"{row['quantity']}\n  {row['checkpoint']}"), _figure(row["paper"], row["unit"]),
            _figure(row["independent"], row["unit"]), _ours(row), numbers, _word(row, reasons),
        )  # fmt: skip
    return table


def _figure(one: Found | None, unit: str) -> str:
    if one is None:
        return "-"
    counts = "" if one["k"] is None else f"\n{one['k']}/{one['n']}"
    return _number(one["value"], unit) + counts


def _ours(row: Found) -> str:
    one = row["ours"]
    if one is None:
        return "-"
    shown = _number(one["value"], row["unit"])
    if one["interval"] is not None:
        low, high = (_number(one["interval"][end], row["unit"], bare=True)
                     for end in ("low", "high"))  # fmt: skip
        shown += f"\n[{low}, {high}]"
    return shown + (f"\nn {one['n']}" if one["n"] is not None else "")


def _number(value: float, unit: str, *, bare: bool = False) -> str:
    if unit == "%":
        return f"{100 * value:.1f}" + ("" if bare else "%")
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"


def _word(row: Found, reasons: Mapping[str, str]) -> Text:
    word = row["word"]
    text = Text(_wrapped(word), style=_STYLE.get(word, ""))
    if word == NOT_MEASURED and row["why_not"]:
        text.append(f"\n({reasons[row['why_not']]})")
    independent = row["independent_word"]
    if independent in (WITHIN, OUTSIDE):
        text.append("\n" + _wrapped(f"i: {independent}"))
    return text


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WORD_WIDTH)


def _sentences(metrics: Found) -> list[str]:
    rows = metrics["rows"]
    counts = {word: sum(row["word"] == word for row in rows) for word in
              (WITHIN, OUTSIDE, NOT_MEASURED)}  # fmt: skip
    lines = [
        f"Of {sum(row['paper'] is not None for row in rows)} numbers of the paper "
        f"{counts[WITHIN]} lie within our interval and {counts[OUTSIDE]} outside; "
        f"{counts[NOT_MEASURED]} of {len(rows)} rows are not measured."
    ]
    if metrics["recipe"]["stands_in"]:
        lines.append(
            f"{metrics['model']['name']} stands in: no row says anything of "
            f"{metrics['recipe']['of']}."
        )
    if metrics["config"]["profile"] == "quick":
        lines.append("The quick profile shows that all of it works; its few items settle nothing.")
    return lines


def _verdicts(metrics: Found) -> list[Text]:
    lines = []
    for stage in metrics["stages"]:
        for claim in stage["claims"]:
            line = Text(f"{stage['name']}{': ' + claim['about'] if claim['about'] else ''}: ")
            line.append(claim["verdict"], style=COLOURS.get(claim["verdict"], ""))
            reasons = ", ".join(claim["reasons"]).replace("_", " ")
            lines.append(line.append(f" ({reasons}). {claim['statement']}"))
        if stage["state"] == "refused":
            lines.append(Text(f"{stage['name']}: could not be run: {stage['why']}", "red"))
    return lines
