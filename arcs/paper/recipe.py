"""What the paper ran on each model and what it printed, as data (recipes/*.toml)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.errors import UserError
from models.registry import EMBEDDED_DEFAULT, lookup

FOLDER = Path(__file__).with_name("recipes")
Part = Literal["arc1", "arc2", "arc3", "falsify"]
PARTS: tuple[Part, ...] = ("arc1", "arc2", "arc3", "falsify")
Kind = Literal["arc1", "eval", "measure", "arc2", "arc3", "falsify"]
PromptSet = Literal["step16", "fresh"]
STAND_IN_FOR = "SmolLM2-1.7B-Instruct"
"""Whose recipe the embedded model is run under where none is named: its own family's."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Published(_Record):
    """A published figure: a count ``k`` of ``n``, or a ``value``."""

    value: float | None = None
    k: int | None = None
    n: int | None = None
    place: str = Field(min_length=1)
    """Where it is printed or stored."""
    file: str | None = None
    """Of the paper's published files, the one that holds it; tests compare."""
    at: str | None = None
    """Keys in ``file``, / between them."""
    whole: str | None = None
    """Keys of ``n``."""
    count: str | None = None
    """Instead of ``at``: rows of ``file`` whose key holds (KEY, or KEY=VALUE)."""
    percent: bool = False
    """What stands at ``at`` is in percent."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.value is None) == (self.k is None):
            raise ValueError("give value, or k and n")
        if self.k is not None and not (self.n and 0 <= self.k <= self.n):
            raise ValueError("k: of how many n?")
        return self

    @property
    def number(self) -> float:
        """The figure."""
        if self.k is not None and self.n:
            return self.k / self.n
        assert self.value is not None  # checked above
        return self.value


class StageRecipe(_Record):
    """One run of an arc."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    kind: Kind
    part: Part
    settings: dict[str, Any]
    """As the paper; of the command that ``kind`` names."""
    quick: dict[str, Any] = {}
    """What the quick profile has instead."""
    substituted: tuple[str, ...] = ()
    """What is another thing than the paper's, whatever the profile."""
    training: tuple[str, ...] = ()
    """The same of how it trains, which says nothing of the base."""
    quick_substituted: tuple[str, ...] | None = None
    """Of the quick profile, in place of ``substituted`` where its items and labels are others."""
    adapter_of: str | None = None
    """A stage before it, whose adapter is evaluated here."""
    base_of: str | None = None
    """A stage before it, whose answers of the base hold here too."""
    source: str | None = None
    """Of falsify: the stage whose run is falsified."""
    prompts: PromptSet | None = None
    """Which of the paper's prompts are asked; without its files as many that ship."""
    needs_judge: bool = False
    """Nothing that ships labels it: left out unless --judge names what does."""
    only_thinking: bool = False
    """Nothing is left of it on a model without a thinking mode."""


class Row(_Record):
    """One quantity of one checkpoint."""

    quantity: str
    checkpoint: str
    unit: Literal["%", ""] = "%"
    stage: str | None = None
    read: dict[str, Any] | None = None
    """How ours is found in the stage's metrics: arcs/paper/reading.py."""
    paper: Published | None = None
    independent: Published | None = None
    substituted: tuple[str, ...] = ()
    why_not: str | None = None
    """Why it cannot be measured here."""

    @model_validator(mode="after")
    def _measured_or_not(self) -> Self:
        if (self.why_not is None) == (self.stage is None) or (self.stage is None) != (
            self.read is None
        ):
            raise ValueError("give stage and read, or why_not")
        return self

    @property
    def name(self) -> str:
        """The quantity, with its n_predict where it is read at several."""
        n = (self.read or {}).get("n_predict")
        return self.quantity if n is None else f"{self.quantity}, n_predict {n}"


class Recipe(_Record):
    """Everything about one model."""

    model: str
    """Its name in the registry."""
    says: str
    """In a line."""
    stages: tuple[StageRecipe, ...] = Field(alias="stage")
    rows: tuple[Row, ...] = Field(alias="row")

    @model_validator(mode="after")
    def _joined(self) -> Self:
        before: set[str] = set()
        for stage in self.stages:
            for other in (stage.adapter_of, stage.base_of, stage.source):
                if other is not None and other not in before:
                    raise ValueError(f"stage {stage.name}: {other} does not come before it")
            if stage.needs_judge and stage.kind != "measure":
                raise ValueError(f"stage {stage.name}: only a measurement asks --judge")
            if stage.name in before:
                raise ValueError(f"two stages are called {stage.name}")
            before.add(stage.name)
        for row in self.rows:
            if row.stage is not None and row.stage not in before:
                raise ValueError(f"row {row.quantity}: no stage {row.stage}")
        return self

    def stage(self, name: str) -> StageRecipe:
        """The stage of that name."""
        return next(one for one in self.stages if one.name == name)


@cache
def recipes() -> Mapping[str, Recipe]:
    """All recipes by the model's registry name, in the order of the registry."""
    found = (
        Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        for path in sorted(FOLDER.glob("*.toml"))
    )
    return {one.model: one for one in found}


def recipe_of(model: str, named: str | None) -> Recipe:
    """Whose recipe a model is run under. Raises UserError where that is not clear."""
    known = recipes()
    if named is not None:
        spec = lookup(named)
        if spec is None or spec.name not in known:
            raise UserError(f"--as {named}: the paper ran {_listed(known)}; name one of them")
        return known[spec.name]
    spec = lookup(model)
    if spec is not None and spec.name in known:
        return known[spec.name]
    if spec is not None and spec.name == EMBEDDED_DEFAULT:
        return known[STAND_IN_FOR]
    raise UserError(
        f"{model}: not one of the paper's models; say whose recipe it stands in for with --as "
        f"({_listed(known)})"
    )


def _listed(known: Mapping[str, Recipe]) -> str:
    return ", ".join(name.lower() for name in known)
