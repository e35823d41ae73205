"""A measurement for a person: one table of the conditions, with n and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from arcs.evaluate.report import COLOURS
from arcs.measure.config import FREE, METER
from arcs.measure.free_report import free_report


def report(metrics: Mapping[str, Any]) -> Group:
    """Table and notes."""
    if metrics["instrument"] == METER:
        return Group(_meter(metrics), *_meter_claims(metrics))
    if metrics["instrument"] in FREE:
        return Group(*free_report(metrics))
    return Group(_short_answers(metrics), *_claims(metrics))


def _meter(metrics: Mapping[str, Any]) -> Table:
    level = metrics["made_with"]["gates"]["test"]["alpha"]
    table = _table(
        f"Disposition meter, {metrics['model']['name']}, nats per token",
        f"contrast: mean log-probability of the positive continuation minus the negative's; "
        f"shift: item by item against the base; {100 * (1 - level):g}% BCa bootstrap intervals "
        "over items; p: random signs, Holm over the axes of a condition; up: items whose "
        "contrast rose",
    )
    table.add_column("condition, axis", overflow="fold", min_width=15)
    for column in ("n", "contrast", "shift", "p", "up"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, condition in metrics["conditions"].items():
        axes = condition["result"]["axes"]
        compared = (condition["comparison"] or {}).get("axes", {})
        seen = (condition["comparison"] or {}).get("trained_on_test")
        table.add_row(Text(f"{name} (INVALID: trained on these items)" if seen else name))
        for place, (axis, score) in enumerate(axes.items()):
            table.add_row(
                f"  {axis}",
                str(score["n"]),
                _nats(score),
                *_shift(compared.get(axis)),
                end_section=place == len(axes) - 1,
            )
    return table


def _meter_claims(metrics: Mapping[str, Any]) -> list[Text]:
    return [
        claim_line(name, claim)
        for name, condition in metrics["conditions"].items()
        for claim in (condition["comparison"] or {"claims": {}})["claims"].values()
    ]


def claim_line(name: str, claim: Mapping[str, Any]) -> Text:
    """A claim about a condition, in words."""
    line = Text(f"{name}: ")
    line.append(claim["verdict"], style=COLOURS[claim["verdict"]])
    reasons = ", ".join(claim["reasons"]).replace("_", " ")
    return line.append(f" ({reasons}). {claim['statement']}. {claim['explanation']}")


def _nats(found: Mapping[str, Any]) -> str:
    interval = found["interval"]
    if interval is None:
        return f"{found['mean']:+.3f}\nno interval"
    return f"{found['mean']:+.3f}\n[{interval['low']:+.3f}, {interval['high']:+.3f}]"


def _shift(shift: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if shift is None:
        return "", "", ""
    if shift["unchanged"] == shift["n"]:
        return "0\nevery item unchanged", "1", "0"
    return _nats(shift), _p(shift["p_holm"]), f"{shift['up']}/{shift['n']}"


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 0.001 else f"{value:.0e}"


def _short_answers(metrics: Mapping[str, Any]) -> Table:
    budget = metrics["made_with"]["measurement"]["n_predict"]
    alpha = metrics["made_with"]["gates"]["test"]["alpha"]
    table = _table(
        f"Short answers, {metrics['model']['name']}, greedy, n_predict {budget}",
        f"{100 * (1 - alpha):g}% intervals: Wilson for rates, Tango for the paired difference; "
        "unread: no word that could be an answer, counted as not right; cut: stopped by n_predict "
        "(and of these open: more text could change how it reads)",
    )
    table.collapse_padding = True
    table.add_column("condition, domain", overflow="fold", min_width=14)
    for column in ("right", "unread", "cut", "difference"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, condition in metrics["conditions"].items():
        result, compared = condition["result"], condition["comparison"]
        whole = None
        if compared is not None:
            whole = {**compared["claim"], "gained": compared["gained"], "lost": compared["lost"]}
        _answer_row(table, name, result, whole, last=False)
        domains = list(result["domains"].items())
        for place, (domain, found) in enumerate(domains):
            difference = None if compared is None else compared["domains"][domain]
            last = place == len(domains) - 1
            _answer_row(table, f"  {domain}", found, difference, last=last)
    return table


def _answer_row(
    table: Table,
    label: str,
    found: Mapping[str, Any],
    difference: Mapping[str, Any] | None,
    *,
    last: bool,
) -> None:
    interval = found["interval"]
    table.add_row(
        Text(label),
        f"{found['right']}/{found['n']} = {100 * found['accuracy']:.1f}%\n"
        f"[{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]",
        str(found["unparsed"]),
        f"{found['truncated']} ({found['open']})",
        "" if difference is None else _points(difference),
        end_section=last,
    )


def _points(difference: Mapping[str, Any]) -> str:
    interval = difference["interval"]
    return (
        f"{100 * difference['delta']:+.1f} pt, +{difference['gained']} -{difference['lost']}\n"
        f"[{100 * interval['low']:+.1f}, {100 * interval['high']:+.1f}]"
    )


def _claims(metrics: Mapping[str, Any]) -> list[Text]:
    lines = []
    for name, condition in metrics["conditions"].items():
        if condition["comparison"] is None:
            continue
        lines.append(claim_line(name, condition["comparison"]["claim"]))
    return lines


def _table(title: str, caption: str) -> Table:
    return Table(
        title=escape(title), caption=caption, box=SIMPLE_HEAD, title_justify="left", pad_edge=False
    )
