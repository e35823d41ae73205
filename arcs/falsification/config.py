"""What a falsification is made of: the flags, checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from arcs.arc3.config import PROFILES, Profile
from arcs.continuing import validated

OWN = ("features", "fresh", "labels")
OPTIONAL = ("fresh_labels", "responses", "fresh_responses")
REPLICATION = tuple(f"replication_{name}" for name in (*OWN, *OPTIONAL))
PATHS = ("source", *OWN, *OPTIONAL, "adapter", "replication", *REPLICATION, "gates")
EDITED_MODEL = ("model", "backend", "items", "limit", "n_predict")
"""How the base and the edited model of --adapter are run, as in Arc 3."""
_FLAGS = {"source": "RUN"}


class FalsifyConfig(BaseModel):
    """Every setting that changes a number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Path | None = None
    """A finished run of Arc 3."""
    features: Path | None = None
    fresh: Path | None = None
    labels: Path | None = None
    fresh_labels: Path | None = None
    responses: Path | None = None
    fresh_responses: Path | None = None
    adapter: Path | None = None
    """A LoRA adapter: the edited model's own states and answers are made here."""
    model: str | None = None
    """Its base; None: Arc 3's default."""
    backend: Literal["auto", "torch", "mlx", "gguf"] | None = None
    items: Literal["short-answers", "recall"] | None = None
    limit: int | None = Field(default=None, ge=10)
    n_predict: int | None = Field(default=None, ge=1)
    columns: tuple[str, ...] = ()
    axis: str | None = None
    pooled: str | None = None
    untruncated: bool = False
    replication: Path | None = None
    """A finished run of Arc 3 on another model."""
    replication_features: Path | None = None
    replication_fresh: Path | None = None
    replication_labels: Path | None = None
    replication_fresh_labels: Path | None = None
    replication_responses: Path | None = None
    replication_fresh_responses: Path | None = None
    gates: Path | None = None
    """Another gates file than the one that ships."""
    profile: Literal["quick", "standard"] = "standard"
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of folds, permutations and the bootstrap."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        own = [name for name in (*OWN, *OPTIONAL) if getattr(self, name) is not None]
        if self.source is not None and own:
            raise ValueError(f"RUN has features and labels of its own: leave {flag_of(own[0])} out")
        if self.source is not None and (self.axis or self.columns or self.untruncated):
            raise ValueError("--axis, --columns and --untruncated are for --features, not for RUN")
        if self.adapter is not None:
            self._alone([*own, *(["source"] if self.source is not None else [])])
        else:
            stray = [name for name in EDITED_MODEL if getattr(self, name) is not None]
            if stray:
                raise ValueError(f"{flag_of(stray[0])} is for --adapter, which is not given")
        if self.source is None and self.adapter is None:
            self._whole(OWN, "give RUN, or --adapter, or --features, --fresh and --labels")
        again = [name for name in REPLICATION if getattr(self, name) is not None]
        if self.replication is not None and again:
            raise ValueError(f"--replication is a run: leave {flag_of(again[0])} out")
        if again:
            self._whole(REPLICATION[: len(OWN)], f"{flag_of(again[0])} needs its fellows")
        return self

    def _alone(self, others: list[str]) -> None:
        if others:
            raise ValueError(
                f"--adapter has its features and labels made here: leave {flag_of(others[0])} out"
            )
        if self.axis or self.columns or self.untruncated:
            raise ValueError("--axis, --columns and --untruncated are for --features")

    def _whole(self, names: tuple[str, ...], what: str) -> None:
        lacking = [flag_of(name) for name in names if getattr(self, name) is None]
        if lacking:
            raise ValueError(f"{what} ({' and '.join(lacking)} not given)")

    @property
    def sizes(self) -> Profile:
        """How often things are repeated."""
        return PROFILES[self.profile]

    @property
    def chosen(self) -> bool:
        """Whether anything was chosen that is not the default."""
        return bool(self.axis or self.pooled or self.gates or self.seed)


def flag_of(name: str) -> str:
    """The command line's flag for a setting."""
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")


def parse(values: Mapping[str, Any]) -> FalsifyConfig:
    """Validate flags; one line for the first thing wrong (UserError)."""
    return validated(FalsifyConfig, values, flag_of)


def absolute(values: Mapping[str, Any]) -> dict[str, Any]:
    """Paths made absolute: a run may be continued from another working directory."""
    return {
        name: Path(value).absolute() if name in PATHS and value is not None else value
        for name, value in values.items()
    }
