"""Flags of commands that ask a judge, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arcs.labels import JUDGE_FORMS

if TYPE_CHECKING:
    from arcs.judging.opening import JudgeOptions

_PANEL = "Judges behind an API"


def _api(text: str) -> Any:
    return typer.Option(help=text, show_default=False, rich_help_panel=_PANEL)


Judge = Annotated[str | None, typer.Option(help=JUDGE_FORMS, show_default=False)]
JudgeCache = Annotated[
    Path | None,
    typer.Option(help="SQLite file of labels once made, shared by runs", show_default=False),
]
JudgeThreads = Annotated[
    int | None, typer.Option(help="llama.cpp threads of a gguf judge", show_default=False)
]
JudgeMaxTokens = Annotated[
    int | None, _api("Tokens of an answer, default 16; a judge that thinks needs some thousands")
]
JudgeConcurrency = Annotated[int | None, _api("Requests at a time, default 4")]
JudgeTimeout = Annotated[float | None, _api("Seconds without a byte, default 60")]
JudgeTries = Annotated[int | None, _api("Tries of a request, default 5")]
JudgeRate = Annotated[
    float | None,
    typer.Option(
        "--judge-requests-per-minute",
        help="At most this many",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
JudgeUsdIn = Annotated[
    float | None,
    typer.Option(
        "--judge-usd-per-million-input",
        help="Price of a million tokens read",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
JudgeUsdOut = Annotated[
    float | None,
    typer.Option(
        "--judge-usd-per-million-output",
        help="Price of a million tokens written",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
JudgeBudget = Annotated[
    float | None,
    typer.Option(
        "--judge-budget-usd",
        help="Stop when this is spent; needs both prices",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]

JudgeBelowBar = Annotated[
    bool | None,
    typer.Option(
        "--judge-below-bar/--no-judge-below-bar",
        help="Pay for labels of a judge below its bar; claims on it are INVALID",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]


def judge_options(**given: Any) -> JudgeOptions:
    """Flags as :class:`arcs.judging.opening.JudgeOptions`, by its field names."""
    from arcs.judging.opening import JudgeOptions

    return JudgeOptions(**given)
