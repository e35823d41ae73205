"""Arc 1's whole result for a person: the table, claims of the evaluations, controls, seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from arcs.arc1.metrics import Arc1Metrics
from arcs.arc1.summary import MEASURES, PAPER

Json = Mapping[str, Any]
PERCENT = (
    "humaneval",
    "benchmark",
    "small",
    "short_answers",
    "recovery",
    "chef",
    "asserted",
    "svr",
)
"""Shares; the other measures are shown in their own units."""
AT_A_TIME = 4
"""Columns: eighty characters hold them with their intervals."""
COLOURS = {"SUPPORTED": "green", "REFUTED": "cyan", "INCONCLUSIVE": "yellow", "INVALID": "red"}


def whole_report(metrics: Arc1Metrics) -> list[RenderableType]:
    """What was measured beside the benchmark; nothing where nothing was."""
    if not (metrics.evaluations or metrics.over_seeds or metrics.thinking):
        return []
    return [
        *_tables(metrics),
        *_thinking(metrics.thinking),
        *_claims(metrics.evaluations, [row["name"] for row in metrics.table]),
        *_controls(metrics.controls),
        *_seeds(metrics),
    ]


def _tables(metrics: Arc1Metrics) -> Iterator[Table]:
    """The paper's form: a row a checkpoint. Measures that no row has are left out."""
    rows = metrics.table
    shown = [m for m in MEASURES if any(row["cells"].get(m) for row in rows)]
    for start in range(0, len(shown), AT_A_TIME):
        part = shown[start : start + AT_A_TIME]
        title = f"{metrics.made_with['model']['name']}: all arms" if start == 0 else None
        table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, title_justify="left")
        if start + AT_A_TIME >= len(shown):
            table.caption = (
                "a row is one checkpoint; 95% intervals: Wilson for rates, BCa bootstrap over "
                "items for means; at the largest n_predict; !: no claim may rest on this judge or "
                "rule; -: not measured"
            )
        table.add_column("checkpoint", overflow="fold", min_width=10)
        for measure in part:
            table.add_column(MEASURES[measure], justify="right")
        for place, row in enumerate(rows):
            last = place + 1 < len(rows) and rows[place + 1]["of"] != row["of"]
            style = "dim" if row["of"] == PAPER else ""
            cells = [_cell(measure, row["cells"].get(measure)) for measure in part]
            table.add_row(row["name"], *cells, style=style, end_section=last)
        yield table


def _cell(measure: str, cell: Json | None) -> str:
    if cell is None or cell["value"] is None:
        return "-"
    scale, digits, unit = (100, 1, "%") if measure in PERCENT else (1, 2, "")
    mark = "!" if cell.get("judge_not_valid") else ""
    lines = [f"{scale * cell['value']:.{digits}f}{unit}{mark}"]
    interval = cell["interval"]
    if interval is not None:
        low, high = scale * interval["low"], scale * interval["high"]
        lines.append(f"[{low:.{digits}f}, {high:.{digits}f}]")
    lines.append(f"n {cell['n']}")
    return "\n".join(lines)


def _thinking(found: Json) -> Iterator[RenderableType]:
    if not found:
        return
    for arm, own in found["arms"].items():
        mean = "-" if own["mean_tokens"] is None else f"{own['mean_tokens']:.0f}"
        yield Text(
            f"Thinking, {arm}: {own['thinking']} of {own['n']} answers, {mean} tokens on average; "
            f"{own['cut']} cut by n_predict, not counted in the average"
        )
    for arm, own in found["kept"].items():
        if own["geometric_mean"] is None:
            yield Text(f"Thinking kept by {arm}: no problem on which both end their thinking")
            continue
        interval = own["interval"]
        between = "" if interval is None else f" [{interval['low']:.2f}, {interval['high']:.2f}]"
        yield Text(
            f"Thinking kept by {arm}: {own['geometric_mean']:.2f}{between} of the base's, median "
            f"{own['median']:.2f}, n {own['n']} ({own['left_out']} left out)"
        )


def _claims(evaluations: Json, order: Sequence[str]) -> Iterator[Text]:
    """A line for each evaluation and arm: every claim at the largest n_predict."""
    for name, found in evaluations.items():
        for arm in (one for one in order if one in found["conditions"]):
            claims = claims_of(found["conditions"][arm]["comparison"])
            if not claims:
                continue
            line = Text(f"{name}, {arm}: ")
            for place, (quantity, claim) in enumerate(claims.items()):
                line.append("; " if place else "")
                line.append(f"{quantity.replace('_', ' ')} ")
                line.append(claim["verdict"], style=COLOURS[claim["verdict"]])
                line.append(f" ({', '.join(claim['reasons']).replace('_', ' ')})", style="dim")
            yield line


def claims_of(comparison: Json | None) -> dict[str, Json]:
    """Each claim of a comparison, at the largest n_predict."""
    if comparison is None:
        return {}
    if "claims" not in comparison:
        return {"accuracy": comparison["claim"]}
    claims = comparison["claims"]
    return {name: one[-1] if isinstance(one, Sequence) else one for name, one in claims.items()}


def _controls(controls: Json) -> Iterator[Text]:
    if not controls:
        return
    words = {True: ("works", "green"), False: ("FAILS", "red"), None: ("not decidable", "yellow")}
    for name, found in controls["instruments"].items():
        said, colour = words[found["passes"]]
        line = Text(f"Control, {name}: ")
        line.append(said, style=colour)
        for arm in ("planted", "placebo"):
            line.append(f". {arm}: {found[arm]}: {found['claims'][arm]['explanation'].rstrip('.')}")
        yield line
    tokens = {arm: one["response_tokens"] for arm, one in controls["training"].items()}
    yield Text(
        f"Controls were trained alike, on {tokens['planted']:,} (planted) and "
        f"{tokens['placebo']:,} (placebo) response tokens.",
        style="dim",
    )


def _seeds(metrics: Arc1Metrics) -> Iterator[RenderableType]:
    if not metrics.over_seeds:
        return
    for one in metrics.seeds:
        claim = one["claim"]
        line = Text(f"Seed {one['seed']}: ")
        line.append(claim["verdict"], style=COLOURS[claim["verdict"]])
        yield line.append(f" ({', '.join(claim['reasons'])}). {claim['explanation']}")
    table = Table(
        title=f"Over {len(metrics.seeds)} seeds: mean, least to most (!: as above)",
        box=SIMPLE_HEAD, pad_edge=False, title_justify="left",
    )  # fmt: skip
    table.add_column("measure")
    names = [row["name"] for row in metrics.over_seeds if row["name"] != "base"]
    for name in names:
        table.add_column(name, justify="right")
    cells = {row["name"]: row["cells"] for row in metrics.over_seeds}
    for measure, title in MEASURES.items():
        if any(measure in cells[name] for name in names):
            table.add_row(title, *(_spread(measure, cells[name].get(measure)) for name in names))
    yield table


def _spread(measure: str, found: Json | None) -> str:
    if found is None:
        return "-"
    scale, digits = (100, 1) if measure in PERCENT else (1, 2)
    mean, least, most = (f"{scale * found[key]:.{digits}f}" for key in ("mean", "least", "most"))
    mark = "!" if found.get("judge_not_valid") else ""
    return f"{mean}{mark} ({least} to {most}), {found['seeds']}"
