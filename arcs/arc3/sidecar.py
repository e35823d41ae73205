"""The sidecar as a working thing: it generates, reads h_last, and hedges where the gate says so.

A sidecar is a folder: ``sidecar.safetensors`` (the probe) and ``sidecar.json`` (model, position,
threshold, how questions are asked, and what its gate was worth on fresh prompts).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from arcs.arc3.config import Arc3Config
from arcs.arc3.probing import H_LAST, Study
from arcs.arc3.questions import Question
from arcs.runs import RunDirectory, canonical_json
from backends.interface import Completion, Float32, HiddenPoint, LanguageModel, Prompt
from backends.sequences import Position, TokenSequence, position_of
from evals.humaneval.prompts import CHAT_TEMPLATE
from evals.items.short_answer import INSTRUCTION
from evals.probing.probes import PRIMARY, PROBES
from evals.self_verification import spoken
from models.chat import ChatEncoder, Message
from models.directory import ModelDirectory
from models.errors import UserError
from models.files import write_atomically
from models.geometry import ModelGeometry, read_geometry

FOLDER = "sidecar"
WEIGHTS, FACTS = "sidecar.safetensors", "sidecar.json"
TRIED = "sidecar-tried.json"
TRIES = 10
"""Fresh questions that a run's sidecar answers one by one."""
FLOAT32 = frozenset({"torch float32", "mlx float32", "gguf f32"})
"""Engines whose states are the same but for rounding."""
HEDGE = "I am not sure about this: "
_CODE = CHAT_TEMPLATE.partition("{prompt}")
AROUND: Mapping[str, tuple[str, str]] = {
    "short-answers": ("", INSTRUCTION),
    "recall": ("", INSTRUCTION),
    "small-tasks": (_CODE[0], _CODE[2]),
    "humaneval": (_CODE[0], _CODE[2]),
    "chef": ("", ""),
}
"""What stands before and behind a question in the user's turn, by what the probe was fitted on."""


@dataclass(frozen=True)
class Facts:
    """Everything but the weights."""

    model: str
    """As it was given to the run: what opens it again."""
    model_fingerprint: str
    engine: str
    """That read the states, with dtype or quantisation."""
    features: str
    probe: str
    position: str
    threshold: float
    hedge: str
    suffix: str
    n_predict: int
    labels: str
    items: str
    n_train: int
    fresh: Mapping[str, Any]
    """The gate on fresh prompts, and the claims' verdicts."""
    prefix: str = ""
    n_layers: int | None = None
    """Of the model; None in sidecars that were made before it was kept."""
    adapter: str | None = None
    """Path of the LoRA on the model, which is needed to answer; None for a base."""


@dataclass(frozen=True, eq=False)
class Sidecar:
    """A fitted probe with its gate."""

    facts: Facts
    mean: NDArray[np.float64]
    """[d]"""
    weights: NDArray[np.float64]
    """[d], of the features as they are, the scaler multiplied in."""
    bias: float

    def score(self, state: Float32) -> float:
        """Probability that the answer is right, from its h_last [d]."""
        logit = (state.astype(np.float64) - self.mean) @ self.weights + self.bias
        return float(expit(logit))

    def save(self, folder: Path) -> None:
        """Write both files."""
        from safetensors.numpy import save

        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"mean": self.mean, "weights": self.weights, "bias": np.array([self.bias])}
        write_atomically(folder / WEIGHTS, save(arrays))
        write_atomically(folder / FACTS, canonical_json(asdict(self.facts)).encode())


@dataclass(frozen=True)
class Answered:
    """One answer with what the sidecar made of it."""

    text: str
    """As it is shown: hedged where the gate did not assert it."""
    answer: str
    ids: tuple[int, ...]
    """All generated ids."""
    p_correct: float | None
    """None where the answer has no state at the position."""
    asserted: bool
    finished: bool
    generating: float
    """Seconds, with the state that is kept on the way."""
    reading: float
    """Seconds of a pass over the answer, where the engine kept no state; else 0."""
    scoring: float
    """Seconds from the state to the gate's decision."""

    @property
    def overhead(self) -> float:
        """Seconds that follow generation."""
        return self.reading + self.scoring


@dataclass(frozen=True)
class Asked:
    """One question as ids."""

    prompt: Prompt
    think_open: bool
    """The prompt ends inside a thinking block, so that the answer begins with thoughts."""


