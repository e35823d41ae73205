"""``threearc arc1``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from arcs.cli import app
from arcs.cli import judge_options as opts
from arcs.cli.config_file import config_option
from arcs.cli.numbers import names, whole_numbers

_EXPERIMENT, _TRAINING, _EVALUATION = "Experiment", "Training", "Evaluation"
_DPO = "Preferences (DPO)"


def _option(*names: str, panel: str, help: str, hidden: bool = False) -> Any:
    """``hidden``: left out of --help, which is long; ``threearc init`` lists it."""
    return typer.Option(*names, rich_help_panel=panel, help=help, show_default=False, hidden=hidden)


@app.command(
    epilog="""
Examples:\n
  threearc arc1 --profile quick\n
  threearc arc1 --backend mlx --model SmolLM2-1.7B-Instruct\n
  threearc arc1 --data my.jsonl --rank 32 --epochs 3 --n-predict 512,1024\n
  threearc arc1 --benchmark small --limit 100\n
  threearc arc1 --method sft+dpo --pairs my-pairs.jsonl\n
  threearc arc1 --recipe paper-chef --seeds 3

  threearc arc1 --planted --evaluations meter,chef     (do the instruments see what is there?)

  threearc arc1 --adapter path/to/peft-adapter --model SmolLM2-1.7B-Instruct\n
  threearc arc1 --run runs/arc1-20260101-120000     (continue after a kill)
