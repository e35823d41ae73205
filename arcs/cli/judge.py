"""``threearc judge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from arcs.cli import app
from arcs.cli import judge_options as opts
from arcs.cli.config_file import Config, Json

judges = typer.Typer(no_args_is_help=True, help="Judges, and how far they can be believed.")
app.add_typer(judges, name="judge")


@judges.command(
    "validate",
    epilog="""
Examples:\n
  threearc judge validate\n
  threearc judge validate --judge gguf:SmolLM2-1.7B-Instruct#q4_k_m --instrument coverage\n
  threearc judge validate --judge api:http://localhost:8000/v1#my-model --json\n
  threearc judge validate --judge recorded:labels.jsonl
  threearc judge validate --published ../shared/paper-artifacts
""",
)
def validate(
    judge: opts.Judge = None,
    instrument: Annotated[
        list[str] | None,
        typer.Option(
            help="coverage, delivery, certainty, rubric.AXIS, mcas.holistic, mcas.AXIS; may be "
            "repeated; default: all that the judge applies",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="References of each instrument", show_default=False)
    ] = None,
    repeats: Annotated[
        bool, typer.Option(help="Ask again, and with the answers listed in reverse")
    ] = True,
    published: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the paper's files: report the agreement with its labels as well, "
            "which decides nothing",
            show_default=False,
        ),
    ] = None,
    judge_cache: opts.JudgeCache = None,
    judge_threads: opts.JudgeThreads = None,
    judge_max_tokens: opts.JudgeMaxTokens = None,
    judge_concurrency: opts.JudgeConcurrency = None,
    judge_timeout: opts.JudgeTimeout = None,
    judge_tries: opts.JudgeTries = None,
    judge_rate: opts.JudgeRate = None,
    judge_usd_in: opts.JudgeUsdIn = None,
    judge_usd_out: opts.JudgeUsdOut = None,
    judge_budget: opts.JudgeBudget = None,
    config: Config = None,
    json_output: Json = False,
) -> None:
    """Compare a judge with the references that ship with threearc, and hold it to its bar.

    A claim that rests on a judge below the bar is INVALID. The default judge is lexical.
    """
    from arcs.judging.command import start

    start(
        judge=judge or "lexical", instruments=tuple(instrument or ()), limit=limit,
        repeats=repeats, published=published, cache=judge_cache, as_json=json_output,
        options=opts.judge_options(
            threads=judge_threads, max_tokens=judge_max_tokens, concurrency=judge_concurrency,
            timeout=judge_timeout, tries=judge_tries, requests_per_minute=judge_rate,
            usd_per_million_input=judge_usd_in, usd_per_million_output=judge_usd_out,
            budget_usd=judge_budget,
        ),
    )  # fmt: skip