def load(folder: Path) -> Sidecar:
    """Raises UserError where there is none, or it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        facts = Facts(**json.loads((folder / FACTS).read_text(encoding="utf-8")))
        arrays = load_file(folder / WEIGHTS)
        problem = _problem(facts, arrays)
        if problem is not None:
            raise ValueError(problem)
        return Sidecar(facts, arrays["mean"], arrays["weights"], float(arrays["bias"][0]))
    except FileNotFoundError:
        raise UserError(
            f"--sidecar {folder}: no sidecar here ({FACTS}); make one with threearc sidecar fit"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise UserError(f"--sidecar {folder}: cannot be read ({error}); fit it again") from None


def _problem(facts: Facts, arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """What is wrong with a sidecar's parts; None if nothing."""
    shapes = {name: arrays[name].shape for name in ("mean", "weights", "bias")}
    width = shapes["weights"]
    if len(width) != 1 or shapes["mean"] != width or shapes["bias"] != (1,):
        return f"{WEIGHTS} holds {', '.join(f'{name} {one}' for name, one in shapes.items())}"
    if not all(np.isfinite(arrays[name]).all() for name in shapes):
        return f"{WEIGHTS} holds values that are not finite"
    return _problem_of_facts(facts)


def _problem_of_facts(facts: Facts) -> str | None:
    if facts.features != H_LAST:
        return f"it reads {facts.features!r}, not {H_LAST}"
    if facts.position not in list(Position):
        return f"its position is {facts.position!r}, not {' or '.join(Position)}"
    if AROUND.get(facts.items, ("", ""))[0] and not facts.prefix:
        return f"it was fitted on {facts.items} and has not the words they are asked in"
    if not isinstance(facts.threshold, float) or not 0 <= facts.threshold <= 1:
        return f"its threshold is {facts.threshold!r}, not a probability"
    return None


def require_states(sidecar: Sidecar, geometry: ModelGeometry, folder: Path) -> None:
    """Raise UserError where the model has no h_last of the sidecar's width and layer."""
    facts = sidecar.facts
    for what, its, here in (
        ("width of h_last", len(sidecar.weights), geometry.hidden_size),
        ("number of layers", facts.n_layers, geometry.n_layers),
    ):
        if its is not None and its != here:
            raise UserError(
                f"--sidecar {folder}: its {what} is {its} and the model's is {here}; fit one on a "
                "run of this model"
            )


def fit(
    study: Study,
    config: Arc3Config,
    run: RunDirectory,
    directory: ModelDirectory,
    fingerprint: str,
    results: Mapping[str, Any],
    hedge: str = HEDGE,
) -> Sidecar:
    """The primary probe on all training items, with the threshold chosen out of fold."""
    x, y = study.train.x[H_LAST], study.train.y
    scaler, logistic = (step for _, step in PROBES[PRIMARY]().fit(x, y).steps)
    scale = np.asarray(scaler.scale_, dtype=np.float64)
    # a raw template asks the question alone
    raw = "raw_template" in run.manifest()["chat"]
    prefix, suffix = ("", "") if raw else AROUND[config.asked]
    facts = Facts(
        model=config.model,
        model_fingerprint=fingerprint,
        adapter=None if config.adapter is None else str(config.adapter),
        engine=str(run.manifest()["backend"]),
        features=H_LAST,
        probe=PRIMARY,
        position=config.position,
        threshold=float(results["gate"]["chosen"]["threshold"]),
        hedge=hedge,
        prefix=prefix,
        suffix=suffix,
        n_layers=read_geometry(directory.path).n_layers,
        n_predict=config.budget,
        labels=config.labels,
        items=config.asked,
        n_train=len(y),
        fresh={
            "gate": results["gate"]["fresh"],
            "verdicts": {name: one["verdict"] for name, one in results["claims"].items()},
        },
    )
    weights = np.asarray(logistic.coef_[0], dtype=np.float64) / scale
    return Sidecar(
        facts, np.asarray(scaler.mean_, dtype=np.float64), weights, float(logistic.intercept_[0])
    )


def other_states(fitted: str, now: str) -> str | None:
    """A warning where the sidecar was fitted on states that the engine does not give exactly."""
    if fitted == now or {fitted, now} <= FLOAT32:
        return None
    return (
        f"fitted on the states of {fitted} and answering on {now}: they differ, so that its "
        "threshold may not hold"
    )


def encode(encoder: ChatEncoder, sidecar: Sidecar, question: str) -> Asked:
    """A question, asked as the training questions were."""
    prefix, suffix = sidecar.facts.prefix, sidecar.facts.suffix
    # a function that is to be completed stands in a block of code, which ends with its last line
    text = f"{prefix}{question.rstrip() if prefix else question}{suffix}"
    made = encoder.encode_prompt([Message("user", text)])
    return Asked(Prompt("question", made.ids), made.think_open)


