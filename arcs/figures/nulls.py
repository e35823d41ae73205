"""Figure 5: what each statistic does when there is nothing to find."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from arcs.figures.parts import finite, minus, note, plate
from arcs.figures.style import INK, ORANGE, SKY, in_our_style, new_figure

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class NullDistribution:
    """An observed statistic, and its values under a null."""

    name: str
    """What was tested, with the number of items, as in "AUC, SmolLM2 fresh, n = 193"."""
    statistic: str
    """The axis label, with unit."""
    how: str
    """How the null was made, as in "labels permuted"."""
    null: FloatArray
    """m values."""
    observed: float
    p_value: float
    gate: float | None = None
    """None where the paper has no gate for it."""
    larger_passes: bool = True
    """Whether the gate is passed at or above (True), or at or below it."""
    undefined: int = 0
    """Draws beside ``null`` in which the statistic did not exist: they pass no gate."""

    def __post_init__(self) -> None:
        if self.null.ndim != 1 or not self.null.size or not np.isfinite(self.null).all():
            raise ValueError(f"{self.name}: a null is a non-empty row of finite values")
        finite(self.observed, self.name)
        if not 0 <= self.p_value <= 1:  # also refuses NaN
            raise ValueError(f"{self.name}: not a p-value: {self.p_value}")
        if self.gate is not None:
            finite(self.gate, f"gate of {self.name}")

    @property
    def false_positive_rate(self) -> float | None:
        """Share of the null that passes the gate; None without one."""
        if self.gate is None:
            return None
        passed = self.null >= self.gate if self.larger_passes else self.null <= self.gate
        return float(passed.sum() / self.draws)

    @property
    def draws(self) -> int:
        """Number of draws, those without a value among them."""
        return len(self.null) + self.undefined

    @property
    def gate_text(self) -> str | None:
        """The gate with its direction; None without one."""
        if self.gate is None:
            return None
        return minus(f"{'≥' if self.larger_passes else '≤'} {self.gate:g}")


@in_our_style
def draw_nulls(nulls: tuple[NullDistribution, ...]) -> Figure:
    """Draw one row a statistic: value and gate alone at the left, with its null at the right.

    Raises ValueError for no statistic.
    """
    if not nulls:
        raise ValueError("a figure of no null distributions")
    figure = new_figure(0.4 + 1.45 * len(nulls))
    rows = figure.subplots(len(nulls), 2, squeeze=False, sharex="row", width_ratios=[1, 1.9])
    for (left, right), each in zip(rows, nulls, strict=True):
        _draw_paper(left, each)
        _draw_null(right, each)
    rows[0, 0].set_title("As the paper gives it: no null", pad=22)
    return figure


def _draw_paper(axes: Axes, each: NullDistribution) -> None:
    axes.plot([each.observed], [0.5], "D", color=ORANGE, markersize=6)
    text = minus(f"{each.observed:.3f}")
    note(axes, text, (each.observed, 0.5), dy=7, ha="center", color=ORANGE, bbox=plate())
    _gate(axes, each)
    if each.gate is not None:
        note(axes, f"gate {each.gate_text}", (each.gate, 1.0), dy=3, ha="center", fontsize=7)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(each.statistic)


def _gate(axes: Axes, each: NullDistribution) -> None:
    if each.gate is None:
        return
    axes.axvline(each.gate, color=INK, linewidth=1.1, linestyle="--")


def _draw_null(axes: Axes, each: NullDistribution) -> None:
    axes.hist(each.null, bins=_bins(each.null), color=SKY, edgecolor="white", linewidth=0.3)
    _gate(axes, each)
    axes.axvline(each.observed, color=ORANGE, linewidth=1.6)
    axes.plot([each.observed], [0], "D", color=ORANGE, clip_on=False, zorder=4)
    axes.set_ylabel(f"draws (of {each.draws})")
    axes.set_xlabel(each.statistic)
    summary = _summary(each)
    axes.set_title(each.name, fontsize=8, pad=6 + 10 * len(summary.splitlines()))
    note(axes, summary, (0, 1), xycoords="axes fraction", dy=4, fontsize=7, va="bottom")


def _bins(null: FloatArray) -> list[float]:
    """Thirty bins over the values, or one around them where they are all equal."""
    low, high = float(null.min()), float(null.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    return [float(edge) for edge in np.linspace(low, high, 31)]


def _summary(each: NullDistribution) -> str:
    observed = minus(f"observed {each.observed:.3f}, p = {p_text(each.p_value)}")
    text = f"{each.how}: mean {minus(f'{each.null.mean():.3f}')}; {observed}"
    if each.false_positive_rate is None:
        return f"{text}; no gate"
    share = f"{100 * each.false_positive_rate:.1f} %"
    undefined = f" ({each.undefined} draws have no value)" if each.undefined else ""
    return f"{text}\ngate {each.gate_text} passed by {share} of the null{undefined}"


def p_text(p_value: float) -> str:
    """Two significant digits, or that it is below 0.0001."""
    return "below 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"
