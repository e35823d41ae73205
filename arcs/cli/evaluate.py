"""``threearc eval``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from arcs.cli import MEASURED, app
from arcs.cli.config_file import Config, Json
from arcs.cli.numbers import whole_numbers
from models.errors import UserError


@app.command(
    "eval",
    epilog="""
Examples:\n
  threearc eval humaneval --adapter runs/arc1/adapter\n
  threearc eval humaneval --adapter A --adapter-mode merged --quant f16,q8_0,q4_k_m\n
  threearc eval humaneval --temper L16H5=0.5 --temper L16H5=0 --escalate 4096\n
  threearc eval humaneval --samples 10 --temperature 0.8 --top-p 0.95 --seed 1\n
  threearc eval small --model SmolLM2-135M-Instruct --n-predict 256\n
  threearc eval my-tasks.jsonl --quant q8_0,q4_k_m\n
  threearc eval --run runs/eval-20260101-120000     (continue after a kill)
""",
)
def evaluate(
    benchmark: Annotated[
        str | None,
        typer.Argument(
            help="humaneval (default), small (easy tasks, for small models) or a JSONL file of "
            "tasks",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Name (see threearc models), hub id or path", show_default=False),
    ] = None,
    adapter: Annotated[
        list[Path] | None,
        typer.Option(help="An adapter's directory; may be repeated", show_default=False),
    ] = None,
    adapter_mode: Annotated[
        str | None,
        typer.Option(
            help="runtime (default) or merged: added to the base before quantising",
            show_default=False,
        ),
    ] = None,
    temper: Annotated[
        list[str] | None,
        typer.Option(
            help="Scale heads, e.g. L16H5=0.5,L3H1=0; one condition each time",
            show_default=False,
        ),
    ] = None,
    quant: Annotated[
        str | None,
        typer.Option(
            help="With commas: original, f16, q8_0 (default), q5_k_m, q4_k_m", show_default=False
        ),
    ] = None,
    n_predict: Annotated[
        str | None, typer.Option(help="Token budgets, default 256,512,1024", show_default=False)
    ] = None,
    escalate: Annotated[
        int | None,
        typer.Option(
            help="Continue unfinished answers up to this many tokens while they could change a "
            "conclusion",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Evaluate this many problems", show_default=False)
    ] = None,
    prompt_style: Annotated[
        str | None, typer.Option(help="chat (default) or raw", show_default=False)
    ] = None,
    thinking: Annotated[
        bool | None,
        typer.Option("--thinking/--no-thinking", help="Qwen's thinking mode", show_default=False),
    ] = None,
    kv_dtype: Annotated[
        str | None,
        typer.Option(help="llama.cpp's KV cache: f16 or f32", show_default=False, hidden=True),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(help="Answers decoded together, default 8; changes texts", show_default=False),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="llama.cpp threads", show_default=False)
    ] = None,
    gpu_layers: Annotated[
        int | None, typer.Option(help="Layers on a GPU, default all that fit", show_default=False)
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(help="Answers drawn of each problem, default 1", show_default=False),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 (default) is greedy", show_default=False)
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Keep the k most probable tokens", show_default=False)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Keep tokens of this probability", show_default=False)
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(help="Keep tokens with this share of the largest", show_default=False),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(help="Above 1: tokens that occurred are less likely", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the draws, default 0", show_default=False)
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(
            help="Text that ends an answer; may be repeated; \\n, \\t and \\\\ are read",
            show_default=False,
        ),
    ] = None,
    logprobs: Annotated[
        bool | None,
        typer.Option(
            "--logprobs/--no-logprobs",
            help="Store every token's log-probability",
            show_default=False,
        ),
    ] = None,
    fast: Annotated[
        bool | None,
        typer.Option(
            "--fast/--no-fast",
            help="Give repeatability up: texts depend on each other; how many change is measured",
            show_default=False,
        ),
    ] = None,
    share_prefix: Annotated[
        bool | None,
        typer.Option(
            "--share-prefix/--no-share-prefix",
            help="Read what the chat template begins every prompt with once (default)",
            show_default=False,
        ),
    ] = None,
    allow_weak_sandbox: Annotated[
        bool | None,
        typer.Option(
            "--allow-weak-sandbox/--no-allow-weak-sandbox",
            help="Run model-written code with resource limits only",
            show_default=False,
        ),
    ] = None,
    allow_overlap: Annotated[
        bool | None,
        typer.Option(
            "--allow-overlap/--no-allow-overlap",
            help="Go on where an adapter was trained on problems; its claims are INVALID",
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
) -> None:
    """Evaluate a base and its edits, quantised, at several n_predict, in one table.

    `threearc eval chef`, `mcas`, `recovery`, `short-answers` and `meter` are `threearc measure`
    with that name, and take its options.

    Conditions: the base, every adapter, every setting of heads. One decode each at a
    quantisation serves all n_predict; every edit is compared with what it is an edit of.
    """
    if benchmark in MEASURED:  # elsewhere than first, where it is taken for threearc measure
        raise UserError(f"write it first: threearc eval {benchmark} --model ...")
    given: dict[str, Any] = {
        "benchmark": benchmark,
        "model": model,
        "adapters": tuple(adapter) if adapter else None,
        "adapter_mode": adapter_mode,
        "tempers": tuple(temper) if temper else None,
        "quantisations": None
        if quant is None
        else tuple(part.strip() for part in quant.split(",")),
        "n_predict": None if n_predict is None else whole_numbers(n_predict),
        "escalate": escalate,
        "limit": limit,
        "prompt_style": prompt_style,
        "thinking": thinking,
        "kv_dtype": kv_dtype,
        "width": width,
        "threads": threads,
        "gpu_layers": gpu_layers,
        "samples": samples,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
        "stops": tuple(_escapes(text) for text in stop) if stop else None,
        "logprobs": logprobs,
        "fast": fast,
        "share_prefix": share_prefix,
        "allow_weak_sandbox": allow_weak_sandbox,
        "allow_overlap": allow_overlap,
    }
    from arcs.evaluate.command import start

    flags = {name: value for name, value in given.items() if value is not None}
    start(flags, out=out, run=run, as_json=json_output)


_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\\\": "\\"}


def _escapes(text: str) -> str:
    """Read \\n, \\t and \\\\, which a shell does not; any other backslash is a mistake."""

    def read(match: re.Match[str]) -> str:
        if match[0] not in _ESCAPES:
            raise UserError(f"--stop {text!r}: write \\n, \\t, or \\\\ for a backslash")
        return _ESCAPES[match[0]]

    return re.sub(r"\\.?", read, text, flags=re.DOTALL)
