"""What a report shows of a run, whatever kind of run it is.

Each kind fills these records in from its stored files (:mod:`arcs.report.kinds`); the page, the
comparison and the tables for machines know nothing else. Texts may come from a model or from
anyone's file: nothing here is markup, and whatever shows it escapes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Unit = Literal["share", "points", "nats", "p", "count", "number"]
"""``share``: 0 to 1, shown in percent. ``points``: a difference of shares, -1 to 1, shown in
percentage points. ``p``: a p-value."""

Facets = Mapping[str, str | tuple[str, ...]]
"""Name -> value or values; what items are filtered by. Names that mean the same everywhere:
``condition``, ``n_predict``, ``outcome``, ``cut``, ``change``, ``label``."""

Select = Mapping[str, str | tuple[str, ...]]
"""The items behind a number: for each facet named, any of its values, on one and the same state."""


@dataclass(frozen=True)
class Number:
    """A number with what it rests on."""

    value: float
    unit: Unit = "number"
    low: float | None = None
    high: float | None = None
    level: float | None = None
    """Of the interval ``low`` to ``high``; all three are None where there is no interval."""
    n: int | None = None
    """Items it rests on."""

    def __post_init__(self) -> None:
        bounds = (self.low, self.high, self.level)
        if any(one is None for one in bounds) != all(one is None for one in bounds):
            raise ValueError(f"an interval has two ends and a level, not {bounds}")

    @classmethod
    def of(
        cls,
        value: float | None,
        unit: Unit = "number",
        interval: Mapping[str, Any] | None = None,
        n: int | None = None,
    ) -> Number | None:
        """From a value and an interval as metrics.json holds them; None where missing."""
        if value is None:
            return None
        found = interval or {}
        return cls(value, unit, found.get("low"), found.get("high"), found.get("level"), n)


@dataclass(frozen=True)
class Cell:
    """One place of a table."""

    text: str
    lines: tuple[str, ...] = ()
    """Below it, smaller."""
    number: Number | None = None
    """For comparisons, figures and machines; None where the cell is words or missing."""
    select: Select | None = None
    tone: str | None = None
    """A verdict, which colours it."""


@dataclass(frozen=True)
class Row:
    """One line of a table. ``label`` is unique in it: rows of several runs are matched by it."""

    label: str
    cells: tuple[Cell, ...]
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """Numbers with intervals. ``name`` is the same in every run of a kind."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    head: str = ""
    """Over the labels of the rows."""
    caption: str = ""
    folded: bool = False
    """Shown when asked for: detail that few readers need."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"{self.name}, {row.label}: {len(row.cells)} cells")
        labels = [row.label for row in self.rows]
        if len(set(labels)) < len(labels):
            raise ValueError(f"{self.name}: two rows of one label among {labels}")

    def numbers(self) -> Iterator[tuple[tuple[str, str, str], Cell]]:
        """Every cell that holds a number, by (table, row, column)."""
        for row in self.rows:
            for column, cell in zip(self.columns, row.cells, strict=True):
                if cell.number is not None:
                    yield (self.name, row.label, column), cell


@dataclass(frozen=True)
class Plot:
    """Numbers of one unit with their intervals, one under the other."""

    title: str
    rows: tuple[tuple[str, Number, Select | None], ...]
    null: float | None = None
    band: tuple[float, float] | None = None
    """What does not matter, such as -0.05 to 0.05."""
    caption: str = ""


@dataclass(frozen=True)
class Point:
    """One place of a chart."""

    x: float
    y: Number
    select: Select | None = None
    label: str = ""
    """Read when it is pointed at; its series and numbers are read anyway."""


@dataclass(frozen=True)
class Series:
    """Points of a chart that belong together, in the order in which they are joined."""

    name: str
    points: tuple[Point, ...]
    kind: Literal["marks", "line", "both", "guide"] = "both"
    """``guide``: a thin line to compare with, such as chance."""


@dataclass(frozen=True)
class Chart:
    """Numbers over another number. ``name`` is the same in every run of a kind."""

    name: str
    title: str
    x: str
    y: str
    """What stands on either axis; all ``y`` have one unit."""
    series: tuple[Series, ...]
    levels: tuple[tuple[str, float], ...] = ()
    """Horizontal lines: name and place."""
    band: tuple[float, float] | None = None
    """What does not matter, along y."""
    caption: str = ""
    square: bool = False
    """Both axes from 0 to 1, as of a ROC curve."""

    def __post_init__(self) -> None:
        if not any(one.points for one in self.series):
            raise ValueError(f"{self.name}: a chart without points")
        units = {point.y.unit for one in self.series for point in one.points}
        if len(units) > 1:
            raise ValueError(f"{self.name}: {sorted(units)} on one axis")


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn elsewhere: the text of an SVG file."""

    title: str
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class ClaimCard:
    """A claim and what became of it."""

    statement: str
    verdict: str
    reasons: tuple[str, ...] = ()
    explanation: str = ""
    about: str = ""
    """Which edit, where there are several."""
    number: Number | None = None
    p_value: float | None = None
    select: Select | None = None
    facts: tuple[tuple[str, str], ...] = ()
    """Further lines: name and text."""
    minor: bool = False
    """Shown when asked for: a table has it as well, or it stands beside the run's question."""


