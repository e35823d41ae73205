"""What a measurement is made of: the flags, checked, and the conditions that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from arcs.continuing import validated
from arcs.evaluate.config import BASE, Condition, canonical, heads_of, names_of
from models.errors import UserError

METER, SHORT_ANSWERS = "meter", "short-answers"
Axis = Literal["hedging", "self_checking", "deferring"]
N_PREDICT = 48
"""Tokens of a short answer: the embedded model ends all but a few of its answers before."""
_FLAGS = {"adapters": "adapter", "tempers": "temper", "axes": "axis", "instrument": "INSTRUMENT"}


class MeasureConfig(BaseModel):
    """Every setting that changes a number of a measurement."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    instrument: Literal["meter", "short-answers"]
    model: str = "SmolLM2-135M-Instruct"
    backend: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights; in float32 the engines give the same numbers."""
    adapters: tuple[Path, ...] = ()
    tempers: tuple[str, ...] = ()
    """Each one condition, e.g. ``L16H5=0.5``; kept as :func:`arcs.evaluate.config.canonical`
    writes it."""
    axes: tuple[Axis, ...] = ()
    """Of the meter; empty: all."""
    limit: int | None = Field(default=None, ge=1)
    """Items: of each axis of the meter, of the short answers in all."""
    n_predict: int | None = Field(default=None, ge=1)
    """Of the short answers; None: N_PREDICT."""
    allow_overlap: bool = False
    """Go on where an adapter was trained on items that are measured; claims are INVALID then."""

    @field_validator("tempers")
    @classmethod
    def _one_spelling(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(canonical(text) for text in value)

    @field_validator("adapters", "tempers", "axes")  # after _one_spelling
    @classmethod
    def _each_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = next((one for i, one in enumerate(value) if one in value[:i]), None)
        if twice is not None:
            raise ValueError(f"{twice} is given twice")
        return value

    @model_validator(mode="after")
    def _of_this_instrument(self) -> Self:
        """Refuse what would have no effect: nothing that was asked for is dropped."""
        if self.axes and self.instrument != METER:
            raise ValueError("--axis: only the meter has axes; leave it out")
        if self.n_predict is not None and self.instrument != SHORT_ANSWERS:
            raise ValueError("--n-predict: the meter generates nothing; leave it out")
        return self


def conditions_of(config: MeasureConfig) -> tuple[Condition, ...]:
    """The base, each adapter, and each setting of heads, all compared with the base.

    Scaled heads need no control of their own as in a quantised evaluation: a factor of 1 at the
    o_proj input changes no bit. Raises UserError where two would have one name.
    """
    found = [Condition(BASE)]
    found += [
        Condition(name, adapter=path)
        for name, path in zip(names_of(config.adapters), config.adapters, strict=True)
    ]
    found += [Condition(text, scales=heads_of(text)) for text in config.tempers]
    names = [condition.name for condition in found]
    clash = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if clash is not None:
        raise UserError(
            f"two conditions are called {clash!r}: copy one adapter to a directory of another name"
        )
    return tuple(found)


def flag_of(name: str) -> str:
    """The command line's flag for a setting."""
    known = _FLAGS.get(name, name.replace("_", "-"))
    return known if known.isupper() else f"--{known}"


def parse(values: Mapping[str, Any]) -> MeasureConfig:
    """Validate flags; one line for the first thing wrong (UserError)."""
    return validated(MeasureConfig, values, flag_of)
