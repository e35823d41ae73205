"""What ``threearc bench eval`` does: open one quantised file, compare, print one document."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from arcs import provenance
from arcs.arc1 import problems
from arcs.bench.evaluation_report import report
from arcs.bench.timing import REPEATS, Say
from arcs.progress import Reporter
from arcs.runs import canonical_json
from backends import available_backends
from backends.llamacpp import require_installed
from evals.benchmarks import load_benchmark
from models.chat import ChatEncoder
from models.errors import UserError
from models.gguf.layout import layout_of
from models.store import cache_root, prepare

ALL, NONE = "all", "none"
PROMPTS, MAX_TOKENS, QUANTISATION = 16, 128, "q8_0"


@dataclass(frozen=True)
class EvalRequest:
    """What to time, and with how much of it."""

    model: str
    quantisation: str
    engine: str
    """Library to compare with besides llama.cpp: ``torch``, ``mlx``, ``all`` or ``none``."""
    prompts: int
    max_tokens: int
    threads: int | None
    """llama.cpp's, and the other libraries'; None: the engine's default."""


def start(request: EvalRequest, *, as_json: bool) -> None:
    """Time, and print a table or the JSON document."""
    document = run(request, Reporter().say)
    if as_json:
        sys.stdout.write(canonical_json(document))
    else:
        Console(highlight=False).print(report(document))


def run(request: EvalRequest, say: Say) -> dict[str, Any]:
    """Return the document. Raises UserError for what cannot be timed."""
    engines, skipped = _engines(request.engine)
    available = len(load_benchmark("humaneval").problems)
    if request.prompts > available:
        raise UserError(f"--prompts is {request.prompts}: HumanEval has {available} problems")
    require_installed()
    from backends.llamacpp.quantise import KINDS, evaluation_gguf

    if request.quantisation not in ("original", *KINDS):
        known = ", ".join(("original", *KINDS))
        raise UserError(f"--quant {request.quantisation}: choose one of {known}")
    from arcs.bench.evaluation import Bench, measure_evaluation
    from backends.llamacpp.model import open_gguf
    from backends.llamacpp.threads import default_threads

    directory = prepare(request.model, say=say)
    layout_of(directory, doing="quantised evaluation")
    encoder = ChatEncoder(directory)
    encoder.stop_ids = ()  # every text has the same number of ids
    benchmark = load_benchmark("humaneval")
    chosen = problems.choose(benchmark, request.prompts)
    items = [problems.encode(encoder, problem, "chat") for problem in chosen]
    gguf = evaluation_gguf(directory, request.quantisation, cache_root() / "gguf", say=say)
    threads = request.threads or default_threads()
    context = problems.context_for(encoder, benchmark, "chat", request.max_tokens)
    with open_gguf(gguf, context=context, threads=threads) as model:
        bench = Bench(model, encoder, items, request.max_tokens, say)
        described = model.describe()
        found = measure_evaluation(bench, request.model, engines, threads=threads)
    return {
        "schema_version": 1,
        "work": ["eval"],
        "model": directory.name,
        "model_fingerprint": directory.fingerprint,
        "quantisation": request.quantisation,
        "prompts": len(items),
        "prompt_tokens": sum(len(item.prompt.ids) for item in items),
        "prompts_sha256": problems.prompts_sha256(items),
        "max_tokens": request.max_tokens,
        "threads": threads,
        "repeats": REPEATS,
        "described": described,
        **found,
        "skipped": skipped,
        "made_with": {
            "versions": provenance.versions(),
            "hardware": provenance.hardware(),
            "environment": provenance.environment(),
        },
    }


def _engines(asked: str) -> tuple[Sequence[str], list[str]]:
    """Engines whose libraries are compared, and why others are not."""
    available = available_backends()
    if asked not in (ALL, NONE, *available):
        known = ", ".join((*available, ALL, NONE))
        raise UserError(f"--engine {asked}: choose one of {known}")
    if asked == NONE:
        return (), []
    wanted = available if asked == ALL else {asked: available[asked]}
    if asked != ALL and wanted[asked] is not None:
        raise UserError(f"backend {asked} cannot be used: {wanted[asked]}")
    usable = [name for name, reason in wanted.items() if reason is None]
    return usable, [f"{name}: {reason}" for name, reason in wanted.items() if reason]
