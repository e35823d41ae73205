"""``threearc arc2``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from arcs.cli import app
from arcs.cli import judge_options as opts
from arcs.cli.config_file import Config, Json
from models.errors import UserError


def _numbers(flag: str, text: str, kind: type[int] | type[float]) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{flag} {text}: give numbers with commas between them") from None


@app.command(
    "arc2",
    epilog="""
Examples:\n
  threearc arc2 --profile quick\n
  threearc arc2 --disposition adversarial-self --labels meter --backend mlx\n
  threearc arc2 --rank-by magnitude --tasks small --gguf q8_0\n
  threearc arc2 --temperature 0.7 --seeds 0,1,2\n
  threearc arc2 --paper-tables     (the paper's sweeps under the same rules)\n
  threearc arc2 --run runs/arc2-20260101-120000     (continue after a kill)
""",
)
def arc2(
    profile: Annotated[
        str | None,
        typer.Option(help="quick, standard (default) or paper: sets sizes", show_default=False),
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
        typer.Option(help="float32 (default), bfloat16 or float16", show_default=False),
    ] = None,
    disposition: Annotated[
        str | None,
        typer.Option(
            help="humble (default), adversarial-self, persistent, deliberate, curious, eager or "
            "self-improving",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="exact-match (default), execution, meter, or judge:JUDGE with JUDGE lexical, "
            "gguf:MODEL, api:URL#MODEL or recorded:FILE",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Prompts for the cohorts", show_default=False)
    ] = None,
    n_predict: Annotated[
        int | None, typer.Option(help="Token budget of an answer", show_default=False)
    ] = None,
    last_n: Annotated[
        int | None,
        typer.Option(help="Response tokens that heads are read over (32)", show_default=False),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Attribute these layers only, e.g. 20,21", show_default=False)
    ] = None,
    permutations: Annotated[
        int | None, typer.Option(help="For the nulls of the rankings", show_default=False)
    ] = None,
    causal_items: Annotated[
        int | None,
        typer.Option(help="Items that every head is ablated on; 0: none", show_default=False),
    ] = None,
    rank_by: Annotated[
        str | None,
        typer.Option(help="causal (default), magnitude or directional", show_default=False),
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Heads damped (5)", show_default=False)] = None,
    scales: Annotated[
        str | None, typer.Option(help="Lambdas (1,0.9,0.8,0.5,0)", show_default=False)
    ] = None,
    random_draws: Annotated[
        int | None, typer.Option(help="Sets of random heads", show_default=False)
    ] = None,
    controls: Annotated[
        str | None,
        typer.Option(
            help="Lambdas of the control heads: all (default) or strongest", show_default=False
        ),
    ] = None,
    sweep_limit: Annotated[
        int | None, typer.Option(help="Prompts answered at every lambda", show_default=False)
    ] = None,
    axis_items: Annotated[
        int | None, typer.Option(help="Meter items read at every lambda", show_default=False)
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(help="small or humaneval: Python tasks at every lambda", show_default=False),
    ] = None,
    tasks_limit: Annotated[
        int | None, typer.Option(help="This many of the tasks", show_default=False)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 (default): greedy", show_default=False)
    ] = None,
    top_p: Annotated[float | None, typer.Option(help="Of the sampling", show_default=False)] = None,
    top_k_tokens: Annotated[
        int | None, typer.Option(help="Of the sampling: the k likeliest", show_default=False)
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="1 (default): none", show_default=False)
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Of the sampling, three or more: 0,1,2", show_default=False)
    ] = None,
    gguf: Annotated[
        str | None,
        typer.Option(
            help="Repeat the sweep through llama.cpp: original, f16, q8_0, q5_k_m, q4_k_m",
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
    allow_weak_sandbox: Annotated[
        bool | None,
        typer.Option(
            "--allow-weak-sandbox/--no-allow-weak-sandbox",
            help="Run code with limits only",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of permutations and random heads", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the new run", show_default=False)
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Continue this run where it was stopped", show_default=False),
    ] = None,
    config: Config = None,
    paper_tables: Annotated[
        bool,
        typer.Option(
            "--paper-tables/--no-paper-tables",
            help="What the paper's published sweeps determine; no run",
        ),
    ] = False,
    json_output: Json = False,
) -> None:
    """Which attention heads carry a disposition, and does damping them move it alone?

    Ranks every head by size, direction and ablation, each with the null of its maximum; damps the
    first ones at the o_proj input beside random heads and the other end; says which of the words
    frozen, wrong direction, non-monotonic, content damage, not replicated hold.
    """
    given: dict[str, Any] = {
        "profile": profile,
        "model": model,
        "backend": backend,
        "dtype": dtype,
        "disposition": disposition,
        "labels": labels,
        "limit": limit,
        "n_predict": n_predict,
        "last_n": last_n,
        "layers": None if layers is None else _numbers("--layers", layers, int),
        "permutations": permutations,
        "causal_items": causal_items,
        "rank_by": rank_by,
        "top_k": top_k,
        "scales": None if scales is None else _numbers("--scales", scales, float),
        "random_draws": random_draws,
        "controls": controls,
        "sweep_limit": sweep_limit,
        "axis_items": axis_items,
        "tasks": tasks,
        "tasks_limit": tasks_limit,
        "temperature": temperature,
        "top_p": top_p,
        "top_k_tokens": top_k_tokens,
        "repetition_penalty": repetition_penalty,
        "seeds": None if seeds is None else _numbers("--seeds", seeds, int),
        "gguf": gguf,
        "judge_max_tokens": judge_max_tokens,
        "judge_threads": judge_threads,
        "allow_weak_sandbox": allow_weak_sandbox,
        "seed": seed,
    }
    flags = {name: value for name, value in given.items() if value is not None}
    if paper_tables:
        from arcs.arc2.command import paper_tables as show

        if flags or out is not None or run is not None:
            raise UserError("--paper-tables reads no settings; give it alone, or with --json")
        show(as_json=json_output)
        return
    from arcs.arc2.command import start

    judge = {
        "concurrency": judge_concurrency,
        "timeout": judge_timeout,
        "tries": judge_tries,
        "requests_per_minute": judge_rate,
        "usd_per_million_input": judge_usd_in,
        "usd_per_million_output": judge_usd_out,
        "budget_usd": judge_budget,
    }
    start(flags, out=out, run=run, as_json=json_output, judge=judge, judge_cache=judge_cache)
