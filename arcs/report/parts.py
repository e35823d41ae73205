"""Cells and figures that several kinds of run are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arcs.report.view import (
    Cell,
    ClaimCard,
    Number,
    Plot,
    Row,
    Select,
    Table,
    interval_text,
    shown,
)

MISSING = Cell("-")
OUTCOMES: Mapping[str, str] = {
    "passed": "pass",
    "wrong": "wrong",
    "timeout": "time-out",
    "syntax_error": "syntax",
    "no_code": "no code",
    "unclosed_fence": "fence",
    "unclosed_think": "think",
    "truncated": "truncated",
    "infrastructure_error": "missing",
}
"""Outcomes of an executed answer, as columns."""
CUTS = ("loop", "unfinished")
"""Values of the facet ``cut`` of an answer that its budget ended; else it is ``finished``."""


def number_cell(
    number: Number | None, *lines: str, select: Select | None = None, sign: bool = False
) -> Cell:
    """A number, its interval and what else stands below it; "-" where it is missing."""
    if number is None:
        return Cell("-", lines)
    interval = interval_text(number, sign=sign)
    below = (*((interval,) if interval else ()), *lines)
    return Cell(shown(number, sign=sign), below, number, select)


def count_cell(count: int | None, *lines: str, n: int | None = None,
               select: Select | None = None) -> Cell:  # fmt: skip
    """A count of items, linked where there are any; "-" where it is not known."""
    if count is None:
        return MISSING
    number = Number(float(count), "count", n=n)
    return Cell(f"{count:,}", lines, number, select if count else None)


def p_cell(value: float | None) -> Cell:
    """A p-value."""
    return number_cell(Number.of(value, "p"))


def verdict_cell(claim: Mapping[str, Any]) -> Cell:
    """Verdict and reasons, in its colour."""
    reasons = ", ".join(claim.get("reasons") or ()).replace("_", " ")
    return Cell(claim["verdict"], (reasons,) if reasons else (), tone=claim["verdict"])


def rate_cell(arm: Mapping[str, Any], select: Select) -> Cell:
    """pass@1 of one arm at one n_predict, linked to what passed."""
    counted = arm.get("answers", arm["n_items"]) - arm["missing"]
    number = Number.of(arm["pass_at_1"], "share", arm["interval"], counted)
    behind = passed_of(select, "passed", arm["passed"])
    return number_cell(number, f"{arm['passed']}/{counted}", select=behind)


def passed_of(select: Select, outcome: str, count: int) -> Select:
    """What a rate rests on: the answers of this outcome, or all where there is none."""
    return {**select, "outcome": outcome} if count else select


def detectable_cell(effect: float | None) -> Cell:
    """The smallest true difference that so many items would show; it has no sign."""
    number = Number.of(effect, "points")
    return MISSING if number is None else Cell(f"{100 * number.value:.1f} pt", number=number)


def difference_cell(budget: Mapping[str, Any], select: Select) -> Cell:
    """The paired difference at one n_predict, linked to the items that make it."""
    claim = budget["claim"]
    number = Number.of(claim["delta"], "points", claim["interval"], claim["n_items"])
    lines = () if budget["gained"] is None else (f"+{budget['gained']} −{budget['lost']}",)
    return number_cell(number, *lines, select={**select, "change": ("gained", "lost")})


def outcome_rows(
    arms: Iterator[tuple[str, Mapping[str, Any], Select]],
) -> tuple[tuple[str, ...], tuple[Row, ...]]:
    """Columns and rows of what became of the answers; every count is linked to them."""
    found = list(arms)
    kinds = [kind for kind in OUTCOMES if any(arm["outcomes"].get(kind) for _, arm, _ in found)]
    kinds += sorted({kind for _, arm, _ in found for kind in arm["outcomes"]} - set(OUTCOMES))
    rows = []
    for label, arm, select in found:
        n = arm.get("answers", arm["n_items"])
        cells = [
            count_cell(arm["outcomes"].get(kind, 0), n=n, select={**select, "outcome": kind})
            for kind in kinds
        ]
        cut = () if arm["truncated_share"] is None else (f"{100 * arm['truncated_share']:.0f}%",)
        cells.append(count_cell(arm["truncated"], *cut, n=n, select={**select, "cut": CUTS}))
        cells += [
            count_cell(arm[f"{name}"], n=n, select={**select, "cut": value})
            for name, value in (("loops", "loop"), ("unfinished", "unfinished"))
        ]
        rows.append(Row(label, tuple(cells)))
    heads = tuple(OUTCOMES.get(kind, kind) for kind in kinds)
    return (*heads, "cut", "loops", "unfinished"), tuple(rows)


OUTCOME_CAPTION = (
    "Every answer in exactly one kind; fence, think: never closed; cut: stopped by n_predict, "
    "of which loops end in an exact repetition; missing: infrastructure errors, in no rate."
)


def bounds_table(name: str, rows: Iterator[tuple[str, Mapping[str, Any]]]) -> Table | None:
    """What the difference would be for every way the unfinished answers could have ended."""
    made: list[Row] = []
    for label, budget in rows:
        for bound in budget["bounds"]:
            ends = f"base {bound.get('base_unfinished')}, edited {bound.get('edited_unfinished')}"
            if "base_unfinished" not in bound:
                ends = f"combination {len(made) + 1}"
            number = Number.of(bound["delta"], "points", bound["interval"])
            made.append(
                Row(
                    f"{label}: {ends}",
                    (
                        number_cell(number),
                        p_cell(bound["p_value"]),
                        Cell(bound["verdict"], tone=bound["verdict"]),
                    ),
                )
            )
    if not made:
        return None
    return Table(
        name=name,
        title="If the unfinished answers failed or passed",
        head="all unfinished answers of",
        columns=("difference", "p", "statistic"),
        rows=tuple(made),
        caption="A claim is INVALID (truncated) where its conclusion differs among these.",
        folded=True,
    )


def plot_of(title: str, table: Table, column: str, caption: str = "", *, null: float | None = None,
            band: tuple[float, float] | None = None) -> Plot | None:  # fmt: skip
    """One column of a table as a figure; None where no cell has an interval."""
    place = table.columns.index(column)
    rows = tuple(
        (row.label, row.cells[place].number, row.cells[place].select)
        for row in table.rows
        if row.cells[place].number is not None
    )
    made = tuple((label, number, select) for label, number, select in rows if number is not None)
    if not any(number.low is not None for _, number, _ in made):
        return None
    return Plot(title, made, null, band, caption)


def verdict_line(card: ClaimCard) -> str:
    """One claim in one line of text."""
    reasons = f" ({', '.join(card.reasons)})" if card.reasons else ""
    about = f"{card.about}: " if card.about else ""
    number = shown(card.number) if card.number else ""
    interval = interval_text(card.number)
    shown_number = f"; {number} {interval}".rstrip() if number else ""
    n = f", n = {card.number.n:,}" if card.number and card.number.n is not None else ""
    return f"{about}{card.verdict}{reasons}: {card.statement}{shown_number}{n}"
