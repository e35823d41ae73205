"""Compare every engine that is installed on one model, one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from backends import available_backends, open_backend
from backends.consistency.bisect import Parting, bisect
from backends.consistency.compare import Row, compare
from backends.consistency.inputs import Inputs, make_inputs
from backends.consistency.measure import TEXTS, Measured, Opener, Say, measure
from backends.interface import Completion, LanguageModel
from backends.sampling import choose_full, noise_key, occurred, scale
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.errors import UserError
from models.geometry import read_geometry

TRAINERS = ("torch", "mlx")


@dataclass(frozen=True)
class Consistency:
    """What was compared, and what was not and why."""

    model: str
    fingerprint: str
    rows: tuple[Row, ...]
    engines: Mapping[str, Mapping[str, object]]
    """What each engine says of itself."""
    skipped: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether something was compared and no bound was broken."""
        return bool(self.rows) and all(row.passed for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """The documented JSON document (docs/consistency.md)."""
        return {
            "schema_version": 1,
            "model": self.model,
            "model_fingerprint": self.fingerprint,
            "dtype": "float32",
            "passed": self.passed,
            "rows": [row.to_json() for row in self.rows],
            "engines": {name: dict(found) for name, found in self.engines.items()},
            "skipped": list(self.skipped),
        }


def run(
    directory: ModelDirectory, *, prompts: int = 20, max_tokens: int = 128, say: Say
) -> Consistency:
    """Measure every usable engine on ``directory`` in float32 and compare them pairwise.

    Raises UserError where fewer than two engines can be used.
    """
    shape = read_geometry(directory.path)
    encoder = ChatEncoder(directory)
    inputs = make_inputs(encoder, shape.vocab_size, prompts=prompts, max_tokens=max_tokens)
    usable, skipped = _usable()
    measured: dict[str, Measured] = {}
    for name in usable:
        opener = opener_of(name, directory)
        measured[name] = measure(name, opener, inputs, n_layers=shape.n_layers, say=say)
    from backends.consistency.llamacpp import measure_llamacpp, why_not

    reason = why_not(directory)
    if reason is None:
        measured["llamacpp"] = measure_llamacpp(
            directory, inputs, n_layers=shape.n_layers, reference=measured, say=say
        )
    else:
        skipped.append(f"llamacpp: {reason}")
    if len(measured) < 2:
        raise UserError(
            f"only {len(measured)} engine can be compared ({'; '.join(skipped)}): install another"
        )
    rows: list[Row] = []
    for first, second in itertools.combinations(measured.values(), 2):
        explain = _explainer(opener_of(first.engine, directory), inputs, first)
        rows += compare(
            first, second, explain, llamacpp="llamacpp" in (first.engine, second.engine)
        )
    return Consistency(
        model=directory.name,
        fingerprint=directory.fingerprint,
        rows=tuple(rows),
        engines={name: found.described for name, found in measured.items()},
        skipped=tuple(skipped),
    )


def find_parting(directory: ModelDirectory) -> Parting:
    """Bisect torch against mlx on ``directory``; raises UserError where one is not usable."""
    usable, skipped = _usable()
    if len(usable) < 2:
        raise UserError(f"--bisect needs torch and mlx: {'; '.join(skipped)}")
    shape = read_geometry(directory.path)
    inputs = make_inputs(ChatEncoder(directory), shape.vocab_size, prompts=1, max_tokens=1)
    first, second = (opener_of(name, directory) for name in TRAINERS)
    return bisect((TRAINERS[0], TRAINERS[1]), (first, second), inputs.sequences[0])


def opener_of(engine: str, directory: ModelDirectory) -> Opener:
    """Opens ``directory`` on a training engine in float32."""

    def opener() -> AbstractContextManager[LanguageModel]:
        return open_backend(engine, directory, dtype="float32")

    return opener


def _usable() -> tuple[list[str], list[str]]:
    available = available_backends()
    usable = [name for name in TRAINERS if available[name] is None]
    return usable, [f"{name}: {available[name]}" for name in TRAINERS if available[name]]


def _explainer(opener: Opener, inputs: Inputs, first: Measured) -> Callable[[str, int, int], bool]:
    """Say whether a near-tie explains that texts part, from the first engine's own logits."""

    def explain(kind: str, index: int, step: int) -> bool:
        completion = first.texts[kind][index]
        with opener() as model:
            return near_tie_at(model, completion, step, kind, inputs)

    return explain


def near_tie_at(
    model: LanguageModel, completion: Completion, step: int, kind: str, inputs: Inputs
) -> bool:
    """Whether rounding could have changed the token that follows ``step`` generated ids."""
    prompt = next(p for p in inputs.prompts if p.item_id == completion.item_id)
    sampling, generated = TEXTS[kind], completion.ids[:step]
    logits = model.logits([*prompt.ids, *generated])[-1]
    scaled = scale(logits, occurred(prompt.ids, generated, sampling), sampling)
    return choose_full(scaled, noise_key(sampling, prompt), step, sampling)[1]


def worst(rows: Sequence[Row]) -> Row | None:
    """The row furthest beyond its bound, or None where all hold."""
    broken = [row for row in rows if not row.passed]
    return max(broken, key=lambda row: row.difference / (row.bound or 1.0), default=None)
