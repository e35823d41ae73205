"""A judge's validity for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text


def report(document: Mapping[str, Any]) -> Group:
    """One row an instrument, then what keeps the judge below the bar."""
    found = list(document["instruments"].values())
    bar = document["bar"]
    table = Table(
        title=escape(f"Judge {found[0]['judge']}"),
        caption=f"bar: lower bound of kappa {bar['kappa_low']:g}, planted errors accepted at most "
        f"{100 * bar['planted_accepted']:g}%, read at least {100 * bar['parsed']:g}%; kappa of "
        "scales is quadratically weighted; again, order: labels that stayed the same when asked "
        "again, or with the answers listed in reverse; 95% intervals",
        box=SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("instrument", no_wrap=True)
    for column in ("n", "kappa", "equal", "planted", "again,\norder", "bar"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in found:
        table.add_row(
            one["instrument"].replace(".", ".\n"),
            str(one["n"]),
            _kappa(one),
            _share(one["agreement"]),
            _counts(one["planted"]),
            f"{_share(one['repeated']) or '-'}\n{_share(one['order']) or '-'}",
            Text("passes", "green") if one["passes"] else Text("fails", "red"),
        )
    lines = [
        Text(f"{one['instrument']}: {'; '.join(one['shortfalls'])}.")
        for one in found
        if one["shortfalls"]
    ]
    beside = [] if not document["published"] else [_published(document["published"])]
    return Group(table, *lines, *beside)


def _published(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(
        title="Beside the paper's published labels (decides nothing)",
        caption="its verbal judge says assert where it could not read, 800 labels are of a "
        "retracted profile, its classes are all CERTAIN by a fault of a parser",
        box=SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
    )
    table.add_column("instrument, source", overflow="fold", min_width=11)
    for column in ("n", "kappa", "equal"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in rows:
        name = f"{one['instrument']}\n  {one['source']}"
        table.add_row(Text(name), str(one["n"]), _kappa(one), _share(one["agreement"]))
    return table


def _kappa(one: Mapping[str, Any]) -> str:
    if one["kappa"] is None:
        return "none"
    interval = one["kappa_interval"]
    shown = f"\n[{interval['low']:.2f}, {interval['high']:.2f}]" if interval else "\nno interval"
    return f"{one['kappa']:.2f}{shown}"


def _share(rate: Mapping[str, Any] | None) -> str:
    return "" if rate is None or rate["value"] is None else f"{100 * rate['value']:.0f}%"


def _counts(rate: Mapping[str, Any] | None) -> str:
    return "" if rate is None else f"{rate['successes']}\nof {rate['n']}"
