"""Where everything of a figure lies, in percent of its width and height.

Places in percent let a figure take any width while its texts keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from arcs.report.view import Chart, Number, Plot, Point, Select, Series, Unit, interval_text, shown

_TICKS = (1, 2, 2.5, 5, 10)
_ONE_VALUE = 1e-9
"""Of the largest value, or of 1."""
STYLES = 6
"""Colours and dashes of series; more series repeat them."""


def axis(plot: Plot) -> Mapping[str, Any]:
    """A plot: rows from left to right, along one scale."""
    low, high = _room(_values_of_plot(plot))

    def at(value: float) -> float:
        return _percent(value, low, high)

    def row(label: str, number: Number, select: Select | None) -> Mapping[str, Any]:
        ends = None
        if number.low is not None and number.high is not None:
            ends = (at(number.low), at(number.high))
        return {"label": label, "number": number, "select": select, "at": at(number.value),
                "ends": ends}  # fmt: skip

    unit = plot.rows[0][1].unit
    return {
        "rows": [row(*one) for one in plot.rows],
        "ticks": [(at(tick), _tick(tick, unit)) for tick in _ticks(low, high)],
        "null": None if plot.null is None else at(plot.null),
        "band": None if plot.band is None else tuple(_within(at(one)) for one in plot.band),
    }


def chart(drawn: Chart) -> Mapping[str, Any]:
    """A chart: x from the left, y from the top."""
    points = [one for series in drawn.series for one in series.points]
    unit = points[0].y.unit
    left, right = (0.0, 1.0) if drawn.square else _room([one.x for one in points])
    low, high = (0.0, 1.0) if drawn.square else _room(_values_of_chart(drawn, points))

    def across(value: float) -> float:
        return _percent(value, left, right)

    def down(value: float) -> float:
        return round(100 - _percent(value, low, high), 3)

    def place(series: Series, one: Point) -> Mapping[str, Any]:
        ends = None
        if one.y.low is not None and one.y.high is not None:
            ends = (down(one.y.low), down(one.y.high))
        what = f"{series.name}, {one.label or f'{drawn.x} {one.x:g}'}"
        return {
            "x": across(one.x), "y": down(one.y.value), "ends": ends, "select": one.select,
            "says": f"{what}: {shown(one.y)} {interval_text(one.y)}".rstrip(),
        }  # fmt: skip

    made, style = [], 0
    aside = [one for one in drawn.series if any(point.y.low is not None for point in one.points)]
    for series in drawn.series:
        guide = series.kind == "guide"
        made.append(
            {
                "name": series.name,
                "style": "guide" if guide else f"s{style % STYLES}",
                "marks": series.kind in ("marks", "both"),
                "shift": _apart(aside.index(series), len(aside)) if series in aside else 0.0,
                "joined": series.kind != "marks",
                "points": [place(series, one) for one in series.points],
            }
        )
        style += not guide
    band = None
    if drawn.band is not None:
        band = tuple(_within(down(one)) for one in (drawn.band[1], drawn.band[0]))
    return {
        "series": made,
        "levels": [{"name": name, "y": _within(down(value))} for name, value in drawn.levels],
        "band": band,
        "x_ticks": [(across(one), f"{one:g}") for one in _ticks(left, right)],
        "y_ticks": [(down(one), _tick(one, unit)) for one in _ticks(low, high)],
    }


_APART = 8.0
"""Pixels between intervals at one place."""


def _apart(place: int, of: int) -> float:
    """Pixels to the right, so that intervals of several series do not hide one another."""
    return _APART * (place - (of - 1) / 2)


def _tick(value: float, unit: Unit) -> str:
    return f"{value:g}" if unit == "number" else shown(Number(value, unit))


def _percent(value: float, low: float, high: float) -> float:
    return round(100 * (value - low) / (high - low), 3)


def _within(place: float) -> float:
    return max(0.0, min(100.0, place))


def _ends(number: Number) -> list[float]:
    return [one for one in (number.value, number.low, number.high) if one is not None]


def _values_of_plot(plot: Plot) -> list[float]:
    values = [one for _, number, _ in plot.rows for one in _ends(number)]
    return values + ([] if plot.null is None else [plot.null]) + list(plot.band or ())


def _values_of_chart(drawn: Chart, points: list[Point]) -> list[float]:
    values = [one for point in points for one in _ends(point.y)]
    return values + [value for _, value in drawn.levels] + list(drawn.band or ())


def _room(values: list[float]) -> tuple[float, float]:
    """From the least to the largest, with some room around."""
    low, high = min(values), max(values)
    size = max(abs(low), abs(high))
    # Values that differ by less than the ticks can say are one value.
    apart = high - low > _ONE_VALUE * max(1.0, size)
    room = 0.06 * (high - low) if apart else size if size > _ONE_VALUE else 1.0
    return low - room, high + room


def _ticks(low: float, high: float) -> Iterator[float]:
    """Four to seven round numbers from ``low`` to ``high``."""
    raw = (high - low) / 5
    power = 10.0 ** int(f"{raw:e}".split("e")[1])
    step = next(power * one for one in _TICKS if power * one >= raw)
    # an end that is a tick itself stays one, whatever its division leaves
    first, last = math.ceil(low / step - _ONE_VALUE), math.floor(high / step + _ONE_VALUE)
    for place in range(first, last + 1):
        yield round(place * step, 12)
