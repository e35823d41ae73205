"""The tables of ``threearc bench`` for people, and what their columns do not hold."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

_NAMES = {
    "generation": "generation",
    "extraction_prompts": "h_last, prompts",
    "extraction": "h_last, texts",
    "extraction_batched": "h_last, one batch",
    "training": "training",
}


MEANING = "ratio, range, by CPU: ours / plain; above 1, ours is faster."


def report(document: dict[str, Any]) -> Group:
    """Every kind of work that was timed on every engine."""
    what = f"{document['model']}, {document['dtype']}"
    title = f"Tokens per second, {what}, median of {document['repeats']}"
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in ("engine", "work"):
        table.add_column(column, no_wrap=True)
    for column in ("ours", "plain", "ratio", "range", "by CPU"):
        table.add_column(column, justify="right", no_wrap=True)
    notes = [Text(f"not timed: {reason}", style="yellow") for reason in document["skipped"]]
    for engine, found in document["engines"].items():
        for work, name in _NAMES.items():
            if work in found:
                table.add_row(engine, name, *cells(found[work]))
        notes += _notes(engine, found, document)
    return Group(table, Text(MEANING, style="dim"), *notes)


def cells(row: dict[str, Any]) -> list[str]:
    """Rates, ratio, range and ratio by CPU time of one row of :func:`arcs.bench.timing.rates`."""
    ratio = row["ratio"]
    return [
        _rate(row["ours"]["median"]),
        _rate(row["plain"]["median"]),
        f"{ratio['median']:.2f}",
        f"{ratio['low']:.2f}-{ratio['high']:.2f}",
        f"{row['cpu_ratio']['median']:.2f}",
    ]


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def _notes(engine: str, found: dict[str, Any], document: dict[str, Any]) -> list[Text]:
    notes = []
    if "generation" in found:
        notes += _generation_notes(engine, found, document)
    if "extraction" in found:
        difference = max(found[key]["difference"] for key in ("extraction", "extraction_batched"))
        text = f"{engine}: {document['rows']} rows; h_last differs by {difference:.1e} of its range"
        notes.append(Text(text + ".", style="dim"))
    if "training" in found:
        notes += _training_notes(engine, found["training"])
    return notes


def _generation_notes(engine: str, found: dict[str, Any], document: dict[str, Any]) -> list[Text]:
    cost, share = found["sampling"], found["sampling"]["host_share"]
    span = f"({share['low']:.0%} to {share['high']:.0%})"
    if share["low"] > 0:
        part = f"sampling on the host takes {share['median']:.0%} of its time {span}"
    else:
        part = f"the host's share is not told apart from noise {span}"
    same = f"{found['generation']['same_texts']} of {document['prompts']} texts"
    return [
        Text(
            f"{engine}: sampled {cost['sampled']['median']:,.1f} tok/s beside greedy "
            f"{cost['greedy']['median']:,.1f}: {part}."
        ),
        Text(f"{engine}: {same} of {document['max_tokens']} tokens are equal both ways.",
             style="dim"),
    ]  # fmt: skip


def _training_notes(engine: str, found: dict[str, Any]) -> list[Text]:
    shares = ", ".join(
        f"{name.replace('_', ' ')} {share:.0%}"
        for name, share in sorted(found["phases"].items(), key=lambda item: -item[1])
    )
    notes = [Text(f"{engine}: our time goes to {shares}.")]
    for name, work in found["work"].items():
        notes.append(
            Text(
                f"{engine}, {name}: padding {work['padding_share']:.1%} of {work['positions']:,} "
                f"positions, {work['trained_on']:,} ids trained on, loss "
                f"{work['first_loss']:.4f} to {work['last_loss']:.4f} "
                f"(mean {work['mean_loss']:.4f}).",
                style="dim",
            )
        )
    return notes
