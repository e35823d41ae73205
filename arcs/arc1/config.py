"""What one Arc 1 run is made of: profiles, a TOML file and flags, resolved to one record."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from backends.interface import LoraConfig
from backends.training import TrainConfig
from models.errors import UserError

Profile = Literal["quick", "standard", "paper"]
Quantisation = Literal["auto", "original", "f16", "q8_0", "q5_k_m", "q4_k_m"]

PROFILES: Mapping[str, Mapping[str, Any]] = {
    # A smoke test of the whole path on real input; its verdict is nearly always INCONCLUSIVE.
    "quick": {
        "limit": 20, "n_predict": (128, 256, 512), "train_limit": 56, "epochs": 1,
        "rank": 16, "alpha": 32.0, "micro_batch_size": 2, "accumulation": 4, "max_length": 512,
    },
    "standard": {
        "n_predict": (256, 512, 1024), "epochs": 2, "rank": 16, "alpha": 32.0,
        "micro_batch_size": 4, "accumulation": 2, "max_length": 1024,
    },
    # The paper's recipe (PAPER.md 3.1), with response-only loss and held-out loss added.
    "paper": {
        "n_predict": (512, 1024, 2048), "epochs": 3, "rank": 64, "alpha": 128.0,
        "micro_batch_size": 4, "accumulation": 8, "max_length": 2048,
        "gradient_checkpointing": True,
    },
}  # fmt: skip


class Arc1Config(BaseModel):
    """Every setting that changes a number of an Arc 1 run."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    profile: Profile = "standard"
    model: str = "SmolLM2-135M-Instruct"
    backend: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights while training; ``auto``: float32 on a CPU, bfloat16 on a GPU."""
    base_bits: Literal[4, 8] | None = None
    """Bits that the base's linear layers are packed to while training (QLoRA); MLX only."""
    thinking: bool = False
    seed: int = Field(default=0, ge=0, lt=2**32)

    data: tuple[Path, ...] = ()
    """JSONL files; empty: the training set that ships with threearc."""
    train_limit: int | None = Field(default=None, ge=1)
    adapter: Path | None = None
    """A finished PEFT adapter to evaluate instead of training one."""
    targets: Literal["attention", "all"] = "attention"
    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    rslora: bool = False
    epochs: int = Field(default=2, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    micro_batch_size: int = Field(default=4, ge=1)
    accumulation: int = Field(default=2, ge=1)
    max_length: int = Field(default=1024, ge=8)
    gradient_checkpointing: bool = False
    checkpoint_every: int = Field(default=10, ge=1)
    """Optimiser steps between checkpoints."""
    eval_every: int = Field(default=20, ge=1)
    """Optimiser steps between measurements of the held-out loss."""

    quantisation: Quantisation = "auto"
    """``auto``: the model's own GGUF where it has one, else q8_0."""
    n_predict: tuple[int, ...] = (256, 512, 1024)
    limit: int | None = Field(default=None, ge=1)
    """Evaluate this many HumanEval problems, a fixed unordered choice; None: all 164."""
    prompt_style: Literal["chat", "raw"] = "chat"
    kv_dtype: Literal["f16", "f32"] = "f16"
    width: int = Field(default=8, ge=1, le=64)
    """Sequences decoded at a time: part of the experiment, since texts depend on it."""
    threads: int | None = Field(default=None, ge=1)
    """llama.cpp threads; None: the physical cores."""
    gpu_layers: int = Field(default=-1, ge=-1)
    """Layers that llama.cpp puts on a GPU; -1: all that fit. What was offloaded is recorded."""
    allow_weak_sandbox: bool = False

    @model_validator(mode="after")
    def _budgets_rise(self) -> Self:
        if not self.n_predict or list(self.n_predict) != sorted(set(self.n_predict)):
            raise ValueError("n_predict must be rising numbers, each once, e.g. 256,512,1024")
        if self.n_predict[0] < 1:
            raise ValueError("n_predict must be at least 1")
        return self

    def lora(self) -> LoraConfig:
        """The adapter's shape."""
        return LoraConfig(
            rank=self.rank,
            alpha=self.alpha,
            targets=self.targets,
            dropout=self.dropout,
            rslora=self.rslora,
        )

    def training(self) -> TrainConfig:
        """The training loop's settings."""
        return TrainConfig(
            lora=self.lora(),
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            warmup_ratio=self.warmup_ratio,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            micro_batch_size=self.micro_batch_size,
            accumulation=self.accumulation,
            max_length=self.max_length,
            gradient_checkpointing=self.gradient_checkpointing,
            checkpoint_every=self.checkpoint_every,
            eval_every=self.eval_every,
            seed=self.seed,
        )


def resolve(flags: Mapping[str, Any], file: Path | None = None) -> Arc1Config:
    """Defaults, then the profile, then the TOML file, then the flags that were given.

    ``flags`` holds only what the user set. Raises UserError naming the setting at fault.
    """
    from_file = _read_toml(file) if file is not None else {}
    profile = flags.get("profile", from_file.get("profile", "standard"))
    if not isinstance(profile, str) or profile not in PROFILES:
        raise UserError(f"profile {profile!r}: unknown; choose from {', '.join(PROFILES)}")
    merged = {**PROFILES[profile], **from_file, **flags, "profile": profile}
    return parse(merged, "settings" if file is None else str(file))


def parse(values: Mapping[str, Any], where: str) -> Arc1Config:
    """Validate; one line for the first thing wrong."""
    try:
        return Arc1Config.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "n_predict"
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {name.replace('_', '-')}: {message}") from None


def absolute_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """Paths made absolute: a run may be continued from another working directory.

    Wrong types pass untouched; :func:`parse` names them. Raises UserError for a path that
    the system refuses (too long).
    """
    made = dict(values)
    try:
        if isinstance(made.get("data"), list | tuple):
            made["data"] = tuple(_absolute(path) for path in made["data"])
        if "adapter" in made:
            made["adapter"] = _absolute(made["adapter"])
        model = made.get("model")
        if isinstance(model, str) and model and Path(model).exists():
            made["model"] = str(Path(model).absolute())
    except OSError as error:
        raise UserError(f"{str(error.filename)[:80]}: {error.strerror}") from None
    return made


def _absolute(path: Any) -> Any:
    return Path(path).absolute() if isinstance(path, str | Path) else path


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return absolute_paths(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"--config {path}: no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"--config {path}: {error}") from None
