"""Free answers for a person: rates with intervals by condition and n_predict, then the claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from arcs.evaluate.report import COLOURS
from arcs.measure.config import CHEF, DELIVERY, MCAS
from evals.mcas import TYPES

Json = Mapping[str, Any]
_SVR = "checks itself"


def free_report(metrics: Json) -> list[RenderableType]:
    """Table, derived table where there is one, what the judge is worth, claims."""
    columns, read, title = {
        CHEF: (("coverage", "asserted", "asymmetry", _SVR), _chef, "Chef answers"),
        MCAS: (
            ("penalised", "original", "of 25", "hedged", _SVR.replace(" ", "\n")),
            _mcas,
            "MCAS",
        ),
        DELIVERY: (("asserted", _SVR), _delivery, "Delivery of answers"),
    }.get(metrics["instrument"], (("recovered", _SVR), _recovery, "Correction recovery"))
    level = 100 * (1 - metrics["made_with"]["gates"]["test"]["alpha"])
    table = Table(
        title=escape(f"{title}, {metrics['model']['name']}, greedy"),
        caption=f"all answers, then those that ended by themselves; {level:g}% intervals: Wilson "
        f"for rates, BCa bootstrap over items for means; {_CAPTIONS[title]}",
        box=SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        collapse_padding=len(columns) > 2,
    )
    table.add_column("condition, n", overflow="fold", min_width=12)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for name, condition in metrics["conditions"].items():
        table.add_row(Text(name))
        budgets = sorted(condition["result"]["budgets"].items(), key=lambda one: int(one[0]))
        for place, (n, found) in enumerate(budgets):
            for which in ("all", "finished_only"):
                last = place == len(budgets) - 1 and which == "finished_only"
                table.add_row(
                    _label(n, found, which, metrics["instrument"]),
                    *read(found, which),
                    end_section=last,
                )
    return [table, *_judge_lines(metrics), *_claims(metrics)]


_CAPTIONS = {
    "Chef answers": "right: at least half of the checklist; asymmetry: share asserted among wrong "
    "answers minus that among right ones; -: a denominator is 0, or no label",
    "MCAS": "percent; penalised: a hedged answer to a fully specified request earns nothing; u, s: "
    "underspecified and specified requests",
    "Delivery of answers": "asserted: stated as fact, of the answers with a label",
    "Correction recovery": "second answers that pass all tests of a scripted failure",
}


def _label(n: str, found: Json, which: str, instrument: str) -> str:
    """Which answers a row is of, and how many; below each other where cells have as many lines."""
    count = found["n"] if which == "all" else found["finished"]
    indent, said = ("  ", f"{n}, all") if which == "all" else ("    ", "ended")
    if instrument == MCAS:
        u, s = (found[which][group]["n"] for group in TYPES)
        groups = (f"u {u}", f"s {s}")
        return "\n".join(f"{indent}{line}" for line in (said, f"n {count}", *groups))
    return f"{indent}{said}\n{indent}n {count}" if instrument == CHEF else f"{indent}{said} {count}"


def _chef(found: Json, which: str) -> Sequence[str]:
    scores = found[which]
    half = scores["delivery"]["0.5"]
    asymmetry = half["asymmetry"]
    return (
        _with_interval(scores["coverage"]["mean"], scores["coverage"]["interval"])
        + _of_n(scores["coverage"]),
        _rate(half["assertion_rate"], "\n"),
        "-" if asymmetry is None else _with_interval(asymmetry["value"], asymmetry["interval"]),
        _rate(found["self_verification"][_of(which)]["precise"], "\n"),
    )


def _mcas(found: Json, which: str) -> Sequence[str]:
    scores = found[which]

    def mean(group: str, name: str) -> str:
        one = scores[group][name]
        return "-" if one["value"] is None else f"{one['value']:.1f}"

    def cell(name: str) -> str:
        one = scores["all"][name]
        interval = one["interval"]
        shown = "" if interval is None else f"[{interval['low']:.1f}, {interval['high']:.1f}]"
        u, s = (mean(group, name) for group in TYPES)
        return f"{mean('all', name)}\n{shown}\nu {u}\ns {s}"

    hedged = [_percent(scores[group]["hedged"]) for group in ("all", *TYPES)]
    verified = found["self_verification"][_of(which)]["precise"]
    return (
        cell("penalised_percent"),
        cell("original_percent"),
        cell("out_of_25"),
        f"{hedged[0]}\n\nu {hedged[1]}\ns {hedged[2]}",
        "-" if verified["value"] is None else f"{_percent(verified)}\n{_interval(verified, 0)}",
    )


def _delivery(found: Json, which: str) -> Sequence[str]:
    return (
        _rate(found[which]["assertion_rate"]),
        _rate(found["self_verification"][_of(which)]["precise"]),
    )


def _recovery(found: Json, which: str) -> Sequence[str]:
    return (
        _rate(found[which]["recovered"]),
        _rate(found["self_verification"][_of(which)]["precise"]),
    )


def _of(which: str) -> str:
    return "all" if which == "all" else "finished"


def _rate(rate: Json, between: str = " = ") -> str:
    if rate["value"] is None:
        return "-"
    counts = f"{rate['successes']}/{rate['n']}{between}{100 * rate['value']:.1f}%"
    return f"{counts}\n{_interval(rate)}"


def _interval(rate: Json, digits: int = 1) -> str:
    low, high = (100 * rate["interval"][end] for end in ("low", "high"))
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def _percent(rate: Json) -> str:
    return "-" if rate["value"] is None else f"{100 * rate['value']:.0f}%"


def _of_n(found: Json) -> str:
    """How many answers a mean is of, where that is not all of the row's."""
    return f"\nof {found['n']}" if found["missing"] and found["n"] else ""


