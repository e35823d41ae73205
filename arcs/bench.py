"""What ``threearc bench`` does: our engines beside their libraries' own calls, by turns.

Each engine is timed in a process of its own, since the BLAS that makes MLX fast on a Linux CPU
makes torch slow. Speed is reported, never judged.
"""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from arcs import provenance
from arcs.progress import Reporter
from arcs.runs import canonical_json
from backends import available_backends, choose_backend, open_backend, wants_fast_blas
from backends.blas import ADVICE, needed, preloaded, restart_with_fast_blas
from backends.consistency.inputs import QUESTIONS
from backends.interface import Float32, HiddenPoint, LanguageModel, Prompt, Sampling
from models.chat import ChatEncoder, Message
from models.directory import ModelDirectory
from models.errors import UserError
from models.geometry import read_geometry
from models.store import prepare

ALL = "all"
REPEATS = 3
WARM_TOKENS = 4
SAMPLED = Sampling(temperature=0.8, top_k=50, top_p=0.95, seed=1)
Say = Callable[[str], None]
Work = Callable[[], Any]


class Plain(Protocol):
    """The library's own way, from ``backends.<engine>.plain``."""

    def generate(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[tuple[int, ...]]:
        """Exactly ``max_tokens`` greedy ids a prompt."""

    def last_states(self, sequences: Sequence[Sequence[int]]) -> Float32:
        """States [n, d] after the final norm at each last id."""


def start(model: str, *, engine: str, prompts: int, max_tokens: int, as_json: bool) -> None:
    """Time one engine here or all in processes of their own, and print."""
    available = available_backends()
    if engine not in (ALL, *available):
        known = ", ".join((*available, ALL))
        raise UserError(f"unknown engine {engine!r}: choose one of {known}")
    if engine == ALL:
        document = _every(available, model, prompts, max_tokens)
    else:
        document = _one(choose_backend(engine), model, prompts, max_tokens, Reporter().say)
    if as_json:
        sys.stdout.write(canonical_json(document))
    else:
        Console(highlight=False).print(report(document))


def _every(
    available: dict[str, str | None], model: str, prompts: int, max_tokens: int
) -> dict[str, Any]:
    """One document of all usable engines; a child's message is its own, on stderr."""
    skipped = [f"{name}: {reason}" for name, reason in available.items() if reason]
    documents = []
    for name in (name for name, reason in available.items() if reason is None):
        options = ["--model", model, "--engine", name, "--prompts", str(prompts)]
        code = "from arcs.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "bench", *options, f"--max-tokens={max_tokens}", "--json"],
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


def _one(engine: str, model: str, prompts: int, max_tokens: int, say: Say) -> dict[str, Any]:
    if wants_fast_blas(engine):
        restart_with_fast_blas()
        if needed() and not preloaded():
            say(ADVICE)
    directory = prepare(model, say=say)
    encoder = ChatEncoder(directory)
    encoded = [encoder.encode_prompt([Message("user", text)]) for text in QUESTIONS[:prompts]]
    with open_backend(engine, directory, dtype="float32") as opened:
        plain = _plain(engine, opened, directory)
        timed = measure(
            opened,
            plain,
            [Prompt(f"question-{i}", tuple(prompt.ids)) for i, prompt in enumerate(encoded)],
            max_tokens=max_tokens,
            n_layers=read_geometry(directory.path).n_layers,
            say=lambda text: say(f"{engine}: {text}"),
        )
        timed["described"] = opened.describe()
    timed["preloaded_blas"] = preloaded()
    return {
        "schema_version": 1,
        "model": directory.name,
        "model_fingerprint": directory.fingerprint,
        "dtype": "float32",
        "prompts": prompts,
        "max_tokens": max_tokens,
        "repeats": REPEATS,
        "engines": {engine: timed},
        "skipped": [],
        "made_with": {
            "versions": provenance.versions(),
            "hardware": provenance.hardware(),
            "environment": provenance.environment(),
        },
    }


def _plain(engine: str, opened: LanguageModel, directory: ModelDirectory) -> Plain:
    module = importlib.import_module(f"backends.{engine}.plain")
    return cast("Plain", module.plain_of(opened, directory))


def measure(
    ours: LanguageModel,
    plain: Plain,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    n_layers: int,
    say: Say,
) -> dict[str, Any]:
    """Rates of generation, extraction and sampling; what both ways computed is compared too."""
    ids = [prompt.ids for prompt in prompts]

    def decode(tokens: int, sampling: Sampling) -> list[tuple[int, ...]]:
        found = ours.generate(prompts, max_tokens=tokens, stop_ids=(), sampling=sampling)
        return [completion.ids for completion in found]

    greedy, drawn = Sampling(), SAMPLED
    tokens = len(prompts) * max_tokens
    say(f"generating {len(prompts)} x {max_tokens} tokens, {REPEATS} times each way")
    decode(WARM_TOKENS, greedy), plain.generate(ids, WARM_TOKENS)
    times, (mine, theirs) = by_turns(
        lambda: decode(max_tokens, greedy), lambda: plain.generate(ids, max_tokens)
    )
    generation = {**rates(times, tokens), "same_texts": _same(mine, theirs, max_tokens)}
    sequences = [prompt + text for prompt, text in zip(ids, mine, strict=True)]
    read, last = sum(map(len, sequences)), [len(sequence) - 1 for sequence in sequences]
    point = HiddenPoint(n_layers, True)
    say(f"extracting h_last of {len(sequences)} sequences, {read} tokens")
    plain.last_states(sequences[:1]), ours.hidden_states(sequences[:1], last[:1], [point])
    times, (states, others) = by_turns(
        lambda: ours.hidden_states(sequences, last, [point])[:, 0],
        lambda: plain.last_states(sequences),
    )
    extraction = {**rates(times, read), "difference": _difference(states, others)}
    say("sampling beside greedy")
    decode(WARM_TOKENS, drawn)
    times, _ = by_turns(lambda: decode(max_tokens, drawn), lambda: decode(max_tokens, greedy))
    return {
        "generation": generation,
        "extraction": extraction,
        "sampling": sampling_cost(times, tokens),
    }


Times = list[tuple[float, float]]


def by_turns(first: Work, second: Work, repeats: int = REPEATS) -> tuple[Times, tuple[Any, Any]]:
    """Seconds of both a repeat, and what both returned last; who begins changes every repeat."""
    times, results = [], [None, None]
    for repeat in range(repeats):
        seconds = [0.0, 0.0]
        for place in (0, 1) if repeat % 2 == 0 else (1, 0):
            began = time.perf_counter()
            results[place] = (first, second)[place]()
            seconds[place] = time.perf_counter() - began
        times.append((seconds[0], seconds[1]))
    return times, (results[0], results[1])


def rates(times: Times, tokens: int) -> dict[str, Any]:
    """Tokens per second of both, and ours / plain: above 1 ours is faster."""
    return {
        "tokens": tokens,
        "ours": _spread([tokens / ours for ours, _ in times]),
        "plain": _spread([tokens / plain for _, plain in times]),
        "ratio": _spread([plain / ours for ours, plain in times]),
    }


def sampling_cost(times: Times, tokens: int) -> dict[str, Any]:
    """Tokens per second sampled and greedy, and the share of sampling's time beyond greedy's."""
    return {
        "tokens": tokens,
        "settings": {"temperature": SAMPLED.temperature, "top_k": SAMPLED.top_k}
        | {"top_p": SAMPLED.top_p},
        "sampled": _spread([tokens / sampled for sampled, _ in times]),
        "greedy": _spread([tokens / greedy for _, greedy in times]),
        "host_share": _spread([1 - greedy / sampled for sampled, greedy in times]),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _same(mine: Sequence[Any], theirs: Sequence[Any], tokens: int) -> int:
    """How many texts are equal; every one must have the same length, or the work was not."""
    if any(len(text) != tokens for text in (*mine, *theirs)):
        raise RuntimeError(f"a text has not {tokens} tokens: the two ways did not do the same work")
    return sum(ours == plain for ours, plain in zip(mine, theirs, strict=True))


def _difference(states: Float32, others: Float32) -> float:
    """Largest difference over the range of ours."""
    return float(np.abs(states - others).max() / np.ptp(states))


def report(document: dict[str, Any]) -> Group:
    """The table for people, and what the columns do not hold."""
    size = f"{document['prompts']} x {document['max_tokens']} tokens"
    title = f"{document['model']}, float32, {size}, median of {document['repeats']}"
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    for column in ("engine", "work"):
        table.add_column(column)
    for column in ("ours tok/s", "plain tok/s", "ours / plain", "range"):
        table.add_column(column, justify="right", no_wrap=True)
    notes = [Text(f"not timed: {reason}", style="yellow") for reason in document["skipped"]]
    for engine, found in document["engines"].items():
        for work in ("generation", "extraction"):
            row = found[work]
            table.add_row(engine, work, *_cells(row["ours"], row["plain"], row["ratio"]))
        notes += _notes(engine, found, document["prompts"])
    return Group(table, *notes)


def _cells(ours: dict[str, float], plain: dict[str, float], ratio: dict[str, float]) -> list[str]:
    return [
        f"{ours['median']:,.1f}",
        f"{plain['median']:,.1f}",
        f"{ratio['median']:.2f}",
        f"{ratio['low']:.2f} to {ratio['high']:.2f}",
    ]


def _notes(engine: str, found: dict[str, Any], prompts: int) -> list[Text]:
    cost, share = found["sampling"], found["sampling"]["host_share"]
    span = f"({share['low']:.0%} to {share['high']:.0%})"
    if share["low"] > 0:
        part = f"sampling on the host takes {share['median']:.0%} of its time {span}"
    else:
        part = f"the host's share is not told apart from noise {span}"
    return [
        Text(
            f"{engine}: sampled {cost['sampled']['median']:,.1f} tok/s beside greedy "
            f"{cost['greedy']['median']:,.1f}: {part}."
        ),
        Text(
            f"{engine}: {found['generation']['same_texts']} of {prompts} texts are equal both "
            f"ways; h_last differs by {found['extraction']['difference']:.1e} of its range.",
            style="dim",
        ),
    ]
