"""What a ``threearc paper`` run is made of: the flags, checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from arcs.arc1.config import absolute_paths
from arcs.continuing import validated
from arcs.labels import parse_judge
from arcs.paper.recipe import PARTS, Part, Recipe, recipe_of, recipes
from models.errors import UserError

_FLAGS = {"model": "MODEL", "recipe": "--as"}
OF_JUDGE = ("judge", "judge_max_tokens", "judge_threads")
"""What a stage that needs a judge is given."""


class PaperConfig(BaseModel):
    """Every setting that changes a number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """What is run: a name, hub id or path."""
    recipe: str
    """Whose recipe: one of the paper's models, by its registry name."""
    backend: Literal["auto", "mlx", "torch"] = "auto"
    profile: Literal["quick", "paper"] = "paper"
    only: tuple[Part, ...] = PARTS
    artifacts: Path | None = None
    """A copy of the paper's published files, for its prompts."""
    judge: str | None = None
    """Of the stages that need one, as :func:`arcs.labels.parse_judge` spells it."""
    judge_max_tokens: int | None = Field(default=None, ge=1)
    judge_threads: int | None = Field(default=None, ge=1)
    allow_weak_sandbox: bool = False

    @field_validator("judge")
    @classmethod
    def _judge(cls, value: str | None) -> str | None:
        return None if value is None else str(parse_judge(value))

    @field_validator("only")
    @classmethod
    def _in_order(cls, value: tuple[Part, ...]) -> tuple[Part, ...]:
        return tuple(one for one in PARTS if one in value)


def flag_of(name: str) -> str:
    """The command line's flag for a setting."""
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")


def resolve(flags: Mapping[str, Any]) -> tuple[PaperConfig, Recipe]:
    """Flags that were given -> settings and the recipe they name. Raises UserError."""
    given = dict(flags)
    if "model" not in given:
        raise UserError("say which model: threearc paper MODEL, e.g. threearc paper qwen3-0.6b")
    recipe = recipe_of(given["model"], given.get("recipe"))
    for name in given.get("only", ()):
        if name not in PARTS:
            raise UserError(f"--only {name}: choose from {','.join(PARTS)}")
    given |= absolute_paths({"model": given["model"]})
    if given.get("artifacts") is not None:
        given["artifacts"] = Path(given["artifacts"]).absolute()
    config = parse({**given, "recipe": recipe.model})
    if not any(one.part in config.only for one in recipe.stages):
        have = ",".join(dict.fromkeys(one.part for one in recipe.stages))
        raise UserError(
            f"--only {','.join(config.only)}: the paper ran none of it on {recipe.model}; it ran "
            f"{have}"
        )
    _check_judge(config, recipe)
    return config, recipe


def _check_judge(config: PaperConfig, recipe: Recipe) -> None:
    """Refuse a judge that no stage would ask, and what is said of a judge that is not named."""
    if config.judge is None:
        named = next((one for one in OF_JUDGE if getattr(config, one) is not None), None)
        if named is not None:
            raise UserError(f"{flag_of(named)}: it is of a --judge; name one")
    elif not any(one.needs_judge and one.part in config.only for one in recipe.stages):
        needs = {one.model.lower(): stage.part for one in recipes().values()
                 for stage in one.stages if stage.needs_judge}  # fmt: skip
        where = ", ".join(f"{part} of {model}" for model, part in needs.items())
        raise UserError(f"--judge: nothing that is run here needs one ({where} does); leave it out")


def parse(values: Mapping[str, Any]) -> PaperConfig:
    """Validate; one line for the first thing wrong (UserError)."""
    return validated(PaperConfig, values, flag_of)
