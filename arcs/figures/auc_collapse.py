"""Figure 1: the AUC at each step of the protocol."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arcs.figures.parts import (
    AucEstimate,
    auc_limits,
    chance_line,
    finite,
    legend_on_top,
    level_text,
    mark,
    note,
    plate,
    rows_top_down,
    value_column,
)
from arcs.figures.style import AS_PAPER, BLUE, INK, SKY, in_our_style, new_figure
from evals.statistics.rates import Interval


@dataclass(frozen=True)
class PaperAuc:
    """One point of the paper's figure."""

    name: str
    """Short: it stands under a tick."""
    auc: float

    def __post_init__(self) -> None:
        if not 0 <= self.auc <= 1:  # also refuses NaN
            raise ValueError(f"an AUC lies between 0 and 1, not {self.auc}")


@dataclass(frozen=True)
class AucStep:
    """One step of the protocol, held to its own gate."""

    name: str
    estimate: AucEstimate
    gate: float | None = None
    null: Interval | None = None
    """The central band of the AUC when labels are permuted; None where that is unknown."""

    def __post_init__(self) -> None:
        if self.gate is not None:
            finite(self.gate, f"gate of {self.name}")


@dataclass(frozen=True)
class AucCollapse:
    """The paper's points, and every step with what it was measured on."""

    paper: tuple[PaperAuc, ...]
    paper_gate: float | None
    steps: tuple[AucStep, ...]
    method: str
    """Where the intervals come from, for the axis label, such as "Hanley-McNeil"."""

    def __post_init__(self) -> None:
        if not self.steps:
            raise ValueError("a figure of no steps")


@in_our_style
def draw_auc_collapse(data: AucCollapse) -> Figure:
    """Draw the paper's points at the left, each step with interval, gate and null at the right."""
    figure = new_figure(max(3.3, 0.95 + 0.5 * len(data.steps)))
    panels = figure.subplots(1, 2, width_ratios=[1, 1.35]) if data.paper else [figure.subplots()]
    if data.paper:
        _draw_paper(panels[0], data)
    _draw_ours(panels[-1], data)
    legend_on_top(figure, panels[-1], 3)
    return figure


def _draw_paper(axes: Axes, data: AucCollapse) -> None:
    places = range(len(data.paper))
    axes.plot(places, [point.auc for point in data.paper], "o-", color=BLUE, linewidth=1.2)
    for place, point in zip(places, data.paper, strict=True):
        note(axes, f"{point.auc:.3f}", (place, point.auc), dy=7, ha="center", bbox=plate())
    chance_line(axes, upright=False)
    if data.paper_gate is not None:
        axes.axhline(data.paper_gate, color=INK, linewidth=1.0, linestyle="--")
        right = len(data.paper) - 0.5
        note(axes, f"gate {data.paper_gate:g}", (right, data.paper_gate), dy=3, ha="right")
    axes.set_xticks(places, [point.name for point in data.paper])
    axes.set_xlim(-0.5, len(data.paper) - 0.5)
    axes.set_ylim(0.4, max(0.75, *(point.auc + 0.04 for point in data.paper)))
    axes.set_ylabel("AUC (no unit; n and interval not drawn)")
    axes.set_title(AS_PAPER)


def _draw_ours(axes: Axes, data: AucCollapse) -> None:
    level = level_text(step.estimate.interval for step in data.steps)
    for row, step in enumerate(data.steps):
        _draw_step(axes, row, step)
    chance_line(axes)
    _proxies(axes, data)
    rows_top_down(axes, (f"{step.name}\n{step.estimate.counts_text}" for step in data.steps))
    nulls = [step.null for step in data.steps]
    gates = [step.gate for step in data.steps if step.gate is not None]
    axes.set_xlim(*auc_limits((step.estimate for step in data.steps), nulls, gates))
    axes.set_xlabel(f"AUC (no unit), {level}\n{data.method}")
    axes.set_title("With intervals, gates and nulls")


def _draw_step(axes: Axes, row: int, step: AucStep) -> None:
    if step.null is not None:
        axes.fill_betweenx(
            [row - 0.3, row + 0.3],
            step.null.low,
            step.null.high,
            color=SKY,
            alpha=0.35,
            linewidth=0,
        )
    if step.gate is not None:
        axes.plot([step.gate] * 2, [row - 0.38, row + 0.38], "--", color=INK, linewidth=1.1)
    estimate = step.estimate
    if estimate.auc is not None:
        mark(axes, estimate.auc, row, estimate.interval, colour=BLUE, marker="o")
    value_column(axes, estimate, row, INK)


def _proxies(axes: Axes, data: AucCollapse) -> None:
    """Legend entries for what the rows hold, one each however many rows there are."""
    if any(step.gate is not None for step in data.steps):
        axes.plot([], [], "--", color=INK, linewidth=1.1, label="gate")
    bands = [step.null for step in data.steps if step.null is not None]
    if bands:
        level_text(bands)
        share = f"{100 * bands[0].level:g} %"
        axes.fill_between([], [], color=SKY, alpha=0.35, label=f"permutation null ({share})")
