"""Links to items, taken out where there are none to lead to."""

from __future__ import annotations

from dataclasses import replace

from arcs.report.view import Chart, Picture, Plot, Table, View


def linked_if_there(view: View) -> View:
    """The view as it is where it has items; else the same without its links."""
    if view.items:
        return view
    return replace(
        view,
        claims=tuple(replace(one, select=None) for one in view.claims),
        tables=tuple(_table(one) for one in view.tables),
        figures=tuple(_figure(one) for one in view.figures),
    )


def _table(table: Table) -> Table:
    rows = tuple(
        replace(row, cells=tuple(replace(cell, select=None) for cell in row.cells))
        for row in table.rows
    )
    return replace(table, rows=rows)


def _figure(figure: Plot | Chart | Picture) -> Plot | Chart | Picture:
    if isinstance(figure, Plot):
        return replace(figure, rows=tuple((label, one, None) for label, one, _ in figure.rows))
    if isinstance(figure, Chart):
        series = tuple(
            replace(one, points=tuple(replace(point, select=None) for point in one.points))
            for one in figure.series
        )
        return replace(figure, series=series)
    return figure