""",
)
def arc1(
    profile: Annotated[
        str | None, _option("--profile", panel=_EXPERIMENT, help="quick, standard (default), paper")
    ] = None,
    model: Annotated[
        str | None,
        _option("--model", panel=_EXPERIMENT, help="Name (see threearc models), hub id or path"),
    ] = None,
    backend: Annotated[
        str | None, _option("--backend", panel=_EXPERIMENT, help="auto (default), mlx, torch")
    ] = None,
    seed: Annotated[int | None, _option("--seed", panel=_EXPERIMENT, help="Default 0")] = None,
    out: Annotated[
        Path | None, _option("--out", panel=_EXPERIMENT, help="Directory of the new run")
    ] = None,
    run: Annotated[
        Path | None,
        _option("--run", panel=_EXPERIMENT, help="Continue this run where it was stopped"),
    ] = None,
    config: Annotated[Path | None, config_option(_EXPERIMENT)] = None,
    json_output: Annotated[
        bool,
        _option(
            "--json/--no-json",
            panel=_EXPERIMENT,
            help="Print one JSON document on stdout",
        ),
    ] = False,
    method: Annotated[
        str | None,
        _option("--method", panel=_TRAINING, help="sft+dpo in one run (default), sft or dpo"),
    ] = None,
    data: Annotated[
        list[Path] | None,
        _option("--data", panel=_TRAINING, help="Training records: JSONL, or a set that ships"),
    ] = None,
    recipe: Annotated[
        str | None,
        _option(
            "--recipe",
            panel=_TRAINING,
            help="paper-chef, paper-qwen-0.6b, attention-only, all-modules, low-rank, rslora, "
            "think-masked, planted-hedge or placebo (docs/arc1.md)",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        _option("--seeds", panel=_TRAINING, help="Train with this many seeds, default 1"),
    ] = None,
    planted: Annotated[
        bool | None,
        _option(
            "--planted/--no-planted",
            panel=_TRAINING,
            help="Train an adapter that always hedges and its placebo too: do the instruments see "
            "the one and not the other?",
        ),
    ] = None,
    mask_think: Annotated[
        bool | None,
        _option("--mask-think/--no-mask-think", panel=_TRAINING, help="No loss on think tokens"),
    ] = None,
    train_limit: Annotated[
        int | None, _option("--train-limit", panel=_TRAINING, help="Train on this many records")
    ] = None,
    paired_with: Annotated[
        list[Path] | None,
        _option(
            "--paired-with",
            panel=_TRAINING,
            help="Of --data, only the record of each prompt in these files, in their order",
            hidden=True,
        ),
    ] = None,
    held_out_limit: Annotated[
        int | None,
        _option(
            "--held-out-limit",
            panel=_TRAINING,
            help="Measure the held-out loss on this many records, and pairs, spread evenly",
            hidden=True,
        ),
    ] = None,
    pairs: Annotated[
        list[Path] | None, _option("--pairs", panel=_DPO, help="Preference pairs, JSONL")
    ] = None,
    pairs_limit: Annotated[
        int | None, _option("--pairs-limit", panel=_DPO, help="Train on this many pairs")
    ] = None,
    reference: Annotated[
        str | None,
        _option(
            "--reference",
            panel=_DPO,
            help="base (default for dpo), sft (default for sft+dpo), or an adapter's path",
        ),
    ] = None,
    beta: Annotated[float | None, _option("--beta", panel=_DPO, help="Default 0.1")] = None,
    dpo_learning_rate: Annotated[
        float | None,
        _option("--dpo-learning-rate", panel=_DPO, help="Peak, default 5e-5"),
    ] = None,
    dpo_epochs: Annotated[
        int | None, _option("--dpo-epochs", panel=_DPO, help="Epochs, default 2")
    ] = None,
    dpo_micro_batch_size: Annotated[
        int | None, _option("--dpo-micro-batch-size", panel=_DPO, help="Pairs a forward pass")
    ] = None,
    dpo_accumulation: Annotated[
        int | None, _option("--dpo-accumulation", panel=_DPO, help="Micro-batches a step")
    ] = None,
    dpo_max_length: Annotated[
        int | None, _option("--dpo-max-length", panel=_DPO, help="Longest side in tokens")
    ] = None,
    adapter: Annotated[
        Path | None,
        _option("--adapter", panel=_TRAINING, help="Evaluate this PEFT adapter; train nothing"),
    ] = None,
    dtype: Annotated[
        str | None,
        _option(
            "--dtype",
            panel=_TRAINING,
            help="auto (default: float32 on a CPU, bfloat16 on a GPU), float32, bfloat16, float16",
        ),
    ] = None,
    base_bits: Annotated[
        int | None,
        _option(
            "--base-bits",
            panel=_TRAINING,
            help="4 or 8: train over a quantised base (QLoRA), MLX only; default: as stored",
        ),
    ] = None,
    processes: Annotated[
        int | None,
        _option(
            "--processes",
            panel=_TRAINING,
            help="Train in this many processes, which share out the micro-batches of each step: "
            "torch only, a GPU each where there are any; default 1",
        ),
    ] = None,
    targets: Annotated[
        str | None, _option("--targets", panel=_TRAINING, help="attention (default) or all")
    ] = None,
    rank: Annotated[int | None, _option("--rank", panel=_TRAINING, help="LoRA rank r")] = None,
    alpha: Annotated[float | None, _option("--alpha", panel=_TRAINING, help="LoRA alpha")] = None,
    dropout: Annotated[
        float | None, _option("--dropout", panel=_TRAINING, help="LoRA dropout, default 0")
    ] = None,
    rslora: Annotated[
        bool | None, _option("--rslora/--no-rslora", panel=_TRAINING, help="alpha / sqrt(r)")
    ] = None,
    epochs: Annotated[int | None, _option("--epochs", panel=_TRAINING, help="Epochs")] = None,
    learning_rate: Annotated[
        float | None, _option("--learning-rate", panel=_TRAINING, help="Peak, default 2e-4")
    ] = None,
    warmup_ratio: Annotated[
        float | None,
        _option(
            "--warmup-ratio", panel=_TRAINING, help="Share of the steps that warm up", hidden=True
        ),
    ] = None,
    weight_decay: Annotated[
        float | None,
        _option("--weight-decay", panel=_TRAINING, help="AdamW's weight decay", hidden=True),
    ] = None,
    max_grad_norm: Annotated[
        float | None,
        _option("--max-grad-norm", panel=_TRAINING, help="Clip gradients to it", hidden=True),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        _option(
            "--checkpoint-every", panel=_TRAINING, help="Steps between checkpoints", hidden=True
        ),
    ] = None,
    eval_every: Annotated[
        int | None,
        _option(
            "--eval-every",
            panel=_TRAINING,
            help="Steps between measurements of the held-out loss",
            hidden=True,
        ),
    ] = None,
    micro_batch_size: Annotated[
        int | None, _option("--micro-batch-size", panel=_TRAINING, help="Rows a forward pass")
    ] = None,
    accumulation: Annotated[
        int | None, _option("--accumulation", panel=_TRAINING, help="Micro-batches a step")
    ] = None,
    max_length: Annotated[
        int | None, _option("--max-length", panel=_TRAINING, help="Longest example in tokens")
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None,
        _option(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            panel=_TRAINING,
            help="Less memory, slower",
        ),
    ] = None,
    benchmark: Annotated[
        str | None,
        _option(
            "--benchmark",
            panel=_EVALUATION,
            help="humaneval (default), small, or a JSONL file of tasks",
        ),
    ] = None,
    n_predict: Annotated[
        str | None,
        _option("--n-predict", panel=_EVALUATION, help="Token budgets, e.g. 256,512,1024"),
    ] = None,
    escalate: Annotated[
        int | None,
        _option(
            "--escalate",
            panel=_EVALUATION,
            help="Continue unfinished answers up to this many tokens while they could change the "
            "conclusion",
        ),
    ] = None,
    evaluations: Annotated[
        str | None,
        _option(
            "--evaluations",
            panel=_EVALUATION,
            help="What all arms are measured on beside the benchmark: some of small,meter,"
            "short-answers,chef,mcas,recovery; all (all but short-answers); none. Default: all, "
            "but in the standard and paper profiles mcas only with --judge",
        ),
    ] = None,
    evaluation_limit: Annotated[
        int | None,
        _option("--evaluation-limit", panel=_EVALUATION, help="Items of each evaluation"),
    ] = None,
    evaluation_n_predict: Annotated[
        str | None,
        _option(
            "--evaluation-n-predict", panel=_EVALUATION, help="Token budgets of free answers there"
        ),
    ] = None,
    judge: Annotated[
        str | None,
        _option(
            "--judge",
            panel=_EVALUATION,
            help="Of chef and mcas: lexical (default for chef), gguf (default for mcas, and below "
            "its bar there), gguf:MODEL, api:URL#MODEL or recorded:FILE",
        ),
    ] = None,
    judge_references: Annotated[
        int | None,
        _option(
            "--judge-references",
            panel=_EVALUATION,
            help="Validate a gguf or api judge on this many references of each instrument",
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
    judge_below_bar: opts.JudgeBelowBar = None,
    limit: Annotated[
        int | None, _option("--limit", panel=_EVALUATION, help="Evaluate this many problems")
    ] = None,
    quantisation: Annotated[
        str | None,
        _option(
            "--quantisation",
            panel=_EVALUATION,
            help="auto (default), original, f16, q8_0, q5_k_m, q4_k_m",
        ),
    ] = None,
    prompt_style: Annotated[
        str | None, _option("--prompt-style", panel=_EVALUATION, help="chat (default) or raw")
    ] = None,
    kv_dtype: Annotated[
        str | None,
        _option(
            "--kv-dtype", panel=_EVALUATION, help="llama.cpp's KV cache: f16 or f32", hidden=True
        ),
    ] = None,
    width: Annotated[
        int | None,
        _option(
            "--width",
            panel=_EVALUATION,
            help="Sequences decoded at a time; texts depend on it",
            hidden=True,
        ),
    ] = None,
    thinking: Annotated[
        bool | None,
        _option("--thinking/--no-thinking", panel=_EVALUATION, help="Qwen's thinking mode"),
    ] = None,
    threads: Annotated[
        int | None, _option("--threads", panel=_EVALUATION, help="llama.cpp threads")
    ] = None,
    gpu_layers: Annotated[
        int | None,
        _option("--gpu-layers", panel=_EVALUATION, help="Layers on a GPU, default all that fit"),
    ] = None,
    allow_weak_sandbox: Annotated[
        bool | None,
        _option(
            "--allow-weak-sandbox/--no-allow-weak-sandbox",
            panel=_EVALUATION,
            help="Run model-written code with resource limits only",
        ),
    ] = None,
    allow_overlap: Annotated[
        bool | None,
        _option(
            "--allow-overlap/--no-allow-overlap",
            panel=_EVALUATION,
            help="Go on where training data hold problems that are evaluated; claims are INVALID",
        ),
    ] = None,
) -> None:
    """Train a LoRA (SFT, then DPO), evaluate base and arms, and judge the differences.

    Evaluates Python tasks quantised through llama.cpp. One decode serves every n_predict.
    The verdict is the one at the largest. Behaviour is measured on all arms beside it.
    """
    flags = {
        name: value for name, value in locals().items() if value is not None and name not in _APART
    }
    if "n_predict" in flags:
        flags["n_predict"] = whole_numbers(flags["n_predict"])
    if "evaluation_n_predict" in flags:
        flags["evaluation_n_predict"] = whole_numbers(
            flags["evaluation_n_predict"], "--evaluation-n-predict"
        )
    if "evaluations" in flags:
        flags["evaluations"] = names(flags["evaluations"])
    from arcs.arc1.command import start

    asking = opts.judge_options(
        concurrency=judge_concurrency, timeout=judge_timeout, tries=judge_tries,
        requests_per_minute=judge_rate, usd_per_million_input=judge_usd_in,
        usd_per_million_output=judge_usd_out, budget_usd=judge_budget,
        below_bar=judge_below_bar,
    )  # fmt: skip
    start(flags, out=out, run=run, as_json=json_output, options=asking, cache=judge_cache)


_APART = (
    "out", "run", "config", "json_output", "judge_cache", "judge_concurrency", "judge_timeout",
    "judge_tries", "judge_rate", "judge_usd_in", "judge_usd_out", "judge_budget",
    "judge_below_bar",
)  # fmt: skip
"""Flags that are no settings of the run."""
