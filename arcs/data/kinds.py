"""Every kind of record that a data file can hold, and what of it is a prompt or an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from arcs.training_data import Preference, Record
from evals.items.recorded import PromptItem, RecordedLabel, RecordedResponse
from evals.items.records import (
    ChefItem,
    McasItem,
    MeterItem,
    RecoveryItem,
    ShortAnswer,
    SmallTask,
)
from models.errors import UserError

Texts = Callable[[Any], tuple[str, ...]]


def _prompt(record: Any) -> tuple[str, ...]:
    return (record.prompt,)


def _nothing(record: Any) -> tuple[str, ...]:
    del record
    return ()


@dataclass(frozen=True)
class Kind:
    """One record type."""

    name: str
    model: type[BaseModel]
    what: str
    """In a word or two, for people."""
    categories: tuple[str, ...]
    """Fields with few values, counted by ``data stats``."""
    prompts: Texts = _prompt
    """What a model is asked."""
    answers: Texts = _nothing
    """What it would answer, or is trained to, or answered."""

    @property
    def fields(self) -> dict[str, bool]:
        """Names as they stand in a file -> whether a record must have them."""
        return {
            info.alias or name: info.is_required() for name, info in self.model.model_fields.items()
        }

    def could_be(self, keys: set[str]) -> bool:
        """Whether an object with these keys may be such a record."""
        return {name for name, must in self.fields.items() if must} <= keys <= set(self.fields)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "chef", ChefItem, "cooking question with a checklist",
            ("category", "difficulty", "certainty"),
            answers=lambda r: tuple(one.claim for one in r.checklist),
        ),
        Kind(
            "mcas", McasItem, "technical request", ("type", "domain"),
            answers=lambda r: (r.key_point,),
        ),
        Kind(
            "meter", MeterItem, "context with two continuations", ("axis", "domain"),
            prompts=lambda r: ("\n".join(turn.content for turn in r.context),),
            answers=lambda r: (r.positive, r.negative),
        ),
        Kind(
            "recovery", RecoveryItem, "failed task to correct", ("kind",),
            answers=lambda r: (r.reference,),
        ),
        Kind(
            "short_answer", ShortAnswer, "question with an exact answer", ("domain", "kind"),
            answers=lambda r: r.answers,
        ),
        Kind(
            "small_task", SmallTask, "small Python task", ("kind",),
            answers=lambda r: (r.canonical_solution,),
        ),
        Kind(
            "training", Record, "SFT record",
            ("type", "kind", "split", "category", "difficulty", "dispositions"),
            answers=lambda r: (r.response,),
        ),
        Kind(
            "preference", Preference, "DPO pair",
            ("type", "kind", "split", "category", "difficulty", "dispositions"),
            answers=lambda r: (r.chosen, r.rejected),
        ),
        Kind("prompt", PromptItem, "prompt alone", ("set", "category", "difficulty", "split")),
        Kind(
            "response", RecordedResponse, "recorded answer",
            ("model", "condition", "finish_reason", "flags"),
            prompts=_nothing, answers=lambda r: (r.response,),
        ),
        Kind(
            "label", RecordedLabel, "recorded judgement",
            ("instrument", "judge", "rubric_version", "status", "flags"), prompts=_nothing,
        ),
    )
}  # fmt: skip


def kind_named(name: str) -> Kind:
    """The kind called ``name``. Raises UserError for an unknown one."""
    if name not in KINDS:
        raise UserError(f"--as {name}: no such kind of record; choose {', '.join(KINDS)}")
    return KINDS[name]


def kinds_with(keys: set[str]) -> list[Kind]:
    """Kinds that an object with these keys may be a record of."""
    return [kind for kind in KINDS.values() if kind.could_be(keys)]


def key_of(record: Any) -> str:
    """A record's id."""
    return str(record.id)


def values_of(record: Any, field: str) -> tuple[str, ...]:
    """A field's value as text, several where the field holds several. Empty for nothing."""
    value = getattr(record, field)
    if value is None or value == "":
        return ()
    return tuple(map(str, value)) if isinstance(value, tuple) else (str(value),)


def field_named(kind: Kind, name: str) -> str:
    """The attribute for a field's name in files. Raises UserError where there is none."""
    found = {
        spelling: attribute
        for attribute, info in kind.model.model_fields.items()
        for spelling in (attribute, info.alias)
        if spelling
    }
    if name not in found:
        known = ", ".join(kind.fields)
        raise UserError(f"{kind.name} records have no field {name!r}; they have {known}")
    return found[name]