@dataclass(frozen=True)
class Block:
    """A text that belongs to an answer: its code, what the tests printed, a judge's words."""

    title: str
    text: str
    kind: Literal["code", "output", "words"] = "words"


@dataclass(frozen=True)
class State:
    """What became of an answer, at one n_predict where there are several.

    ``condition`` need not be among the facets: it is the answer's, unless it is given here.
    """

    facets: Facets
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What one condition said about an item."""

    condition: str
    text: str | None
    """None where the instrument reads something else than a text."""
    states: tuple[State, ...]
    marks: tuple[tuple[int, str], ...] = ()
    """Character positions in ``text``, rising, and what is there: where a budget ended."""


@dataclass(frozen=True)
class Item:
    """One item under all conditions. Answers stand side by side in their order: base first."""

    id: str
    prompt: str | None
    """None where it is not known any more."""
    answers: tuple[Answer, ...]
    facets: Facets = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class View:
    """A run, or a comparison of several."""

    title: str
    kind: str
    subtitle: str
    finished: bool
    claims: tuple[ClaimCard, ...] = ()
    """The one that is the run's verdict first."""
    failures: tuple[str, ...] = ()
    """What did not work: said before the claims."""
    notes: tuple[str, ...] = ()
    """What a reader must know: nothing is left out in silence."""
    tables: tuple[Table, ...] = ()
    figures: tuple[Plot | Chart | Picture, ...] = ()
    items: tuple[Item, ...] = ()
    made_with: Mapping[str, Any] = field(default_factory=dict)
    """By section; values as in JSON."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Resolved configuration: what comparisons show the differences of."""


HIDDEN = re.compile(
    r"[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5"
    r"\u180b-\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    r"\U000e0000-\U000e0fff\ud800-\udfff]"
)
"""What would be invisible, or would change the direction of what follows, or cannot be written: the
page's script has the same set."""


def spelt(text: str) -> str:
    """Text in which such characters stand by their codes, as ``U+202E``."""
    return HIDDEN.sub(lambda found: f"U+{ord(found[0]):04X}", text)


_LEAST, _MOST = 0.001, 1000.0
"""Numbers between these have three decimals, so that a column of them lines up."""


def as_tuple(value: str | Sequence[str]) -> tuple[str, ...]:
    """One value or several, as several."""
    return (value,) if isinstance(value, str) else tuple(value)


def shown(number: Number | None, *, sign: bool = False) -> str:
    """The value as a person reads it; "-" where it is missing."""
    return "-" if number is None else _text(number, sign=sign)


def interval_text(number: Number | None, *, sign: bool = False) -> str:
    """Its interval in brackets, in the same unit; "" where there is none."""
    if number is None or number.low is None or number.high is None:
        return ""
    low, high = (_bare(one, number, sign=sign) for one in (number.low, number.high))
    return f"[{low}, {high}]"


def _text(number: Number, *, sign: bool) -> str:
    suffix = {"share": "%", "points": " pt"}.get(number.unit, "")
    return _bare(number.value, number, sign=sign) + suffix


def _bare(value: float, of: Number, *, sign: bool) -> str:
    """``value`` as it stands beside the others ``of`` this number: all with as many decimals."""
    unit = of.unit
    if unit == "share":
        return f"{100 * value:.1f}"
    if unit == "points":
        return f"{100 * value:+.1f}"
    if unit == "nats":
        return f"{value:+.3f}"
    if unit == "p":
        return f"{value:.2g}"
    if unit == "count":
        return f"{value:+,.0f}" if sign else f"{value:,.0f}"
    size = max(abs(one) for one in (of.value, of.low, of.high) if one is not None)
    digits = ".3f" if size == 0 or _LEAST <= size < _MOST else ".4g"
    return f"{value:{'+' if sign else ''}{digits}}"
