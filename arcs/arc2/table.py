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

from arcs.arc2.selection import BASE
from arcs.arc2.sweep_table import answer_tables, change, estimate, p_value, sweep_tables
from arcs.evaluate.report import COLOURS

HEADS_SHOWN = 5


def report(metrics: Mapping[str, Any]) -> Group:
    """Everything that is printed."""
    parts: list[Any] = [_baseline(metrics)]
    parts += [_ranking(one, metrics) for one in metrics["rankings"].values()]
    parts += sweep_tables(
        metrics["sweep"], f"Sweep of lambda, {metrics['model']['name']}", metrics["axis"],
        metrics["alpha"],
    )  # fmt: skip
    if metrics["tasks"]:
        parts.append(_tasks(metrics))
    if metrics["gguf"]:
        parts += _gguf(metrics["gguf"], metrics["alpha"])
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
    used = metrics["prompts"]
    shared = used["chosen_on_same"]
    lines.append(
        f"  prompts: {used['ranked']} for the cohorts, {used['swept']} in the sweep"
        + (f", {shared} of which the heads are chosen on as well" if shared else "")
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
        f"{ranking['expected_maximum']:.3f}, and {ranking['critical']:.3f} at the "
        f"{100 * metrics['alpha']:g}% level; halves "
        f"of the items: rank correlation {stability['rank_correlation']:+.2f}, "
        f"{100 * stability['top_shared']:.0f}% of the first {stability['top']} shared (by chance "
        f"{100 * stability['top_by_chance']:.0f}%)",
    )
    rows = ranking["heads"][:HEADS_SHOWN]
    extra = {
        name: title
        for name, title in _EXTRA.get(method, {}).items()
        if any(name in row for row in rows)
    }
    stacked = len(extra) > 1  # beside so many columns the interval stands under its effect
    table.collapse_padding = stacked
    table.add_column("head", no_wrap=True)
    effect = ("effect",) if stacked else ("effect", "interval")
    for column in (*effect, "p,\ncorrected", *extra.values()):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        found = estimate(row["effect"], row.get("interval"))
        table.add_row(
            f"L{row['layer']}H{row['head']}",
            *((found,) if stacked else found.split("\n")),
            p_value(row["p_corrected"]),
            *(_extra(name, row.get(name)) for name in extra),
        )
    return table


_EXTRA: Mapping[str, Mapping[str, str]] = {
    "causal": {"statistic": "mean over\nerror + s0"},
    "magnitude": {"p_uncorrected": "p alone\n(paper's)"},
    "directional": {
        "in_sample_d": "in sample\n(paper's)",
        "in_sample_d_of_noise": "of\nnoise",
        "cosine_of_means": "cosine\n(paper's)",
        "cosine_of_differences": "cosine,\ncentred",
    },
}


def _extra(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return p_value(value) if name.startswith("p_") else f"{value:.3f}"


def _tasks(metrics: Mapping[str, Any]) -> Table:
    table = _table(
        f"{metrics['made_with']['tasks']['dataset']}, at every point",
        "pass@1 against the unchanged model",
    )
    for column in ("point", "right", "change", "p", "cut"):
        table.add_column(column, justify="left" if column == "point" else "right", no_wrap=True)
    for row in metrics["tasks"]:
        table.add_row(
            row["point"],
            f"{row['right']}/{row['labelled']}",
            *change(row["change"], unchanged=row["point"] == BASE),
            f"{row['truncated']}/{row['answers']}",
        )
    return table


def _gguf(found: Mapping[str, Any], alpha: float) -> list[Any]:
    return [
        *answer_tables(found["points"], f"llama.cpp, {found['quantisation']}", alpha),
        Text(
            "The same heads and lambdas through llama.cpp: every lambda, 1 included, in one "
            f"storage form of the scaled tensors (largest rounding {found['rounding']:.1e}); "
            "untouched: the file as it is"
        ),
    ]


def _words(words: list[Mapping[str, str]]) -> Table:
    table = _table("Words", "each a rule with numbers: docs/arc2.md")
    for column in ("word", "state", "because"):
        table.add_column(column, overflow="fold")
    for one in words:
        table.add_row(one["word"], one["state"], one["because"])
    return table


def paper_report(words: list[Mapping[str, Any]]) -> Group:
    """The paper's sweep tables under the words' rules, a table a variant."""
    parts: list[Any] = [Text("The paper's published sweeps, n = 100\n")]
    variants = dict.fromkeys((one["variant"], one["paper_says"]) for one in words)
    for variant, said in variants:
        table = _table(f"{variant}; the paper: {said}", "")
        table.add_column("quantity", width=24)
        for column in ("word", "determined", "possible"):
            table.add_column(column, width=15, no_wrap=True)
        for one in words:
            if one["variant"] == variant:
                states = ", ".join(one["possible_states"])
                table.add_row(one["quantity"], one["word"], one["determined"], states)
        parts.append(table)
    parts.append(
        Text(
            "Only totals are published: a word is determined where it is the same for all pairings "
            "of items that the totals allow."
        )
    )
    return Group(*parts)


def _claim(claim: Mapping[str, Any]) -> Panel:
    head = Text(claim["verdict"], style=COLOURS[claim["verdict"]])
    head.append(f" ({', '.join(claim['reasons'])})", style="default")
    return Panel(
        Group(head, Text(f"Claim: {claim['statement']}"), Text(claim["explanation"])),
        title="Verdict",
        title_align="left",
    )
