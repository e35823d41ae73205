"""What one Arc 2 run is made of: a profile and flags, resolved to one record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from arcs.arc2.dispositions import DISPOSITIONS
from arcs.continuing import validated
from arcs.labels import LabelSource, parse_labels
from backends.interface import Sampling
from models.errors import UserError

Profile = Literal["quick", "standard", "paper"]
Method = Literal["causal", "magnitude", "directional"]
Quantisation = Literal["original", "f16", "q8_0", "q5_k_m", "q4_k_m"]
ARC, MORE = "arc2", "arc2-more"
"""A run, and further items of one, which chooses no heads and makes no claim of its own."""
MIN_SEEDS = 3
MIN_CAUSAL_ITEMS = 4
"""Two in each half of a split, of either cohort where answers are ablated on."""

PROFILES: Mapping[str, Mapping[str, Any]] = {
    # All of it on real input within minutes; few items, so most words stay open. 57 answers are the
    # fewest of which an unchanged accuracy excludes a loss of 10 points at four lambdas at once;
    # 7 ablation items can give a causal p of 1/64. No rule reads a control at a weaker damping.
    "quick": {
        "limit": 96, "sweep_limit": 60, "causal_items": 7, "axis_items": 24,
        "permutations": 500, "random_draws": 1, "controls": "strongest",
    },
    "standard": {"causal_items": 24, "permutations": 2000, "random_draws": 3},
    # What the paper did, with the controls and nulls it lacked: magnitude, four lambdas, 512 ids.
    # Half of the questions form the cohorts and half is swept: the paper used 100 for both.
    "paper": {
        "labels": "judge:lexical", "rank_by": "magnitude", "n_predict": 512,
        "scales": (1.0, 0.9, 0.8, 0.5), "causal_items": 0, "permutations": 2000, "random_draws": 3,
    },
}  # fmt: skip
QUICK_RANKED_ON_ANSWERS = 120
"""Prompts of the quick profile where half of them must be kept from the sweep."""
QUICK_METER = 60
"""Contexts of the quick profile with labels of the meter: the smallest axis has 104 items, and
causal and cohort items are not swept."""


class Arc2Config(BaseModel):
    """Every setting that changes a number of an Arc 2 run."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    profile: Profile = "standard"
    model: str = "SmolLM2-135M-Instruct"
    backend: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights; in float32 the engines give the same numbers."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of permutations, splits and random heads."""

    disposition: str = "humble"
    labels: str = "exact-match"
    limit: int | None = Field(default=None, ge=1)
    """Prompts that the unchanged model answers; None: all of the set."""
    n_predict: int | None = Field(default=None, ge=1)
    """None: 48, or 256 where code or essays are asked for."""

    last_n: int = Field(default=32, ge=1)
    """Response tokens, from the end, that heads are read over."""
    layers: tuple[int, ...] = ()
    """Layers whose heads are attributed; empty: all."""
    permutations: int = Field(default=2000, ge=100)
    causal_items: int = Field(default=24, ge=0)
    """Items that every head is ablated on, apart from those of the sweep; 0: no causal ranking."""

    rank_by: Method = "causal"
    top_k: int = Field(default=5, ge=1)
    scales: tuple[float, ...] = (1.0, 0.9, 0.8, 0.5, 0.0)
    random_draws: int = Field(default=3, ge=1)
    """Sets of random heads, of the layers that the chosen heads are in."""
    controls: Literal["all", "strongest"] = "all"
    """Lambdas of the random heads and of the other end of the ranking: those of the chosen heads,
    or the strongest alone, which is all that the rules read."""
    sweep_limit: int | None = Field(default=None, ge=1)
    """Prompts answered at each point of the sweep, from the first; None: all, or half of them where
    the answers decide which heads are damped."""
    axis_items: int | None = Field(default=None, ge=2)
    """Meter items read at each point of the sweep; None: all that no head was ranked on."""
    tasks: Literal["small", "humaneval"] | None = None
    """Answer these Python tasks at every point as well."""
    tasks_limit: int | None = Field(default=None, ge=1)
    temperature: float = 0.0
    top_p: float = 1.0
    top_k_tokens: int = 0
    repetition_penalty: float = 1.0
    seeds: tuple[int, ...] = ()
    """Of the sampling, at least three; lambda 1 is decoded for each. Empty: greedy."""

    judge_max_tokens: int | None = Field(default=None, ge=1)
    judge_threads: int | None = Field(default=None, ge=1)

    gguf: Quantisation | None = None
    """Repeat the sweep through llama.cpp at this quantisation: same heads, same lambdas."""
    allow_weak_sandbox: bool = False

    @field_validator("disposition")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in DISPOSITIONS:
            raise ValueError(f"{value!r}: choose one of {', '.join(DISPOSITIONS)}")
        return value

    @field_validator("labels")
    @classmethod
    def _labels(cls, value: str) -> str:
        try:
            return str(parse_labels(value))
        except UserError as error:
            raise ValueError(str(error)) from None

    @field_validator("scales")
    @classmethod
    def _falling(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        found = tuple(sorted(set(value), reverse=True))
        if not found or found[0] != 1.0 or len(found) < 2 or found[-1] < 0:
            raise ValueError("give 1 and at least one factor from 0 to below 1, e.g. 1,0.8,0.5,0")
        return found

    @model_validator(mode="after")
    def _possible(self) -> Self:
        sampling = self.sampling(0)
        if sampling.greedy and self.seeds:
            raise ValueError("--seeds: greedy decoding draws nothing; give a --temperature above 0")
        if not sampling.greedy and len(set(self.seeds)) < MIN_SEEDS:
            raise ValueError(
                f"--temperature {self.temperature:g} draws: give at least {MIN_SEEDS} --seeds, so "
                "that the sampling's own spread is known"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("--seeds: each one once")
        if sampling.greedy and (self.top_p != 1 or self.top_k_tokens):
            raise ValueError(
                "--top-p, --top-k-tokens: greedy decoding ignores them; leave them out"
            )
        for one in self.seeds:
            self.sampling(one)
        if 0 < self.causal_items < MIN_CAUSAL_ITEMS:
            raise ValueError(
                f"--causal-items {self.causal_items}: give at least {MIN_CAUSAL_ITEMS}, or 0 for "
                "no causal ranking; fewer cannot be halved"
            )
        if self.rank_by == "causal" and not self.causal_items:
            raise ValueError("--rank-by causal needs --causal-items above 0")
        if self.tasks is None and self.tasks_limit is not None:
            raise ValueError("--tasks-limit: give --tasks as well")
        if self.disposition == "self-improving" and self.labels != "execution":
            raise ValueError(
                "--disposition self-improving is read from corrected code: give --labels execution"
            )
        if self.labels == "meter" and DISPOSITIONS[self.disposition].axis is None:
            have = ", ".join(one.name for one in DISPOSITIONS.values() if one.axis)
            raise ValueError(
                f"--labels meter: the meter has no axis for {self.disposition}, only for {have}"
            )
        return self

    @property
    def label_source(self) -> LabelSource:
        """What decides right or wrong, asserted or hedged."""
        return parse_labels(self.labels)

    def sampling(self, seed: int) -> Sampling:
        """How the next token is chosen; the same at every point of the sweep."""
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k_tokens,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
            seed=seed,
        )

    @property
    def ranked_on_answers(self) -> bool:
        """Whether answers that could be swept decide which heads are damped.

        With labels of the meter the sweep is judged by other meter items, not by answers.
        """
        on_meter = self.rank_by == "causal" and DISPOSITIONS[self.disposition].axis is not None
        return self.labels != "meter" and not on_meter

    @property
    def decodings(self) -> tuple[int | None, ...]:
        """One a seed; (None,) where decoding is greedy."""
        return self.seeds or (None,)


def flag_of(name: str) -> str:
    """The command line's flag for a setting."""
    known = {"allow_weak_sandbox": "allow-weak-sandbox"}
    return f"--{known.get(name, name.replace('_', '-'))}"


def resolve(flags: Mapping[str, Any]) -> Arc2Config:
    """Defaults, then the profile, then the flags that were given. Raises UserError."""
    profile = flags.get("profile", "standard")
    if profile not in PROFILES:
        raise UserError(f"--profile {profile!r}: choose from {', '.join(PROFILES)}")
    made = parse({**PROFILES[profile], **flags, "profile": profile})
    if profile != "quick":
        return made
    sizes: dict[str, Any] = {}
    if made.labels == "meter":
        sizes = {"limit": QUICK_METER}
    elif made.ranked_on_answers:
        sizes = {"limit": QUICK_RANKED_ON_ANSWERS, "sweep_limit": None}  # half of what there is
    return made.model_copy(update={k: v for k, v in sizes.items() if k not in flags})


def parse(values: Mapping[str, Any]) -> Arc2Config:
    """Validate; one line for the first thing wrong (UserError)."""
    return validated(Arc2Config, values, flag_of)
