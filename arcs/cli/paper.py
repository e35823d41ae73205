"""``threearc paper``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from arcs.cli import app
from arcs.cli import judge_options as opts
from arcs.cli.config_file import Config, Json


@app.command(
    "paper",
    epilog="""
Examples:\n
  threearc paper smollm2-135m --profile quick\n
  threearc paper qwen3-0.6b --backend mlx --dry-run     (what it needs and substitutes)\n
  threearc paper smollm2-135m --as qwen3-0.6b --profile quick --only arc1\n
  threearc paper smollm2-1.7b --artifacts paper-artifacts\n
  threearc paper --run runs/paper-20260101-120000     (continue after a kill)
""",
)
def paper(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="qwen3-0.6b, qwen3-1.7b, smollm2-1.7b, qwen3.5-0.8b, gemma-4-e2b, smollm2-135m "
            "(the embedded one, which stands in), or a path with --as",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--as", help="Whose recipe MODEL stands in for; smollm2-135m: smollm2-1.7b's",
                     show_default=False),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="auto (default), mlx or torch", show_default=False)
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="paper (default): its sizes; quick: all of it, small",
                     show_default=False),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Some of arc1,arc2,arc3,falsify", show_default=False),
    ] = None,
    artifacts: Annotated[
        Path | None,
        typer.Option(help="A copy of the paper's published files: its 100 and 193 prompts",
                     show_default=False),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="Of MCAS (qwen3-0.6b), which is not measured without one: gguf:MODEL, "
                     "api:URL#MODEL or recorded:FILE", show_default=False),
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
    judge_below_bar: opts.JudgeBelowBar = None,
    allow_weak_sandbox: Annotated[
        bool | None,
        typer.Option("--allow-weak-sandbox/--no-allow-weak-sandbox",
                     help="Run model-written code with resource limits only", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be run, needed and substituted; stop there"),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the new run", show_default=False)
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Continue this run where it was stopped", show_default=False),
    ] = None,
    config: Config = None,
    json_output: Json = False,
) -> None:  # fmt: skip
    """What does the paper's own recipe give on this machine, beside the paper's numbers?

    Runs what the paper ran on a model as runs of the arcs in one folder, and prints one table: the
    paper, an independent figure, ours with its interval, what had to be substituted.
    """
    given: dict[str, Any] = {
        "model": model,
        "recipe": recipe,
        "backend": backend,
        "profile": profile,
        "only": None if only is None else tuple(part.strip() for part in only.split(",")),
        "artifacts": artifacts,
        "judge": judge,
        "judge_max_tokens": judge_max_tokens,
        "judge_threads": judge_threads,
        "allow_weak_sandbox": allow_weak_sandbox,
    }
    from arcs.paper.command import start

    flags = {name: value for name, value in given.items() if value is not None}
    asking = opts.judge_options(
        concurrency=judge_concurrency, timeout=judge_timeout, tries=judge_tries,
        requests_per_minute=judge_rate, usd_per_million_input=judge_usd_in,
        usd_per_million_output=judge_usd_out, budget_usd=judge_budget,
        below_bar=judge_below_bar,
    )  # fmt: skip
    start(
        flags, out=out, run=run, as_json=json_output, dry_run=dry_run, options=asking,
        cache=judge_cache,
    )  # fmt: skip
