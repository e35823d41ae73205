"""One look for all figures: fonts, sizes, colours, and the rules that keep files identical."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import ParamSpec

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK = "#222222"
GREY = "#8A8A8A"
FAINT = "#D9D9D9"
BLUE = "#0072B2"
ORANGE = "#D55E00"
SKY = "#56B4E9"
# Okabe and Ito (2008): told apart with any common form of colour blindness. Each colour also
# comes with its own marker or hatch, for print in grey.

WIDTH = 7.2
"""Inches: the text width of a page, so that 8 points stay 8 points."""

AS_PAPER = "As the paper draws it"

STYLE: dict[str, object] = {
    "font.family": ["sans-serif"],
    # DejaVu Sans comes with matplotlib, so the layout is the same on every machine; the others
    # are for a viewer of the SVG that lacks it.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "hatch.linewidth": 0.6,
    # Names may hold a dollar sign; it is no formula.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "threearc",
    "savefig.dpi": 200,
    "figure.dpi": 200,
}

Arguments = ParamSpec("Arguments")


def styled() -> AbstractContextManager[None]:
    """Return a context in which matplotlib uses our settings only, and which restores its own.

    The user's matplotlibrc is set aside: a figure must not depend on who draws it.
    """
    context: AbstractContextManager[None] = matplotlib.style.context(["default", STYLE])
    return context


def in_our_style(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Decorate a drawing function: it runs in our style, and its layout is settled once."""

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with styled():
            figure = draw(*args, **kwargs)
            settle(figure)
        return figure

    return drawn


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure, ``height`` and ``width`` in inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.03)
    return Figure(figsize=(width, height), layout=layout)


def settle(figure: Figure) -> None:
    """Lay the figure out and freeze it: solved again at a save, the layout would move a little."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
