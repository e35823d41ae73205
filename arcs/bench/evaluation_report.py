"""The table of ``threearc bench eval`` for people."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from arcs.bench.report import MEANING, cells

_NAMES = {
    "create_completion": "create_completion",
    "raw": "raw llama_decode",
    "transformers": "transformers",
    "mlx_lm": "mlx-lm",
    "unified": "unified KV",
    "budgets": "largest n_predict",
}


def report(document: dict[str, Any]) -> Group:
    """Every comparison with its target, and the host's share."""
    title = (
        f"Generated tokens per second, {document['model']} {document['quantisation']}, "
        f"median of {document['repeats']}"
    )
    table = Table(
        title=title,
        box=SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        collapse_padding=True,  # eight columns in 80 characters
    )
    table.add_column("ours beside", no_wrap=True)
    for column in ("ours", "plain", "ratio", "range", "by CPU", "target", "met"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, shown in _NAMES.items():
        if name in document["comparisons"]:
            row = document["comparisons"][name]
            table.add_row(shown, *cells(row), *_target(row))
    notes = [Text(f"not timed: {reason}", style="yellow") for reason in document["skipped"]]
    return Group(table, *_notes(document), *notes)


def _target(row: dict[str, Any]) -> tuple[str, str]:
    if "target" not in row:
        return "", ""
    return f"{row['target']:.2f}", "yes" if row["met"] else "no"


def _notes(document: dict[str, Any]) -> list[Text]:
    found, host = document["comparisons"], document["host"]
    share, each = host["share"], host["microseconds_per_token"]["median"]
    budgets = ", ".join(map(str, found["budgets"]["n_predict"]))
    same = ", ".join(
        f"{shown} {found[name]['same_texts']}" for name, shown in _NAMES.items() if name in found
    )
    lines = [
        f"Host work: {share['median']:.1%} of the time ({share['low']:.1%} to "
        f"{share['high']:.1%}), {each:,.0f} us a token; target below {host['target']:.0%}: "
        f"{'met' if host['met'] else 'not met'}.",
        f"Ours in the last row: n_predict {budgets} of one decode.",
    ]
    dim = [
        f"{document['prompts']} prompts of {document['prompt_tokens']:,} ids in all, "
        f"{document['max_tokens']} ids generated for each, threads: {document['threads']}.",
        f"Equal texts of {document['prompts']}: {same}.",
        f"{MEANING} No number fails the command.",
    ]
    return [*map(Text, lines), *(Text(line, style="dim") for line in dim)]
