"""A result as it is printed at 80 columns, also with numbers as wide as real runs have them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from typing import Any

from rich.console import Console, RenderableType

WIDTH = 80
WIDE: dict[str, Any] = {
    "layer": 47, "best_in_training": 47, "head": 31, "lambda": 0.125, "level": 0.95, "alpha": 0.05,
    **dict.fromkeys(
        ("p", "p_value", "p_adjusted", "p_corrected", "p_uncorrected", "p_holm"), 0.00123
    ),
}  # fmt: skip
"""Widest forms of what is no count and no estimate; 0.0012 is the longest p."""


def printed(shown: RenderableType) -> str:
    """The text, every word of which stands there whole.

    rich cuts a cell with an ellipsis, breaks a long word, or drops what lies beyond the last column
    without a sign; in each case the words are not those of a wider terminal.
    """
    return printed_by(lambda console: console.print(shown))


def printed_by(show: Callable[[Console], None]) -> str:
    """The same of what ``show`` prints on a console."""
    text = _render(show, WIDTH)
    lost = _words(_render(show, 5 * WIDTH)) - _words(text)
    assert not lost, f"not whole at {WIDTH} columns: {lost}\n{text}"
    assert max(map(len, text.splitlines())) <= WIDTH
    return text


def _render(show: Callable[[Console], None], width: int) -> str:
    out = io.StringIO()
    show(Console(file=out, width=width, highlight=False))
    return out.getvalue()


def _words(text: str) -> Counter[str]:
    return Counter(word for word in text.split() if not set(word) <= set("─│╭╮╰╯"))


def widened(document: Any, *, count: int, number: float, key: str = "") -> Any:
    """A copy in which every count and every estimate is replaced by this one, and every interval
    and asymmetry that a tiny run lacks is there."""

    def again(one: Any, key: str) -> Any:
        return widened(one, count=count, number=number, key=key)

    if document is None and key == "asymmetry":
        return {"value": number, "interval": again(None, "interval")}
    if document is None and key == "interval":
        return {"low": number, "high": number, "level": WIDE["level"]}
    if isinstance(document, dict):
        return {name: again(one, name) for name, one in document.items()}
    if isinstance(document, list):
        return [again(one, key) for one in document]
    if document is None or isinstance(document, bool | str):
        return document
    return WIDE.get(key, count if isinstance(document, int) else number)
