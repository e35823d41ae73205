"""What one Arc 1 run is made of: a profile, a recipe and flags, resolved to one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from arcs.arc1.profiles import EVALUATIONS, PROFILES, Evaluation
from arcs.arc1.recipes import CONTROLS, profile_that_gives_way, recipe
from arcs.labels import parse_judge
from arcs.training_data import shipped_or_own
from backends.interface import LoraConfig
from backends.training import DpoConfig, TrainConfig
from evals.budgets import check_budgets
from models.errors import UserError

Method = Literal["sft", "dpo", "sft+dpo"]
Profile = Literal["quick", "standard", "paper"]
Quantisation = Literal["auto", "original", "f16", "q8_0", "q5_k_m", "q4_k_m"]


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
    processes: int = Field(default=1, ge=1, le=64)
    """Train one model in so many processes, which share out a step's micro-batches; torch only."""
    thinking: bool = False
    seed: int = Field(default=0, ge=0, lt=2**32)
    seeds: int = Field(default=1, ge=1, le=20)
    """Trainings with seeds ``seed``, ``seed`` + 1, ...; the run's own verdict is the first's."""

    recipe: str | None = None
    """Whose settings these are, where they are not given otherwise."""
    method: Method = "sft"
    """``sft+dpo``: DPO goes on from the adapter that SFT made, in the same run."""
    data: tuple[Path, ...] = ()
    """JSONL files; empty: the training set that ships with threearc."""
    paired_with: tuple[Path, ...] = ()
    """Of ``data``, only the record of each prompt and split in these files, in their order."""
    train_limit: int | None = Field(default=None, ge=1)
    held_out_limit: int | None = Field(default=None, ge=1)
    """Held-out records, and held-out pairs, on which a loss is measured, spread evenly; None:
    all."""
    mask_think: bool = False
    """No loss on the tokens of think blocks."""
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

    pairs: tuple[Path, ...] = ()
    """JSONL files of preference pairs; empty: those that ship with threearc."""
    pairs_limit: int | None = Field(default=None, ge=1)
    reference: str | None = None
    """DPO's: ``base``, ``sft`` (the adapter of this run's SFT) or the path of an adapter. None:
    what the policy starts from, so ``sft`` for sft+dpo and ``base`` for dpo."""
    beta: float = Field(default=0.1, gt=0)
    dpo_learning_rate: float = Field(default=5e-5, gt=0)
    dpo_epochs: int = Field(default=2, ge=1)
    dpo_micro_batch_size: int = Field(default=2, ge=1)
    """Pairs, each of which is two rows."""
    dpo_accumulation: int = Field(default=4, ge=1)
    dpo_max_length: int = Field(default=1024, ge=8)

    quantisation: Quantisation = "auto"
    """``auto``: the model's own GGUF where it has one, else q8_0."""
    benchmark: str = "humaneval"
    """``humaneval``, ``small``, or the path of a JSONL file of tasks."""
    n_predict: tuple[int, ...] = (256, 512, 1024)
    escalate: int | None = Field(default=None, ge=2)
    """Largest n_predict that unfinished answers may be continued to; None: never continued."""
    limit: int | None = Field(default=None, ge=1)
    """Evaluate this many problems, a fixed unordered choice; None: all."""
    prompt_style: Literal["chat", "raw"] = "chat"
    kv_dtype: Literal["f16", "f32"] = "f16"
    width: int = Field(default=8, ge=1, le=64)
    """Sequences decoded at a time: part of the experiment, since texts depend on it."""
    threads: int | None = Field(default=None, ge=1)
    """llama.cpp threads; None: the physical cores."""
    gpu_layers: int = Field(default=-1, ge=-1)
    """Layers that llama.cpp puts on a GPU; -1: all that fit. What was offloaded is recorded."""
    evaluations: tuple[Evaluation, ...] = ()
    """What all arms are measured on beside the benchmark."""
    evaluation_limit: int | None = Field(default=None, ge=1)
    """Items of each evaluation (of the meter: of each axis); None: all."""
    evaluation_n_predict: tuple[int, ...] | None = None
    """Of free answers in evaluations; None: their own."""
    judge: str | None = None
    """Of chef and mcas; None: rules for chef, the embedded model for mcas."""
    judge_references: int | None = Field(default=None, ge=10)
    """Validate a judge that takes time to ask on this many references of each instrument; None:
    all. With fewer the interval is wider."""
    judge_max_tokens: int | None = Field(default=None, ge=1)
    judge_threads: int | None = Field(default=None, ge=1)
    planted: bool = False
    """Train the planted effect and its placebo as well, and hold the instruments to them."""
    allow_weak_sandbox: bool = False
    allow_overlap: bool = False
    """Evaluate in spite of problems that were trained on: claims are then INVALID."""

    @field_validator("evaluations", mode="before")
    @classmethod
    def _all(cls, value: Any) -> Any:
        return EVALUATIONS if value == "all" else value

    @field_validator("judge")
    @classmethod
    def _one_spelling(cls, value: str | None) -> str | None:
        return None if value is None else str(parse_judge(value))

    @model_validator(mode="after")
    def _budgets_rise(self) -> Self:
        if not self.n_predict or list(self.n_predict) != sorted(set(self.n_predict)):
            raise ValueError("n-predict: rising numbers are needed, each once, e.g. 256,512,1024")
        if self.n_predict[0] < 1:
            raise ValueError("n-predict: at least 1 is needed")
        if self.escalate is not None and self.escalate <= self.n_predict[-1]:
            raise ValueError(
                f"escalate: {self.escalate} is not above the largest n_predict {self.n_predict[-1]}"
            )
        return self

    @model_validator(mode="after")
    def _evaluations_fit(self) -> Self:
        """Refuse what no evaluation would use."""
        if len(set(self.evaluations)) < len(self.evaluations):
            raise ValueError("evaluations: each once")
        if self.evaluation_n_predict is not None:
            check_budgets(self.evaluation_n_predict)
        judged = {"chef", "mcas"} & set(self.evaluations)
        if self.judge is not None:
            if not judged:
                raise ValueError("judge: no evaluation that a judge labels (chef, mcas)")
            if parse_judge(self.judge).kind == "lexical" and "mcas" in self.evaluations:
                raise ValueError("judge: the lexical judge cannot apply mcas; name another, e.g. "
                                 "gguf, or leave mcas out of --evaluations")  # fmt: skip
        elif self.judge_max_tokens is not None or self.judge_threads is not None:
            raise ValueError("judge-max-tokens, judge-threads: they are of a --judge; name one")
        if self.planted and "meter" not in self.evaluations:
            raise ValueError("planted: the meter must be among --evaluations")
        if self.planted and (self.adapter is not None or self.recipe in CONTROLS):
            raise ValueError("planted: needs a training that is not itself a control")
        return self

    @model_validator(mode="after")
    def _settings_of_the_method(self) -> Self:
        """Refuse what the method would leave unused: nothing that was asked for is dropped."""
        if self.adapter is not None and (self.method != "sft" or self.pairs):
            raise ValueError("adapter: it is evaluated as it is; leave --method and --pairs out")
        if self.method == "sft" and (self.pairs or self.reference is not None):
            raise ValueError("method: sft uses no --pairs and no --reference; give sft+dpo or dpo")
        if self.method == "dpo" and self.data:
            raise ValueError(
                "method: dpo trains on --pairs alone; give sft+dpo, or leave --data out"
            )
        if self.method == "dpo" and self.reference == "sft":
            raise ValueError("reference: sft needs --method sft+dpo; give base or a path")
        return self

    @model_validator(mode="after")
    def _work_for_every_process(self) -> Self:
        """Refuse processes that no step would have a micro-batch for."""
        shared = {"sft": ("accumulation", self.accumulation),
                  "dpo": ("dpo-accumulation", self.dpo_accumulation)}  # fmt: skip
        for name, most in (shared[one] for one in self.trains):
            if self.processes > most:
                raise ValueError(
                    f"processes: {self.processes} of them, and a step has {most} micro-batches to "
                    f"share out ({name}); raise --{name} or lower --processes"
                )
        return self

    @property
    def trains(self) -> tuple[str, ...]:
        """The trainings of this run, in order."""
        return () if self.adapter is not None else tuple(self.method.split("+"))

    @property
    def dpo_reference(self) -> str:
        """``base``, ``sft`` or a path."""
        return self.reference or ("sft" if "sft" in self.method else "base")

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

    def dpo(self) -> DpoConfig:
        """The DPO loop's settings: those of any training, but for its own."""
        own = replace(
            self.training(),
            epochs=self.dpo_epochs,
            learning_rate=self.dpo_learning_rate,
            micro_batch_size=self.dpo_micro_batch_size,
            accumulation=self.dpo_accumulation,
            max_length=self.dpo_max_length,
        )
        return DpoConfig(own, self.beta)


