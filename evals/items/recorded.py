"""What others recorded: prompts, answers and judgements, each with where it was read.

A label knows its instrument (DESIGN section 5): analyses compare labels of one instrument only
and count those without a value.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    model_validator,
)

from evals.items.records import Item, Text

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Value = StrictBool | StrictInt | StrictFloat | StrictStr
FinishReason = Literal["stop", "length", "unknown"]
Status = Literal["ok", "unparsed", "error", "missing"]


def prompt_sha256(prompt: str) -> str:
    """sha-256 (hex) of a prompt's exact text, by which labels and answers are joined to it."""
    return hashlib.sha256(prompt.encode()).hexdigest()


class Source(BaseModel):
    """Where a record was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Text
    index: int = Field(ge=0)
    """Position from 0 in the file's own list."""
    sha256: Sha256
    """Of the whole file."""


class PromptItem(Item):
    """A prompt alone: asked by others, or to be asked."""

    prompt: Text
    set: str = ""
    """Which collection it belongs to."""
    category: str = ""
    topic: str = ""
    difficulty: Literal["easy", "medium", "hard"] | None = None
    split: Literal["train", "held_out"] | None = None
    """Decided before anything is generated; None where nobody has."""
    generator: str = ""
    """Who or what wrote the prompt."""
    source: Source | None = None


class RecordedResponse(Item):
    """An answer that some model gave, as it was stored."""

    item_id: Text
    """The prompt's id."""
    prompt_sha256: Sha256 | None = None
    """None where the prompt itself was not stored."""
    model: Text
    condition: str = ""
    """What was done to the model; empty: nothing."""
    sample: int = Field(default=0, ge=0)
    response: str
    finish_reason: FinishReason = "unknown"
    cut_at: int | None = Field(default=None, ge=1)
    """Characters after which the stored text was cut, where it is as long as that."""
    flags: tuple[Text, ...] = ()
    """What a reader must know, e.g. ``retracted``."""
    source: Source | None = None


class RecordedLabel(Item):
    """One judgement: of an answer, or of a prompt."""

    item_id: Text
    response_id: str | None = None
    """The judged answer; None where the prompt alone was judged, or the answer not stored."""
    model: str = ""
    """Whose answer; empty where the prompt alone was judged."""
    condition: str = ""
    prompt_sha256: Sha256 | None = None
    instrument: Text
    """Labels of two instruments are never mixed."""
    judge: str | None = None
    """The judging model; None where it is not recorded, or no model judged."""
    rubric_version: str | None = None
    status: Status
    value: Value | None = None
    """Present if and only if ``status`` is ``ok``."""
    detail: str = ""
    """What was stored in place of a value."""
    flags: tuple[Text, ...] = ()
    source: Source | None = None

    @model_validator(mode="after")
    def _value_when_ok(self) -> Self:
        if (self.status == "ok") != (self.value is not None):
            raise ValueError(f"status {self.status} and value {self.value!r} exclude each other")
        if isinstance(self.value, float) and self.value - self.value != 0:
            raise ValueError("value is not a finite number")
        return self
