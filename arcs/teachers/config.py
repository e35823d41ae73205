"""What a generation is made of: the flags, checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from arcs.continuing import validated
from models.errors import UserError

ARC = "data-generate"
COOKING = "cooking"
Profile = Literal["quick", "standard", "paper"]
SIZES: Mapping[Profile, Mapping[str, int]] = {
    "quick": {"gold": 8, "failure_traces": 4, "counterexamples": 4, "boundary": 4, "fresh": 8},
    "standard": {"gold": 150, "failure_traces": 150, "counterexamples": 150, "boundary": 60,
                 "fresh": 60},
    # PAPER.md 2.9: 700 prompts asked for, a trace and a pair of each, at most 150, 193
    "paper": {"gold": 700, "failure_traces": 700, "counterexamples": 700, "boundary": 150,
              "fresh": 193},
}  # fmt: skip


class GenerateConfig(BaseModel):
    """Every setting that decides what is generated."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    profile: Profile = "standard"
    teachers: str = "embedded"
    """A preset or a TOML file."""
    prompts: Path | None = None
    """The user's own prompts (kind ``prompt``) in place of generated ones; of gold records."""
    kind: str = Field(default=COOKING, min_length=1)
    """Domain of the records; prompts that are made here are about cooking."""
    seed: int = Field(default=0, ge=0)
    serial: bool = False
    """The third stage sees the second, too."""
    require_licence: str | None = None
    budget: float | None = Field(default=None, gt=0)
    """US dollars for all endpoints together."""
    held_out: float = Field(default=0.15, gt=0, lt=1)
    """Share of the prompts that is held out."""
    gold: int | None = Field(default=None, ge=1)
    failure_traces: int | None = Field(default=None, ge=0)
    counterexamples: int | None = Field(default=None, ge=0)
    boundary: int | None = Field(default=None, ge=0)
    fresh: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _of_golds_prompts(self) -> Self:
        for name in ("failure_traces", "counterexamples"):
            asked = getattr(self, name)
            if asked is not None and self.prompts is None and asked > self.size("gold"):
                raise ValueError(
                    f"{flag_of(name)} {asked}: they are made of gold's prompts, of which there "
                    f"are {self.size('gold')}"
                )
        return self

    @model_validator(mode="after")
    def _what_is_made_here_is_cooking(self) -> Self:
        if self.prompts is None and self.kind != COOKING:
            raise ValueError(
                f"--kind {self.kind}: prompts that are made here are about {COOKING}; give your "
                "own with --prompts"
            )
        return self

    def require_prompts(self, n: int) -> None:
        """Raise UserError where more records are asked for than there are prompts of the user's."""
        for name in ("gold", "failure_traces", "counterexamples"):
            asked = getattr(self, name)
            if asked is not None and asked > n:
                cut = self.gold is not None and name != "gold"
                raise UserError(
                    f"{flag_of(name)} {asked}: one is made of each of gold's prompts, of which "
                    f"--prompts {self.prompts}{' with --gold' if cut else ''} gives {n}"
                )

    def size(self, name: str, own: int | None = None) -> int:
        """How many records (of ``fresh``: prompts) are wanted; never more pairs than prompts.

        ``own``: the user's prompts, where there are any; gold is then of all.
        """
        asked = getattr(self, name)
        size = SIZES[self.profile][name] if asked is None else int(asked)
        if name in ("boundary", "fresh"):
            return size
        if self.prompts is not None and own is not None:
            return own if name == "gold" else min(size, own)
        return size if name == "gold" else min(size, self.size("gold"))


def flag_of(name: str) -> str:
    """The command line's flag for a setting."""
    return f"--{name.replace('_', '-')}"


def parse(values: Mapping[str, Any]) -> GenerateConfig:
    """Validate flags; one line for the first thing wrong (UserError)."""
    return validated(GenerateConfig, values, flag_of)
