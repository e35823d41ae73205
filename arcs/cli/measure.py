"""``threearc measure``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from arcs.cli import app
from arcs.cli import judge_options as opts
from arcs.cli.config_file import Config, Json
from arcs.cli.numbers import whole_numbers


@app.command(
    "measure",
    epilog="""
Examples:\n
  threearc measure meter\n
  threearc measure meter --adapter my-lora --temper L16H5=0.5 --axis hedging\n
  threearc measure short-answers --adapter my-lora --n-predict 64\n
  threearc measure chef --adapter my-lora --judge lexical --n-predict 256,512\n
  threearc measure mcas --judge gguf:SmolLM2-1.7B-Instruct --limit 100\n
  threearc measure recovery --adapter my-lora\n
  threearc measure delivery --items my-prompts.jsonl\n
  threearc measure --run runs/meter-20260101-120000     (continue after a kill)
""",
)
def measure(
    instrument: Annotated[
        str | None,
        typer.Argument(
            help="meter, short-answers, chef, mcas, recovery or delivery", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Name (see threearc models), hub id or path", show_default=False),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="auto (default), torch or mlx", show_default=False)
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32 (default; the engines agree in it), bfloat16 or float16",
            show_default=False,
        ),
    ] = None,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(help="An adapter's directory; may be repeated", show_default=False),
    ] = None,
    temper: Annotated[
        list[str] | None,
        typer.Option(
            help="Scale heads, e.g. L16H5=0.5,L3H1=0; one condition each time",
            show_default=False,
        ),
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            help="Meter: hedging, self_checking or deferring; may be repeated, default all",
            show_default=False,
        ),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(
            help="Delivery: prompts to answer, JSONL with id and prompt", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="This many items: meter, of each axis; short answers, in all", show_default=False
        ),
    ] = None,
    n_predict: Annotated[
        str | None,
        typer.Option(
            help="Token budgets: of short answers one, default 48; of free answers one "
            "or more, default 256,512",
            show_default=False,
        ),
    ] = None,
    judge: opts.Judge = None,
    allow_weak_sandbox: Annotated[
        bool | None,
        typer.Option(
            "--allow-weak-sandbox/--no-allow-weak-sandbox",
            help="Recovery: run model-written code with resource limits only",
            show_default=False,
        ),
    ] = None,
    allow_overlap: Annotated[
        bool | None,
        typer.Option(
            "--allow-overlap/--no-allow-overlap",
            help="Go on where an adapter was trained on measured items; claims are INVALID then",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the new run", show_default=False)
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Continue this run where it was stopped", show_default=False),
    ] = None,
    config: Config = None,
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
    json_output: Json = False,
) -> None:
    """Measure dispositions of a base and its edits. `threearc eval NAME` does the same.

    The meter reads from log-probabilities how a model inclines to hedge, to check itself and to
    defer. Short answers are 320 questions, answered greedily and compared exactly. Chef:
    checklist coverage and delivery, by a judge. MCAS: reflection where it is due, by a judge.
    Recovery: second answers after a failed test, executed. Delivery: who asserts and who hedges,
    by a judge, on prompts of your own.
    """
    given: dict[str, Any] = {
        "instrument": instrument,
        "model": model,
        "backend": backend,
        "dtype": dtype,
        "adapters": tuple(adapter) if adapter else None,
        "tempers": tuple(temper) if temper else None,
        "axes": tuple(axis) if axis else None,
        "items": items,
        "limit": limit,
        "n_predict": None if n_predict is None else whole_numbers(n_predict),
        "judge": judge,
        "judge_max_tokens": judge_max_tokens,
        "judge_threads": judge_threads,
        "allow_weak_sandbox": allow_weak_sandbox,
        "allow_overlap": allow_overlap,
    }
    from arcs.measure.command import start

    flags = {name: value for name, value in given.items() if value is not None}
    asking = opts.judge_options(
        concurrency=judge_concurrency, timeout=judge_timeout, tries=judge_tries,
        requests_per_minute=judge_rate, usd_per_million_input=judge_usd_in,
        usd_per_million_output=judge_usd_out, budget_usd=judge_budget,
        below_bar=judge_below_bar,
    )  # fmt: skip
    start(flags, out=out, run=run, as_json=json_output, asking=asking, cache=judge_cache)
