"""Figure 4: two arms over n_predict, gained and lost items and their difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from arcs.comparison import BudgetComparison, Comparison
from arcs.figures.parts import finite, interval_text, level_text, mark, minus, note
from arcs.figures.style import (
    BLUE,
    FAINT,
    GREY,
    INK,
    ORANGE,
    WIDTH,
    in_our_style,
    new_figure,
)
from evals.statistics.rates import Interval

LEGEND: Mapping[str, Any] = MappingProxyType(
    {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
)
"""Above the axes, where it covers no bar."""
LOSS: Mapping[str, Any] = MappingProxyType(
    {"facecolor": ORANGE, "hatch": "////", "edgecolor": "white", "linewidth": 0}
)


@dataclass(frozen=True)
class PaperChange:
    """One bar of the paper's figure 4, with the scale that its number is on."""

    measure: str
    """What was measured, as in "HumanEval, first run"."""
    change: float
    scale: float
    """The largest value that the measure can take: 100 for percent, 25 for a sum of marks."""
    unit: str

    def __post_init__(self) -> None:
        finite(self.change, self.measure)
        if not finite(self.scale, f"scale of {self.measure}") > 0:
            raise ValueError(f"{self.measure}: a scale is positive, not {self.scale}")


@dataclass(frozen=True)
class BudgetCounts:
    """Both arms at one n_predict."""

    n_predict: int
    """Tokens."""
    gained: int
    """Items that only the edited arm passes."""
    lost: int
    """Items that only the base arm passes."""
    n: int
    """Complete pairs; 0 where there is none, and then there is no difference."""
    interval: Interval | None = None
    """Tango's, of the difference of pass@1 (shares, -1 to 1); None where not determined."""

    def __post_init__(self) -> None:
        if self.n_predict < 1 or min(self.gained, self.lost) < 0:
            raise ValueError(f"impossible counts at n_predict {self.n_predict}")
        if self.gained + self.lost > self.n:
            raise ValueError(f"more discordant items than pairs at n_predict {self.n_predict}")
        if self.interval is not None and not self.n:
            raise ValueError("an interval of a difference that does not exist")

    @property
    def delta(self) -> float | None:
        """Edited minus base pass@1, percentage points; None without a complete pair."""
        return 100 * (self.gained - self.lost) / self.n if self.n else None

    @property
    def interval_points(self) -> Interval | None:
        """The interval in percentage points."""
        found = self.interval
        return found and Interval(100 * found.low, 100 * found.high, found.level)


@dataclass(frozen=True)
class Discordance:
    """The paper's changes (none: only ours is drawn), and a comparison over 1 to k budgets."""

    budgets: tuple[BudgetCounts, ...]
    title: str
    """What is compared: it stands over our panel."""
    paper: tuple[PaperChange, ...] = ()
    smallest_effect: float | None = None
    """Share of items; the band within which a difference does not matter."""

    def __post_init__(self) -> None:
        if not self.budgets:
            raise ValueError("a figure of no budgets")
        sizes = [budget.n_predict for budget in self.budgets]
        if sizes != sorted(set(sizes)):
            raise ValueError(f"n_predict must rise from budget to budget: {sizes}")
        if self.smallest_effect is not None:
            finite(self.smallest_effect, "smallest effect")


def discordance_of(
    comparison: Comparison, title: str, paper: tuple[PaperChange, ...] = ()
) -> Discordance:
    """Return the figure's numbers for one of our Arc 1 comparisons."""
    return Discordance(
        budgets=tuple(_counts_of(budget) for budget in comparison.budgets),
        title=title,
        paper=paper,
        smallest_effect=comparison.gates.smallest_effect.pass_at_1,
    )


def _counts_of(budget: BudgetComparison) -> BudgetCounts:
    if budget.statistic is None:
        return BudgetCounts(budget.n_predict, 0, 0, 0)
    counts = budget.statistic.counts
    return BudgetCounts(
        budget.n_predict, counts.gained, counts.lost, counts.n, budget.statistic.interval
    )


@in_our_style
def draw_discordance(data: Discordance) -> Figure:
    """Draw the paper's changes, each on its own scale, and ours: counts above, difference below."""
    ours = 0.8 + 0.78 * len(data.budgets)  # inches: every budget needs room for its interval
    if not data.paper:
        figure = new_figure(4.2, max(WIDTH, ours))
        _draw_ours(figure, data)
        return figure
    paper = 3.2
    ours = max(WIDTH - paper, ours)
    figure = new_figure(4.2, paper + ours)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[paper, ours])[0]
    _draw_paper(left, data.paper)
    _draw_ours(right, data)
    return figure


