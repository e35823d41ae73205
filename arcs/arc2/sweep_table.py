"""The sweep for a person: three tables of two-line rows, each within 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from arcs.arc2.selection import BASE

Json = Mapping[str, Any]
Points = Sequence[Json]
AGAINST = (
    "against lambda 1, item by item, with intervals that hold for all lambdas of an arm at once "
    "and p corrected over them (Holm)"
)
RATES = {
    "accuracy": "accuracy",
    "asserted": "assertion_rate",
    "hallucination": "hallucination_rate",
    "over-hedging": "over_hedging",
}


def sweep_tables(points: Points, title: str, axis: Json, alpha: float) -> list[Table]:
    """The axis, the answers, the content."""
    return [_axis(points, title, axis), *answer_tables(points, title, alpha)]


def answer_tables(points: Points, title: str, alpha: float) -> list[Table]:
    """What the answers came to, and what became of content and text."""
    return [_answers(points, title, alpha), _content(points, title)]


def _axis(points: Points, title: str, axis: Json) -> Table:
    def row(point: Json) -> tuple[str, ...]:
        level = point["axis"]
        return (
            "-" if level is None else str(level["n"]),
            "-" if level is None else estimate(level["mean"], level["interval"]),
            *change(point["axis_change"], unchanged=point["arm"] == BASE),
        )

    return _table(
        f"{title}: the axis",
        f"{axis['measure']}, {axis['unit']}; mean over n items; change: {AGAINST}",
        ("n", "mean", "change", "p,\ncorrected"),
        points,
        row,
    )


def _answers(points: Points, title: str, alpha: float) -> Table:
    def row(point: Json) -> tuple[str, ...]:
        table = point["table"]
        if table is None:
            return "-", "-", _asserted(point), "-", "-"
        cr, hr, cw, hw = (table["cells"][name] for name in ("cr", "hr", "cw", "hw"))
        return f"{cr}/{hr}\n{cw}/{hw}", *(_rate(table[name]) for name in RATES.values())

    return _table(
        f"{title}: the answers",
        "c, h: asserted, hedged; r, w: right, wrong; hallucination: cw of the wrong; over-hedging: "
        f"hr of the right; {100 * (1 - alpha):g}% intervals: Wilson, or of a bootstrap over items "
        "where each has several answers; accuracy: of all answers, the silent ones included",
        ("cr/hr\ncw/hw", *RATES),
        points,
        row,
    )


def _content(points: Points, title: str) -> Table:
    def row(point: Json) -> tuple[str, ...]:
        covered, answers = point["coverage"], point["answers"]
        return (
            "-" if covered is None else f"{covered['mean']:.3f}\nof {covered['n']}",
            *change(
                point["accuracy_change"] or point["likelihood_change"],
                unchanged=point["arm"] == BASE,
            ),
            f"{point['silent']}\n{_unlabelled(point)}",
            _share(point["truncated"], answers),
            _share(point["texts_changed"], answers),
        )

    return _table(
        f"{title}: content and text",
        "content: accuracy, or the log-likelihood of the meter's texts (nats per token) where "
        f"nothing is right or wrong; its change: {AGAINST}; coverage: of checklists; silent: "
        "without a word, neither asserted nor hedged; lost: a label failed; cut: stopped by "
        "n_predict; changed: other ids than at lambda 1",
        (
            "coverage",
            "change of\ncontent",
            "p,\nHolm",
            "silent,\nlost",
            "cut",
            "texts\nchanged",
        ),
        points,
        row,
    )


def _table(
    title: str,
    caption: str,
    columns: Iterable[str],
    points: Points,
    row: Callable[[Json], tuple[str, ...]],
) -> Table:
    """A row a point; nothing wraps, so what fits is never cut in a narrower column."""
    table = Table(
        title=escape(title), caption=caption, box=SIMPLE_HEAD, title_justify="left",
        pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    table.add_column("heads\n  lambda", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    arm = None
    for point in points:
        if arm is not None and point["arm"] != arm:
            table.add_section()
        arm = point["arm"]
        name = "unchanged" if arm == BASE else arm
        table.add_row(f"{name}\n  {point['lambda']:g}", *row(point))
    return table


def change(found: Json | None, *, unchanged: bool) -> tuple[str, str]:
    """A difference with its interval, and its corrected p; empty for the unchanged model itself."""
    if found is None:
        return ("", "") if unchanged else ("-", "-")
    return estimate(found["value"], found["interval"]), p_value(found["p_adjusted"])


def estimate(value: float, interval: Json | None) -> str:
    """A number over its interval."""
    shown = (
        "no interval" if interval is None else f"[{interval['low']:+.3f}, {interval['high']:+.3f}]"
    )
    return f"{value:+.3f}\n{shown}"


def _rate(found: Json) -> str:
    if found["value"] is None:
        return "-"
    if found["interval"] is None:
        return f"{found['value']:.2f} of {found['n']}\nno interval"
    low, high = found["interval"]["low"], found["interval"]["high"]
    return f"{found['value']:.2f} of {found['n']}\n[{low:.2f}, {high:.2f}]"


def _asserted(point: Json) -> str:
    """Where nothing is right or wrong, delivery is known of all answers (the lexical rule)."""
    return _rate(point["assertion"])


def _unlabelled(point: Json) -> str:
    return "-" if point["table"] is None else str(point["table"]["missing"])


def _share(count: int, n: int) -> str:
    return f"{count}/{n}\n{100 * count / n:.0f}%" if n else "-"


def p_value(value: float) -> str:
    """Two digits; a power of ten below 0.001."""
    return f"{value:.2g}" if value >= 0.001 else f"{value:.0e}"