def resolve(flags: Mapping[str, Any]) -> Arc1Config:
    """Defaults, then the profile, then the recipe, then the flags that were given.

    ``flags`` holds only what the user set. Raises UserError naming the setting at fault.
    """
    profile = flags.get("profile", "standard")
    if not isinstance(profile, str) or profile not in PROFILES:
        raise UserError(f"--profile {profile!r}: unknown; choose from {', '.join(PROFILES)}")
    named = flags.get("recipe")
    chosen = {} if named is None else absolute_paths(recipe(named))
    base = profile_that_gives_way(PROFILES[profile], {**chosen, **flags})
    merged = {**base, **chosen, **flags, "profile": profile}
    config = parse(merged)
    _refuse_unused(config, flags)
    return config


SFT_ONLY = {
    "train_limit": None,
    "mask_think": None,
    "epochs": "dpo_epochs",
    "learning_rate": "dpo_learning_rate",
    "micro_batch_size": "dpo_micro_batch_size",
    "accumulation": "dpo_accumulation",
    "max_length": "dpo_max_length",
}
"""Settings of SFT -> DPO's own."""
DPO_ONLY = ("pairs_limit", "beta", *(own for own in SFT_ONLY.values() if own))
OF_TRAINING = (
    *(
        "recipe",
        "seeds",
        "held_out_limit",
        "data",
        "paired_with",
        "targets",
        "rank",
        "alpha",
        "dropout",
        "rslora",
        "base_bits",
        "processes",
        "warmup_ratio",
    ),
    *("weight_decay", "max_grad_norm", "gradient_checkpointing", "checkpoint_every"),
    *("eval_every", *SFT_ONLY, *DPO_ONLY),
)


