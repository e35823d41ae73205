"""The stages as data: who is asked what, seeing which earlier answers."""

from __future__ import annotations

import hashlib
import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from arcs.teachers.preference import PREFERENCE
from models.chat import Message

STAGES = Path(__file__).resolve().parent / "data" / "stages.toml"
ROLES = (
    "eager", "deliberate", "adversarial", "synthesizer", "student", "critic", "corrector",
    "planter", "boundary", "preference", "prompt_writer", "fresh_writer",
)  # fmt: skip
WRITERS = frozenset({"prompt_writer", "fresh_writer"})
"""Roles that nobody need have: prompts then come from the offline generator."""
PREFERENCES = {"prefer_chosen_first": ("synthesizer", "planter"),
               "prefer_rejected_first": ("planter", "synthesizer")}  # fmt: skip
"""Stage -> what stands first and second: the same question in both orders (PAPER.md 8.1 J10)."""


@dataclass(frozen=True)
class Stage:
    """One question to one teacher."""

    name: str
    role: str
    system: str
    """Empty: none is sent."""
    ask: str
    inputs: tuple[str, ...]
    """``prompt``, or names of stages whose answers it sees."""
    temperature: float
    max_tokens: int

    def messages(self, texts: Mapping[str, str]) -> tuple[Message, ...]:
        """The chat. Texts are put in as they are: nothing in them is a field again."""
        asked = Message("user", self.ask.format_map({name: texts[name] for name in self.inputs}))
        return (Message("system", self.system), asked) if self.system else (asked,)


@dataclass(frozen=True)
class Stages:
    """All stages, and the hash of what decides them."""

    by_name: Mapping[str, Stage]
    serial: bool
    sha256: str

    def chain(self, kind: str) -> tuple[Stage, ...]:
        """Stages of a record of one type, each after what it sees."""
        third = "adversarial_serial" if self.serial else "adversarial"
        gold = ("eager", "deliberate", third, "synthesizer")
        names = {
            "gold": gold,
            "failure_trace": ("student", "critic", "corrector"),
            "counterexample": ("error_plan", "planter", *PREFERENCES),
            "boundary": ("boundary_answer",),
        }[kind]
        return tuple(self.by_name[name] for name in names)


@cache
def load_stages(*, serial: bool = False) -> Stages:
    """Read the stages. ``serial``: the third sees the second, too."""
    raw = STAGES.read_bytes()
    tables = tomllib.loads(raw.decode())
    found = {name: _stage(name, table) for name, table in tables.items()}
    for name, (first, second) in PREFERENCES.items():
        found[name] = Stage(
            name=name, role="preference", system="", inputs=("prompt", first, second),
            ask=PREFERENCE.template.replace("{first}", "{%s}" % first)  # noqa: UP031 (braces)
            .replace("{second}", "{%s}" % second)  # noqa: UP031
            .replace("{question}", "{prompt}"),
            temperature=0.0, max_tokens=8,
        )  # fmt: skip
    digest = hashlib.sha256(raw + PREFERENCE.sha256.encode()).hexdigest()
    return Stages(found, serial, digest)


def _stage(name: str, table: Mapping[str, Any]) -> Stage:
    stage = Stage(
        name=name, role=table["role"], system=table["system"].strip(), ask=table["ask"],
        inputs=tuple(table["inputs"]), temperature=float(table["temperature"]),
        max_tokens=int(table["max_tokens"]),
    )  # fmt: skip
    fields = {field for _, field, _, _ in string.Formatter().parse(stage.ask) if field}
    if fields - set(stage.inputs) or stage.role not in ROLES:
        raise ValueError(f"{STAGES.name}: {name} asks for {fields} of {stage.inputs}")
    return stage
