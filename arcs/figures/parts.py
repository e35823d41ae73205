"""What the figures share: checked numbers, their text, and marks with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arcs.figures.style import FAINT, GREY, INK
from evals.statistics.rates import Interval

NO_INTERVAL = "no interval"


@dataclass(frozen=True)
class AucEstimate:
    """An area under the ROC curve with its interval and its numbers of items."""

    auc: float | None
    """None where none was measured, and always where a class is empty."""
    n_positive: int
    n_negative: int
    interval: Interval | None = None
    """None where it was not determined."""

    def __post_init__(self) -> None:
        if min(self.n_positive, self.n_negative) < 0:
            raise ValueError(f"negative counts: {self.n_positive}, {self.n_negative}")
        if self.auc is None:
            if self.interval is not None:
                raise ValueError("an interval of an AUC that does not exist")
            return
        if not 0 <= self.auc <= 1:  # also refuses NaN
            raise ValueError(f"an AUC lies between 0 and 1, not {self.auc}")
        if not (self.n_positive and self.n_negative):
            raise ValueError("no AUC exists where one class is empty")
        if self.interval is not None:
            finite(self.interval.low, "interval")
            finite(self.interval.high, "interval")

    @property
    def n(self) -> int:
        """Number of items."""
        return self.n_positive + self.n_negative

    @property
    def counts_text(self) -> str:
        """Number of items, and how many of them are positive."""
        return f"n = {self.n} ({self.n_positive} positive)"

    @property
    def text(self) -> str:
        """The value with its interval, or why there is none."""
        if self.auc is None:
            empty = not (self.n_positive and self.n_negative)
            return "no AUC: one class only" if empty else "not measured"
        return f"{self.auc:.3f} {interval_text(self.interval)}"


def finite(value: float, what: str) -> float:
    """Return ``value``; raises ValueError when it is NaN or infinite."""
    if not math.isfinite(value):
        raise ValueError(f"{what} is {value}: a missing number is None, never NaN")
    return value


def interval_text(interval: Interval | None, digits: int = 3) -> str:
    """Both limits in brackets, or that there is no interval."""
    if interval is None:
        return f"({NO_INTERVAL})"
    return f"[{minus(f'{interval.low:.{digits}f}')}, {minus(f'{interval.high:.{digits}f}')}]"


def minus(text: str) -> str:
    """Return ``text`` with the minus sign that matplotlib's own tick labels have."""
    return text.replace("-", "\N{MINUS SIGN}")


def level_text(intervals: Iterable[Interval | None]) -> str:
    """Return "95 % intervals", or "no intervals"; raises ValueError where levels differ."""
    levels = {interval.level for interval in intervals if interval is not None}
    if len(levels) > 1:
        raise ValueError(f"intervals of different levels in one figure: {sorted(levels)}")
    return f"{100 * levels.pop():g} % intervals" if levels else "no intervals"


def auc_limits(
    estimates: Iterable[AucEstimate], bands: Iterable[Interval | None], gates: Iterable[float]
) -> tuple[float, float]:
    """Return limits of an AUC axis that hold everything, and 0.4 to 0.7 at least."""
    known = list(estimates)
    ends = [0.4, 0.7, *gates, *(each.auc for each in known if each.auc is not None)]
    for interval in (*bands, *(each.interval for each in known)):
        if interval is not None:
            ends += [interval.low, interval.high]
    return min(ends) - 0.03, max(ends) + 0.03


def mark(
    axes: Axes,
    value: float,
    row: float,
    interval: Interval | None,
    *,
    colour: str,
    marker: str,
    upright: bool = False,
) -> None:
    """Draw a value at a row (or, upright, a column) with its interval as a whisker.

    A value without an interval is drawn hollow, so that it is not taken for a certain one.
    """
    if interval is not None:
        ends, rows = (interval.low, interval.high), (row, row)
        line = (rows, ends) if upright else (ends, rows)
        cap = "_" if upright else "|"
        axes.plot(*line, color=colour, linewidth=1.4, marker=cap, markersize=6)
    face = "white" if interval is None else colour
    point = ([row], [value]) if upright else ([value], [row])
    axes.plot(*point, marker, color=colour, markerfacecolor=face, markersize=5.5, zorder=3)


def note(
    axes: Axes, text: str, at: tuple[float, float], *, dx: float = 0, dy: float = 0, **look: Any
) -> None:
    """Write ``text`` ``dx`` and ``dy`` points away from a place given in data units."""
    axes.annotate(text, at, (dx, dy), textcoords="offset points", **look)


def plate() -> dict[str, Any]:
    """Return the white background of a text that a line may pass behind."""
    return {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}


def chance_line(axes: Axes, *, upright: bool = True, label: str | None = "chance (0.5)") -> None:
    """Draw an AUC of 0.5."""
    line = axes.axvline if upright else axes.axhline
    line(0.5, color=GREY, linewidth=1.0, linestyle=":", label=label, zorder=1)


def gate_line(axes: Axes, gate: float, label: str | None, *, colour: str = INK) -> None:
    """Draw a gate on the horizontal axis."""
    axes.axvline(gate, color=colour, linewidth=1.0, linestyle="--", label=label, zorder=1)


def rows_top_down(axes: Axes, labels: Iterable[str]) -> None:
    """Label rows 0, 1, ... from the top, with faint lines to read along."""
    names = list(labels)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=FAINT, linewidth=0.5)


def value_column(axes: Axes, estimate: AucEstimate, row: float, colour: str) -> None:
    """Write an estimate right of the axes, in its row, where no line crosses it."""
    axes.annotate(
        estimate.text,
        (1.0, row),
        (4, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        fontsize=7,
        color=colour if estimate.auc is not None else GREY,
    )


def legend_on_top(figure: Figure, axes: Axes, columns: int) -> None:
    """Put the legend of ``axes`` over the whole figure, where it covers no data."""
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside upper center",
        ncols=columns,
        handlelength=1.8,
        columnspacing=1.5,
    )
