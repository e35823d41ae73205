"""The result for a person: rankings with their nulls, the sweep, the words, the claim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from arcs.evaluate.report import COLOURS

HEADS_SHOWN = 5


def report(metrics: Mapping[str, Any]) -> Group:
    """Everything that is printed."""
    parts: list[Any] = [_baseline(metrics)]
    parts += [_ranking(one, metrics) for one in metrics["rankings"].values()]
    parts += [_sweep(metrics)]
    if metrics["tasks"]:
        parts.append(_tasks(metrics))
    if metrics["gguf"]:
        parts.append(_gguf(metrics["gguf"]))
    return Group(*parts, _words(metrics["words"]), _claim(metrics["claim"]))


def _baseline(metrics: Mapping[str, Any]) -> Text:
    """What the unchanged model did, in words."""
    found, cohorts, axis = metrics["baseline"], metrics["cohorts"], metrics["axis"]
    lines = [
        f"{metrics['model']['name']}, disposition {metrics['disposition']['name']}: "
        f"{found['answers']} answers of the unchanged model, {found['truncated']} cut "
        f"({found['loops']} of them loops)"
    ]
    if found["table"]:
        cells = found["table"]["cells"]
        lines.append("  " + "  ".join(f"{name} {count}" for name, count in cells.items()))
    lines.append(
        f"  cohorts: {cohorts['lacking']} lacking, {cohorts['having']} having it, "
        f"{cohorts['left_out']} left out ({cohorts['formed_by']})"
    )
    because = f" ({axis['why']})" if axis["why"] else ""
    lines.append(f"  axis of the sweep: {axis['measure']}{because}")
    return Text("\n".join(lines))


def _table(title: str, caption: str) -> Table:
    return Table(
        title=escape(title), caption=caption, box=SIMPLE_HEAD, title_justify="left", pad_edge=False
    )


def _ranking(ranking: Mapping[str, Any], metrics: Mapping[str, Any]) -> Table:
    method, stability = ranking["method"], ranking["stability"]
    table = _table(
        f"{method.capitalize()} attribution, {ranking['unit']}",
        f"{ranking['n']}; p: {ranking['null']}; noise alone is expected to reach "
        f"{ranking['expected_maximum']:.3f}, and {ranking['critical']:.3f} at the 5% level; halves "
        f"of the items: rank correlation {stability['rank_correlation']:+.2f}, "
        f"{100 * stability['top_shared']:.0f}% of the first {stability['top']} shared (by chance "
        f"{100 * stability['top_by_chance']:.0f}%)",
    )
    table.add_column("head", no_wrap=True)
    for column in ("effect", "interval", "p, corrected", *_EXTRA.get(method, {}).values()):
        table.add_column(column, justify="right")
    for row in ranking["heads"][:HEADS_SHOWN]:
        interval = row.get("interval")
        table.add_row(
            f"L{row['layer']}H{row['head']}",
            f"{row['effect']:+.3f}",
            "-" if interval is None else f"[{interval['low']:+.2f}, {interval['high']:+.2f}]",
            _p(row["p_corrected"]),
            *(_number(row.get(name)) for name in _EXTRA.get(method, {})),
        )
    return table


_EXTRA: Mapping[str, Mapping[str, str]] = {
    "magnitude": {"p_uncorrected": "p alone (paper's)"},
    "directional": {
        "in_sample_d": "d in sample (paper's)",
        "in_sample_d_of_noise": "that of noise",
        "cosine_of_means": "cosine (paper's)",
        "cosine_of_differences": "cosine, centred",
    },
}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 0.001 else f"{value:.0e}"


def _sweep(metrics: Mapping[str, Any]) -> Table:
    axis = metrics["axis"]
    table = _table(
        f"Sweep of lambda, {metrics['model']['name']}",
        f"axis: {axis['measure']}, {axis['unit']}; changes are against lambda 1, item by item, "
        "with intervals that hold for all lambdas of an arm at once and p corrected over them "
        "(Holm); rates over answers: acc(uracy), assert(ed), hall(ucination) = cw of wrong, "
        "over-h(edging) = hr of right, cov(erage); content: accuracy, or the log-likelihood of the "
        "meter's texts where nothing is right or wrong",
    )
    table.add_column("heads", no_wrap=True)
    for column in ("lambda", "cr/hr/cw/hw", "acc", "assert", "hall", "over-h", "cov", "axis",
                   "change of axis", "p", "change of content", "cut", "texts changed"):  # fmt: skip
        table.add_column(column, justify="right")
    arm = None
    for point in metrics["sweep"]:
        if arm is not None and point["arm"] != arm:
            table.add_section()
        arm = point["arm"]
        table.add_row(*_point(point))
    return table


def _point(point: Mapping[str, Any]) -> tuple[str, ...]:
    table, change = point["table"], point["axis_change"]
    rates = (
        [_rate(table[name]) for name in _RATES]
        if table
        else ["-", _share(point["asserted"], point["answers"]), "-", "-"]
    )
    content = point["accuracy_change"] or point["likelihood_change"]
    return (
        "unchanged" if point["arm"] == "base" else point["arm"],
        f"{point['lambda']:g}",
        "/".join(map(str, table["cells"].values())) if table else "-",
        *rates,
        "-" if point["coverage"] is None else f"{point['coverage']['mean']:.3f}",
        "-" if point["axis"] is None else f"{point['axis']['mean']:+.3f}",
        "" if point["arm"] == "base" else _change(change),
        "" if change is None else _p(change["p_adjusted"]),
        "" if content is None else _change(content),
        f"{point['truncated']}/{point['answers']}",
        f"{point['texts_changed']}/{point['answers']}",
    )


_RATES = ("accuracy", "assertion_rate", "hallucination_rate", "over_hedging")


def _share(count: int | None, n: int) -> str:
    return "-" if count is None or not n else f"{count / n:.2f}"


def _rate(found: Mapping[str, Any]) -> str:
    return "-" if found["value"] is None else f"{found['value']:.2f}"


def _change(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    interval = found["interval"]
    shown = (
        "no interval" if interval is None else f"[{interval['low']:+.2f}, {interval['high']:+.2f}]"
    )
    return f"{found['value']:+.3f} {shown}"


def _tasks(metrics: Mapping[str, Any]) -> Table:
    table = _table(
        f"{metrics['made_with']['tasks']['dataset']}, at every point",
        "pass@1 against the unchanged model",
    )
    for column in ("point", "right", "change", "p", "cut"):
        table.add_column(column, justify="left" if column == "point" else "right")
    for row in metrics["tasks"]:
        table.add_row(
            row["point"],
            f"{row['right']}/{row['labelled']}",
            "" if row["change"] is None else _change(row["change"]),
            "" if row["change"] is None else _p(row["change"]["p_adjusted"]),
            f"{row['truncated']}/{row['answers']}",
        )
    return table


def _gguf(found: Mapping[str, Any]) -> Table:
    table = _table(
        f"The same heads and lambdas through llama.cpp, {found['quantisation']}",
        "every lambda, 1 included, in one storage form of the scaled tensors (largest rounding "
        f"{found['rounding']:.1e}); untouched: the file as it is",
    )
    for column in ("point", "cr/hr/cw/hw", "acc", "assert", "change of acc", "cut", "changed"):
        table.add_column(column, justify="left" if column == "point" else "right")
    for row in found["points"]:
        cells = row["table"]["cells"].values() if row["table"] else ()
        table.add_row(
            row["point"],
            "/".join(map(str, cells)) or "-",
            _rate(row["table"]["accuracy"]) if row["table"] else "-",
            _share(row["asserted"], row["answers"]),
            "" if row["accuracy_change"] is None else _change(row["accuracy_change"]),
            f"{row['truncated']}/{row['answers']}",
            f"{row['texts_changed']}/{row['answers']}",
        )
    return table


def _words(words: list[Mapping[str, str]]) -> Table:
    table = _table("Words", "each a rule with numbers: docs/arc2.md")
    for column in ("word", "state", "because"):
        table.add_column(column, overflow="fold")
    for one in words:
        table.add_row(one["word"], one["state"], one["because"])
    return table


def paper_report(words: list[Mapping[str, Any]]) -> Table:
    """The paper's sweep tables under the words' rules."""
    table = _table(
        "The paper's published sweeps, n = 100",
        "only totals are published: a word is determined where it is the same for all pairings of "
        "items that the totals allow",
    )
    for column in ("variant", "paper", "quantity", "word", "determined", "possible"):
        table.add_column(column, overflow="fold")
    for one in words:
        table.add_row(
            one["variant"],
            one["paper_says"],
            one["quantity"],
            one["word"],
            one["determined"],
            ", ".join(one["possible_states"]),
        )
    return table


def _claim(claim: Mapping[str, Any]) -> Panel:
    head = Text(claim["verdict"], style=COLOURS[claim["verdict"]])
    head.append(f" ({', '.join(claim['reasons'])})", style="default")
    return Panel(
        Group(head, Text(f"Claim: {claim['statement']}"), Text(claim["explanation"])),
        title="Verdict",
        title_align="left",
    )