def answer(
    model: LanguageModel,
    encoder: ChatEncoder,
    sidecar: Sidecar,
    asked: Asked,
    budget: int,
) -> Answered:
    """Generate, read h_last, decide. An answer without the position is hedged.

    The hedge stands before what is said, not before the thoughts that led to it; an answer that is
    nothing but thoughts is shown whole.
    """
    prompt = asked.prompt
    begun = time.perf_counter()
    # states are kept up to the stop token alone, and a raw answer is over where its line is
    by_stop_id = encoder.stop_when is None
    keeps = (
        model.capabilities.hidden_states
        and sidecar.facts.position == Position.LAST_CONTENT
        and by_stop_id
    )
    state: Float32 | None = None
    if keeps:
        done, state = model.generate_with_states(
            [prompt], max_tokens=budget, stop_ids=encoder.stop_ids
        )[0]
    else:
        done = _generate(model, encoder, prompt, budget)
    generated = time.perf_counter()
    empty = done.finish_reason == "stop" and len(done.ids) == 1
    if state is None or empty:
        state = None if empty else _read(model, sidecar, encoder, done.prompt_ids, done.ids)
    read = time.perf_counter()
    p_correct = None if state is None else sidecar.score(state)
    asserted = p_correct is not None and p_correct >= sidecar.facts.threshold
    text = encoder.decode(done.ids)
    said = spoken(text, think_open=asked.think_open)
    shown = text if asserted else f"{sidecar.facts.hedge}{said or text}"
    ended = time.perf_counter()
    return Answered(
        text=shown,
        answer=text,
        ids=done.ids,
        p_correct=p_correct,
        asserted=asserted,
        finished=done.finish_reason == "stop",
        generating=generated - begun,
        reading=read - generated,
        scoring=ended - read,
    )


def _generate(
    model: LanguageModel, encoder: ChatEncoder, prompt: Prompt, budget: int
) -> Completion:
    found = model.generate(
        [prompt], max_tokens=budget, stop_ids=encoder.stop_ids, stop_when=encoder.stop_when
    )
    return found[0]


def _read(
    model: LanguageModel,
    sidecar: Sidecar,
    encoder: ChatEncoder,
    prompt: tuple[int, ...],
    ids: tuple[int, ...],
) -> Float32 | None:
    sequence = TokenSequence("question", prompt, ids, "generated")
    place = position_of(sequence, Position(sidecar.facts.position), encoder.end_ids)
    if place is None:
        return None
    layers = read_geometry(encoder.directory.path).n_layers
    states = model.hidden_states([sequence.ids], [place], [HiddenPoint(layers, True)])
    found: Float32 = states[0, 0]
    return found


def try_out(
    model: LanguageModel,
    encoder: ChatEncoder,
    sidecar: Sidecar,
    asked: Sequence[Question],
    budget: int,
    study: Study,
) -> dict[str, Any]:
    """Answer some fresh questions one by one, with and without; milliseconds are medians.

    The first question is answered twice before anything is timed: an engine's first answer pays for
    memory and kernels that all later ones find. With and without go first in turn.

    Where the answer is the one that the analysis read (not so with another engine's answers), also
    how far the score of the working sidecar is from that of the analysis, which read in batches.
    """

    def without(one: Question) -> float:
        begun = time.perf_counter()
        _generate(model, encoder, one.prompt, budget)
        return time.perf_counter() - begun

    def hedged(one: Question) -> Answered:
        return answer(model, encoder, sidecar, Asked(one.prompt, one.think_open), budget)

    for one in asked[:1]:
        without(one)
        hedged(one)
    plain, found = [], []
    for place, one in enumerate(asked):
        if place % 2:
            found.append(hedged(one))
            plain.append(without(one))
        else:
            plain.append(without(one))
            found.append(hedged(one))
    rows = {item: row for row, item in enumerate(study.fresh.item_ids)}
    known = [
        (answered.p_correct, sidecar.score(study.fresh.x[H_LAST][rows[one.item_id]]))
        for one, answered in zip(asked, found, strict=True)
        if one.item_id in rows
        and answered.p_correct is not None
        and study.fresh.answers.ids[rows[one.item_id]] == one.prompt.ids + answered.ids
    ]
    threshold = sidecar.facts.threshold
    return {
        "n": len(found),
        "asserted": sum(one.asserted for one in found),
        "compared": len(known),
        "same_decision": sum(
            (mine >= threshold) == (theirs >= threshold) for mine, theirs in known
        ),
        "largest_difference_of_p": max((abs(a - b) for a, b in known), default=None),
        "milliseconds": {
            "n": len(found),
            "generating_without": 1000 * median(plain),
            "generating_with_state": 1000 * median(one.generating for one in found),
            "reading": 1000 * median(one.reading for one in found),
            "scoring": 1000 * median(one.scoring for one in found),
            "overhead": 1000
            * median(
                one.generating - before + one.overhead
                for one, before in zip(found, plain, strict=True)
            ),
        },
    }
