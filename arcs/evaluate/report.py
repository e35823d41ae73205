"""An evaluation for a person: a table a quantisation, then what follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

LOUD = 0.1
"""Share of an adapter's effect from which what rounding its merge costs is said."""
COLOURS = {
    "SUPPORTED": "bold green",
    "REFUTED": "bold cyan",
    "INCONCLUSIVE": "bold yellow",
    "INVALID": "bold red",
}


def report(metrics: Mapping[str, Any]) -> Group:
    """Tables and notes."""
    parts: list[Table | Text] = []
    for quantisation, conditions in metrics["quantisations"].items():
        parts.append(_table(metrics, quantisation, conditions))
        parts += _notes(metrics, quantisation, conditions)
    if metrics["escalated"]:
        steps = ", ".join(map(str, metrics["escalated"]))
        parts.append(
            Text(f"Unfinished answers were continued to n_predict {steps}: they could have changed "
                 "a conclusion.")
        )  # fmt: skip
    return Group(*parts)


TIGHT = 1000
"""Items from which counts are so wide that columns stand closer."""


def _table(metrics: Mapping[str, Any], quantisation: str, conditions: Mapping[str, Any]) -> Table:
    benchmark = metrics["made_with"]["evaluation"]["dataset"]
    table = Table(
        title=escape(
            f"{benchmark} pass@1, {metrics['model']['name']}, {quantisation}, "
            f"n = {metrics['n_items']}"
        ),
        caption=_caption(metrics),
        box=SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        collapse_padding=metrics["n_items"] >= TIGHT,
    )
    table.add_column("condition", overflow="fold", min_width=10)
    for n in metrics["n_predict"]:
        table.add_column(f"n = {n}", justify="right", no_wrap=True)
    table.add_column("cut", justify="right", no_wrap=True)
    table.add_column("difference, verdict", min_width=18, overflow="fold")
    for name, found in conditions.items():
        last = found["budgets"][str(metrics["n_predict"][-1])]
        table.add_row(
            Text(name),  # a directory's name is no markup
            *(_rate(found["budgets"][str(n)]) for n in metrics["n_predict"]),
            f"{last['truncated']}\n({last['unfinished']})",
            _difference(found),
            end_section=True,
        )
    return table


def _caption(metrics: Mapping[str, Any]) -> str:
    several = metrics["config"]["samples"] > 1
    intervals, test = (
        (
            "intervals by bootstrap over problems",
            "bootstrap interval, exact sign-flip p over problems",
        )
        if several
        else ("Wilson intervals", "Tango's interval, exact McNemar p")
    )
    return (
        f"95% {intervals}; cut: stopped by the largest n, and of these not in an exact loop; "
        f"difference at the largest n, {test}"
    )


def _rate(arm: Mapping[str, Any]) -> str:
    if arm["pass_at_1"] is None:
        return "missing"
    interval = arm["interval"]
    counted = arm.get("answers", arm["n_items"]) - arm["missing"]
    return (
        f"{100 * arm['pass_at_1']:.1f}%\n[{100 * interval['low']:.1f}, "
        f"{100 * interval['high']:.1f}]\n{arm['passed']}/{counted}"
    )


def _difference(found: Mapping[str, Any]) -> Text:
    comparison = found["comparison"]
    if comparison is None:
        return Text("")
    claim, last = comparison["claim"], comparison["budgets"][-1]
    text = "missing"
    if claim["delta"] is not None:
        interval = claim["interval"]
        text = (
            f"{100 * claim['delta']:+.1f} pt\n[{100 * interval['low']:+.1f}, "
            f"{100 * interval['high']:+.1f}]\n+{last['gained']} -{last['lost']}"
        )
        text += "" if claim["p_value"] is None else f", p {claim['p_value']:.2g}"
    shown = Text(text + "\n").append(claim["verdict"], style=COLOURS[claim["verdict"]])
    shown.append("\n" + ", ".join(claim["reasons"]).replace("_", " "), style="dim")
    if found["against"] != "base":
        shown.append(f"\nagainst {found['against']}", style="dim")
    return shown


def _notes(
    metrics: Mapping[str, Any], quantisation: str, conditions: Mapping[str, Any]
) -> list[Text]:
    notes = []
    moved = metrics["quality_against_f16"].get(quantisation)
    if moved is not None:
        notes.append(
            Text(
                f"{quantisation} itself moves the base: KL to F16 {moved['kl']:.3g} nats, same "
                f"most probable token at {100 * moved['same_top']:.1f}% of "
                f"{moved['positions']:,} positions.",
                style="dim",
            )
        )
    if metrics["config"]["samples"] > 1:
        notes += [Text(_pass_at_k(name, one, metrics)) for name, one in conditions.items()]
    for name, found in conditions.items():
        if found["fast"] is not None:
            notes.append(Text(f"{name}: {_fast_note(found['fast'])}", style="yellow"))
        if found["merge"] is not None and (said := _merge_note(found["merge"])):
            notes.append(Text(f"{name}: {said}.", style="dim"))
        made = found["tempering"]
        if made is None:
            continue
        text = f"{name}: largest rounding of the scaled weights {made['rounding']:.2g}"
        if made["retyped"]:
            text += f"; stored as F32: {len(made['retyped'])} of {made['tensors']} tensors"
        notes.append(Text(text + ".", style="dim"))
    return notes


def _pass_at_k(name: str, found: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    n = metrics["n_predict"][-1]
    values = found["budgets"][str(n)]["pass_at_k"]
    shown = ", ".join(
        f"pass@{k} {100 * one['value']:.1f}% [{100 * one['interval']['low']:.1f}, "
        f"{100 * one['interval']['high']:.1f}]"
        for k, one in values.items()
        if one is not None
    )
    return f"{name} at n = {n}: {shown or 'missing'}."


def _fast_note(fast: Mapping[str, Any]) -> str:
    interval = fast["interval"]
    said = (
        f"--fast: texts depend on what is decoded beside them; of {fast['compared']} texts "
        f"decoded in both modes {fast['changed']} changed within {fast['tokens']} tokens "
        f"({100 * fast['share']:.0f}% [{100 * interval['low']:.0f}, "
        f"{100 * interval['high']:.0f}])."
    )
    if fast["continued"]:
        said += " It was continued, and its later texts had other neighbours than in one sitting."
    return said


def _merge_note(merge: Mapping[str, Any]) -> str:
    """What a reader of a merged arm's numbers has to know; empty where nothing is remarkable."""
    said, share = [], merge["rounding_share"]
    if merge["status"] != "proven":
        said.append(f"the merge is unproven: {merge['reason']}")
    if share is not None and share > LOUD:
        said.append(
            f"rounding the sum to {merge['dtype']}, before quantising, moves the logits by up to "
            f"{share:.0%} of what the adapter does"
        )
    return "; ".join(said)
