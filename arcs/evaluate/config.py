"""What an evaluation is made of: the flags, checked, and the conditions that follow from them."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from arcs.continuing import validated
from backends.interface import Head, Sampling
from evals.budgets import check_budgets
from models.errors import UserError

Quantisation = Literal["original", "f16", "q8_0", "q5_k_m", "q4_k_m"]
BASE, CONTROL = "base", "control"
_SETTING = re.compile(r"L(\d+)H(\d+)=(-?\d+(?:\.\d+)?)", re.ASCII)
_FLAGS = {
    "quantisations": "quant",
    "adapters": "adapter",
    "tempers": "temper",
    "stops": "stop",
}
_ONLY_DRAWN = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 0, "samples": 1}
"""Settings that do nothing to greedy decoding, and what they are then."""
_SLUG_LENGTH = 60
"""File systems end names at 255 bytes; a sweep's setting can name every head of a model."""


class EvalConfig(BaseModel):
    """Every setting that changes a number of an evaluation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    benchmark: str = "humaneval"
    """``humaneval``, ``small``, or the path of a JSONL file of tasks."""
    model: str = "SmolLM2-135M-Instruct"
    adapters: tuple[Path, ...] = ()
    adapter_mode: Literal["runtime", "merged"] = "runtime"
    """``runtime``: float32 factors beside the quantised base. ``merged``: added to the base
    before it is quantised, which is what most people ship, and not the same thing."""
    tempers: tuple[str, ...] = ()
    """Each one condition, e.g. ``L16H5=0.5``; kept as :func:`canonical` writes it."""
    quantisations: tuple[Quantisation, ...] = ("q8_0",)
    n_predict: tuple[int, ...] = (256, 512, 1024)
    escalate: int | None = Field(default=None, ge=2)
    """Largest n_predict that unfinished answers may be continued to; None: never continued."""
    limit: int | None = Field(default=None, ge=1)
    prompt_style: Literal["chat", "raw"] = "chat"
    thinking: bool = False
    kv_dtype: Literal["f16", "f32"] = "f16"
    width: int = Field(default=8, ge=1, le=64)
    threads: int | None = Field(default=None, ge=1)
    gpu_layers: int = Field(default=-1, ge=-1)
    fast: bool = False
    """One KV cache for all sequences: texts depend on what is decoded beside them."""
    share_prefix: bool | None = None
    """Compute what the chat template begins every prompt with once; None: unless ``fast``."""
    samples: int = Field(default=1, ge=1, le=1000)
    """Answers drawn of each item."""
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stops: tuple[str, ...] = ()
    """Strings that end an answer, beside the prompt style's own; the text ends before them."""
    logprobs: bool = False
    """Store the log-probability of each generated id."""
    allow_weak_sandbox: bool = False
    allow_overlap: bool = False
    """Evaluate in spite of problems that were trained on: claims are then INVALID."""

    @field_validator("n_predict")
    @classmethod
    def _budgets_rise(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return check_budgets(value)

    @field_validator("tempers")
    @classmethod
    def _one_spelling(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(canonical(text) for text in value)

    @field_validator("stops")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "" in value:
            raise ValueError("an empty text would end every answer at once")
        return value

    @field_validator("quantisations", "adapters", "tempers", "stops")  # after _one_spelling
    @classmethod
    def _each_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = next((one for i, one in enumerate(value) if one in value[:i]), None)
        if twice is not None:
            raise ValueError(f"{twice} is given twice")
        return value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.quantisations:
            raise ValueError("--quant: give at least one")
        if self.escalate is not None and self.escalate <= self.n_predict[-1]:
            raise ValueError(
                f"--escalate {self.escalate} is not above the largest n_predict "
                f"{self.n_predict[-1]}"
            )
        if self.adapter_mode == "merged" and "original" in self.quantisations:
            raise ValueError("--adapter-mode merged: a merged model has no original GGUF")
        if self.fast and self.share_prefix:
            raise ValueError("--share-prefix needs the repeatable mode: leave it or --fast out")
        sampling = self.sampling  # its ranges are checked here
        if sampling.greedy:
            for name, unused in _ONLY_DRAWN.items():
                if getattr(self, name) != unused:
                    raise ValueError(
                        f"{flag_of(name)} {getattr(self, name)}: greedy decoding draws nothing, so "
                        "it would do nothing; give a --temperature above 0"
                    )
        return self

    @property
    def sampling(self) -> Sampling:
        """How the next token is chosen."""
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
        )

    @property
    def shares_prefix(self) -> bool:
        """Whether the template's own beginning is computed once."""
        return not self.fast if self.share_prefix is None else self.share_prefix


def as_begun(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run's manifest, with those that a run older than them was begun under."""
    return {"share_prefix": False, **stored}


@dataclass(frozen=True)
class Condition:
    """One model that is evaluated: the base or one edit of it."""

    name: str
    adapter: Path | None = None
    scales: Mapping[Head, float] | None = None
    """None: untouched weights. Empty: the storage form of a sweep, nothing scaled."""
    against: str = BASE
    """Name of the condition that it is compared with."""

    @property
    def slug(self) -> str:
        """For file names: one condition's alone, also where upper and lower case are one.

        The readable part can be equal for two names (``a b`` and ``a_b``, ``A`` and ``a``), so
        all but the base and the control end in a hash of the name.
        """
        if self.adapter is None and self.name in (BASE, CONTROL):
            return self.name
        readable = re.sub(r"[^A-Za-z0-9.=-]+", "_", self.name)[:_SLUG_LENGTH]
        return f"{readable}-{hashlib.sha256(os.fsencode(self.name)).hexdigest()[:8]}"


def conditions_of(config: EvalConfig) -> tuple[Condition, ...]:
    """The base, each adapter, and each setting of heads with the control they share.

    The control is the base in the storage form of the whole sweep (DESIGN section 3), so that
    what is measured is the scaling and not another rounding of the same tensor.
    """
    found = [Condition(BASE)]
    found += [
        Condition(name, adapter=path)
        for name, path in zip(names_of(config.adapters), config.adapters, strict=True)
    ]
    if config.tempers:
        found.append(Condition(CONTROL, scales={}))
        found += [
            Condition(text, scales=heads_of(text), against=CONTROL) for text in config.tempers
        ]
    names = [condition.name for condition in found]
    clash = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if clash is not None:
        raise UserError(f"two conditions are called {clash!r}: rename the adapter's directory")
    return tuple(found)


def names_of(paths: Sequence[Path]) -> list[str]:
    """What adapters are called: their directory, with as much before it as tells them apart.

    Every run of arc1 calls its adapter ``adapter``, so two runs' are ``a/adapter``, ``b/adapter``.
    """
    depth = [1] * len(paths)
    while True:
        names = ["/".join(path.parts[-n:]) for path, n in zip(paths, depth, strict=True)]
        clashing = [
            i
            for i, name in enumerate(names)
            if names.count(name) > 1 and depth[i] < len(paths[i].parts)
        ]
        if not clashing:
            return names
        for i in clashing:
            depth[i] += 1


def heads_of(text: str) -> dict[Head, float]:
    """``L16H5=0.5,L3H1=0`` -> factors by head. Raises ValueError for another form."""
    scales: dict[Head, float] = {}
    for part in text.replace(" ", "").split(","):
        match = _SETTING.fullmatch(part)
        if match is None:
            raise ValueError(f"{text!r}: give layer, head and factor as in L16H5=0.5")
        head = Head(int(match[1]), int(match[2]))
        if head in scales:
            raise ValueError(f"{text!r}: L{head.layer}H{head.head} is given twice")
        scales[head] = float(match[3])
        if not math.isfinite(scales[head]):
            raise ValueError(f"L{head.layer}H{head.head}={match[3][:20]}... is too large a factor")
    return scales


def canonical(text: str) -> str:
    """``L3H1=0.50, L01H2=-0`` -> ``L1H2=0,L3H1=0.5``: one spelling of a setting.

    Raises ValueError as :func:`heads_of`.
    """
    scales = heads_of(text)
    return ",".join(f"L{h.layer}H{h.head}={_number(scales[h])}" for h in sorted(scales))


def _number(value: float) -> str:
    """Digits that read back as the same float, without an exponent."""
    shown = format(Decimal(repr(value + 0.0)), "f")  # + 0.0: -0 is 0
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def flag_of(name: str) -> str:
    """What the command line calls a setting: its flag, but for the benchmark."""
    if name == "benchmark":
        return "the benchmark"
    return "--" + _FLAGS.get(name, name.replace("_", "-"))


def parse(values: Mapping[str, Any]) -> EvalConfig:
    """Validate flags; one line for the first thing wrong (UserError)."""
    return validated(EvalConfig, values, flag_of)
