"""What an Arc 3 run is made of: the flags, checked, and what a profile fills in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from arcs.continuing import validated
from arcs.labels import LabelSource, parse_labels
from models.errors import UserError

ARC, MORE = "arc3", "arc3-more"
"""A run, and further fresh answers of one, which has no training set and no claims of its own."""
EXACT_MATCH, EXECUTION, JUDGE = "exact-match", "execution", "judge"
GGUF = "gguf"
ITEMS: Mapping[str, tuple[str, ...]] = {
    EXACT_MATCH: ("short-answers", "recall"),
    EXECUTION: ("small-tasks", "humaneval"),
    JUDGE: ("chef",),
}
"""Kind of label -> what can be asked for it, the default first."""
N_PREDICT: Mapping[str, int] = {
    "short-answers": 48,
    "recall": 24,
    "small-tasks": 256,
    "humaneval": 512,
    "chef": 512,
}
_FLAGS = {"difficulty": "difficulty-from"}


@dataclass(frozen=True)
class Profile:
    """Sizes."""

    limits: Mapping[str, int | None]
    """Items of each set, by what is asked; None: all."""
    cv_seeds: int
    """Seeds of the folds of probes and baselines; one moves an AUC by 0.03 (PAPER.md 5.7)."""
    slow_seeds: int
    """As ``cv_seeds``, of the network and of each layer of the sweep."""
    permutations: int
    """Of the labels within the folds, for the primary probe; each costs a cross-validation."""
    sweep_permutations: int
    """As ``permutations``, for the best of all layers: each costs one cross-validation a
    layer."""
    oracle_permutations: int
    """Of the labels over fixed scores, for the oracle threshold."""


PROFILES: Mapping[str, Profile] = {
    "quick": Profile(
        {"short-answers": None, "recall": 120, "small-tasks": 60, "humaneval": 60, "chef": 40},
        cv_seeds=5,
        slow_seeds=1,
        permutations=500,
        sweep_permutations=200,
        oracle_permutations=1000,
    ),
    "standard": Profile(
        {"short-answers": None, "recall": 240, "small-tasks": None, "humaneval": None,
         "chef": None},
        cv_seeds=20,
        slow_seeds=5,
        permutations=2000,
        sweep_permutations=1000,
        oracle_permutations=4000,
    ),
}  # fmt: skip


class Arc3Config(BaseModel):
    """Every setting that changes a number of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = "SmolLM2-135M-Instruct"
    adapter: Path | None = None
    """A LoRA on the model: answers and states are the edited model's."""
    backend: Literal["auto", "torch", "mlx", "gguf"] = "auto"
    quant: Literal["f32", "f16", "q8_0", "q5_k_m", "q4_k_m"] | None = None
    """Of the GGUF; None: f32."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of torch's and mlx's weights; in float32 the engines give the same numbers."""
    threads: int | None = Field(default=None, ge=1)
    """llama.cpp's; part of a run's identity, since they decide the last bit."""
    labels: str = EXACT_MATCH
    """As :class:`arcs.labels.LabelSource` is written."""
    judge_threads: int | None = Field(default=None, ge=1)
    judge_max_tokens: int | None = Field(default=None, ge=1)
    items: str | None = None
    """One of :data:`ITEMS`; None: the first of its kind."""
    profile: Literal["quick", "standard"] = "standard"
    limit: int | None = Field(default=None, ge=10)
    """Items of each set; None: the profile's."""
    n_predict: int | None = Field(default=None, ge=1)
    allow_weak_sandbox: bool = False
    position: Literal["last_content", "end_of_turn"] = "last_content"
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of folds, permutations and controls."""
    ids_from: Path | None = None
    """A run whose stored answers are read instead of generating."""
    difficulty: Path | None = None
    """A run of another model on the same items, whose labels are a baseline."""

    @field_validator("labels")
    @classmethod
    def _one_spelling(cls, value: str) -> str:
        try:
            found = parse_labels(value)
        except UserError as error:
            raise ValueError(str(error).partition(": ")[2]) from None
        if found.kind not in ITEMS:
            raise ValueError(f"{value} labels no answers; give exact-match, execution or judge:...")
        return str(found)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        kind = self.kind
        if kind != JUDGE and (self.judge_threads or self.judge_max_tokens):
            raise ValueError("--judge-threads and --judge-max-tokens: no judge labels here")
        if kind != EXECUTION and self.allow_weak_sandbox:
            raise ValueError("--allow-weak-sandbox: nothing is executed for these labels")
        if self.items is not None and self.items not in ITEMS[kind]:
            raise ValueError(
                f"--items {self.items}: labels by {kind} are for {' or '.join(ITEMS[kind])}"
            )
        if self.quant is not None and self.backend != GGUF:
            raise ValueError("--quant: only a GGUF is quantised here; add --backend gguf")
        if self.threads is not None and self.backend != GGUF:
            raise ValueError("--threads: llama.cpp's; add --backend gguf")
        if self.backend == GGUF and self.dtype != "float32":
            raise ValueError("--dtype: a GGUF has its own; choose --quant")
        return self

    @property
    def source(self) -> LabelSource:
        """What labels."""
        return parse_labels(self.labels)

    @property
    def kind(self) -> str:
        """Which kind of instrument labels."""
        return self.source.kind

    @property
    def asked(self) -> str:
        """What is asked."""
        return ITEMS[self.kind][0] if self.items is None else self.items

    @property
    def sizes(self) -> Profile:
        """The profile's sizes."""
        return PROFILES[self.profile]

    @property
    def per_set(self) -> int | None:
        """Items of each set at most."""
        return self.limit if self.limit is not None else self.sizes.limits[self.asked]

    @property
    def budget(self) -> int:
        """Tokens of an answer at most."""
        return self.n_predict if self.n_predict is not None else N_PREDICT[self.asked]


def flag_of(name: str) -> str:
    """The command line's flag for a setting."""
    return f"--{_FLAGS.get(name, name).replace('_', '-')}"


def parse(values: Mapping[str, Any]) -> Arc3Config:
    """Validate flags; one line for the first thing wrong (UserError)."""
    return validated(Arc3Config, values, flag_of)


def require_run(path: Path, flag: str, *needed: str, arc: str = ARC) -> dict[str, Any]:
    """The manifest of an Arc 3 run that has the ``needed`` files. Raises UserError otherwise."""
    from arcs.runs import read_manifest

    try:
        manifest = read_manifest(path)
    except UserError as error:
        raise UserError(f"{flag} {path}: {str(error).split(': ', 1)[-1]}") from None
    if manifest.get("arc") != arc:
        raise UserError(f"{flag} {path}: not a run of threearc arc3")
    if not all((path / name).is_file() for name in needed):
        raise UserError(f"{flag} {path}: this run is not finished; continue it with --run first")
    return manifest