def _draw_paper(figure: SubFigure, changes: tuple[PaperChange, ...]) -> None:
    """One axis for each number: all are as long as the same share of their own scale."""
    reach = 1.5 * max(abs(each.change) / each.scale for each in changes) or 0.1
    panels = figure.subplots(len(changes), 1, squeeze=False)[:, 0]
    for axes, each in zip(panels, changes, strict=True):
        axes.barh(0, each.change, 0.5, **({"color": BLUE} if each.change >= 0 else LOSS))
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_xlim(-reach * each.scale, reach * each.scale)
        axes.set_ylim(-0.5, 0.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        side, anchor = (4, "left") if each.change >= 0 else (-4, "right")
        text = minus(f"{each.change:+g}")
        note(axes, text, (each.change, 0), dx=side, ha=anchor, va="center")
        axes.set_xlabel(f"{each.unit} (full scale {each.scale:g})")
        axes.set_title(each.measure, fontweight="normal", fontsize=8)
    figure.suptitle(
        "The paper's numbers, each on its own scale",
        x=0.02,
        ha="left",
        fontsize=8.5,
        fontweight="bold",
    )


def _draw_ours(figure: Figure | SubFigure, data: Discordance) -> None:
    top, bottom = figure.subplots(2, 1, sharex=True)
    _draw_counts(top, data)
    _draw_difference(bottom, data)
    places = range(len(data.budgets))
    bottom.set_xticks(places, [f"{each.n_predict}\nn = {each.n}" for each in data.budgets])
    bottom.set_xlim(-0.6, len(data.budgets) - 0.4)
    bottom.set_xlabel("n_predict (tokens); n: complete pairs; Tango intervals")
    figure.suptitle(data.title, x=0.02, ha="left", fontsize=8.5, fontweight="bold")


def _draw_counts(axes: Axes, data: Discordance) -> None:
    for place, each in enumerate(data.budgets):
        if not each.n:
            continue
        axes.bar(place, each.gained, 0.5, color=BLUE)
        axes.bar(place, -each.lost, 0.5, **LOSS)
        note(axes, f"+{each.gained}", (place, each.gained), dy=3, ha="center", va="bottom")
        note(axes, minus(f"-{each.lost}"), (place, -each.lost), dy=-3, ha="center", va="top")
    axes.axhline(0, color=INK, linewidth=0.8)
    reach = 1.35 * max(1, *(max(each.gained, each.lost) for each in data.budgets))
    axes.set_ylim(-reach, reach)
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.set_ylabel("items (count)")
    gained = Patch(color=BLUE, label="gained: only the edited arm passes")
    lost = Patch(**LOSS, label="lost: only the base arm passes")
    axes.legend(handles=[gained, lost], **LEGEND)


def _draw_difference(axes: Axes, data: Discordance) -> None:
    if data.smallest_effect is not None:
        points = 100 * data.smallest_effect
        axes.axhspan(
            -points,
            points,
            color=FAINT,
            alpha=0.6,
            linewidth=0,
            label=f"smallest effect that matters (±{points:g})",
        )
        axes.legend(**LEGEND)
    axes.axhline(0, color=INK, linewidth=0.8)
    for place, each in enumerate(data.budgets):
        _draw_budget(axes, place, each)
    level = level_text(each.interval for each in data.budgets)
    axes.set_ylabel(f"pass@1 difference\n(points, {level})")
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.05 * (high - low), high + 0.42 * (high - low))  # room for the numbers


def _draw_budget(axes: Axes, place: int, each: BudgetCounts) -> None:
    delta, interval = each.delta, each.interval_points
    if delta is None:
        note(axes, "no complete\npair", (place, 0), dy=4, ha="center", color=GREY)
        return
    mark(axes, delta, place, interval, colour=BLUE, marker="o", upright=True)
    text = f"{minus(f'{delta:+.1f}')}\n{interval_text(interval, 1)}"
    top = interval.high if interval else delta
    note(axes, text, (place, top), dy=4, ha="center", va="bottom", fontsize=7)
