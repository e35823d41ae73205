"""Figure 2: every axis, within the training set and transferred to the fresh set."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from arcs.figures.parts import (
    AucEstimate,
    auc_limits,
    chance_line,
    finite,
    gate_line,
    legend_on_top,
    level_text,
    mark,
    rows_top_down,
    value_column,
)
from arcs.figures.style import AS_PAPER, BLUE, ORANGE, in_our_style, new_figure


@dataclass(frozen=True)
class SweptAxis:
    """One axis of the judge's rubric."""

    name: str
    cross_validated: AucEstimate
    """Within the training set."""
    transfer: AucEstimate
    """Fitted on the training set, scored on the fresh set."""


@dataclass(frozen=True)
class AxisSweep:
    """All axes, their two gates, and where the intervals come from."""

    axes: tuple[SweptAxis, ...]
    method: str
    """For the axis label, such as "Hanley-McNeil"."""
    cross_validated_gate: float = 0.65
    transfer_gate: float = 0.60
    paper: bool = True
    """Whether the paper's drawing of the same numbers stands at the left."""

    def __post_init__(self) -> None:
        if not self.axes:
            raise ValueError("a figure of no axes")
        finite(self.cross_validated_gate, "gate")
        finite(self.transfer_gate, "gate")


@in_our_style
def draw_axis_sweep(data: AxisSweep) -> Figure:
    """Draw bars without intervals at the left, both AUCs of each axis with theirs at the right."""
    figure = new_figure(max(3.0, 1.1 + 0.52 * len(data.axes)))
    panels = figure.subplots(1, 2, width_ratios=[1, 1.9]) if data.paper else [figure.subplots()]
    if data.paper:
        _draw_paper(panels[0], data)
    _draw_ours(panels[-1], data)
    legend_on_top(figure, panels[-1], 5)
    return figure


def _gates(axes: Axes, data: AxisSweep) -> None:
    gates = (
        (data.cross_validated_gate, "CV gate", BLUE),
        (data.transfer_gate, "transfer gate", ORANGE),
    )
    for gate, name, colour in gates:
        gate_line(axes, gate, f"{name} ({gate:.2f})", colour=colour)


def _draw_paper(axes: Axes, data: AxisSweep) -> None:
    for row, axis in enumerate(data.axes):
        _bar(axes, row - 0.19, axis.cross_validated, BLUE, "")
        _bar(axes, row + 0.19, axis.transfer, ORANGE, "////")
    rows_top_down(axes, (axis.name for axis in data.axes))
    axes.grid(visible=False)
    chance_line(axes, label=None)
    _gates(axes, data)
    axes.set_xlim(0.0, 0.75)
    axes.set_xlabel("AUC (no unit;\nn and interval not drawn)")
    axes.set_title(AS_PAPER)


def _bar(axes: Axes, row: float, estimate: AucEstimate, colour: str, hatch: str) -> None:
    if estimate.auc is None:
        return
    axes.barh(row, estimate.auc, 0.36, color=colour, hatch=hatch, edgecolor="white", linewidth=0)


def _draw_ours(axes: Axes, data: AxisSweep) -> None:
    for row, axis in enumerate(data.axes):
        _point(axes, row - 0.18, axis.cross_validated, BLUE, "o")
        _point(axes, row + 0.22, axis.transfer, ORANGE, "s")
    rows_top_down(axes, (_label(axis) for axis in data.axes))
    chance_line(axes)
    _gates(axes, data)
    axes.plot([], [], "o", color=BLUE, label="CV (training set)")
    axes.plot([], [], "s", color=ORANGE, label="transfer (fresh set)")
    both = [each for axis in data.axes for each in (axis.cross_validated, axis.transfer)]
    axes.set_xlim(*auc_limits(both, (), (data.cross_validated_gate, data.transfer_gate)))
    level = level_text(each.interval for each in both)
    axes.set_xlabel(f"AUC (no unit), {level}\n{data.method}")
    axes.set_title("With intervals")


def _label(axis: SweptAxis) -> str:
    first, second = axis.cross_validated, axis.transfer
    return f"{axis.name}\nCV: {first.counts_text}\ntransfer: {second.counts_text}"


def _point(axes: Axes, row: float, estimate: AucEstimate, colour: str, marker: str) -> None:
    if estimate.auc is not None:
        mark(axes, estimate.auc, row, estimate.interval, colour=colour, marker=marker)
    value_column(axes, estimate, row, colour)
