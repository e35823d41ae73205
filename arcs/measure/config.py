"""What a measurement is made of: the flags, checked, and the conditions that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from arcs.continuing import validated
from arcs.evaluate.config import BASE, Condition, canonical, heads_of, names_of
from arcs.labels import parse_judge
from evals.budgets import check_budgets
from models.errors import UserError

METER, SHORT_ANSWERS = "meter", "short-answers"
CHEF, MCAS, RECOVERY, DELIVERY = "chef", "mcas", "recovery", "delivery"
JUDGED = (CHEF, MCAS, DELIVERY)
"""Instruments whose answers a judge labels."""
FREE = (*JUDGED, RECOVERY)
"""Instruments with free answers, at one or more n_predict."""
INSTRUMENTS = (METER, SHORT_ANSWERS, CHEF, MCAS, RECOVERY, DELIVERY)
Axis = Literal["hedging", "self_checking", "deferring"]
N_PREDICT = 48
"""Tokens of a short answer: the embedded model ends all but a few of its answers before."""
BUDGETS = (256, 512)
"""Of free answers."""
LEXICAL = "lexical"
"""The judge where none is named, of instruments that it can apply."""
_FLAGS = {"adapters": "adapter", "tempers": "temper", "axes": "axis", "instrument": "INSTRUMENT"}


class MeasureConfig(BaseModel):
    """Every setting that changes a number of a measurement."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    instrument: Literal["meter", "short-answers", "chef", "mcas", "recovery", "delivery"]
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
    items: Path | None = None
    """Of delivery: a JSONL file of prompts (id, prompt)."""
    limit: int | None = Field(default=None, ge=1)
    """Items: of each axis of the meter, otherwise in all."""
    n_predict: tuple[int, ...] | None = None
    """Of answers; None: N_PREDICT of the short ones, BUDGETS of free ones."""
    judge: str | None = None
    """Of chef, mcas and delivery, as :func:`arcs.labels.parse_judge` spells it; None: lexical where
    it can apply the instrument."""
    judge_max_tokens: int | None = Field(default=None, ge=1)
    judge_threads: int | None = Field(default=None, ge=1)
    allow_weak_sandbox: bool = False
    allow_overlap: bool = False
    """Go on where an adapter was trained on items that are measured; claims are INVALID then."""

    @property
    def budgets(self) -> tuple[int, ...]:
        """n_predict of free answers, rising."""
        return self.n_predict or BUDGETS

    @field_validator("tempers")
    @classmethod
    def _one_spelling(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(canonical(text) for text in value)

    @field_validator("n_predict", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @field_validator("judge")
    @classmethod
    def _judge(cls, value: str | None) -> str | None:
        try:
            return None if value is None else str(parse_judge(value))
        except UserError as error:
            raise ValueError(str(error).removeprefix("--judge ")) from None

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
        if self.instrument == DELIVERY and self.items is None:
            raise ValueError("--items: delivery is measured on prompts of your own; give a JSONL "
                             "file with id and prompt a line")  # fmt: skip
        if self.items is not None and self.instrument != DELIVERY:
            raise ValueError(f"--items: {self.instrument} asks items of its own; leave it out")
        if self.n_predict is not None and self.instrument == METER:
            raise ValueError("--n-predict: the meter generates nothing; leave it out")
        if self.n_predict is not None:
            _check_budgets(self.n_predict)
        if self.instrument == SHORT_ANSWERS and len(self.n_predict or (0,)) != 1:
            raise ValueError("--n-predict: short answers have one, e.g. 48")
        if self.instrument not in JUDGED:
            for name in ("judge", "judge_max_tokens", "judge_threads"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{flag_of(name)}: {self.instrument} needs no judge; leave it out"
                    )
        if self.instrument == MCAS and self.judge in (None, LEXICAL):
            raise ValueError(
                "--judge: the lexical judge cannot apply MCAS; name another, e.g. gguf"
            )
        if self.allow_weak_sandbox and self.instrument != RECOVERY:
            raise ValueError("--allow-weak-sandbox: nothing is executed here; leave it out")
        return self


def _check_budgets(budgets: tuple[int, ...]) -> None:
    try:
        check_budgets(budgets)
    except UserError as error:
        raise ValueError(f"--n-predict: {error}") from None


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