def _with_interval(value: float | None, interval: Json | None) -> str:
    if value is None:
        return "-"
    if interval is None:
        return f"{value:.3f}\nno interval"
    return f"{value:.3f}\n[{interval['low']:.3f}, {interval['high']:.3f}]"


def _judge_lines(metrics: Json) -> list[Text]:
    judge, lines = metrics["judge"], []
    rule = metrics["self_verification"]
    if judge is not None:
        lines.append(Text(f"Judge: {judge['id']['kind']} {judge['id']['name']}."))
        lines += [_bar_line(name, one) for name, one in judge["validity"].items()]
        unchecked = judge["id"].get("without_text_sha256")
        if unchecked:
            lines.append(
                Text(
                    f"  {unchecked} of {judge['id']['labels']} recorded labels have no "
                    "text_sha256: nothing shows that they are of these answers.",
                    "red",
                )
            )
    lines.append(_bar_line("Self-verification, a rule", rule, indent=""))
    for condition, found in metrics["conditions"].items():
        for name, counts in found.get("labels", {}).items():
            lost = {k: n for k, n in counts["statuses"].items() if k != "ok"}
            if lost or counts["cut"]:
                said = [f"{n} {status}" for status, n in lost.items()]
                said += [f"{counts['cut']} of a response that was cut"] if counts["cut"] else []
                lines.append(Text(f"  {condition}, {name} labels: {', '.join(said)}."))
    return lines


def _bar_line(name: str, one: Json, indent: str = "  ") -> Text:
    if not one["passes"]:
        return Text(f"{indent}{name}: below its bar: {'; '.join(one['shortfalls'])}.", "red")
    low, high = one["kappa_interval"]["low"], one["kappa_interval"]["high"]
    shown = f"kappa {one['kappa']:.2f} [{low:.2f}, {high:.2f}], n = {one['n']}"
    return Text(f"{indent}{name}: passes its bar ({shown}).")


def _claims(metrics: Json) -> list[Text]:
    """The primary claims: at the largest n_predict."""
    lines = []
    for name, condition in metrics["conditions"].items():
        for claims in (condition["comparison"] or {"claims": {}})["claims"].values():
            claim = claims[-1]
            line = Text(f"{name}: ")
            line.append(claim["verdict"], style=COLOURS[claim["verdict"]])
            reasons = ", ".join(claim["reasons"]).replace("_", " ")
            lines.append(line.append(f" ({reasons}). {claim['statement']}. {claim['explanation']}"))
            others = [f"{one['verdict']} at {one['n_predict']}" for one in claims[:-1]]
            if others:
                lines.append(Text(f"  at other n_predict: {', '.join(others)}", "dim"))
    return lines
