"""What ``threearc bench`` does, one engine a process.

The BLAS that makes MLX fast on a Linux CPU makes torch slow. Speed is reported, never judged.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from rich.console import Console

from arcs import provenance
from arcs.bench.extraction import measure_extraction
from arcs.bench.generation import measure_generation
from arcs.bench.report import report
from arcs.bench.timing import REPEATS, Say
from arcs.bench.training import measure_training
from arcs.progress import Reporter
from arcs.runs import canonical_json
from arcs.training_data import built_in_paths, load
from backends import available_backends, choose_backend, open_backend, wants_fast_blas
from backends.batching import TrainingExample
from backends.blas import ADVICE, needed, preloaded, restart_with_fast_blas
from backends.consistency.inputs import QUESTIONS
from backends.interface import Dtype, LanguageModel, Prompt
from models.chat import ChatEncoder, Message
from models.directory import ModelDirectory
from models.errors import UserError
from models.geometry import read_geometry
from models.store import prepare

ALL = "all"
WORK = ("generate", "extract", "train")


@dataclass(frozen=True)
class Request:
    """What to time, and with how much of it."""

    work: str
    """One of WORK, or ``all``."""
    model: str
    prompts: int
    max_tokens: int
    rows: int
    dtype: Dtype = "float32"

    @property
    def works(self) -> Sequence[str]:
        """The kinds of work to time."""
        return WORK if self.work == ALL else (self.work,)


def start(request: Request, *, engine: str, as_json: bool) -> None:
    """Time one engine here or all in processes of their own, and print."""
    if request.work not in (*WORK, ALL):
        known = ", ".join((*WORK, ALL, "eval"))
        raise UserError(f"WORK {request.work}: choose one of {known}")
    if request.dtype not in get_args(Dtype):
        known = ", ".join(get_args(Dtype))
        raise UserError(f"--dtype {request.dtype}: choose one of {known}")
    if request.prompts > len(QUESTIONS):
        raise UserError(f"--prompts is {request.prompts}: there are {len(QUESTIONS)}")
    available = available_backends()
    if engine not in (ALL, *available):
        known = ", ".join((*available, ALL))
        raise UserError(f"--engine {engine}: choose one of {known}")
    if engine == ALL:
        document = _every(available, request)
    else:
        document = _one(choose_backend(engine), request, Reporter().say)
    if as_json:
        sys.stdout.write(canonical_json(document))
    else:
        Console(highlight=False).print(report(document))


def _every(available: dict[str, str | None], request: Request) -> dict[str, Any]:
    """One document of all usable engines; a child's message is its own, on stderr."""
    skipped = [f"{name}: {reason}" for name, reason in available.items() if reason]
    documents = []
    sizes = [f"--prompts={request.prompts}", f"--max-tokens={request.max_tokens}"]
    options = ["bench", request.work, "--model", request.model, *sizes, f"--rows={request.rows}"]
    options.append(f"--dtype={request.dtype}")
    for name in (name for name, reason in available.items() if reason is None):
        code = "from arcs.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *options, "--engine", name, "--json"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(done.returncode if done.returncode > 0 else 1)
        documents.append(json.loads(done.stdout))
    if not documents:
        raise UserError(f"no engine to time ({'; '.join(skipped)}): install one")
    engines = {name: found for one in documents for name, found in one["engines"].items()}
    return {**documents[0], "engines": engines, "skipped": skipped}


def _one(engine: str, request: Request, say: Say) -> dict[str, Any]:
    if wants_fast_blas(engine):
        restart_with_fast_blas()
        if needed() and not preloaded():
            say(ADVICE)
    directory = prepare(request.model, say=say)
    timed: dict[str, Any] = {"preloaded_blas": preloaded()}
    with open_backend(engine, directory, dtype=request.dtype) as opened:
        timed["described"] = opened.describe()
        for work in request.works:
            timed |= _measure(
                work, engine, opened, directory, request, lambda text: say(f"{engine}: {text}")
            )
    return {
        "schema_version": 2,
        "work": list(request.works),
        "model": directory.name,
        "model_fingerprint": directory.fingerprint,
        "dtype": request.dtype,
        "prompts": request.prompts,
        "max_tokens": request.max_tokens,
        "rows": request.rows,
        "repeats": REPEATS,
        "engines": {engine: timed},
        "skipped": [],
        "made_with": {
            "versions": provenance.versions(),
            "hardware": provenance.hardware(),
            "environment": provenance.environment(),
        },
    }


def _measure(
    work: str,
    engine: str,
    opened: LanguageModel,
    directory: ModelDirectory,
    request: Request,
    say: Say,
) -> dict[str, Any]:
    """Results of one kind of work; training comes last, since it leaves a LoRA behind."""
    encoder = ChatEncoder(directory)
    if work == "train":
        rows = built_in_rows(encoder, request.rows)
        return {"training": measure_training(engine, opened, directory, rows, say=say)}
    plain = importlib.import_module(f"backends.{engine}.plain").plain_of(opened, directory)
    if work == "extract":
        n_layers = read_geometry(directory.path).n_layers
        rows = built_in_rows(encoder, request.rows)
        return measure_extraction(opened, plain, rows, n_layers=n_layers, say=say)
    asked = [encoder.encode_prompt([Message("user", text)]) for text in QUESTIONS]
    prompts = [Prompt(f"question-{i}", tuple(prompt.ids)) for i, prompt in enumerate(asked)]
    return measure_generation(
        opened, plain, prompts[: request.prompts], max_tokens=request.max_tokens, say=say
    )


def built_in_rows(encoder: ChatEncoder, count: int) -> list[TrainingExample]:
    """``count`` rows of the training set that ships with threearc, spread evenly over it."""
    records = load(built_in_paths())
    if count > len(records):
        raise UserError(f"--rows is {count}: the built-in training data has {len(records)} rows")
    rows = []
    for place in range(count):
        record = records[place * len(records) // count]
        encoded = encoder.encode_example(record.prompt, record.response, item=record.id)
        rows.append(TrainingExample(record.id, encoded.ids, encoded.response_mask))
    return rows
