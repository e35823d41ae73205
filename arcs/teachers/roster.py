"""The teacher file: who the teachers are, under which licences, and who plays which role."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    model_validator,
)

from arcs.teachers.stages import ROLES, WRITERS
from models.errors import UserError

DATA = Path(__file__).resolve().parent / "data"
PRESETS = {name: DATA / f"{name}.toml" for name in ("embedded", "paper")}
DEFAULT = "default"
NOT_EXTRA = frozenset(
    {"model", "models", "messages", "temperature", "max_tokens", "max_completion_tokens", "n",
     "best_of", "stream"}
)  # fmt: skip
"""What a request says already: the licence is of its model, the budget counts its tokens once, and
a reply is kept as the answer to its messages and temperature."""
Licence = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+-]*$")]
"""An SPDX identifier in lower case where there is one, e.g. ``mit``, ``apache-2.0``; else a word,
e.g. ``modified-mit``, ``proprietary``."""


class Teacher(BaseModel):
    """One teacher as the file says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["endpoint", "gguf", "backend"]
    model: str = Field(min_length=1)
    """What the endpoint calls it; of the others a name, hub id or path as for ``--model``."""
    licence: Licence
    licence_note: str = ""
    max_tokens: int | None = Field(default=None, ge=1)
    """A cap on every stage's own limit."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """In place of every stage's own: some endpoints refuse any but one."""
    think_tokens: int = Field(default=0, ge=0)
    """Of a model that thinks before it answers: what it gets on top of every stage's limit, which
    is the answer's. Else its thoughts use up a limit of a few tokens, and it says nothing."""
    url: str | None = None
    key_variables: tuple[str, ...] = ("OPENAI_API_KEY",)
    concurrency: int = Field(default=4, ge=1)
    """Requests at a time of all teachers at this URL with this key: the smallest holds, as the
    smallest ``requests_per_minute`` does."""
    own_concurrency: int | None = Field(default=None, ge=1)
    """Of these, this teacher's at most; None: all."""
    timeout: float = Field(default=120.0, gt=0)
    tries: int = Field(default=5, ge=1)
    back_off: float = Field(default=2.0, ge=0)
    requests_per_minute: float | None = Field(default=None, gt=0)
    usd_per_million_input: float | None = Field(default=None, ge=0)
    usd_per_million_output: float | None = Field(default=None, ge=0)
    extra: dict[str, JsonValue] = Field(default_factory=dict)
    """Goes into every request, e.g. to pin a provider."""
    quant: str | None = None
    backend: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    threads: int | None = Field(default=None, ge=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    min_p: float = Field(default=0.0, ge=0, le=1)
    """As in :class:`backends.interface.Sampling`; an endpoint gets its own through ``extra``."""

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        """Refuse what would have no effect."""
        ours = {
            "endpoint": {"url", "key_variables", "concurrency", "own_concurrency", "timeout",
                         "tries", "back_off", "requests_per_minute", "usd_per_million_input",
                         "usd_per_million_output", "extra"},
            "gguf": {"quant", "threads", "repetition_penalty", "min_p"},
            "backend": {"backend", "dtype", "repetition_penalty", "min_p"},
        }  # fmt: skip
        every = set().union(*ours.values())
        wrong = sorted(self.model_fields_set & (every - ours[self.kind]))
        if wrong:
            raise ValueError(f"{wrong[0]} means nothing to a teacher of kind {self.kind}")
        taken = sorted(NOT_EXTRA & set(self.extra))
        if taken:
            raise ValueError(
                f"extra.{taken[0]}: a request says that already, and budget, licence and what is "
                "recorded rest on it; leave it out"
            )
        if self.kind == "endpoint" and self.url is None:
            raise ValueError("an endpoint needs a url")
        return self

    def limit(self, stage: int) -> int:
        """Tokens, thoughts and answer, for a stage whose answer may have ``stage``."""
        return min(stage, self.max_tokens or stage) + self.think_tokens

    def heat(self, stage: float) -> float:
        """Temperature for a stage that has ``stage``."""
        return stage if self.temperature is None else self.temperature

    @property
    def priced(self) -> bool:
        """Whether what it costs can be told; a local model costs nothing."""
        return self.kind != "endpoint" or None not in (
            self.usd_per_million_input,
            self.usd_per_million_output,
        )


class Roster(BaseModel):
    """One teacher file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    teachers: dict[str, Teacher] = Field(min_length=1)
    roles: dict[str, str]
    """Role -> teacher; ``default`` is everybody's who has none, except the writers of prompts."""

    @model_validator(mode="after")
    def _roles_are_filled(self) -> Self:
        for role, name in self.roles.items():
            if role not in (*ROLES, DEFAULT):
                raise ValueError(f"roles.{role}: no such role; known are {', '.join(ROLES)}")
            if name not in self.teachers:
                raise ValueError(f"roles.{role}: no teacher is called {name!r}")
        missing = [role for role in ROLES if role not in WRITERS and self.of(role) is None]
        if missing:
            raise ValueError(f"no teacher for {', '.join(missing)}: name them, or a default")
        return self

    def of(self, role: str) -> str | None:
        """Name of a role's teacher, None for a writer of prompts that nobody is."""
        if role in WRITERS:
            return self.roles.get(role)
        return self.roles.get(role, self.roles.get(DEFAULT))

    def used(self) -> dict[str, Teacher]:
        """Teachers that have a role."""
        names = {self.of(role) for role in ROLES}
        return {name: one for name, one in self.teachers.items() if name in names}


def load_roster(name: str) -> tuple[Roster, str]:
    """Read a preset or a TOML file; returns it and the sha-256 (hex) of its bytes.

    Raises UserError in one line.
    """
    path = PRESETS.get(name, Path(name))
    try:
        raw = path.read_bytes()
        tables = tomllib.loads(raw.decode())
    except OSError as error:
        raise UserError(
            f"--teachers {name}: neither a preset ({', '.join(PRESETS)}) nor a file that can be "
            f"read ({error.strerror})"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--teachers {name}: not TOML ({error})") from None
    try:
        roster = Roster.model_validate(tables)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"--teachers {name}: {': '.join(filter(None, (where, message)))}") from None
    return roster, hashlib.sha256(raw).hexdigest()


def require_licence(roster: Roster, licence: str) -> None:
    """Raise UserError where a teacher with a role has another licence.

    ``modified-mit`` is not ``mit``: it is asked for by its own name.
    """
    wanted = licence.casefold()
    other = {name: one for name, one in roster.used().items() if one.licence != wanted}
    if other:
        listed = ", ".join(f"{name} is {one.licence}" for name, one in other.items())
        raise UserError(
            f"--require-licence {licence}: {listed}; give their roles to other teachers"
        )


MAY_CHANGE = frozenset(
    {"url", "key_variables", "concurrency", "own_concurrency", "timeout", "tries", "back_off",
     "requests_per_minute", "usd_per_million_input", "usd_per_million_output"}
)  # fmt: skip
"""What of a teacher may differ when a run goes on: how it is reached and paid, not what it says."""


def described(roster: Roster, *, whole: bool = True) -> dict[str, Any]:
    """Roles, teachers and licences for the manifest. ``whole``: with what may change."""
    used: Mapping[str, Teacher] = roster.used()
    apart = None if whole else set(MAY_CHANGE)
    return {
        "roles": {role: roster.of(role) for role in ROLES},
        "teachers": {
            name: one.model_dump(mode="json", exclude_defaults=True, exclude=apart)
            for name, one in used.items()
        },
        "licences": sorted({one.licence for one in used.values()}),
    }