def _refuse_unused(config: Arc1Config, given: Mapping[str, Any]) -> None:
    """Refuse what was asked for and would have no effect (UserError)."""
    why: dict[str, str] = {}
    if config.adapter is not None:
        why = dict.fromkeys(OF_TRAINING, "--adapter is evaluated as it is, nothing is trained")
    elif config.method == "dpo":
        why = {
            name: "dpo does not use it" + (f"; its own is --{own.replace('_', '-')}" if own else "")
            for name, own in SFT_ONLY.items()
        }
    elif config.method == "sft":
        why = dict.fromkeys(DPO_ONLY, "method sft does not use it; give sft+dpo or dpo")
    for name in given:
        if name in why:
            raise UserError(f"--{name.replace('_', '-')}: {why[name]}; leave it out")


def parse(values: Mapping[str, Any], where: str | None = None) -> Arc1Config:
    """Validate; one line for the first thing wrong. ``where``: their file, if not from flags."""
    try:
        return Arc1Config.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]).replace("_", "-")
        message = first["msg"].removeprefix("Value error, ")  # of several settings: it names them
        flag = f"--{name}" if name and where is None else name
        raise UserError(": ".join(filter(None, (where, flag, message)))) from None


def absolute_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """Paths made absolute: a run may be continued from another working directory.

    Wrong types pass untouched; :func:`parse` names them. Raises UserError for a path that
    the system refuses (too long).
    """
    made = dict(values)
    try:
        for name in ("data", "pairs", "paired_with"):
            if isinstance(made.get(name), list | tuple):
                made[name] = tuple(_absolute(_shipped(path)) for path in made[name])
        if isinstance(made.get("benchmark"), str) and made["benchmark"].endswith(".jsonl"):
            made["benchmark"] = str(_absolute(made["benchmark"]))
        if made.get("reference") not in (None, "base", "sft"):
            made["reference"] = str(_absolute(made["reference"]))
        if "adapter" in made:
            made["adapter"] = _absolute(made["adapter"])
        model = made.get("model")
        if isinstance(model, str) and model and Path(model).exists():
            made["model"] = str(Path(model).absolute())
    except OSError as error:
        raise UserError(f"{str(error.filename)[:80]}: {error.strerror}") from None
    return made


def _shipped(path: Any) -> Any:
    return shipped_or_own(path) if isinstance(path, str | Path) else path


def _absolute(path: Any) -> Any:
    return Path(path).absolute() if isinstance(path, str | Path) else path
