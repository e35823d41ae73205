"""``threearc arc3``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from arcs.cli import app
from arcs.cli import judge_options as opts
from arcs.cli.config_file import Config, Json


@app.command(
    "arc3",
    epilog="""
Examples:\n
  threearc arc3 --profile quick\n
  threearc arc3 --model SmolLM2-1.7B-Instruct --labels execution\n
  threearc arc3 --labels judge:lexical                    (Chef questions, checklists)\n
  threearc arc3 --items recall                            (is the key in the context?)\n
  threearc arc3 --backend gguf --quant q4_k_m --ids-from runs/arc3-20260101-120000\n
  threearc arc3 --run runs/arc3-20260101-120000           (continue after a kill)
""",
)
def arc3(
    model: Annotated[
        str | None,
        typer.Option(help="Name (see threearc models), hub id or path", show_default=False),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            help="A LoRA adapter on the model: the edited model is read", show_default=False
        ),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="auto (default), torch, mlx or gguf", show_default=False)
    ] = None,
    quant: Annotated[
        str | None,
        typer.Option(
            help="Of a gguf: f32 (default), f16, q8_0, q5_k_m, q4_k_m", show_default=False
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="llama.cpp threads of a gguf", show_default=False)
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32 (default; the engines agree in it), bfloat16 or float16",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="exact-match (default), execution, or judge:JUDGE, e.g. judge:lexical",
            show_default=False,
        ),
    ] = None,
    items: Annotated[
        str | None,
        typer.Option(
            help="exact-match: short-answers or recall; execution: small-tasks or humaneval",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="quick or standard (default)", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Items of each set, at least 10", show_default=False)
    ] = None,
    n_predict: Annotated[
        int | None, typer.Option(help="Token budget of an answer", show_default=False)
    ] = None,
    allow_weak_sandbox: Annotated[
        bool | None,
        typer.Option(
            "--allow-weak-sandbox/--no-allow-weak-sandbox",
            help="Run model-written code with resource limits only, where nothing better is there",
            show_default=False,
        ),
    ] = None,
    position: Annotated[
        str | None,
        typer.Option(help="last_content (default) or end_of_turn", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of folds and permutations", show_default=False)
    ] = None,
    ids_from: Annotated[
        Path | None,
        typer.Option(help="Read the answers of this run on another engine", show_default=False),
    ] = None,
    difficulty_from: Annotated[
        Path | None,
        typer.Option(
            help="A run of another model on the same items: its results become a baseline",
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
    json_output: Json = False,
    judge_threads: opts.JudgeThreads = None,
    judge_max_tokens: opts.JudgeMaxTokens = None,
    judge_concurrency: opts.JudgeConcurrency = None,
    judge_timeout: opts.JudgeTimeout = None,
    judge_tries: opts.JudgeTries = None,
    judge_rate: opts.JudgeRate = None,
    judge_usd_in: opts.JudgeUsdIn = None,
    judge_usd_out: opts.JudgeUsdOut = None,
    judge_budget: opts.JudgeBudget = None,
) -> None:
    """Does h_last of the frozen base carry correctness that survives fresh prompts?

    Answers two sets of questions, reads hidden states of the very ids it made, fits probes on one
    set and tests them on the other, beside baselines, controls and a gate.
    """
    given: dict[str, Any] = {
        "model": model,
        "adapter": adapter,
        "backend": backend,
        "quant": quant,
        "threads": threads,
        "dtype": dtype,
        "labels": labels,
        "items": items,
        "profile": profile,
        "limit": limit,
        "n_predict": n_predict,
        "allow_weak_sandbox": allow_weak_sandbox,
        "position": position,
        "seed": seed,
        "ids_from": ids_from,
        "difficulty": difficulty_from,
        "judge_threads": judge_threads,
        "judge_max_tokens": judge_max_tokens,
    }
    from arcs.arc3.command import start

    options = opts.judge_options(
        concurrency=judge_concurrency, timeout=judge_timeout, tries=judge_tries,
        requests_per_minute=judge_rate, usd_per_million_input=judge_usd_in,
        usd_per_million_output=judge_usd_out, budget_usd=judge_budget,
    )  # fmt: skip
    flags = {name: value for name, value in given.items() if value is not None}
    start(flags, out=out, run=run, as_json=json_output, options=options)
