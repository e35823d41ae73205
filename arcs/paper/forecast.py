"""What a run will need, said before it starts: memory, disk, and an upper bound of time.

Memory is the estimators' own. Time is known for the embedded model alone: work counted in tokens,
at the rates of docs/bench.md on two cores, scaled by parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arcs.doctor.fits import inference
from arcs.paper.plan import Plan, Stage
from backends import default_dtype, free_memory, memory_model
from backends.memory import ITEM_BYTES, ModelSize, estimate_training, model_size
from evals.items.load import DATA
from models.directory import ModelDirectory
from models.disk import RESERVE, format_bytes
from models.errors import UserError
from models.registry import EMBEDDED_DEFAULT, find

TRAINED, DECODED, ANSWERED = 237.0, 94.0, 68.0
"""Tokens a second of SmolLM2-135M on two quiet cores: training, llama.cpp, answers by an engine
(docs/bench.md)."""
RECORDS, PAIRS, IDS = 286, 103, 250
"""Training records and pairs that ship, and ids of one on average."""
TASKS: Mapping[str, int] = {"humaneval": 164, "small": 220}
PROMPTS: Mapping[str, int] = {"step16": 100, "fresh": 193}
ANALYSIS: Mapping[str, float] = {"arc1": 75, "eval": 10, "measure": 5, "arc2": 60, "arc3": 150,
                                 "falsify": 60}  # fmt: skip
"""Seconds beside tokens: opening, exporting, programs, statistics (of stages on two cores)."""
ROOM: Mapping[str, int] = {"arc1": 256 << 20, "eval": 32 << 20, "measure": 20 << 20,
                           "arc2": 256 << 20, "arc3": 300 << 20, "falsify": 8 << 20}  # fmt: skip
"""Bytes that an arc asks to be free for one run."""
F16_BYTES = 2


@dataclass(frozen=True)
class Forecast:
    """Bytes and seconds."""

    memory: int
    for_what: str
    free_memory: int
    disk: int
    seconds: float
    measured: bool
    """Whether the rates are of this very model."""

    def lines(self) -> list[str]:
        """For people."""
        fits = "" if self.memory <= self.free_memory else ", which does NOT fit"
        scaled = (
            "at the rates measured on 2 cores"
            if self.measured
            else f"an estimate: {EMBEDDED_DEFAULT}'s rates on 2 cores, scaled by parameters"
        )
        return [
            f"memory: about {format_bytes(self.memory)} at most ({self.for_what}), "
            f"{format_bytes(self.free_memory)} free{fits}",
            f"disk: about {format_bytes(self.disk)}",
            f"time: at most about {_duration(self.seconds)} if every answer fills its n_predict "
            f"({scaled}; a GPU is faster, by how much is not known here)",
        ]


def forecast(plan: Plan, directory: ModelDirectory, backend: str) -> Forecast:
    """Raises UserError where the weights alone do not fit."""
    size = model_size(directory)
    free = free_memory(backend)
    needs = [_memory(stage, size, backend, free) for stage in plan.stages]
    memory, what = max(needs, default=(0, "nothing is opened"))
    least = [_weights(stage, size, backend) for stage in plan.stages]
    if max(least, default=0) > free:
        raise UserError(
            f"{directory.name}: its weights alone need {format_bytes(max(least))} and "
            f"{format_bytes(free)} are free; take a larger machine, or a smaller model that stands "
            "in for it (--as)"
        )
    disk = _disk(plan.stages, directory, size)
    scale = size.parameters / find(EMBEDDED_DEFAULT).parameters
    seconds = sum(scale * _work(stage) + ANALYSIS[stage.recipe.kind] for stage in plan.stages)
    measured = directory.name == EMBEDDED_DEFAULT
    return Forecast(memory, what, free, disk, seconds, measured)


def _dtype(stage: Stage, backend: str) -> Any:
    found = getattr(stage.config, "dtype", "float32")
    return default_dtype(backend) if found == "auto" else found


def _weights(stage: Stage, size: ModelSize, backend: str) -> int:
    if stage.recipe.kind in ("eval", "falsify"):
        return 0
    return size.parameters * ITEM_BYTES[_dtype(stage, backend)]


def _memory(stage: Stage, size: ModelSize, backend: str, free: int) -> tuple[int, str]:
    kind, config = stage.recipe.kind, stage.config
    if kind == "falsify":
        return 0, "nothing is opened"
    if kind == "eval":
        return F16_BYTES * size.parameters, f"{stage.name}, llama.cpp"
    dtype = _dtype(stage, backend)
    if kind == "arc1" and config.trains:
        found = estimate_training(
            size,
            config.training(),
            dtype=dtype,
            engine=memory_model(backend),
        )
        return found.total, f"{stage.name}, training in {dtype}"
    return int(inference(size, dtype, free)["bytes"]), f"{stage.name}, answering in {dtype}"


def _disk(stages: Sequence[Stage], directory: ModelDirectory, size: ModelSize) -> int:
    total = sum(ROOM[stage.recipe.kind] for stage in stages)
    exported = any(stage.recipe.kind in ("arc1", "eval") for stage in stages)
    if exported and directory.gguf is None:  # a float16 export, and what is quantised from it
        total += F16_BYTES * size.parameters * 3 // 2
    return total + RESERVE


def _work(stage: Stage) -> float:
    """Seconds of the embedded model, every answer as long as it may be."""
    return _WORK.get(stage.recipe.kind, lambda _: 0.0)(stage)


def _arc1(stage: Stage) -> float:
    config: Any = stage.config
    items = min(config.limit or 10**9, TASKS[config.benchmark])
    arms = 3 if len(config.trains) > 1 else 2
    seconds = items * arms * config.n_predict[-1] / DECODED
    if "sft" in config.trains:
        seconds += min(config.train_limit or 10**9, RECORDS) * IDS * config.epochs / TRAINED
    if "dpo" in config.trains:
        pairs = min(config.pairs_limit or 10**9, PAIRS)
        seconds += 2 * pairs * IDS * config.dpo_epochs * 4 / 3 / TRAINED
    budget = (config.evaluation_n_predict or (512,))[-1]
    for name in config.evaluations:
        n = min(config.evaluation_limit or 10**9, {"recovery": 85, "chef": 217}.get(name, 200))
        seconds += n * arms * budget / ANSWERED
    return float(seconds)


def _eval(stage: Stage) -> float:
    config: Any = stage.config
    items = min(config.limit or 10**9, TASKS[config.benchmark])
    return float(items * config.n_predict[-1] / DECODED)


def _measure(stage: Stage) -> float:
    config: Any = stage.config
    there = _lines("mcas") if stage.recipe.prompts is None else PROMPTS[stage.recipe.prompts]
    answers = min(config.limit or 10**9, there) * (1 + len(config.adapters))
    return float(answers * config.budgets[-1] / ANSWERED)


def _arc2(stage: Stage) -> float:
    config: Any = stage.config
    every = min(config.limit or 10**9, _lines("chef_train"))
    swept = config.sweep_limit or every - every // 2
    damped = len(config.scales) - 1
    controls = (1 + config.random_draws) * (damped if config.controls == "all" else 1)
    drawn = len(config.decodings)
    answers = every + swept * (drawn - 1) + swept * drawn * (damped + controls)
    return float(answers * (config.n_predict or 256) / ANSWERED)


def _arc3(stage: Stage) -> float:
    config: Any = stage.config
    most = config.per_set or 10**9
    items = min(most, _lines("chef_train")) + min(most, _lines("chef_fresh"))
    return float(items * config.budget / ANSWERED)


def _lines(name: str) -> int:
    return sum(1 for line in (DATA / f"{name}.jsonl").read_bytes().splitlines() if line.strip())


_WORK = {"arc1": _arc1, "eval": _eval, "measure": _measure, "arc2": _arc2, "arc3": _arc3}


def _duration(seconds: float) -> str:
    if seconds < 90 * 60:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3600:.0f} h"
